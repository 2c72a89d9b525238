"""What the API server answers when something is made: a name that is taken, or a quota that others count too."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.k8s import client
from adapters.k8s.client import COUNTED_AT_ONCE_MAX, Api, Conflict, CountedAtOnce
from adapters.port import Rejected, Unreachable

BUSY = (409, {"reason": "Conflict", "message": 'Operation cannot be fulfilled on resourcequotas "idf-backstop"'})
TAKEN = (409, {"reason": "AlreadyExists", "message": 'jobs.batch "idf-1" already exists'})
MADE = (201, {"metadata": {"uid": "u1"}})


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Api:
    """One whose server answers what `answers` holds, one after another."""
    monkeypatch.setattr(client, "COUNTED_PAUSE_S", 0.0)
    file = tmp_path / "kubeconfig"
    pool = {"name": "p", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "p", "context": {"cluster": "p", "user": "p"}}
    content = {"clusters": [pool], "contexts": [context], "users": [{"name": "p", "user": {}}], "current-context": "p"}
    file.write_text(json.dumps(content))
    return Api(file, None, connections=1, timeout_s=1)


def answer(api: Api, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> list[str]:
    asked: list[str] = []

    def ask(method: str, *_: Any) -> Any:
        status, body = answers[len(asked)]
        asked.append(method)
        data = json.dumps(body).encode()
        return SimpleNamespace(
            status=status, read=lambda _size: data, drain_conn=lambda: None, release_conn=lambda: None
        )

    monkeypatch.setattr(api, "_request", ask)
    return asked


def test_a_quota_that_others_counted_is_asked_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(api, monkeypatch, BUSY, BUSY, MADE)
    assert api.post("/x", {}) == MADE[1]
    assert len(asked) == 3


def test_a_quota_that_others_always_count_leaves_nothing_behind(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(api, monkeypatch, *[BUSY] * COUNTED_AT_ONCE_MAX)
    with pytest.raises(CountedAtOnce, match="idf-backstop") as refused:
        api.post("/x", {})
    assert isinstance(refused.value, Unreachable), "nothing was sent: it is tried again later"
    assert len(asked) == COUNTED_AT_ONCE_MAX


FORBIDDEN: dict[str, type[Exception]] = {
    'secrets is forbidden: User "idf-broker" cannot create resource "secrets" in API group ""': Unreachable,
    'jobs.batch "idf-1" is forbidden: not yet ready to handle request': Unreachable,
    'jobs.batch "idf-1" is forbidden: status unknown for quota: idf-backstop': Unreachable,
    'jobs.batch "a" is forbidden: unable to create new content in namespace idf-p because it is being terminated': (
        Unreachable
    ),
    'jobs.batch "idf-1" is forbidden: exceeded quota: idf-backstop, requested: count/jobs.batch=1': Rejected,
    "jobs.batch \"idf-1\" is forbidden: ValidatingAdmissionPolicy 'idf-broker-jobs' denied request": Rejected,
}


@pytest.mark.parametrize("message", FORBIDDEN)
def test_what_is_forbidden_is_the_jobs_fault_or_waits(api: Api, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    answer(api, monkeypatch, (403, {"reason": "Forbidden", "message": message}))
    with pytest.raises(FORBIDDEN[message]) as refused:
        api.post("/x", {})
    assert message in str(refused.value.reason)  # type: ignore[attr-defined]


@pytest.mark.parametrize("taken", [TAKEN, (409, {}), (409, [])])
def test_a_name_that_is_taken_is_asked_once(api: Api, monkeypatch: pytest.MonkeyPatch, taken: Any) -> None:
    asked = answer(api, monkeypatch, taken)
    with pytest.raises(Conflict):
        api.post("/x", {})
    assert len(asked) == 1


def test_a_change_of_another_object_stays_a_conflict(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(api, monkeypatch, BUSY)
    with pytest.raises(Conflict):
        api.patch("/x", {})
