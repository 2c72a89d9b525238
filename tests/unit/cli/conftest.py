"""A small broker in a thread that holds the contract, and a way to run commands against it."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

NOW = "2026-11-23T10:00:00Z"
TOKEN = "idf_" + "a" * 43
SITE = {
    "id": "s1",
    "name": "jean-zay",
    "kind": "slurm",
    "isolation": "accounts",
    "gpu_types": {"a100-80": "a100", "v100-32": "v100"},
    "constraints": {"v100-32g": "v100-32", "a100": "a100-80"},
    "gpus_per_job_max": 64,
    "time_limit_s_max": 72000,
    "kill_grace_s": 60,
    "free_accounts": 3,
    "scheduler": "slurm 22.05",
    "problems": [],
    "checked_at": NOW,
}
AWARD = {
    "id": "w1",
    "project": "vision",
    "programme": "pack-ia",
    "start_at": "2025-12-31T23:00:00Z",
    "end_at": "2026-06-30T22:00:00Z",
    "state": "active",
    "active": True,
    "requested_credits": 360_000_000,
    "proposed_credits": 360_000_000,
    "awarded_credits": 360_000_000,
    "final_credits": None,
    "total_credits": 360_000_000,
    "storage": {
        "phase": "writable",
        "writable_until": "2026-06-30T22:00:00Z",
        "export_from": "2026-07-01T22:00:00Z",
        "export_until": "2026-07-30T22:00:00Z",
    },
    "purpose": None,
    "continues": None,
    "act_reference": None,
    "act_on": None,
    "requested_by": "ines",
    "requested_at": NOW,
    "granted_at": NOW,
    "closed_at": None,
    "notices": [],
    "available_credits": 356_400_000,
    "held_credits": 3_600_000,
    "consumed_credits": 0,
    "overrun_credits": 0,
    "classes": [
        {"gpu_class": "h100-80", "weight_thousandths": 4000, "available_s": 89_100},
        {"gpu_class": "v100-32", "weight_thousandths": 1000, "available_s": 356_400},
    ],
}


FORECAST = {
    "award": "w1",
    "project": "vision",
    "programme": "pack-ia",
    "start_at": AWARD["start_at"],
    "end_at": AWARD["end_at"],
    "total_credits": 360_000_000,
    "available_credits": 356_400_000,
    "held_credits": 3_600_000,
    "consumed_credits": 0,
    "burn_credits_per_day": 43_200_000,
    "burn_unknown": None,
    "runs_out_on": "2026-01-09",
    "left_at_end_credits": 0,
    "burnable_credits": None,
    "unburnable_credits": None,
    "ceiling_unknown": "no ceiling of GPUs at once is set",
    "risks": ["runs_out"],
}


def job(**changes: Any) -> dict[str, Any]:
    base = {
        "id": "j1",
        "name": "train",
        "person": "alice",
        "project": "vision",
        "award": "w1",
        "site": "jean-zay",
        "state": "running",
        "reason": None,
        "gpus": 1,
        "gpu_class": "a100-80",
        "cpus": None,
        "memory_mib": None,
        "nodes": 1,
        "exclusive": False,
        "rate_credits_per_s": 2000,
        "time_limit_s": 3600,
        "site_job_id": "17",
        "created_at": NOW,
        "started_at": NOW,
        "ended_at": None,
        "settled_at": None,
        "cancel_requested_at": None,
        "held_credits": 7_320_000,
        "charged_credits": None,
        "exit_code": None,
        "array": None,
        "tasks": 1,
        "tasks_waiting": None,
        "tasks_running": None,
        "tasks_by_state": None,
        "notices": [],
        "hidden": [],
        "snapshot": None,
        "script_sha256": "0" * 64,
        "events": [],
        "usage": [],
        "refunded_credits": 0,
        "refunds": [],
        "worth": {"value_micro_euros": None, "unknown_reason": "it is not settled yet"},
    }
    return {**base, **changes}


class Call(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Broker:
    """The state behind the stub; tests set it and read `calls`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.jobs = [job()]
        self.log = [("running", b"")]
        """One entry per request for the log: the state and the bytes that are new."""
        self.site_events: list[Any] = []
        self.snapshots: dict[str, bytes] = {}
        self.drop = 0
        """How many requests are taken and then cut off without an answer."""
        self.url = ""

    def posted(self, path: str) -> list[Any]:
        return [call.json for call in self.calls if (call.method, call.path) == ("POST", path)]

    def refuse(self, method: str, path: str, status: int, code: str, detail: str, remedy: str | None = None) -> None:
        problem = {"type": f"urn:x:{code}", "title": code, "status": status, "code": code}
        self.answers[method, path] = (status, {**problem, "detail": detail, "remedy": remedy})

    def answer(self, call: Call) -> tuple[int, Any]:
        if (call.method, call.path) in self.answers:
            return self.answers[call.method, call.path]
        if call.path != "/v1/health" and call.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {
                "title": "unknown token",
                "status": 401,
                "code": "unauthenticated",
                "detail": "unknown token",
            }
        return self._found(call)

    def _found(self, call: Call) -> tuple[int, Any]:
        parts = call.path.split("/")[2:]
        if parts == ["me"]:
            person = {
                "id": "p1",
                "name": "alice",
                "full_name": None,
                "roles": ["engineer"],
                "created_at": NOW,
            }
            own = [{"project": "vision", "role": "member", "until": None}]
            return 200, {"person": person, "projects": ["vision"], "memberships": own}
        if parts[0] == "jobs":
            return self._jobs(call, parts[1:])
        if parts[0] == "snapshots":
            return self._snapshots(call, parts[1])
        lists: dict[str, list[Any]] = {"sites": [SITE], "awards": [AWARD]}
        if call.method == "GET" and parts[0] in lists:
            return 200, {"items": lists[parts[0]], "next_cursor": None}
        if parts[0] == "quota":
            return 200, {"awards": [AWARD], "forecasts": [FORECAST]}
        return 404, {
            "title": "not found",
            "status": 404,
            "code": "not-found",
            "detail": f"nothing at {call.path}",
        }

    def _jobs(self, call: Call, rest: list[str]) -> tuple[int, Any]:
        if call.method == "POST" and rest == []:
            return 201, job(id="j9", name=call.json.get("name"), state="held", started_at=None, site_job_id=None)
        if call.method == "GET" and rest == []:
            start, size = int(call.query.get("cursor", "0")), int(call.query["limit"])
            more = start + size < len(self.jobs)
            page = self.jobs[start : start + size]
            return 200, {"items": page, "next_cursor": str(start + size) if more else None}
        if rest[1:] == ["site-events"]:
            return 200, {"items": self.site_events, "unknown": None}
        if rest[1:] == ["log"]:
            state, text = self.log.pop(0) if len(self.log) > 1 else self.log[0]
            following = int(call.query["offset"]) + len(text)
            return 200, (
                text,
                {"Idf-Next-Offset": str(following), "Idf-Log-Exists": "true", "Idf-Job-State": state},
            )
        found = [each for each in self.jobs if each["id"] in rest]
        if not found:
            return 404, {
                "title": "x",
                "status": 404,
                "code": "not-found",
                "detail": f"there is no job {rest[0]}",
            }
        return 200, found[0]

    def _snapshots(self, call: Call, digest: str) -> tuple[int, Any]:
        if call.method == "PUT":
            assert hashlib.sha256(call.body).hexdigest() == digest
            self.snapshots[digest] = call.body
        known = digest in self.snapshots
        missing = {"title": "x", "status": 404, "code": "not-found", "detail": "no such snapshot"}
        return (200, {"digest": digest, "size_bytes": len(self.snapshots[digest])}) if known else (404, missing)


def _handler(broker: Broker) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            at = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(at.query).items()}
            call = Call(self.command, at.path, query, self.headers, body)
            broker.calls.append(call)
            if broker.drop:
                broker.drop -= 1
                self.close_connection = True
                return
            status, answer = broker.answer(call)
            text, headers = answer if isinstance(answer, tuple) else (json.dumps(answer).encode(), {})
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_HEAD = _serve  # noqa: N815 - named by http.server

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The desk stands where times are written as the broker writes them, wherever the tests run."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def broker() -> Iterator[Broker]:
    state = Broker()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDF_COMPUTE_URL", "IDF_COMPUTE_TOKEN_FILE", "IDF_COMPUTE_DEBUG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IDF_COMPUTE_CONFIG", str(tmp_path / "config" / "config.toml"))
    monkeypatch.setenv("TZ", "UTC")


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(broker: Broker, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process, logged in at the stub."""
    from cli import config, dispatch

    config.save(config.Config(url=broker.url, token=TOKEN))

    def _run(*words: str) -> Ran:
        capfd.readouterr()
        code = dispatch.run(list(words))
        out, err = capfd.readouterr()
        return Ran(int(code), out, err)

    return _run
