"""Reading what squeue and sacct 22.05 said of arrays: the rows are as a real cluster wrote them, but for the clock."""

import json
from datetime import UTC, datetime

from adapters.port import Absent, Accepted, AttemptState, Known, Observation, Sent
from adapters.slurm.commands import Adopt, Reply
from adapters.slurm.gateway import ACCOUNTING_FIELDS, QUEUE_FIELDS
from adapters.slurm.observation import Observe

T = 1_800_000_000
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TRES = "billing=1,cpu=1,gres/gpu:a100=1,gres/gpu=1,mem=256M,node=1"


def queue(job: str, state: str, submitted: int = T, restarts: int = 0, reason: str = "None") -> str:
    tres, node = ("", "") if state == "PENDING" else (TRES, "node1")
    times = f"{submitted}|{T + 10}|{T + 20}|0:10|10:00"
    return f"{job}|{state}|{restarts}|idf001|{times}|{tres}|{reason}|{node}|/home/idf001|idf-a"


def accounting(job: str, state: str, elapsed: int, submitted: int = T) -> str:
    begun, tres, node = (T + 10, TRES, "node1") if elapsed else ("None", "", "None assigned")
    times = f"{submitted}|{begun}|{T + 10 + elapsed}|{elapsed}"
    return f"{job}|{state}|idf001|{times}|10|0:0|{tres}|None|{node}|/home/idf001|idf-a"


def said(queue_rows: list[str], accounting_rows: list[str], rows_not_written: int = 0) -> Reply:
    site = {
        "queue": {"rc": 0, "out": "\n".join(queue_rows), "err": ""},
        "accounting": [{"rc": 0, "out": "\n".join(accounting_rows), "err": ""}],
        "rows_not_written": rows_not_written, "queue_fields": QUEUE_FIELDS, "accounting_fields": ACCOUNTING_FIELDS,
        "homes": {"idf001": "/home/idf001"},
    }  # fmt: skip
    return Reply.read(f'* {json.dumps(site)}\n* {{"end": true}}\n'.encode())


def observed(reply: Reply, *tasks: int) -> Observation:
    job = Known("idf-a", "idf001", "5", LONG_AGO, frozenset(tasks) if tasks else None)
    return Observe([job], "c").read(reply)


def states(seen: Observation) -> dict[int | None, list[str]]:
    found: dict[int | None, list[str]] = {}
    for attempt in seen.attempts.get("idf-a", ()):
        found.setdefault(attempt.task, []).append(attempt.state.value)
    return found


def test_tasks_that_never_ran_share_one_row_of_accounting() -> None:
    reply = said([], [accounting("5_1", "COMPLETED", 4), accounting("5_[3,9-13:2%2]", "CANCELLED by 47001", 0)])
    seen = observed(reply, 1, 3, 9, 11, 13)
    assert states(seen) == {1: ["succeeded"], **{task: ["cancelled"] for task in (3, 9, 11, 13)}}
    assert {attempt.source_key for attempt in seen.attempts["idf-a"]} == {
        f"c/5_{task}/{T}" for task in (1, 3, 9, 11, 13)
    }
    assert all(attempt.site_job_id == "5" and attempt.elapsed_s in (0, 4) for attempt in seen.attempts["idf-a"])
    assert not seen.absent


def test_a_tasks_own_row_counts_before_the_one_that_it_shared() -> None:
    rows = [accounting("5_0", "COMPLETED", 7), accounting("5_[0-2]", "CANCELLED by 47001", 0)]
    for both in (rows, rows[::-1]):
        seen = observed(said([], both), 0, 1, 2)
        assert states(seen) == {0: ["succeeded"], 1: ["cancelled"], 2: ["cancelled"]}
        assert seen.attempts["idf-a"][0].elapsed_s == 7


def test_a_task_that_neither_knows_is_absent_only_when_both_could_tell() -> None:
    rows = [queue("5_0", "RUNNING")], [accounting("5_2", "COMPLETED", 3)]
    assert observed(said(*rows), 0, 1, 2).absent == {"idf-a_1"}
    assert not observed(said(*rows, rows_not_written=3), 0, 1, 2).absent
    assert observed(said([], []), 0, 1).absent == {"idf-a"}
    odd = said([queue("5_0", "RUNNING")], ["5_[1,2|COMPLETED|cut off"])
    assert not observed(odd, 0, 1, 2).absent, "a row that cannot be read may be that of the task"
    assert any("cannot be read" in warning for warning in observed(odd, 0, 1, 2).warnings)


def test_each_task_ends_by_accounting_alone_and_holds_up_no_other() -> None:
    seen = observed(said([queue("5_0", "COMPLETED"), queue("5_1", "RUNNING"), queue("5_2", "PENDING")], []), 0, 1, 2)
    assert states(seen) == {1: ["running"], 2: ["queued"]}, "of task 0 accounting does not know yet"
    assert not seen.absent


def test_the_attempts_of_a_requeued_task_are_told_apart() -> None:
    reply = said([queue("5_1", "RUNNING", T + 100, 1), queue("5_0", "RUNNING")], [accounting("5_1", "REQUEUED", 3)])
    seen = observed(reply, 0, 1)
    assert states(seen) == {0: ["running"], 1: ["preempted", "running"]}
    assert [attempt.source_key for attempt in seen.attempts["idf-a"]] == [
        f"c/5_0/{T}",
        f"c/5_1/{T}",
        f"c/5_1/{T + 100}",
    ]


def test_the_row_of_an_array_without_tasks_is_none_of_them() -> None:
    """What 22.05 leaves where every task that waited was cancelled alone: a row with the array's bare id."""
    seen = observed(said([], [accounting("5_0", "COMPLETED", 6), accounting("5", "CANCELLED by 47001", 0)]), 0, 1, 2)
    assert states(seen) == {0: ["succeeded"]}
    assert seen.absent == {"idf-a_1", "idf-a_2"}
    assert not observed(said([], [accounting("5", "CANCELLED by 47001", 0)]), 0).attempts


def test_tasks_that_nobody_asked_about_are_left_out() -> None:
    rows = [accounting(f"5_{task}", "COMPLETED", 3) for task in range(5)]
    assert states(observed(said([], rows), 2)) == {2: ["succeeded"]}
    assert len(states(observed(said([], rows)))) == 5, "asked about as a whole, all are told"


def test_what_waits_is_told_with_its_reason() -> None:
    seen = observed(said([queue("5_3", "PENDING", reason="JobArrayTaskLimit")], []), 3)
    (attempt,) = seen.attempts["idf-a"]
    assert (attempt.state, attempt.reason, attempt.started_at) == (AttemptState.QUEUED, "JobArrayTaskLimit", None)


def test_adoption_finds_the_array_by_any_of_its_tasks() -> None:
    sent = Sent("idf-a", "idf001", "bat-1", datetime.fromtimestamp(T - 10, UTC))
    command = Adopt([sent], wait_s=1, settle_s=310)
    rows = [queue("5_0", "RUNNING"), queue("5_1", "PENDING")], [accounting("5_[2-9]", "CANCELLED by 1", 0)]
    assert command.read(_looked_up(said(*rows))) == {"idf-a": Accepted("5")}
    assert command.read(_looked_up(said([], []))) == {"idf-a": Absent()}


def _looked_up(reply: Reply) -> Reply:
    site = {**reply.site, "queue": [reply.site["queue"]]}
    return Reply({"idf001": [{"batch": "bat-1", "closed_s_ago": 400}]}, site, whole=True)
