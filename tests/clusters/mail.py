"""A real SMTP server on loopback for the tests (aiosmtpd): STARTTLS or TLS under a CA of its own, logins, refusals."""

import asyncio
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "broker", "correct horse"


@dataclass
class MailServer:
    """What it took lies in `letters`; `answers` says how it meets an address otherwise than with 250."""

    folder: Path
    security: str
    logins: bool = True
    certified_for: str = "127.0.0.1"
    answers: dict[str, str] = field(default_factory=dict)
    on_letter: Callable[[EmailMessage], str | None] = lambda _: None
    """Called once a letter is taken; what it returns is answered instead of 250."""
    letters: list[EmailMessage] = field(default_factory=list)
    who: list[str] = field(default_factory=list)
    port: int = 0

    def start(self) -> "MailServer":
        """Listen; at the same port as before when it was stopped."""
        if not self.port:
            _certify(self.folder, self.certified_for)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._do(self._listen())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        async def close() -> None:
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._do(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def settings(self) -> dict[str, Any]:
        """How the broker reaches it."""
        found: dict[str, Any] = {
            "smtp_host": "127.0.0.1",
            "smtp_port": self.port,
            "smtp_security": self.security,
            "smtp_ca_file": self.folder / "ca.pem",
            "mail_from": "calcul@region.example",
        }
        if self.logins:
            file = self.folder / "password"
            file.write_text(PASSWORD + "\n")
            found |= {"smtp_user": USER, "smtp_password_file": file}
        return found

    def _do(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(20)

    async def _listen(self) -> asyncio.Server:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.folder / "server.pem")
        return await asyncio.get_running_loop().create_server(
            lambda: SMTP(
                self,
                hostname="mail.test",
                tls_context=tls if self.security == "starttls" else None,
                require_starttls=self.security == "starttls",
                authenticator=self._authenticate,
                auth_required=self.logins,
                auth_require_tls=self.security == "starttls",
            ),
            "127.0.0.1",
            self.port,
            ssl=tls if self.security == "tls" else None,
        )

    def _authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        if right:
            self.who.append(USER)
        return AuthResult(success=right, handled=False)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        letter = message_from_bytes(envelope.content, policy=default)
        assert isinstance(letter, EmailMessage)
        assert [str(letter["To"])] == envelope.rcpt_tos
        self.letters.append(letter)
        return await asyncio.get_running_loop().run_in_executor(None, self.on_letter, letter) or "250 OK"


def _certify(folder: Path, name: str) -> None:
    """Write `ca.pem`, and `server.pem` with a certificate signed by it and its key."""
    folder.mkdir(exist_ok=True)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    ca = _certificate(ca_name, ca_key, ca_key, ca_name, x509.BasicConstraints(ca=True, path_length=None))
    try:
        whose: x509.GeneralName = x509.IPAddress(ip_address(name))
    except ValueError:
        whose = x509.DNSName(name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")])
    certificate = _certificate(subject, key, ca_key, ca_name, x509.SubjectAlternativeName([whose]))
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "server.pem").write_bytes(private + certificate.public_bytes(pem))


def _certificate(subject: x509.Name, key: Any, ca_key: Any, issuer: x509.Name, extension: Any) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(extension, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
