"""HTTP to a site's slurmrestd: bounded time and answers, TLS verified, no redirect, no proxy, nothing sent twice.

The token travels in one header and stands in no text of ours: httpx writes addresses to its log, never headers.
"""

import contextlib
import json
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from adapters.errors import Uncertain, Unreachable

ANSWER_BYTES_MAX = 256 << 20
"""22.05 takes some 6 KB for a job of the queue: room for 40,000 of them."""
IDLE_S = 2.0
"""slurmrestd closes an idle connection when it likes: one that rested longer is not used for what must not be lost."""


@dataclass(frozen=True, slots=True)
class RestSettings:
    """How a site's slurmrestd is reached, and how long its tokens live."""

    url: str
    """`https://host:port`, `http://` to this very machine, or `unix:/path/of/the/socket`."""
    ca_file: Path | None = None
    """The authority of its certificate; without one, those that this machine trusts."""
    parallel: int = 8
    """How many submissions are under way at one time."""
    connect_s_max: float = 10.0
    token_s: int = 900
    """A token that asks or cancels."""
    renew_s: int = 120
    """A token with less left is renewed before it is used."""
    sending_token_s: int = 150
    """A token that submits: until it ends, a request whose answer was lost may still be taken."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request."""

    method: str
    path: str
    account: str
    """Whom the token was minted for: slurmrestd wants the name as well, up to 22.05."""
    token: str = field(repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], bytes] | None = None
    """Makes the body when it is sent: the first of many does not wait until the last is written."""


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: its status, and its JSON object, empty where it is none."""

    status: int
    body: Mapping[str, Any]

    @property
    def errors(self) -> Sequence[Mapping[str, Any]]:
        """The errors that it lists."""
        listed = self.body.get("errors")
        return [error for error in listed if isinstance(error, dict)] if isinstance(listed, list) else []

    def sentence(self) -> str:
        """Return its errors as one sentence."""
        words = (_words(error) for error in self.errors)
        return "; ".join(dict.fromkeys(word for word in words if word))[:500] or f"HTTP status {self.status}"


def _words(error: Mapping[str, Any]) -> str:
    parts = (str(error.get(key) or "").strip() for key in ("error", "description"))
    return ": ".join(dict.fromkeys(part for part in parts if part))


Outcome = Said | Unreachable | Uncertain


class RestConnection:
    """Connections to one slurmrestd, `parallel` at a time, opened when first needed. Safe to share between threads.

    Each is a transport of its own that one thread has at a time: a pool of httpx looks at all of its connections for
    every request.
    """

    def __init__(self, settings: RestSettings, parallel: int) -> None:
        self._settings, self._parallel = settings, parallel
        self._lock = threading.Lock()
        self._made: list[httpx.HTTPTransport] = []
        self._free: queue.LifoQueue[httpx.HTTPTransport] | None = None
        self._base = "http://slurmrestd" if settings.url.startswith("unix:") else settings.url.rstrip("/")

    def ask(self, question: Question, limit_s: float) -> Said:
        """Ask one question.

        Raises:
            Unreachable: it was not handed over; nothing happened.
            Uncertain: it may have been, and no whole answer came within `limit_s` or `ANSWER_BYTES_MAX`.
        """
        outcome = self.ask_all([question], limit_s, limit_s)[0]
        if isinstance(outcome, Said):
            return outcome
        raise outcome

    def ask_all(self, questions: Sequence[Question], start_s: float, each_s: float) -> list[Outcome]:
        """Ask many, in this order: none is started after `start_s`, none waited for longer than `each_s`."""
        now = time.monotonic()
        round_ = _Round(questions, now + start_s, each_s)
        workers = [
            threading.Thread(target=self._work, args=(round_,), name="slurmrestd", daemon=True)
            for _ in range(min(self._parallel, len(questions)))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(max(0.0, now + start_s + each_s + 1 - time.monotonic()))
        return round_.outcomes()

    def close(self) -> None:
        """Close the connections; the next question opens them again."""
        with self._lock:
            made, self._made, self._free = self._made, [], None
        for transport in made:
            transport.close()

    def _work(self, round_: "_Round") -> None:
        try:
            with self._one_transport(round_.each_s) as transport:
                while (taken := round_.take()) is not None:
                    number, question = taken
                    round_.tell(number, self._one(transport, question, round_.each_s))
        except Unreachable as error:
            round_.give_up(error)

    def _one(self, transport: httpx.HTTPTransport, question: Question, limit_s: float) -> Outcome:
        deadline = time.monotonic() + limit_s
        try:
            return self._exchange(transport, question, deadline)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            return Unreachable(f"no connection to slurmrestd: {_reason(error)}")
        except (httpx.HTTPError, httpx.StreamError, RuntimeError) as error:
            # RuntimeError: httpx says so of a client that was closed meanwhile
            return Uncertain(f"slurmrestd gave no whole answer: {_reason(error)}")

    def _exchange(self, transport: httpx.HTTPTransport, question: Question, deadline: float) -> Outcome:
        """One request straight to the transport: httpx.Client's redirects, cookies and proxies are not wanted here."""
        left = max(0.01, deadline - time.monotonic())
        bounds = {"connect": min(left, self._settings.connect_s_max), "read": left, "write": left, "pool": left}
        request = httpx.Request(
            question.method, _url(self._base + question.path), params=question.parameters or None,
            headers=_headers(question), content=question.body() if question.body else None,
            extensions={"timeout": bounds},
        )  # fmt: skip
        parts, size = [], 0
        with contextlib.closing(transport.handle_request(request)) as response:
            for part in response.iter_raw():
                parts.append(part)
                size += len(part)
                if size > ANSWER_BYTES_MAX:
                    return Uncertain("slurmrestd's answer is larger than what is read of one")
                if time.monotonic() > deadline:
                    return Uncertain("slurmrestd's answer took too long")
            return Said(response.status_code, _object(b"".join(parts)))

    @contextlib.contextmanager
    def _one_transport(self, limit_s: float) -> Iterator[httpx.HTTPTransport]:
        """Give one that nobody else has meanwhile.

        Raises:
            Unreachable: none is free in time, or none can be made (`_transports`).
        """
        free = self._open()
        try:
            transport = free.get(timeout=limit_s)
        except queue.Empty:
            raise Unreachable("no connection to slurmrestd is free") from None
        try:
            yield transport
        finally:
            free.put(transport)

    def _open(self) -> "queue.LifoQueue[httpx.HTTPTransport]":
        with self._lock:
            if self._free is None:
                self._made = _transports(self._settings, self._parallel)
                self._free = queue.LifoQueue()
                for transport in self._made:
                    self._free.put(transport)
            return self._free


class _Round:
    """Questions taken by workers one after another. One that was taken has an uncertain outcome until it is told."""

    def __init__(self, questions: Sequence[Question], start_until: float, each_s: float) -> None:
        self._questions, self._start_until, self.each_s = questions, start_until, each_s
        self._lock = threading.Lock()
        self._next = 0
        self._outcomes: list[Outcome] = [Unreachable("no time was left to send it")] * len(questions)

    def take(self) -> tuple[int, Question] | None:
        with self._lock:
            number = self._next
            if number >= len(self._questions) or time.monotonic() >= self._start_until:
                return None
            self._next += 1
            self._outcomes[number] = Uncertain("no answer came from slurmrestd in time")
            return number, self._questions[number]

    def tell(self, number: int, outcome: Outcome) -> None:
        with self._lock:
            self._outcomes[number] = outcome

    def give_up(self, reason: Unreachable) -> None:
        """Say of what nobody has taken yet why it was not sent; whoever else works takes it all the same."""
        with self._lock:
            self._outcomes[self._next :] = [reason] * (len(self._questions) - self._next)

    def outcomes(self) -> list[Outcome]:
        """Return what is known; whoever still works learns that nothing more is to be sent."""
        with self._lock:
            self._next = len(self._questions)
            return list(self._outcomes)


def _headers(question: Question) -> dict[str, str]:
    """Return all headers that are sent; httpx adds host and length."""
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "X-SLURM-USER-NAME": question.account,
        "X-SLURM-USER-TOKEN": question.token,
    }
    return headers if question.body is None else {**headers, "Content-Type": "application/json"}


@lru_cache(maxsize=64)
def _url(address: str) -> httpx.URL:
    """Read an address; the same ones come again and again, and httpx takes its time."""
    return httpx.URL(address)


def _transports(settings: RestSettings, count: int) -> list[httpx.HTTPTransport]:
    """Make transports of one connection each that take nothing from this machine's environment.

    Raises:
        Unreachable: the address may not carry a token, or the authority's file cannot be read.
    """
    parts = urlsplit(settings.url)
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_S)
    verify, socket = ssl.create_default_context(), None
    if parts.scheme == "unix":
        socket = parts.path
    elif parts.scheme == "https":
        try:
            verify = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
        except OSError as error:
            raise Unreachable(f"the file of slurmrestd's authority cannot be read: {error}") from error
    elif parts.scheme != "http" or not _is_loopback(parts.hostname):
        raise Unreachable("slurmrestd's address must be https://, unix:/, or http:// to this machine itself")
    return [httpx.HTTPTransport(verify=verify, limits=limits, trust_env=False, uds=socket) for _ in range(count)]


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        read = json.loads(data)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:300]
