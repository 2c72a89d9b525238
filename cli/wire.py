"""HTTP on one kept-open connection, with few, bounded retries. Redirects are never followed.

It stands on the standard library: `import httpx` with one request takes longer than the whole start-up bar of
`idf-compute jobs` (README.md has the figures).
"""

import os
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from cli import __version__, config
from cli.exits import Exit, Failure

CONNECT_S = 5
ANSWER_S = 40
"""Above the 20 s for which the broker may hold a log request and the 10 s that it waits for its database."""
RETRY_PAUSES_S = (0.2, 0.8)
RETRY_WINDOW_S = 2
ANSWER_BYTES_MAX = 64 * 1024 * 1024
BLOCK_BYTES = 256 * 1024


class Answer(NamedTuple):
    """What came back: status, headers and the whole body."""

    status: int
    headers: Any
    body: bytes


class Counted:
    """A file that tells how much of it was read; http.client sends it block by block."""

    def __init__(self, file: IO[bytes], seen: Callable[[int], None]) -> None:
        self._file = file
        self._seen = seen

    def read(self, size: int = -1) -> bytes:
        """Give the next bytes."""
        block = self._file.read(max(size, 256 * 1024))
        self._seen(len(block))
        return block

    def rewind(self) -> None:
        """Start again, for a retry."""
        self._seen(-self._file.tell())
        self._file.seek(0)


class Wire:
    """One connection to the broker, kept open over the requests of a command."""

    def __init__(self, url: str, token: str | None, answer_s: float = ANSWER_S) -> None:
        self._parts = urlsplit(url)
        self._token = token
        self._answer_s = answer_s
        self._connection: HTTPConnection | None = None

    def exchange(self, method: str, path: str, headers: dict[str, str], body: Any) -> Answer:
        """Send and hear, up to three times within two seconds: every request here may safely be repeated."""
        begun = time.monotonic()
        pauses = iter(RETRY_PAUSES_S)
        while True:
            try:
                return self._once(method, path, headers, body)
            except (OSError, HTTPException) as error:
                self._drop()
                pause = next(pauses, None)
                late = time.monotonic() + (pause or 0) > begun + RETRY_WINDOW_S
                if pause is None or late or not _is_passing(error):
                    raise _unreachable(error, f"{self._parts.scheme}://{self._parts.netloc}") from error
            time.sleep(pause)

    def _once(self, method: str, path: str, headers: dict[str, str], body: Any) -> Answer:
        connection = self._connected()
        if isinstance(body, Counted):
            body.rewind()
        try:
            connection.request(method, self._parts.path + path, body, {**self._headers(), **headers})
        except (BrokenPipeError, ConnectionResetError):
            # A refusal may come before the whole body was taken: it is read below, or the reset is reported.
            if not isinstance(body, Counted):
                raise
        return self._heard(connection.getresponse())

    def _heard(self, response: HTTPResponse) -> Answer:
        body = response.read(ANSWER_BYTES_MAX + 1)
        if len(body) > ANSWER_BYTES_MAX:
            raise Failure(Exit.UNEXPECTED, "the broker's answer is larger than 64 MiB")
        if response.will_close:
            self._drop()
        return Answer(response.status, response.headers, body)

    def _headers(self) -> dict[str, str]:
        base = {"Accept": "application/json", "User-Agent": f"idf-compute/{__version__}"}
        return {**base, "Authorization": f"Bearer {self._token}"} if self._token else base

    def _connected(self) -> HTTPConnection:
        if self._connection is None:
            connection = _connection(self._parts.scheme, self._parts.hostname or "", self._parts.port)
            connection.connect()
            connection.sock.settimeout(self._answer_s)
            self._connection = connection
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connection(scheme: str, host: str, port: int | None) -> HTTPConnection:
    """Give a connection, not opened yet: direct, or through HTTPS_PROXY; a TLS context only for https."""
    if scheme == "http":
        return HTTPConnection(host, port, timeout=CONNECT_S)
    proxy = _proxy(host)
    if proxy is None:
        return HTTPSConnection(host, port, timeout=CONNECT_S)
    at = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    through = HTTPSConnection(at.hostname or "", at.port or 3128, timeout=CONNECT_S)
    through.set_tunnel(host, port or 443, _proxy_headers(at.username, at.password))
    return through


def _proxy(host: str) -> str | None:
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    spared = (os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "").split(",")
    names = [name.strip().lstrip("*.") for name in spared if name.strip()]
    if not proxy or config.is_loopback(host) or "*" in (name.strip() for name in spared):
        return None
    return None if any(name and (host == name or host.endswith(f".{name}")) for name in names) else proxy


def _proxy_headers(user: str | None, password: str | None) -> dict[str, str]:
    from base64 import b64encode
    from urllib.parse import unquote

    if not user:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _is_passing(error: Exception) -> bool:
    """Say whether a repeat may help: not where the name is unknown or the certificate is not trusted."""
    return type(error).__name__ not in ("gaierror", "SSLCertVerificationError")


def _unreachable(error: Exception, where: str) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure(
            Exit.UNREACHABLE,
            f"the broker at {where} did not answer in time",
            "it may have taken the request: see idf-compute jobs before you repeat it",
        )
    reasons = {
        "gaierror": "its name is unknown",
        "SSLCertVerificationError": "its certificate is not trusted",
    }
    refused = "it refuses connections" if isinstance(error, ConnectionRefusedError) else None
    reason = reasons.get(type(error).__name__) or refused or str(error) or type(error).__name__
    return Failure(
        Exit.UNREACHABLE,
        f"the broker at {where} cannot be reached: {reason}",
        "try again later; jobs go on meanwhile",
    )
