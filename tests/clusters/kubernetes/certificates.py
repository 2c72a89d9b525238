"""The pool's own certificate authority, and a kubeconfig for each that talks to its API server."""

import base64
import ipaddress
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS = 30


class Authority:
    """Signs certificates that are good for a month; its key lies beside them, for the pool is thrown away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "idf-test-pool")])
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._write("ca", builder.sign(self._key, hashes.SHA256()), self._key)
        signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._private("service-accounts", signing)

    def issue(self, file: str, user: str, groups: tuple[str, ...] = (), addresses: tuple[str, ...] = ()) -> None:
        """Write FILE.crt and FILE.key for a user of some groups, or for a server at some addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        builder = self._builder(subject, key.public_key())
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        if addresses:
            ips = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            alternatives = x509.SubjectAlternativeName([*ips, x509.DNSName("localhost")])
            builder = builder.add_extension(alternatives, critical=False)
        self._write(file, builder.sign(self._key, hashes.SHA256()), key)

    def kubeconfig(self, file: str, server: str) -> Path:
        """Write FILE.kubeconfig, which holds the certificate and key issued under that name."""
        read = lambda name: base64.b64encode((self._folder / name).read_bytes()).decode()  # noqa: E731
        user = {"client-certificate-data": read(f"{file}.crt"), "client-key-data": read(f"{file}.key")}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "pool", "cluster": {"server": server, "certificate-authority-data": read("ca.crt")}}],
            "users": [{"name": file, "user": user}],
            "contexts": [{"name": "pool", "context": {"cluster": "pool", "user": file}}],
            "current-context": "pool",
        }
        path = self._folder / f"{file}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(content, indent=1))
        return path

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=DAYS))

    def _write(self, file: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        (self._folder / f"{file}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._private(file, key)

    def _private(self, file: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        path = self._folder / f"{file}.key"
        path.touch(mode=0o600)
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        path.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
