"""Array jobs over a scheduler in memory: one hold, each task metered, charged and released by itself."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from money import EVER, fake
from sqlalchemy import update
from sqlmodel import col, select
from world import HOUR, SITE, World, world

from accounting.models import UsageRecord
from adapters.arrays import task_name
from adapters.port import AttemptState
from broker import arrays
from broker.dispatch import dispatch
from broker.known import job_name
from broker.models import JobTask, Site
from broker.recheck import recheck
from broker.reconcile import reconcile
from broker.tasks import job_tasks
from quotas.holds import HoldLeft, Side, part_of
from quotas.models import Hold, Transfer
from storage.tables import utcnow

S = 2000
"""Credits of a second of one a100-80."""
PART = 3660 * S
"""The hold of one task of an hour, with the site's grace of a minute."""


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []
        assert made.get("marc", EVER)["agrees"]


def started(region: World, array: str = "0-3", **changes: Any) -> str:
    """Submit an array and let as many tasks start as may; return its id."""
    job_id: str = region.submit(array=array, **changes)["id"]
    region.step()
    fake(region).advance(0)
    region.step()
    return job_id


def task(job_id: str, number: int) -> str:
    return task_name(job_name(job_id), number)


def finish(
    region: World, job_id: str, number: int, state: AttemptState = AttemptState.SUCCEEDED, code: int = 0
) -> None:
    fake(region).finish(task(job_id, number), state, code)


def tasks(region: World, job_id: str, person: str = "ines") -> dict[int, Any]:
    return {row["task"]: row for row in region.get(person, f"/jobs/{job_id}/tasks?limit=500")["items"]}


def left(region: World, job_id: str) -> tuple[int, int]:
    with region.services.database.read() as session:
        hold = session.get_one(Hold, job_id)
        return hold.remaining, hold.contract_remaining or 0


def test_one_hold_of_tasks_times_the_hold_of_one(region: World) -> None:
    plan = region.post("ines", "/jobs/plan", {"project": "vision", "arguments": ["true"], "time_limit_s": 3600,
                                              "array": "0-15%4"})  # fmt: skip
    assert (plan["array"], plan["tasks"], plan["held_credits"]) == ("0-15%4", 16, 16 * PART)
    assert plan["sum"][-1] == "× 16 tasks = 32.533 h, of which each ended task gives back its rest"
    job = region.submit(array="0-15%4")
    assert (job["array"], job["tasks"], job["tasks_waiting"], job["held_credits"]) == ("0-15%4", 16, 16, 16 * PART)
    assert region.award()["held_credits"] == 16 * PART
    assert left(region, job["id"]) == (16 * PART, 16 * PART)
    assert region.job(job["id"])["tasks_by_state"] == {"held": 16}
    with region.services.database.read() as session:
        moved = session.exec(select(Transfer.kind).where(col(Transfer.reference_id) == job["id"])).all()
    assert sorted(moved) == ["contract-hold", "hold"]


def test_a_job_that_is_no_array_has_one_task_and_no_list(region: World) -> None:
    job_id = region.submit()["id"]
    job = region.job(job_id)
    assert (job["array"], job["tasks"], job["tasks_waiting"], job["tasks_by_state"]) == (None, 1, None, None)
    assert tasks(region, job_id) == {}
    for method, path in (("GET", f"/jobs/{job_id}/tasks/0"), ("POST", f"/jobs/{job_id}/tasks/0/cancel")):
        answer = region.call("ines", method, path)
        assert (answer.status_code, answer.json()["detail"]) == (404, f"job {job_id} is no array and has no task 0")


def test_each_ended_task_settles_its_part_and_gives_back_its_rest(region: World) -> None:
    job_id = started(region)
    assert {row["state"] for row in tasks(region, job_id).values()} == {"running"}
    fake(region).advance(600)
    finish(region, job_id, 2)
    region.step()
    job, seen = region.job(job_id), tasks(region, job_id)
    assert (job["state"], job["settled_at"], job["charged_credits"]) == ("running", None, None)
    assert (job["tasks_waiting"], job["tasks_running"]) == (0, 3)
    assert (seen[2]["state"], seen[2]["charged_credits"]) == ("succeeded", 600 * S)
    assert seen[2]["settled_at"] is not None
    assert seen[1]["settled_at"] is None
    award = region.award()
    assert (award["held_credits"], award["consumed_credits"]) == (3 * PART, 600 * S)
    assert award["available_credits"] == 100 * HOUR - 3 * PART - 600 * S
    assert left(region, job_id) == (3 * PART, 3 * PART)


def test_the_job_is_the_sum_of_its_tasks(region: World) -> None:
    job_id = started(region)
    fake(region).advance(100)
    finish(region, job_id, 0)
    fake(region).advance(100)
    finish(region, job_id, 1, AttemptState.FAILED, 3)
    region.step()
    fake(region).advance(100)
    finish(region, job_id, 2)
    region.post("ines", f"/jobs/{job_id}/tasks/3/cancel")
    region.step()
    region.step()
    done = region.job(job_id)
    assert (done["state"], done["reason"], done["exit_code"]) == (
        "failed", "2 succeeded, 1 cancelled, 1 failed", 3
    )  # fmt: skip
    assert [event["state"] for event in done["events"] if "task 3" not in event["cause"]] == [
        "held", "dispatching", "queued", "running", "failed"
    ]  # fmt: skip
    assert done["charged_credits"] == (100 + 200 + 300 + 300) * S
    assert (done["tasks_waiting"], done["tasks_running"]) == (0, 0)
    assert done["tasks_by_state"] == {"succeeded": 2, "failed": 1, "cancelled": 1}
    assert done["settled_at"] is not None
    assert done["usage"] == []
    usage = region.get("ines", f"/jobs/{job_id}/tasks/1")["usage"]
    assert [(one["elapsed_s"], one["charged_credits"], one["state"]) for one in usage] == [(200, 200 * S, "failed")]
    assert left(region, job_id) == (0, 0)
    assert region.award()["held_credits"] == 0


def test_all_tasks_of_an_array_that_succeeded(region: World) -> None:
    job_id = started(region, "1,5")
    fake(region).advance(10)
    for number in (1, 5):
        finish(region, job_id, number)
    region.step()
    done = region.job(job_id)
    assert (done["state"], done["reason"], done["exit_code"]) == ("succeeded", None, 0)
    assert reconcile(region.desk()) == 0, "a second look finds nothing new"


def test_no_more_tasks_run_at_once_than_was_said(region: World) -> None:
    job_id = started(region, "0-5%2")
    job = region.job(job_id)
    assert (job["tasks_running"], job["tasks_waiting"]) == (2, 4)
    assert region.job(job_id)["tasks_by_state"] == {"queued": 4, "running": 2}
    fake(region).advance(60)
    finish(region, job_id, 0)
    fake(region).advance(0)
    region.step()
    assert region.job(job_id)["tasks_by_state"] == {"queued": 3, "running": 2, "succeeded": 1}


def test_observing_again_and_replaying_change_nothing(region: World) -> None:
    job_id = started(region)
    fake(region).advance(50)
    finish(region, job_id, 1)
    region.step()
    before = region.award(), tasks(region, job_id), region.job(job_id)
    for _ in range(3):
        assert reconcile(region.desk()) == 0
    assert (region.award(), tasks(region, job_id), region.job(job_id)) == before


def test_many_tasks_are_written_in_several_writes(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.reconcile.TASKS_APPLY_MAX", 2)
    job_id = started(region, "0-6", gpus=1)
    fake(region).advance(10)
    for number in range(7):
        finish(region, job_id, number)
    region.step()
    assert region.job(job_id)["charged_credits"] == 7 * 10 * S
    assert arrays.TASKS_APPLY_MAX == 500


def test_a_task_may_run_as_often_as_its_part_pays_for(region: World) -> None:
    with region.services.database.write() as session:
        session.execute(update(Site).values(settings={**SITE, "requeues": 1}))
    job_id = started(region, "0-1")
    assert region.award()["held_credits"] == 2 * 2 * PART
    fake(region).advance(3000)
    fake(region).requeue(task(job_id, 0))
    region.step()
    assert tasks(region, job_id)[0]["state"] == "queued"
    assert region.job(job_id)["state"] == "running"
    fake(region).advance(0)
    region.step()
    fake(region).advance(500)
    finish(region, job_id, 0)
    region.step()
    assert tasks(region, job_id)[0]["charged_credits"] == 3500 * S
    assert region.award()["held_credits"] == 2 * PART


def test_a_task_that_runs_again_where_its_part_pays_for_one_run_is_ended(region: World) -> None:
    job_id = started(region, "0-1")
    fake(region).advance(100)
    fake(region).requeue(task(job_id, 0))
    fake(region).advance(0)
    region.step()
    region.step()
    seen = tasks(region, job_id)
    assert (seen[0]["state"], seen[0]["charged_credits"]) == ("cancelled", 100 * S)
    assert seen[1]["state"] == "running"


def test_outputs_of_an_array_are_those_of_its_tasks(region: World) -> None:
    job_id = started(region, "0-3%2")
    for number in (0, 1):
        fake(region).write_output(task(job_id, number), "model/a.bin", b"weights of %d" % number)
    path = f"/jobs/{job_id}/outputs"
    assert [file["path"] for file in region.get("ines", path)["items"]] == ["0/model/a.bin", "1/model/a.bin"]
    assert [file["path"] for file in region.get("ines", f"{path}?task=1")["items"]] == ["model/a.bin"]
    for query in ("path=1/model/a.bin", "path=model/a.bin&task=1"):
        assert region.call("ines", "GET", f"{path}/content?{query}").content == b"weights of 1"
    for query in ("path=model/a.bin", "path=9/model/a.bin", "path=1", "path=model/a.bin&task=9"):
        assert region.call("ines", "GET", f"{path}/content?{query}").status_code == 404


def test_a_job_runs_after_all_tasks_of_an_array_and_not_after_one(region: World) -> None:
    job_id = started(region, "0-1")
    after = region.submit(after=[{"job": job_id}])["id"]
    region.step()
    finish(region, job_id, 0)
    fake(region).advance(1)
    region.step()
    assert region.job(after)["state"] == "queued"
    finish(region, job_id, 1)
    fake(region).advance(1)
    region.step()
    assert region.job(after)["state"] == "running"
    refused = region.refused(after=[{"job": f"{job_id}_1"}])
    assert refused["remedy"] == f"--after {job_id}, which waits for all its tasks"


def test_each_attempt_of_a_requeued_task_is_charged_on_its_part(region: World) -> None:
    job_id = started(region, "0-1")
    fake(region).advance(3000)
    fake(region).requeue(task(job_id, 0))
    fake(region).advance(0)
    fake(region).advance(900)
    finish(region, job_id, 0)
    region.step()
    assert tasks(region, job_id)[0]["charged_credits"] == 3900 * S
    assert region.job(job_id)["state"] == "timed_out"
    award = region.award()
    assert award["consumed_credits"] == (3900 + 3600) * S
    assert (award["overrun_credits"], award["held_credits"]) == (240 * S, 0), "no other task's part pays for it"


def test_a_task_is_cancelled_alone(region: World) -> None:
    job_id = started(region, "0-5%2")
    for number in (1, 4):
        answer = region.post("ines", f"/jobs/{job_id}/tasks/{number}/cancel")
        assert answer["cancel_requested_at"] is not None
    fake(region).advance(30)
    region.step()
    region.step()
    seen = tasks(region, job_id)
    assert {number for number, row in seen.items() if row["state"] == "cancelled"} == {1, 4}
    assert (seen[1]["charged_credits"], seen[4]["charged_credits"]) == (30 * S, 0)
    assert seen[4]["reason"] == "cancelled by ines"
    assert region.job(job_id)["state"] == "running"
    assert region.award()["held_credits"] == 4 * PART
    again = region.post("ines", f"/jobs/{job_id}/tasks/4/cancel")
    assert again["state"] == "cancelled"
    causes = [event["cause"] for event in region.job(job_id)["events"]]
    assert [cause for cause in causes if cause.startswith("task ")] == [
        "task 0 started", "task 1: cancelled by ines", "task 4: cancelled by ines"
    ]  # fmt: skip


def test_a_task_of_an_array_that_was_not_sent_is_released_at_once_and_never_sent(region: World) -> None:
    job_id = region.submit(array="0-3%2")["id"]
    assert region.post("ines", f"/jobs/{job_id}/tasks/1/cancel")["state"] == "cancelled"
    assert region.award()["held_credits"] == 3 * PART
    assert region.job(job_id)["tasks_by_state"] == {"held": 3, "cancelled": 1}
    dispatch(region.desk())
    assert {job.spec.array for job in fake(region).jobs.values()} == {"0,2,3%2"}
    region.step()
    fake(region).advance(0)
    fake(region).advance(5)
    for number in (0, 2):
        finish(region, job_id, number)
    fake(region).advance(0)
    finish(region, job_id, 3)
    region.step()
    done = region.job(job_id)
    assert (done["state"], done["charged_credits"]) == ("cancelled", 10 * S)


def test_an_array_whose_tasks_were_all_cancelled_before_it_was_sent_has_ended(region: World) -> None:
    job_id = region.submit(array="0-1")["id"]
    for number in (0, 1):
        region.post("ines", f"/jobs/{job_id}/tasks/{number}/cancel")
    done = region.job(job_id)
    assert (done["state"], done["charged_credits"], region.award()["held_credits"]) == ("cancelled", 0, 0)
    region.step()
    assert not fake(region).jobs


def test_a_wish_about_a_task_waits_while_the_array_is_being_sent(region: World) -> None:
    job_id = region.submit(array="0-2")["id"]
    fake(region).faults.cut_after = 0
    dispatch(region.desk())
    answer = region.post("ines", f"/jobs/{job_id}/tasks/2/cancel")
    assert answer["state"] == "dispatching"
    fake(region).faults.away = False
    region.step()  # adoption proves that it never arrived: it is held again
    region.step()
    assert region.job(job_id)["tasks_by_state"]["cancelled"] == 1
    assert region.award()["held_credits"] == 2 * PART


def test_cancelling_the_job_ends_all_its_tasks(region: World) -> None:
    job_id = started(region, "0-5%2")
    region.post("ines", f"/jobs/{job_id}/tasks/5/cancel")
    region.post("ines", f"/jobs/{job_id}/cancel")
    fake(region).advance(20)
    region.step()
    region.step()
    done = region.job(job_id)
    assert (done["state"], done["charged_credits"]) == ("cancelled", 2 * 20 * S)
    assert done["tasks_by_state"] == {"cancelled": 6}
    assert region.award()["held_credits"] == 0


def test_cancelling_a_held_array_gives_everything_back(region: World) -> None:
    job_id = region.submit(array="0-9")["id"]
    region.post("ines", f"/jobs/{job_id}/tasks/3/cancel")
    done = region.post("ines", f"/jobs/{job_id}/cancel")
    assert (done["state"], done["charged_credits"], done["tasks_waiting"]) == ("cancelled", 0, 0)
    assert region.award()["available_credits"] == 100 * HOUR
    assert region.job(job_id)["tasks_by_state"] == {"cancelled": 10}


def test_an_array_that_the_site_refuses_fails_and_gives_its_hold_back(region: World) -> None:
    fake(region).array_size_max = 5
    job_id = region.submit(array="0-9")["id"]
    region.step()
    done = region.job(job_id)
    assert (done["state"], done["charged_credits"]) == ("failed", 0)
    assert "Invalid job array specification" in done["reason"]
    assert region.award()["held_credits"] == 0
    assert {row["state"] for row in tasks(region, job_id).values()} == {"failed"}


@pytest.mark.parametrize("taken", [0, 1])
def test_a_cut_array_is_adopted_and_nothing_sent_twice(region: World, taken: int) -> None:
    from sqlalchemy import update

    from broker.moves import jobs

    job_id = region.submit(array="0-3")["id"]
    fake(region).faults.cut_after = taken
    for _ in range(3):
        region.step()
        with region.services.database.write() as session:
            session.execute(update(jobs).values(next_try_at=None))
    assert region.job(job_id)["state"] == "queued"
    assert sorted(job.name for job in fake(region).jobs.values()) == [task(job_id, number) for number in range(4)]


def missing_for(region: World, job_id: str, seconds: int) -> None:
    """Say that an array's missing tasks have been missing for so long."""
    with region.services.database.write() as session:
        ours = (job_tasks.c.job_id == job_id) & job_tasks.c.missing_since.is_not(None)
        since = utcnow() - timedelta(seconds=seconds)
        session.connection().execute(job_tasks.update().where(ours).values(missing_since=since))


def test_a_task_that_vanished_while_it_ran_is_lost_and_one_that_waited_was_taken_out(region: World) -> None:
    job_id = started(region, "0-3%2")
    fake(region).forget(task(job_id, 0))
    fake(region).forget(task(job_id, 3))
    region.step()
    seen = tasks(region, job_id)
    assert (seen[0]["state"], seen[3]["state"]) == ("running", "queued"), "one look is not enough"
    assert "the site no longer shows it" in seen[0]["reason"]
    missing_for(region, job_id, 298)
    region.step()
    assert tasks(region, job_id)[0]["state"] == "running"
    missing_for(region, job_id, 300)
    region.step()
    seen = tasks(region, job_id)
    assert (seen[0]["state"], seen[3]["state"]) == ("lost", "cancelled")
    assert seen[3]["reason"] == "the site took it out of the array before it began"
    assert region.award()["held_credits"] == 2 * PART


def test_a_task_that_comes_back_is_not_missing_any_more(region: World) -> None:
    job_id = started(region)
    site = fake(region)
    key = next(key for key, job in site.jobs.items() if job.task == 1)
    hidden = site.jobs.pop(key)
    region.step()
    missing_for(region, job_id, 1000)
    site.jobs[key] = hidden
    region.step()
    assert tasks(region, job_id)[1]["reason"] is None
    del site.jobs[key]
    region.step()
    assert tasks(region, job_id)[1]["state"] == "running", "it is missing since now, not since then"


def test_an_array_that_nobody_knows_is_lost(region: World) -> None:
    job_id = started(region, "0-3%2")
    fake(region).forget(job_name(job_id))
    region.step()
    assert region.job(job_id)["settled_at"] is None
    missing_for(region, job_id, 300)
    region.step()
    done = region.job(job_id)
    assert (done["state"], done["charged_credits"]) == ("lost", 0)
    assert region.award()["available_credits"] == 100 * HOUR


@pytest.mark.parametrize(("ran_s", "covered_s"), [(600, 600), (90_000, 3660)])
def test_a_task_that_ran_away_is_charged_to_its_part_and_to_no_other(region: World, ran_s: int, covered_s: int) -> None:
    job_id = started(region)
    site = fake(region)
    site.lose_end(task(job_id, 1))
    for job in site.jobs.values():
        job.spec = replace(job.spec, time_limit_s=10**6)
    finish(region, job_id, 0)
    site.advance(ran_s)
    region.step()
    assert tasks(region, job_id)[1]["state"] == "running"
    missing_for(region, job_id, 300)
    region.step()
    seen = tasks(region, job_id)[1]
    assert (seen["state"], seen["charged_credits"]) == ("lost", covered_s * S)
    assert ("drift" in seen["reason"]) == (ran_s > covered_s)
    assert region.award()["overrun_credits"] == 0
    for number in (2, 3):
        finish(region, job_id, number)
    region.step()
    assert region.job(job_id)["settled_at"] is not None


def test_a_task_whose_limit_was_raised_is_ended_and_no_hold_grows(region: World) -> None:
    job_id = started(region)
    held = region.award()["held_credits"]
    fake(region).set_limit(task(job_id, 1), 7200)
    region.step()
    assert region.award()["held_credits"] == held
    fake(region).advance(1)
    region.step()
    region.step()
    seen = tasks(region, job_id)
    assert (seen[1]["state"], seen[0]["state"]) == ("cancelled", "running")


def test_accounting_that_is_away_is_no_end_of_a_task(region: World) -> None:
    job_id = started(region)
    fake(region).advance(30)
    finish(region, job_id, 0)
    fake(region).faults.accounting_away = True
    region.step()
    assert tasks(region, job_id)[0]["state"] == "running"
    fake(region).faults.accounting_away = False
    region.step()
    assert tasks(region, job_id)[0]["charged_credits"] == 30 * S


def test_a_task_that_cannot_be_metered_stays_open_and_holds_up_no_other(region: World) -> None:
    job_id = started(region, "0-1")
    fake(region).advance(30)
    for number in (0, 1):
        finish(region, job_id, number)
    _change(region, job_id, 0, gpus=None)
    region.step()
    seen = tasks(region, job_id)
    assert (seen[0]["state"], seen[1]["charged_credits"]) == ("running", 30 * S)
    assert "its GPUs are not accounted for" in seen[0]["reason"]
    _change(region, job_id, 0, gpus=1)
    region.step()
    assert region.job(job_id)["charged_credits"] == 60 * S


def test_a_state_of_a_task_that_nobody_knows_is_no_end(region: World) -> None:
    job_id = started(region, "0-1")
    _change(region, job_id, 0, state=AttemptState.UNKNOWN, native_state="DREAMING")
    region.step()
    region.step()
    seen = tasks(region, job_id)[0]
    assert (seen["state"], seen["reason"]) == ("running", "the site reports a state that nobody knows: DREAMING")


def test_a_task_that_got_too_much_is_stopped_alone(region: World) -> None:
    job_id = started(region, "0-1")
    _change(region, job_id, 1, gpus=2)
    region.step()
    fake(region).advance(10)
    region.step()
    region.step()
    seen = tasks(region, job_id)
    assert (seen[0]["state"], seen[1]["state"]) == ("running", "cancelled")
    assert seen[1]["charged_credits"] == 2 * 10 * S


def _change(region: World, job_id: str, number: int, **changes: Any) -> None:
    job = next(job for job in fake(region).jobs.values() if job.name == task(job_id, number))
    job.attempts[-1] = replace(job.attempts[-1], **changes)


def _ran(region: World, job_id: str, number: int, seconds: int) -> None:
    """Let the site report that a task ran so long."""
    job = next(job for job in fake(region).jobs.values() if job.name == task(job_id, number))
    assert job.attempts[-1].started_at is not None
    _change(region, job_id, number, ended_at=job.attempts[-1].started_at + timedelta(seconds=seconds))


@pytest.mark.parametrize("later", [0, 300, 900, 3660, 4000])
@pytest.mark.parametrize("first", [600, 4000])
def test_late_news_of_one_task_is_adjusted_on_its_part(region: World, first: int, later: int) -> None:
    job_id = started(region, "0-2")
    for number in range(3):
        finish(region, job_id, number)
        _ran(region, job_id, number, 100)
    _ran(region, job_id, 1, first)
    region.step()
    overrun = max(0, first * S - PART)
    assert region.award()["overrun_credits"] == overrun
    if first != later:
        _ran(region, job_id, 1, later)
        assert recheck(region.desk()) == 1
    overrun = max(0, later * S - PART)
    award = region.award()
    assert (award["consumed_credits"], award["overrun_credits"]) == ((200 + later) * S, overrun)
    assert award["available_credits"] == 100 * HOUR - (200 + later) * S + overrun
    assert region.job(job_id)["charged_credits"] == (200 + later) * S
    assert tasks(region, job_id)[1]["charged_credits"] == later * S
    assert recheck(region.desk()) == 0, "a second look finds nothing new"


def test_a_refund_waits_until_all_tasks_are_settled(region: World) -> None:
    job_id = started(region, "0-1")
    fake(region).advance(100)
    finish(region, job_id, 0)
    region.step()
    wanted = {"job_id": job_id, "reason": "node_failure", "evidence": "ticket 123"}
    early = region.call("marc", "POST", "/refunds", wanted)
    assert (early.status_code, early.json()["code"]) == (409, "refund-too-early")
    finish(region, job_id, 1)
    _ran(region, job_id, 1, 4000)
    region.step()
    over = 4000 * S - PART
    assert region.award()["overrun_credits"] == over
    region.post("marc", "/refunds", {**wanted, "amount_credits": over + 10 * S})
    award = region.award()
    assert (award["overrun_credits"], award["consumed_credits"]) == (0, (100 + 4000) * S - over - 10 * S)
    _ran(region, job_id, 0, 90)
    recheck(region.desk())
    assert region.award()["overrun_credits"] == 0
    assert region.award()["consumed_credits"] == (90 + 4000) * S - over - 10 * S


def test_one_part_of_a_hold_that_is_older_than_contracts() -> None:
    whole = HoldLeft("job-1", Side("awd-1", 30, 10))
    assert part_of(whole, 3) == HoldLeft("job-1", Side("awd-1", 10, 10))


def test_usage_records_say_which_task(region: World) -> None:
    job_id = started(region, "2,7")
    fake(region).advance(5)
    for number in (2, 7):
        finish(region, job_id, number)
    region.step()
    with region.services.database.read() as session:
        rows = session.exec(select(UsageRecord).where(col(UsageRecord.job_id) == job_id)).all()
    assert sorted((row.task, row.elapsed_s) for row in rows) == [(2, 5), (7, 5)]


def test_a_task_has_no_row_before_it_begins(region: World) -> None:
    job_id = region.submit(array="0-99%1", time_limit_s=60)["id"]
    region.step()
    region.step()
    with region.services.database.read() as session:
        assert session.exec(select(JobTask).where(col(JobTask.job_id) == job_id)).all() == []
    fake(region).advance(0)
    region.step()
    with region.services.database.read() as session:
        (row,) = session.exec(select(JobTask).where(col(JobTask.job_id) == job_id)).all()
    assert (row.task, row.state) == (0, "running")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ("3-1", "names nothing: 3-1"),
        ("0-3%0", "how many tasks may run at once"),
        ("", "is not understood"),
        ("0-3;id", "is not understood"),
        ("0-5000000", "above 4000000"),
        ("0-400000", "more than 100000 tasks"),
    ],
)
def test_an_array_that_cannot_be_is_refused_in_one_sentence(region: World, array: str, words: str) -> None:
    problem = region.refused(array=array)
    assert problem["status"] == 422
    assert words in problem["detail"]


def test_more_tasks_than_the_setting_allows_are_refused(region: World) -> None:
    problem = region.refused(array="0-1000")
    assert problem["detail"] == "the array 0-1000 has 1001 tasks, an array may have 1000"
    assert problem["remedy"] == "submit it in parts of at most 1000 tasks"


def test_a_site_that_numbers_tasks_lower_is_no_place_for_it(region: World) -> None:
    problem = region.refused(array="1001")
    assert problem["detail"] == "the array has a task 1001, site teratec numbers tasks from 0 to 1000 (MaxArraySize)"
    assert problem["remedy"] == "number the tasks up to 1000, in several arrays if need be"
    region.upkeep.array_size_max = 0
    region.post("olga", "/sites/teratec/check")
    assert region.refused(array="0")["remedy"] == "submit one job per task"
    assert region.submit()["state"] == "held"


def test_a_refusal_says_the_sum(region: World) -> None:
    problem = region.refused(array="0-99", gpus=2)
    assert problem["code"] == "award-too-small"
    assert problem["detail"].startswith(
        "the job would hold 406.666 h (normalised GPU-hours, 100 tasks × 4.066 h) and project vision has 100 h"
    )
    assert problem["remedy"].endswith("an array of at most 24 tasks, or wait until running jobs settle")
    assert region.submit(array="0-23", gpus=2)["held_credits"] == 24 * 2 * PART


def test_a_contract_must_give_all_tasks(region: World) -> None:
    region.post("marc", "/contracts/" + region.get("marc", "/contracts")["items"][0]["id"] + "/return",
                {"gpu_seconds": 4997 * 3600, "reason": "typed twice"})  # fmt: skip
    problem = region.refused(array="0-2")
    assert problem["code"] == "contract-too-small"
    assert "3.05 h" in problem["detail"]
    assert region.submit(array="0-1")["state"] == "held"


def test_gpus_at_once_count_as_many_tasks_as_may_run(region: World) -> None:
    region.post("marc", "/ceilings", {"scope": "project", "name": "vision", "what": "gpus_running", "amount": 4})
    problem = region.refused(array="0-9", gpus=1)
    assert problem["code"] == "ceiling-reached"
    assert "10 more were asked for" in problem["detail"]
    assert problem["remedy"] == "let fewer tasks run at once: --array 0-9%4"
    assert region.refused(array="0-9%2", gpus=8, time_limit_s=60)["remedy"] == "--gpus 4"
    job_id = started(region, "0-4%3")
    other = region.submit(gpus=2)["id"]
    region.step()
    assert region.job(other)["reason"] == "waits: project vision may have 4 GPUs at once, 3 are in use"
    fake(region).advance(1)
    for number in range(3):
        finish(region, job_id, number)
    region.step()
    region.step()
    assert region.job(other)["state"] in ("queued", "running"), "two tasks are left: they take two GPUs"


def test_each_waiting_task_counts_where_jobs_that_wait_are_bounded(region: World) -> None:
    region.post("marc", "/ceilings", {"scope": "project", "name": "vision", "what": "jobs_queued", "amount": 5})
    assert region.refused(array="0-5")["remedy"] == "an array of at most 5 tasks"
    job_id = region.submit(array="0-3%2")["id"]
    assert region.refused(array="0-1")["remedy"] == "wait until a job has started"
    region.submit()
    region.step()
    fake(region).advance(0)
    region.step()
    assert region.job(job_id)["tasks_waiting"] == 2
    shown = next(row for row in region.get("alma", "/ceilings")["items"] if row["what"] == "jobs_queued")
    assert shown["in_use"] == 2


def test_each_task_has_a_log(region: World) -> None:
    job_id = started(region, "0-1")
    fake(region).write_log(task(job_id, 1), b"one\n")
    answer = region.call("ines", "GET", f"/jobs/{job_id}/log?task=1")
    assert (answer.content, answer.headers["Idf-Job-State"]) == (b"one\n", "running")
    finish(region, job_id, 0)
    region.step()
    assert region.call("ines", "GET", f"/jobs/{job_id}/log?task=0").headers["Idf-Job-State"] == "succeeded"
    whole = region.call("ines", "GET", f"/jobs/{job_id}/log")
    assert whole.status_code == 400
    assert whole.json()["detail"] == f"job {job_id} is an array, of which each task has a log"
    assert whole.json()["remedy"] == f"idf-compute logs {job_id}_0"
    none = region.call("ines", "GET", f"/jobs/{job_id}/log?task=2")
    assert (none.status_code, none.json()["detail"]) == (404, f"the array {job_id} has no task 2")


def test_tasks_are_listed_in_pages_and_by_state(region: World) -> None:
    job_id = started(region, "0-9%3")
    first = region.get("ines", f"/jobs/{job_id}/tasks?limit=4")
    assert [row["task"] for row in first["items"]] == [0, 1, 2, 3]
    rest = region.get("ines", f"/jobs/{job_id}/tasks?limit=6&cursor={first['next_cursor']}")
    assert [row["task"] for row in rest["items"]] == [4, 5, 6, 7, 8, 9]
    assert rest["next_cursor"] is None
    running = region.get("ines", f"/jobs/{job_id}/tasks?state=running")["items"]
    assert [row["task"] for row in running] == [0, 1, 2]
    assert region.call("ines", "GET", f"/jobs/{job_id}/tasks?cursor=x").status_code == 400


def test_a_coach_sees_how_far_the_tasks_are_and_no_reason(region: World) -> None:
    region.post("marc", "/projects/vision/members", {"person": "nemo", "role": "coach"})
    job_id = started(region, "0-1")
    finish(region, job_id, 0, AttemptState.FAILED, 7)
    _change(region, job_id, 0, reason="canary")
    region.step()
    whole, seen = tasks(region, job_id)[0], tasks(region, job_id, "nemo")[0]
    assert (whole["reason"], whole["exit_code"]) == ("canary", 7)
    assert (seen["state"], seen["reason"], seen["exit_code"]) == ("failed", None, None)
    assert seen["hidden"] == ["reason", "exit_code"]
    assert "canary" not in str(region.get("nemo", f"/jobs/{job_id}/tasks/0"))


def test_a_weight_that_rose_meanwhile_changes_no_task(region: World) -> None:
    job_id = started(region, "0-1")
    region.post("marc", "/gpu-classes", {"name": "a100-80", "weight_thousandths": 3000, "valid_from": "2099-01-01"})
    fake(region).advance(10)
    for number in (0, 1):
        finish(region, job_id, number)
    region.step()
    assert region.job(job_id)["charged_credits"] == 2 * 10 * S
