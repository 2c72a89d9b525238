"""One persistent SSH connection to a site's gateway: strict host keys, bounded time, output and channels."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import paramiko

from adapters.errors import Uncertain, Unreachable

ANSWER_BYTES_MAX = 96 << 20
ERROR_BYTES_MAX = 16 << 10
WINDOW_BYTES = 8 << 20
CHANNELS_MAX = 8
"""OpenSSH's own bound is ten sessions a connection (MaxSessions)."""


@dataclass(frozen=True, slots=True)
class SshSettings:
    """How a site's gateway is reached; nothing is taken from the broker's own `~/.ssh` or an agent."""

    host: str
    user: str
    identity_file: Path
    known_host: str
    """The host's pinned public key, `type key`, or a line of a known_hosts file that ends so."""
    port: int = 22
    connect_s_max: float = 10.0
    keep_alive_s: int = 15


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: standard output, the beginning of standard error, the exit status (None: cut off)."""

    output: bytes
    error: bytes
    exit_status: int | None


class SshConnection:
    """A connection that is opened when first needed, shared by threads, and opened again after it broke."""

    def __init__(self, settings: SshSettings, channels_max: int = CHANNELS_MAX) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._channels = threading.BoundedSemaphore(channels_max)
        self._client: paramiko.SSHClient | None = None
        self._failed: tuple[float, str] = (float("-inf"), "")
        """When the last connection could not be made, and why."""

    def ask(self, request: bytes, limit_s: float, data: BinaryIO | None = None) -> Answer:
        """Run the gateway once with this on its standard input, and return what it said.

        The gateway does nothing before it holds the request's last byte, so until that was handed over
        nothing can have happened; afterwards anything may have.

        Raises:
            Unreachable: the request was not handed over whole; nothing happened.
            Uncertain: it was, and no answer came within `limit_s` or `ANSWER_BYTES_MAX`.
        """
        deadline = time.monotonic() + limit_s
        with self._a_channel(deadline) as channel:
            try:
                _hand_over(channel, request, data, deadline)
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise Unreachable(f"the site's SSH connection broke before the request was sent: {error}") from error
            try:
                return _listen(channel, deadline)
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise Uncertain(f"the site's SSH connection broke before the answer came: {error}") from error

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    @contextmanager
    def _a_channel(self, deadline: float) -> Iterator[paramiko.Channel]:
        if not self._channels.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Unreachable("all of the site's SSH channels are busy")
        try:
            channel = self._open_channel()
            try:
                yield channel
            finally:
                with suppress(OSError, EOFError, paramiko.SSHException):
                    channel.close()  # says goodbye to the server: a dead connection must not hide what happened
        finally:
            self._channels.release()

    def _open_channel(self) -> paramiko.Channel:
        """A connection may have died unseen since the last call: one new one is tried."""
        for last_try in (False, True):
            transport = self._transport()
            try:
                channel = transport.open_session(window_size=WINDOW_BYTES, timeout=self._settings.connect_s_max)
                channel.settimeout(self._settings.connect_s_max)
                _exec(channel, self._settings.connect_s_max)
            except (OSError, EOFError, paramiko.SSHException) as error:
                self._forget(transport)
                if last_try:
                    raise Unreachable(f"the site's SSH server opens no session: {error}") from error
            else:
                return channel
        raise AssertionError("unreachable")

    def _transport(self) -> paramiko.Transport:
        asked_at = time.monotonic()
        with self._lock:
            transport = self._client.get_transport() if self._client else None
            if transport is not None and transport.is_active():
                return transport
            failed_at, reason = self._failed
            if failed_at >= asked_at:
                raise Unreachable(reason)  # it failed while we waited for our turn: no time-out for each of us
            try:
                self._client = self._connect()
            except Unreachable as error:
                self._failed = (time.monotonic(), error.reason)
                raise
            connected = self._client.get_transport()
            if connected is None:
                raise Unreachable("the site's SSH server closed the connection")
            return connected

    def _connect(self) -> paramiko.SSHClient:
        settings, client = self._settings, paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        _pin(client, settings)
        try:
            sock = socket.create_connection((settings.host, settings.port), timeout=settings.connect_s_max)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
            client.connect(
                settings.host, settings.port, settings.user, sock=sock,
                key_filename=str(settings.identity_file), allow_agent=False, look_for_keys=False,
                timeout=settings.connect_s_max, banner_timeout=settings.connect_s_max,
                auth_timeout=settings.connect_s_max,
            )  # fmt: skip
        except (OSError, EOFError, paramiko.SSHException) as error:
            client.close()
            raise Unreachable(f"no SSH connection to {settings.host}: {error}") from error
        transport = client.get_transport()
        if transport is not None:
            transport.set_keepalive(settings.keep_alive_s)
        return client

    def _forget(self, transport: paramiko.Transport) -> None:
        with self._lock:
            if self._client is not None and self._client.get_transport() is transport:
                self._client = None
        with suppress(OSError, EOFError):
            transport.close()


def _pin(client: paramiko.SSHClient, settings: SshSettings) -> None:
    words = settings.known_host.split()
    kind = next((n for n, word in enumerate(words) if word.startswith(("ssh-", "ecdsa-", "sk-"))), -1)
    name = settings.host if settings.port == 22 else f"[{settings.host}]:{settings.port}"
    entry = None
    if kind >= 0:
        entry = paramiko.hostkeys.HostKeyEntry.from_line(" ".join([name, *words[kind : kind + 2]]))
    if entry is None or entry.key is None:
        raise Unreachable("the site's pinned host key cannot be read: it is no `type key`")
    client.get_host_keys().add(name, entry.key.get_name(), entry.key)


def _exec(channel: paramiko.Channel, limit_s: float) -> None:
    """Ask for the gateway, and wait for the server's yes.

    paramiko waits for that answer without bound, and for ever where the connection dies between two of its
    own steps (seen once in some 150 cuts): we end the wait, and paramiko then raises for the channel.
    """
    end = threading.Timer(limit_s, channel.event.set)
    end.daemon = True
    end.start()
    try:
        channel.exec_command(b"idf-gateway")  # the key's forced command runs whatever stands here
    finally:
        end.cancel()


def _hand_over(channel: paramiko.Channel, request: bytes, data: BinaryIO | None, deadline: float) -> None:
    rest = memoryview(request)
    while rest:
        channel.settimeout(_left(deadline))
        rest = rest[channel.send(rest[: 1 << 18].tobytes()) :]
    while data is not None and (part := data.read(1 << 18)):
        channel.settimeout(_left(deadline))
        channel.sendall(part)


def _listen(channel: paramiko.Channel, deadline: float) -> Answer:
    with suppress(OSError):
        channel.shutdown_write()
    parts, size = [], 0
    channel.settimeout(_left(deadline))
    while part := channel.recv(1 << 18):
        parts.append(part)
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise Uncertain("the site's answer is larger than what is read of one")
        channel.settimeout(_left(deadline))
    error = channel.recv_stderr(ERROR_BYTES_MAX) if channel.recv_stderr_ready() else b""
    finished = channel.status_event.wait(min(2.0, _left(deadline)))
    status = channel.exit_status if finished else -1
    return Answer(b"".join(parts), error, status if status >= 0 else None)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for it is over")
    return left
