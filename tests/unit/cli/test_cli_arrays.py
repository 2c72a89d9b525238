"""Arrays on the command line: submitting one, its tasks, their logs and their ends."""

from pathlib import Path
from typing import Any

from unit.cli.conftest import NOW, job

PLAN = {
    "site": "jean-zay", "project": "vision", "award": "w1", "gpu_class": "a100-80", "gpus": 1, "cpus": None,
    "memory_mib": None, "nodes": 1, "exclusive": False, "partition": None, "time_limit_s": 3600, "kill_grace_s": 60,
    "weight_thousandths": 2000, "charging_rule": None, "rate_credits_per_s": 2000, "array": "0-15%4", "tasks": 16,
    "sum": ["1 GPU", "1 × weight 2 × (3600 + 60) s = 2.03 h", "× 16 tasks = 32.53 h"],
    "held_credits": 117_120_000, "available_credits": 360_000_000, "contract": "c1", "notices": [],
}  # fmt: skip
ARRAY: dict[str, Any] = {
    "array": "0-15%4", "tasks": 16, "tasks_waiting": 9, "tasks_running": 4, "tasks_by_state": {
        "queued": 9, "running": 4, "succeeded": 2, "failed": 1,
    },
}  # fmt: skip


def task(number: int, **changes: Any) -> dict[str, Any]:
    base = {
        "task": number, "state": "queued", "reason": None, "started_at": None, "ended_at": None, "settled_at": None,
        "cancel_requested_at": None, "charged_credits": None, "exit_code": None, "hidden": [], "usage": [],
    }  # fmt: skip
    return {**base, **changes}


def test_an_array_is_asked_for_by_an_option(broker: Any, run: Any) -> None:
    broker.answers["POST", "/v1/jobs"] = (201, job(**ARRAY, state="held"))
    ran = run("submit", "--array", "0-15%4", "--", "true")
    assert ran.code == 0
    assert broker.posted("/v1/jobs")[0]["array"] == "0-15%4"
    assert ran.out.startswith("job j1: 16 tasks (0-15%4) of 1 x a100-80 at jean-zay, at most 1:00:00")


def test_an_array_in_a_script_is_taken_over_and_the_option_wins(broker: Any, run: Any, tmp_path: Path) -> None:
    script = tmp_path / "sweep.sh"
    script.write_text("#!/bin/bash\n#SBATCH --array=0-9\necho $SLURM_ARRAY_TASK_ID\n")
    ran = run("submit", str(script))
    assert "taken over from sweep.sh: --array=0-9" in ran.err
    ran = run("submit", "-a", "0-3", str(script))
    assert "your options win over --array=0-9" in ran.err
    assert [body["array"] for body in broker.posted("/v1/jobs")] == ["0-9", "0-3"]


def test_a_dry_run_shows_the_sum_over_all_tasks(broker: Any, run: Any) -> None:
    broker.answers["POST", "/v1/jobs/plan"] = (200, PLAN)
    out = run("submit", "--dry-run", "--array=0-15%4", "--", "true").out
    assert out.splitlines()[0] == "would run 16 tasks (0-15%4) of 1 x a100-80 at jean-zay for at most 1:00:00"
    assert "would hold 32.53 h of award w1" in out
    assert "× 16 tasks = 32.53 h" in out


def test_an_array_has_no_one_log_to_follow(broker: Any, run: Any) -> None:
    ran = run("submit", "--follow", "--array=0-3", "--", "true")
    assert (ran.code, broker.posted("/v1/jobs")) == (2, [])
    assert "each task of an array has its own log" in ran.err
    assert run("submit", "--try", "--array=0-3", "--", "true").code == 2


def test_the_list_says_how_many_tasks_have_ended(broker: Any, run: Any) -> None:
    broker.jobs = [job(**ARRAY)]
    out = run("jobs").out
    assert "running 3/16" in out
    assert "1 x a100-80, 16 tasks" in out


def test_show_sums_up_the_tasks_and_lists_them_on_demand(broker: Any, run: Any) -> None:
    broker.jobs = [job(**ARRAY, events=[{"at": NOW, "state": "running", "cause": "task 0 started"}])]
    rows = [task(0, state="failed", exit_code=3, started_at=NOW, ended_at=NOW, charged_credits=0), task(1)]
    broker.answers["GET", "/v1/jobs/j1/tasks"] = (200, {"items": rows, "next_cursor": None})
    out = run("show", "j1").out
    assert "tasks      16 tasks (0-15%4): 9 queued, 4 running, 2 succeeded, 1 failed" in out
    assert "a task that has ended is charged" in out
    assert "TASK" not in out
    lines = run("show", "j1", "--tasks").out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("TASK"))
    assert lines[head + 1].split() == ["0", "failed", "3", "0:00:00", "0", "h", "-"]
    assert lines[head + 2].split() == ["1", "queued", "-", "-", "-", "-"]
    assert run("show", "j1", "--tasks", "--json").json == rows


def test_one_task_is_shown_by_its_number(broker: Any, run: Any) -> None:
    seen = task(7, state="failed", exit_code=3, reason="NonZeroExitCode", started_at=NOW, ended_at=NOW)
    broker.answers["GET", "/v1/jobs/j1/tasks/7"] = (200, {**seen, "charged_credits": 3_600_000, "hidden": ["reason"]})
    out = run("show", "j1_7").out
    assert out.splitlines()[:4] == [
        "task       j1_7", "state      failed", "reason     NonZeroExitCode", "exit code  3"
    ]  # fmt: skip
    assert "GPU-hours  1 h charged" in out
    assert "not shown to a project's coach: reason" in out
    assert run("show", "j1_7", "--json").json["task"] == 7
    assert run("show", "j1_7", "--tasks").code == 2
    broker.answers["GET", "/v1/jobs/j1/tasks/8"] = (200, task(8, cancel_requested_at=NOW))
    out = run("show", "j1_8").out
    assert "state      queued, to be cancelled since 2026-11-23 10:00:00" in out
    assert "GPU-hours  nothing charged yet" in out


def test_the_log_of_a_task(broker: Any, run: Any) -> None:
    broker.log = [("running", b"line\n"), ("running", b"")]
    assert run("logs", "j1_7").out == "line\n"
    assert {call.query.get("task") for call in broker.calls if call.path == "/v1/jobs/j1/log"} == {"7"}


def test_following_a_task_ends_with_its_outcome(broker: Any, run: Any) -> None:
    broker.log = [("running", b"line\n"), ("failed", b"")]
    seen = task(7, state="failed", exit_code=3, started_at=NOW, ended_at=NOW, charged_credits=3_600_000)
    broker.answers["GET", "/v1/jobs/j1/tasks/7"] = (200, seen)
    ran = run("logs", "-f", "j1_7")
    assert ran.out == "line\n"
    assert "job j1_7: failed after 0:00:00, exit code 3; charged 1 h" in ran.err
    assert ran.code != 0


def test_one_task_is_cancelled(broker: Any, run: Any) -> None:
    states = {7: "running", 8: "cancelled", 9: "succeeded"}
    for number, state in states.items():
        broker.answers["POST", f"/v1/jobs/j1/tasks/{number}/cancel"] = (200, task(number, state=state))
    ran = run("cancel", "j1_7", "j1_8", "j1_9")
    assert ran.out.splitlines() == [
        "task j1_7 is running and will be cancelled",
        "task j1_8 is cancelled",
        "task j1_9 had ended already: succeeded",
    ]
    assert [answer["id"] for answer in run("cancel", "--json", "j1_7").json] == ["j1_7"]


def test_an_id_that_is_no_task_is_left_as_it_is(broker: Any, run: Any) -> None:
    for word in ("j1_", "j1_x", "j1_٣", "_7"):
        ran = run("show", word)
        assert ran.code != 0, word
    asked = [call.path for call in broker.calls]
    assert asked == ["/v1/jobs/j1_", "/v1/jobs/j1_x", "/v1/jobs/j1_%D9%A3"]
