"""A server that takes the connection and then says nothing: every call of ours still ends."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from adapters.errors import Uncertain, Unreachable
from adapters.slurm.ssh import SshConnection, SshSettings


class Silent(paramiko.ServerInterface):
    """Lets everybody in, opens sessions, and never answers a request to run something."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.released.wait(30)
        return True


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[SshSettings]:
    host_key = paramiko.RSAKey.generate(2048)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(30)
    server, transports = Silent(), []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transports.append(transport)
            transport.add_server_key(host_key)
            transport.start_server(server=server)

    threading.Thread(target=accept, daemon=True).start()
    yield SshSettings(
        host="127.0.0.1",
        port=listener.getsockname()[1],
        user="idf-broker",
        identity_file=client_key(tmp_path),
        known_host=f"{host_key.get_name()} {host_key.get_base64()}",
        connect_s_max=1.0,
    )
    server.released.set()
    listener.close()
    for transport in transports:
        transport.close()


def client_key(folder: Path) -> Path:
    file = folder / "key"
    file.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    )
    return file


def test_a_server_that_never_says_yes_is_unreachable_in_bounded_time(silent: SshSettings) -> None:
    connection = SshConnection(silent)
    began = time.monotonic()
    with pytest.raises(Unreachable, match="opens no session"):
        connection.ask(b"request", limit_s=20)
    assert time.monotonic() - began < 10
    connection.close()


def test_a_goodbye_that_fails_does_not_hide_what_happened(silent: SshSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_channel: paramiko.Channel) -> None:
        raise EOFError

    monkeypatch.setattr("adapters.slurm.ssh._exec", lambda _channel, _limit_s: None)
    monkeypatch.setattr(paramiko.Channel, "close", fails)
    connection = SshConnection(silent)
    with pytest.raises(Uncertain):
        connection.ask(b"request", limit_s=1)
    connection.close()
