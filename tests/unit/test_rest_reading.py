"""Reading what a real slurmrestd 22.05 said (tests/recordings), the same in later releases' words, and oddities."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.port import (
    UNLIMITED_S,
    Accepted,
    Answer,
    AttemptState,
    JobSpec,
    Known,
    Observation,
    Rejected,
    Uncertain,
    Unreachable,
)
from adapters.slurm.observation import Observe
from adapters.slurm.rest_client import Said
from adapters.slurm.rest_jobs import KNOWN_VERSIONS, OF_OPTIONS, cancelled, job_asked, job_body, submitted
from adapters.slurm.rest_rows import accounting_rows, at_work, exit_codes, of_ids, queue_rows
from adapters.slurm.states import Tres
from adapters.slurm.wrapper import sbatch_flags

RECORDED = Path(__file__).parents[1] / "recordings" / "slurm" / "22.05"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
JOBS = {"signalled": "1", "cancelled": "2", "failed": "3", "succeeded": "4", "timed-out": "5", "two-nodes": "6",
        "requeued": "7", "running": "8", "waiting": "9"}  # fmt: skip
Json = dict[str, Any]


class Recorded:
    """What one slurmrestd answered to the three questions of an observation."""

    def __init__(self) -> None:
        read = (json.loads((RECORDED / f"rest_{name}.json").read_text()) for name in ("queue", "accounting"))
        self.queue, self.accounting = (said["jobs"] for said in read)
        statistics = json.loads((RECORDED / "rest_controller.json").read_text())["statistics"]
        self.now = statistics["req_time"]

    def job(self, source: str, job_id: int) -> Json:
        found: Json = next(job for job in getattr(self, source) if job["job_id"] == job_id)
        return found

    def observe(self, *words: str, complete: bool = True) -> Observation:
        known = [Known(f"idf-{word}", "idf001", JOBS.get(word, word), LONG_AGO) for word in words]
        ids = {job.site_job_id for job in known}
        records, odd = of_ids(self.queue, ids)
        rows, more = queue_rows(records, self.now)
        wanted = ids - at_work(records)
        asked = [job for job in self.accounting if str(job["job_id"]) in wanted]
        told = accounting_rows(asked, exit_codes(records))
        return Observe(known, "recorded").decide((rows, odd + more), told, complete=complete)


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def _later(recorded: Recorded) -> Recorded:
    """The same in the shapes of v0.0.40 and later (plugins/data_parser of 23.11 to 26.05)."""
    queue = [{**job, **{k: _struct(job[k]) for k in QUEUE_NUMBERS}} for job in recorded.queue]
    for job in queue:
        job["job_state"] = [job["job_state"]]
        job["exit_code"] = {"status": ["SUCCESS"], "return_code": _struct(0), "signal": {"id": _struct(None)}}
    codes = exit_codes(of_ids(recorded.queue, set(JOBS.values()))[0])
    accounting = deepcopy(recorded.accounting)
    for job in accounting:
        said, key = job["exit_code"], (str(job["job_id"]), datetime.fromtimestamp(job["time"]["submission"], UTC))
        signal = said.get("signal", {}).get("signal_id")
        job["exit_code"] = {
            "status": ["SIGNALED" if signal else "ERROR" if codes.get(key) else "SUCCESS"],
            "return_code": _struct(None if signal else codes.get(key, 0)),
            "signal": {"id": _struct(signal), "name": "SIGSEGV" if signal else ""},
        }
        job["state"]["current"] = [job["state"]["current"]]
        job["time"]["limit"] = _struct(job["time"]["limit"])
        job["array"]["task_id"] = _struct(None)
    recorded.queue, recorded.accounting = queue, accounting
    return recorded


QUEUE_NUMBERS = (
    "array_job_id", "array_task_id", "start_time", "end_time", "submit_time", "suspend_time", "pre_sus_time",
    "time_limit",
)  # fmt: skip


def _struct(number: int | None) -> Json:
    return {"set": number is not None, "infinite": False, "number": number or 0}


def _plain(number: Any) -> int:
    return int(number["number"] if isinstance(number, dict) else number)


@pytest.fixture(params=["22.05", "later"])
def said(request: pytest.FixtureRequest, recorded: Recorded) -> Recorded:
    return recorded if request.param == "22.05" else _later(recorded)


def test_every_recorded_state(said: Recorded) -> None:
    seen = said.observe(*JOBS)
    assert seen.warnings == ()
    assert {word: seen.attempts[f"idf-{word}"][-1].state.value for word in JOBS} == {
        "succeeded": "succeeded",
        "failed": "failed",
        "signalled": "failed",
        "timed-out": "timed_out",
        "cancelled": "cancelled",
        "requeued": "queued",
        "running": "running",
        "two-nodes": "running",
        "waiting": "queued",
    }


def test_what_an_attempt_used(said: Recorded) -> None:
    words = ("failed", "signalled", "two-nodes", "timed-out", "running")
    seen = said.observe(*words).attempts
    failed, signalled, wide, late, running = (seen[f"idf-{word}"][0] for word in words)
    assert (failed.exit_code, failed.signal, failed.gpus, failed.gpu_types) == (3, None, 1, {"a100": 1})
    assert (signalled.exit_code, signalled.signal) == (0, 11)
    assert (wide.gpus, wide.nodes, wide.node_count) == (2, ("node1", "node2"), 2)
    assert late.started_at is not None
    assert late.ended_at == late.started_at + timedelta(seconds=late.elapsed_s)
    assert late.time_limit_s == 60
    assert (late.cpus, late.memory_mib) == (1, 256)
    assert running.started_at is not None
    assert running.elapsed_s == said.now - int(running.started_at.timestamp())


def test_a_requeued_job_has_two_attempts(said: Recorded) -> None:
    first, second = said.observe("requeued").attempts["idf-requeued"]
    assert (first.state, second.state) == (AttemptState.PREEMPTED, AttemptState.QUEUED)
    assert first.elapsed_s > 0
    assert second.started_at is None, "the queue's start of a job that waits is a forecast"
    assert second.expected_start == datetime.fromtimestamp(_plain(said.job("queue", 7)["start_time"]), UTC)
    assert first.source_key != second.source_key


def test_tasks_of_arrays_are_nobody_that_is_asked_about(said: Recorded) -> None:
    task = {**said.job("queue", 8), "job_id": 11, "array_job_id": 10, "array_task_id": 5}
    assert of_ids([*said.queue, task], {"10", "11"}) == ([], [])


def test_absent_only_when_all_was_told_and_could_be_read(said: Recorded) -> None:
    assert said.observe("99999999").absent == {"idf-99999999"}
    assert not said.observe("99999999", complete=False).absent
    said.queue.append({"job_id": 12})
    said.job("queue", 9)["array_job_id"] = "ten"
    seen = said.observe("99999999", "running")
    assert not seen.absent, "a row that cannot be read may be that of any job"
    assert seen.attempts["idf-running"]
    assert any("cannot be read" in warning for warning in seen.warnings)


Break = Callable[[Json], Any]


@pytest.mark.parametrize(
    ("source", "break_it"),
    [
        ("queue", lambda job: job.pop("submit_time")),
        ("queue", lambda job: job.update(tres_alloc_str="4 GPUs")),
        ("queue", lambda job: job.update(name=7)),
        ("accounting", lambda job: job.pop("time")),
        ("accounting", lambda job: job["time"].update(elapsed="1")),
        ("accounting", lambda job: job["tres"].update(allocated="cpu=1")),
        ("accounting", lambda job: job.update(exit_code=None)),
        ("accounting", lambda job: job["state"].update(current="")),
    ],
)
def test_a_row_that_cannot_be_read_is_told_and_spoils_no_other(said: Recorded, source: str, break_it: Break) -> None:
    break_it(said.job(source, 8 if source == "queue" else 3))
    seen = said.observe("running", "failed", "two-nodes")
    assert len(seen.warnings) == 1
    assert "cannot be read" in seen.warnings[0]
    assert "idf-two-nodes" in seen.attempts
    assert ("idf-running" if source == "queue" else "idf-failed") not in seen.attempts


def test_a_state_that_cannot_be_read_is_asked_of_accounting(said: Recorded) -> None:
    said.job("queue", 8)["job_state"] = []
    seen = said.observe("running")
    assert seen.attempts["idf-running"][-1].state is AttemptState.RUNNING
    assert len(seen.warnings) == 1


def test_no_list_of_jobs_is_told() -> None:
    for read in (lambda: of_ids(None, {"1"}), lambda: of_ids({}, {"1"}), lambda: accounting_rows("", {})):
        rows, odd = read()
        assert not rows
        assert len(odd) == 1


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (["COMPLETED", "COMPLETING"], AttemptState.RUNNING),
        (["PENDING", "REQUEUE_HOLD"], AttemptState.QUEUED),
        (["RUNNING", "POWER_UP_NODE"], AttemptState.RUNNING),
        (["COMPLETED", "TELEPORTED"], AttemptState.UNKNOWN),
    ],
)
def test_several_words_of_a_state(recorded: Recorded, words: list[str], state: AttemptState) -> None:
    record = {**recorded.job("queue", 8), "job_state": words}
    assert queue_rows([("8", record)], recorded.now)[0][0].state is state


def test_a_suspended_job_does_not_grow_older(recorded: Recorded) -> None:
    record = {**recorded.job("queue", 8), "job_state": "SUSPENDED", "pre_sus_time": 7, "suspend_time": recorded.now}
    assert queue_rows([("8", record)], recorded.now + 100)[0][0].elapsed_s == 7
    again = {**record, "job_state": "RUNNING"}
    assert queue_rows([("8", again)], recorded.now + 100)[0][0].elapsed_s == 107


def test_an_exit_code_that_22_05_lost_is_unknown_not_zero(recorded: Recorded) -> None:
    (row,), _ = accounting_rows([recorded.job("accounting", 3)], {})
    assert (row.state, row.exit_code) == (AttemptState.FAILED, None)
    (row,), _ = accounting_rows([recorded.job("accounting", 4)], {})
    assert row.exit_code == 0


def test_who_cancelled_is_told(recorded: Recorded) -> None:
    job = {**recorded.job("accounting", 2), "kill_request_user": "idf001"}
    (row,), _ = accounting_rows([job], {})
    assert (row.native_state, row.state) == ("CANCELLED by idf001", AttemptState.CANCELLED)


def test_nothing_allocated_is_unknown(recorded: Recorded) -> None:
    job = {**recorded.job("accounting", 2), "tres": {"allocated": []}}
    assert accounting_rows([job], {})[0][0].tres == Tres()


@pytest.mark.parametrize(
    ("limit", "read"),
    [
        (0xFFFFFFFF, UNLIMITED_S),
        ({"set": True, "infinite": True, "number": 0}, UNLIMITED_S),
        (0xFFFFFFFE, None),
        ({"set": False, "infinite": False, "number": 0}, None),
        (None, None),
        (10, 600),
    ],
)
def test_a_limit_that_was_taken_away_is_not_one_that_is_not_told(
    recorded: Recorded, limit: object, read: int | None
) -> None:
    record = {**recorded.job("queue", 8), "time_limit": limit}
    assert queue_rows([("8", record)], recorded.now)[0][0].time_limit_s == read


# ── what is asked, and what the answer proves ───────────────────────────────────────────────────────────

SPEC = JobSpec("idf-1", "idf001", 4, "a100", 7200, script=b"true\n", nodes=2, cpus_per_gpu=3, memory_mib=700,
               exclusive=True, partition="gpu", deadline=datetime(2026, 12, 1, 10, 0, tzinfo=UTC))  # fmt: skip


def test_a_job_in_the_words_of_22_05() -> None:
    body = json.loads(job_body(job_asked(SPEC, "v0.0.38"), "v0.0.38", "/home/idf001", {"PATH": "/bin"}))
    assert body.pop("script").startswith("#!/bin/bash\n")
    assert body["job"] == {
        "name": "idf-1", "partition": "gpu", "dependency": "singleton", "no_requeue": True, "open_mode": "append",
        "nodes": "2", "tasks": 2, "time_limit": 120, "gpus_per_node": "a100:2", "cpus_per_gpu": 3,
        "exclusive": "exclusive", "memory_per_node": "700M", "deadline": "uts1796119200",
        "current_working_directory": "/home/idf001", "standard_output": "/home/idf001/.idf/logs/%x.log",
        "environment": {"PATH": "/bin", "SLURM_GPUS_PER_NODE": "a100:2", "SLURM_CPUS_PER_GPU": "3",
                        "SLURM_SUBMIT_DIR": "/home/idf001", "SLURM_UMASK": "0077"},
    }  # fmt: skip


@pytest.mark.parametrize("version", sorted(set(KNOWN_VERSIONS) - OF_OPTIONS))
def test_a_job_in_the_words_of_later_releases(version: str) -> None:
    job = json.loads(job_body(job_asked(SPEC, version), version, "/home/idf001", {"PATH": "/bin"}))["job"]
    assert job.pop("script").startswith("#!/bin/bash\n")
    assert "PATH=/bin" in job.pop("environment")
    assert job == {
        "name": "idf-1", "partition": "gpu", "dependency": "singleton", "requeue": False, "open_mode": ["APPEND"],
        "minimum_nodes": 2, "maximum_nodes": 2, "tasks": 2, "time_limit": _struct(120),
        "tres_per_node": "gres/gpu:a100:2", "cpus_per_tres": "gres/gpu:3", "shared": ["none"],
        "memory_per_node": _struct(700), "deadline": 1796119200,
        "current_working_directory": "/home/idf001", "standard_output": "/home/idf001/.idf/logs/%x.log",
    }  # fmt: skip


@pytest.mark.parametrize("version", ["v0.0.38", "v0.0.44"])
def test_what_has_no_place_is_refused_by_name(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.slurm.rest_jobs.sbatch_flags", lambda spec: [*sbatch_flags(spec), "--x11=all"])
    with pytest.raises(Rejected, match="--x11"):
        job_asked(SPEC, version)


def test_gpus_that_do_not_divide() -> None:
    three = replace(SPEC, gpus=3)
    assert job_asked(three, "v0.0.38")["gpus"] == "a100:3"
    assert job_asked(three, "v0.0.42")["tres_per_job"] == "gres/gpu:a100:3"


def error(text: str, status: int = 500) -> Said:
    return Said(status, {"errors": [{"error": text, "error_code": 2014}]})


@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (Said(200, {"job_id": 7, "errors": []}), Accepted("7")),
        (Said(200, {"job_id": 7, "errors": [{"error": "Requested partition configuration not available now"}]}),
         Accepted("7")),
        (error("Requested node configuration is not available"), Rejected),
        (error("Unable to contact slurm controller (connect failure)"), Unreachable),
        (error("System submissions disabled"), Unreachable),
        (error("Socket timed out on send/recv operation"), Uncertain),
        (error("Zero Bytes were transmitted or received"), Uncertain),
        (error("Protocol authentication error"), Uncertain),
        (Said(500, {"errors": [{"error": "Invalid qos specification"}, {"error": "something else"}]}), Uncertain),
        (error("Unable to parse query", 400), Rejected),
        (Said(401, {}), Unreachable),
        (Said(404, {}), Unreachable),
        (Said(307, {}), Uncertain),
        (Said(504, {}), Uncertain),
        (Said(200, {}), Uncertain),
        (Said(200, {"job_id": 0}), Uncertain),
        (Said(200, {"job_id": True}), Uncertain),
        (Said(200, {"job_id": "7"}), Uncertain),
        (Uncertain("cut"), Uncertain("cut")),
        (Unreachable("none"), Unreachable("none")),
    ],
)  # fmt: skip
def test_what_an_answer_to_a_submission_proves(outcome: Any, answer: Any) -> None:
    given: Answer = submitted(outcome)
    assert given == answer if not isinstance(answer, type) else type(given) is answer


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Said(200, {"errors": []}), Accepted),
        (error("Invalid job id specified"), Accepted),
        (error("Job/step already completing or completed"), Accepted),
        (error("Access/permission denied"), Rejected),
        (error("Unable to contact slurm controller (connect failure)"), Unreachable),
        (error("Socket timed out on send/recv operation"), Uncertain),
        (Said(401, {}), Unreachable),
        (Said(502, {}), Uncertain),
        (Uncertain("cut"), Uncertain),
    ],
)
def test_what_an_answer_to_a_cancellation_means(outcome: Any, kind: type) -> None:
    assert type(cancelled(outcome, Known("idf-1", "idf001", "7", LONG_AGO))) is kind
