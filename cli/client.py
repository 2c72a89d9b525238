"""The broker's contract, as commands use it: JSON under /v1, with a Failure for every refusal."""

import json
from collections.abc import Callable
from typing import IO, Any, NamedTuple
from urllib.parse import quote, urlencode

from cli import config
from cli.exits import Exit, Failure, of_status
from cli.wire import ANSWER_S, Answer, Counted, Wire

Row = dict[str, Any]
Query = dict[str, str | int | None]

PAGE_ITEMS = 100
LIST_ITEMS_MAX = 10_000
LOG_WAIT_S = 20
"""The longest for which the broker holds a request for more log."""


class LogChunk(NamedTuple):
    """A piece of a job's log, the offset after it (bytes) and the job's state when it was read."""

    text: bytes
    next_offset: int
    exists: bool
    state: str


class Client:
    """One connection to the broker, kept open over the requests of a command."""

    def __init__(self, url: str, token: str | None, answer_s: float = ANSWER_S) -> None:
        self._wire = Wire(url, token, answer_s)

    def get(self, path: str, query: Query | None = None) -> Row:
        """Read one thing. Raises Failure."""
        return _json(self._request("GET", _with(path, query)))

    def post(self, path: str, body: Row | None = None, key: str | None = None) -> Row:
        """Change something, once: a retry carries the same Idempotency-Key. Raises Failure.

        With a `key` of the caller's own the same command again is the same request.
        """
        headers = {"Content-Type": "application/json", "Idempotency-Key": key or _new_key()}
        return _json(self._request("POST", path, headers, json.dumps(body or {}).encode()))

    def pages(self, path: str, query: Query | None = None, limit: int = LIST_ITEMS_MAX) -> tuple[list[Row], bool]:
        """Follow a list's cursors up to `limit` items; the second value says whether there is more."""
        items: list[Row] = []
        cursor: str | None = None
        while True:
            size = min(PAGE_ITEMS, limit - len(items))
            page = self.get(path, {**(query or {}), "limit": size, "cursor": cursor})
            items += page["items"]
            following = page.get("next_cursor")
            if following is None or len(items) >= limit or following == cursor:
                return items[:limit], following is not None
            cursor = following

    def exists(self, path: str) -> bool:
        """Say whether a thing is there. Raises Failure when it can be neither affirmed nor denied."""
        answer = self._wire.exchange("GET", path, {}, None)
        if answer.status == 404:
            return False
        _raise_if_refused(answer)
        return True

    def put(self, path: str, file: IO[bytes], size_bytes: int, seen: Callable[[int], None]) -> Row:
        """Send a file as it is; `seen(n)` hears of each n bytes sent. Raises Failure."""
        headers = {"Content-Type": "application/gzip", "Content-Length": str(size_bytes)}
        return _json(self._request("PUT", path, headers, Counted(file, seen)))

    def log(self, job: str, offset: int, limit_bytes: int, wait_s: int = 0) -> LogChunk:
        """Read a piece of the log of a job, or of one task of an array (`ID_7`). Raises Failure.

        The broker may wait up to `wait_s` for more.
        """
        of, task = task_of(job)
        query: Query = {"offset": offset, "limit_bytes": limit_bytes, "wait_s": wait_s, "task": task}
        answer = self._request("GET", _with(f"/v1/jobs/{part(of)}/log", query))
        headers = answer.headers
        return LogChunk(
            answer.body,
            int(headers.get("Idf-Next-Offset", offset + len(answer.body))),
            headers.get("Idf-Log-Exists", "true") == "true",
            headers.get("Idf-Job-State", ""),
        )

    def output(self, job: str, path: str, offset: int, limit_bytes: int) -> bytes:
        """Read a piece of one of the output files of a job, or of one task of an array (`ID_7`). Raises Failure."""
        of, task = task_of(job)
        query: Query = {"path": path, "offset": offset, "limit_bytes": limit_bytes, "task": task}
        return self._request("GET", _with(f"/v1/jobs/{part(of)}/outputs/content", query)).body

    def _request(self, method: str, path: str, headers: Row | None = None, body: Any = None) -> Answer:
        answer = self._wire.exchange(method, path, headers or {}, body)
        _raise_if_refused(answer)
        return answer


def connect(answer_s: float = ANSWER_S) -> Client:
    """Give a client for the broker that we are logged in to, which waits so long for an answer. Raises Failure."""
    loaded = config.load()
    if not loaded.url or not loaded.token:
        where = f" at {loaded.url}" if loaded.url else ""
        raise Failure(Exit.FORBIDDEN, f"you are not logged in{where}", "run: idf-compute login --url https://…")
    return Client(loaded.url, loaded.token, answer_s)


def task_of(job: str) -> tuple[str, int | None]:
    """Tell `ID_7`, one task of an array, from the id of a job."""
    id_, mark, task = job.rpartition("_")
    return (id_, int(task)) if mark and task.isascii() and task.isdigit() and len(task) < 10 else (job, None)


def path_of(job: str) -> str:
    """Give the path of a job, or of a task of an array (`ID_7`). Raises Failure."""
    id_, task = task_of(job)
    return f"/v1/jobs/{part(id_)}" if task is None else f"/v1/jobs/{part(id_)}/tasks/{task}"


def part(name: str) -> str:
    """Quote a name for use in a path. Raises Failure for one that would mean another path."""
    if name in ("", ".", ".."):
        raise Failure(Exit.NOT_FOUND, f"there is nothing called {name!r}")
    return quote(name, safe="")


def _with(path: str, query: Query | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _new_key() -> str:
    from uuid import uuid4

    return str(uuid4())


def _raise_if_refused(answer: Answer) -> None:
    """Turn an answer that is no success into a Failure, with the broker's own words where it gave any."""
    if 200 <= answer.status < 300:
        return
    problem = _problem(answer)
    if problem is None:
        raise Failure(
            of_status(answer.status, ""),
            f"the broker's address answered with status {answer.status} and no reason",
            "check the address with: idf-compute whoami",
        )
    code = str(problem.get("code", ""))
    sentence = str(problem.get("detail") or problem.get("title"))
    remedy = problem.get("remedy")
    if answer.status == 401 and not remedy:
        remedy = "run: idf-compute login"
    raise Failure(of_status(answer.status, code), sentence, remedy and str(remedy), problem)


def _problem(answer: Answer) -> Row | None:
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return None
    return problem if isinstance(problem, dict) and ("detail" in problem or "title" in problem) else None


def _json(answer: Answer) -> Row:
    try:
        value = json.loads(answer.body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Failure(Exit.UNREACHABLE, "what answered is not the broker: it sent no JSON", "check its address")
    return value
