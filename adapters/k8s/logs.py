"""A job's log, as kubelet keeps it: from an offset, waiting for something new. Never by `pods/exec`.

Kubelet gives a log from its beginning only. So an answer that was begun stays open after a look, for the next one: who
reads on, or follows, costs what is new and not the whole log each time. An answer that nobody reads on is closed.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import urllib3

from adapters.errors import Rejected, Uncertain, Unreachable
from adapters.k8s.client import Api, Json, NotFound
from adapters.k8s.manifests import ARRAY, INDEX, JOB
from adapters.port import LogChunk

PIECE_BYTES = 64 << 10
PAUSE_S = 0.25
ANSWER_S = 30.0
"""How long what kubelet has already may take to come."""
SILENT_S = 300.0
"""A running job that writes nothing for so long has its answer begun anew."""
IDLE_S = 60.0
LENGTHS_MAX = 10_000
TAILS_MAX = 32
"""How many answers stay open at one time; each keeps at most one look's bytes, and a piece."""

Key = tuple[str, str]
"""Namespace and uid of a pod."""


class Tail:
    """One answer that is being read: a thread takes what comes, up to a bound."""

    def __init__(self, answer: urllib3.HTTPResponse, skip: int, bytes_max: int, *, follow: bool, whole: bool) -> None:
        self.position = skip
        """Where in the pod's log the next byte stands."""
        self.follow, self.whole = follow, whole
        self.error = ""
        self.used_at = time.monotonic()
        self._answer, self._left, self._bytes_max = answer, skip, bytes_max
        self._total, self._over, self._closed = 0, False, False
        self._buffer = bytearray()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    @property
    def drained(self) -> bool:
        """Whether the answer has ended and all of it was taken."""
        with self._changed:
            return self._over and not self._buffer

    @property
    def length(self) -> int | None:
        """How long the log is, once the whole of an ended pod's came."""
        return self._total if self.drained and self.whole and not self.error else None

    def take(self, limit_bytes: int, wait_s: float) -> bytes:
        """Take what came: of a followed log as soon as there is something, else once there is enough."""
        enough = 1 if self.follow else limit_bytes
        with self._changed:
            self._changed.wait_for(lambda: self._over or len(self._buffer) >= enough, wait_s)
            data = bytes(self._buffer[:limit_bytes])
            del self._buffer[:limit_bytes]
            self.position += len(data)
            self.used_at = time.monotonic()
            self._changed.notify_all()
        return data

    def close(self) -> None:
        """Read no further."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with suppress(Exception):  # it is being closed by the other side
            self._answer.shutdown()

    def _run(self) -> None:
        try:
            for piece in self._answer.stream(PIECE_BYTES):
                if not self._put(piece):
                    return
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            self.error = f"the log broke off: {str(error)[:200]}"
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
            self._answer.close()

    def _put(self, piece: bytes) -> bool:
        """Keep a piece once there is room for it; say whether to go on."""
        passed = min(self._left, len(piece))
        self._left -= passed
        self._total += len(piece)
        with self._changed:
            self._buffer += piece[passed:]
            self._changed.notify_all()
            room = self._changed.wait_for(lambda: self._closed or len(self._buffer) <= self._bytes_max, SILENT_S)
            if not room:
                self.error = "the log was not read on"
            return room and not self._closed


class Logs:
    """The logs of a pool's jobs. Safe to share between threads."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._tails: list[tuple[Key, Tail]] = []
        """The least recently used first."""
        self._lengths: dict[Key, int] = {}
        """Of ended pods' logs, so that who reads on past one does not read it again."""

    def read(
        self, api: Api, account: str, name: str, index: int | None, offset: int, limit_bytes: int, wait_s: float
    ) -> LogChunk:
        """Return the log from `offset`, waiting up to `wait_s` for something new.

        The log of a job with several attempts is theirs one after another; an array has one for each index.

        Raises:
            Unreachable: the site did not answer.
        """
        until = time.monotonic() + wait_s
        while True:
            pods = _pods(api, account, name, index)
            chunk = self._through(api, account, pods, offset, limit_bytes, until)
            if chunk.data or _all_ended(pods) or time.monotonic() >= until:
                return chunk
            time.sleep(min(PAUSE_S, max(until - time.monotonic(), 0)))

    def close(self) -> None:
        """Let go of all open answers."""
        with self._lock:
            tails, self._tails = self._tails, []
        for _, tail in tails:
            tail.close()

    def _through(
        self, api: Api, account: str, pods: Sequence[Json], offset: int, limit_bytes: int, until: float
    ) -> LogChunk:
        """Go through the pods' logs, one after another, to the offset, and read on from there."""
        begins, data, exists = 0, b"", False
        for pod in pods:
            if len(data) >= limit_bytes:
                break
            at = offset + len(data) - begins
            known = self._lengths.get((account, pod["metadata"]["uid"]))
            if known is not None and at >= known:
                begins, exists = begins + known, True
                continue
            got = self._of_pod(api, account, pod, at, limit_bytes - len(data), 0.0 if data else until)
            if got is None:
                continue
            exists = True
            piece, length = got
            data += piece
            if length is None:
                break  # there is more to come of this one
            begins += length
            self._remember((account, pod["metadata"]["uid"]), length)
        return LogChunk(data, offset + len(data), exists=exists)

    def _of_pod(
        self, api: Api, account: str, pod: Json, at: int, limit_bytes: int, until: float
    ) -> tuple[bytes, int | None] | None:
        """Read a pod's log from a place on; return it and, once it has all come, how long the log is.

        None where there is no log yet, or none any more.

        Raises:
            Unreachable: the answer broke off, or did not come.
        """
        key = (account, pod["metadata"]["uid"])
        tail = self._held(key, at)
        if tail is not None:
            got = self._from(key, tail, limit_bytes, until)
            if got[0] or got[1] is not None or not tail.drained:
                return got
        tail = self._open(api, account, pod, at, follow=time.monotonic() < until)
        return None if tail is None else self._from(key, tail, limit_bytes, until)

    def _from(self, key: Key, tail: Tail, limit_bytes: int, until: float) -> tuple[bytes, int | None]:
        wait_s = max(until - time.monotonic(), 0) if tail.follow else ANSWER_S
        data = tail.take(limit_bytes, wait_s)
        if tail.error and not data:
            raise Unreachable(tail.error)
        if not tail.drained:
            if not data and not tail.follow:
                tail.close()
                raise Unreachable("the log does not come")
            self._hold(key, tail)
        return data, tail.length

    def _open(self, api: Api, account: str, pod: Json, at: int, *, follow: bool) -> Tail | None:
        """Begin an answer. That of a pod which ended is whole once it ends; it is not followed."""
        ended = _ended(pod)
        query = {"container": "job"} | ({"follow": "true"} if follow and not ended else {})
        path = f"/api/v1/namespaces/{account}/pods/{pod['metadata']['name']}/log"
        try:
            answer = api.open(path, (5.0, SILENT_S if "follow" in query else ANSWER_S), **query)
        except Rejected:
            return None  # its container has not begun, or its node took the log with it
        except Uncertain as error:
            raise Unreachable(error.reason) from error
        return Tail(answer, at, self._bytes_max, follow="follow" in query, whole=ended)

    def _held(self, key: Key, at: int) -> Tail | None:
        """Take out the open answer that stands at this very place; close those that nobody reads on."""
        now, found = time.monotonic(), None
        with self._lock:
            idle = [each for each in self._tails if each[1].used_at < now - IDLE_S]
            left = [each for each in self._tails if each not in idle]
            found = next((each for each in left if each[0] == key and each[1].position == at), None)
            self._tails = [each for each in left if each is not found]
        for _, tail in idle:
            tail.close()
        return found[1] if found is not None else None

    def _remember(self, key: Key, length: int) -> None:
        with self._lock:
            if len(self._lengths) >= LENGTHS_MAX:
                self._lengths.clear()
            self._lengths[key] = length

    def _hold(self, key: Key, tail: Tail) -> None:
        with self._lock:
            self._tails.append((key, tail))
            many, self._tails = self._tails[:-TAILS_MAX], self._tails[-TAILS_MAX:]
        for _, old in many:
            old.close()


def _pods(api: Api, account: str, name: str, index: int | None) -> list[Json]:
    """The job's pods on its first node, or those of one index of an array, oldest first."""
    try:
        pages = list(api.pages(f"/api/v1/namespaces/{account}/pods", labelSelector=f"{JOB}={name}"))
    except NotFound:
        return []
    pods = [pod for page in pages for pod in page.get("items") or () if _is_of(pod, index)]
    return sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def _is_of(pod: Json, index: int | None) -> bool:
    metadata = pod["metadata"]
    of_array = ARRAY in (metadata.get("labels") or {})
    own = (metadata.get("annotations") or {}).get(INDEX, "0")
    return of_array == (index is not None) and str(own) == str(index or 0)


def _ended(pod: Json) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _all_ended(pods: Sequence[Json]) -> bool:
    return bool(pods) and _ended(pods[-1])
