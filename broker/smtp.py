"""The mail server: one connection per batch of letters, checked certificates, every wait bounded."""

import smtplib
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from ipaddress import ip_address
from pathlib import Path
from threading import Timer
from typing import Any

from broker.letters import Letter, LetterPutOff, LetterRefused, PostAway, is_address, one_line
from broker.settings import Settings

ANSWER_S_MAX = 15
"""How long one answer of the server may take."""
CONNECTION_S_MAX = 120
"""How long a connection may live, whatever trickles in: then it is cut."""


class SmtpPostman:
    """Sends letters by SMTP. One thread uses it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: smtplib.SMTP | None = None

    def send(self, letter: Letter) -> None:
        """Send a letter.

        Raises:
            PostAway: the server is away, its certificate is wrong, or it refuses our login or our address.
            LetterPutOff: a 4xx answer, or the connection ended meanwhile: it may have gone.
            LetterRefused: a 5xx answer to this letter, or no address.
        """
        sender = self._settings.mail_from or ""
        message = written(letter, sender)
        client = self._connected()
        try:
            client.send_message(message, from_addr=sender, to_addrs=[str(letter.to)])
        except (smtplib.SMTPException, OSError) as error:
            self.close()
            raise _worded(error) from None

    def check(self) -> str:
        """Connect, greet and log in.

        Raises:
            PostAway: says at what it failed.
        """
        self.close()
        self._connected()
        self.close()
        settings = self._settings
        as_whom = f" as {settings.smtp_user}" if settings.smtp_user else ""
        return f"notices go to {settings.smtp_host}:{settings.smtp_port} by {settings.smtp_security}{as_whom}"

    def close(self) -> None:
        """Say goodbye, if the server still listens."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            client.quit()
        except (smtplib.SMTPException, OSError):
            client.close()

    def _connected(self) -> smtplib.SMTP:
        if self._client is None:
            where = f"the mail server {self._settings.smtp_host}:{self._settings.smtp_port}"
            try:
                self._client = self._connect()
            except (smtplib.SMTPException, OSError, ValueError) as error:
                raise PostAway(f"{where}: {_reason(error)}") from None
        return self._client

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        host, port = settings.smtp_host or "", settings.smtp_port
        password = _password(settings.smtp_password_file)
        tls = ssl.create_default_context(cafile=settings.smtp_ca_file)
        client = (
            _BoundedTls(host, port, timeout=ANSWER_S_MAX, context=tls)
            if settings.smtp_security == "tls"
            else _Bounded(host, port, timeout=ANSWER_S_MAX)
        )
        try:
            _check_peer(client, settings.smtp_security)
            client.ehlo()
            if settings.smtp_security == "starttls":
                client.starttls(context=tls)
                client.ehlo()
            if settings.smtp_user is not None:
                client.login(settings.smtp_user, password)
        except BaseException:
            client.close()
            raise
        return client


class _Bounded(smtplib.SMTP):
    """A connection that is cut after `CONNECTION_S_MAX`: smtplib bounds each read, not the whole."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._watch = Timer(CONNECTION_S_MAX, self._cut)
        self._watch.daemon = True
        self._watch.start()
        try:
            super().__init__(*arguments, **named)
        except BaseException:
            self._watch.cancel()
            raise

    def close(self) -> None:
        """Close, and stop the watch."""
        self._watch.cancel()
        super().close()

    def _cut(self) -> None:
        connection = self.sock
        if connection is not None:
            with suppress(OSError):  # below TLS, whose own state belongs to the thread that reads
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _BoundedTls(_Bounded, smtplib.SMTP_SSL):
    """The same, with TLS from the first byte."""


def written(letter: Letter, sender: str) -> EmailMessage:
    """Return the letter as a message; nothing in it can add a header.

    Raises:
        LetterRefused: the person has no address, or none that can be written to.
    """
    if letter.to is None:
        raise LetterRefused("no e-mail address is known for this person")
    if not is_address(letter.to):
        raise LetterRefused("the e-mail address is none that mail can be sent to")
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(addr_spec=sender)
    message["To"] = Address(addr_spec=letter.to)
    message["Subject"] = one_line(letter.subject)
    message["Date"] = letter.written_at
    message["Message-ID"] = letter.message_id(sender.partition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    message.set_content(letter.text)
    return message


def _check_peer(client: smtplib.SMTP, security: str) -> None:
    """Look whom we really reached, before anything is said: never link-local, in clear only this machine."""
    peer = ip_address(str(client.sock.getpeername()[0]).split("%")[0])  # type: ignore[union-attr]
    if peer.is_link_local or peer.is_multicast:
        raise ValueError(f"{peer} is an address that no mail server has")
    if security == "none" and not peer.is_loopback:
        raise ValueError(f"smtp_security none is for this machine only, and it is {peer}: use starttls or tls")


def _password(file: Path | None) -> str:
    password = file.read_text().strip() if file is not None else ""
    if not password.isascii():
        raise ValueError("the password in smtp_password_file is not plain ASCII")
    return password


def _worded(error: Exception) -> PostAway | LetterPutOff | LetterRefused:
    """Tell what became of a letter by the server's answer."""
    if isinstance(error, smtplib.SMTPSenderRefused):
        return PostAway(f"the server refuses mail_from: {_reason(error)}")
    code, reason = 0, _reason(error)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, text = next(iter(error.recipients.values()))
        reason = _answer(code, text)
    elif isinstance(error, smtplib.SMTPResponseException):
        code = error.smtp_code
    kind: Callable[[str], LetterPutOff | LetterRefused] = LetterRefused if 500 <= code < 600 else LetterPutOff
    return kind(reason)


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return _answer(error.smtp_code, error.smtp_error)
    return one_line(str(error)) or type(error).__name__


def _answer(code: int, text: bytes | str) -> str:
    """Word a server's answer, which is text from outside."""
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return one_line(f"it answered {code} {said}")
