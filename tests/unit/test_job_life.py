"""A job's whole life in the broker, over a scheduler in memory, on both databases."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from world import HOUR, World, world

from adapters.fake import FakeScheduler
from adapters.port import UNLIMITED_S, AttemptState
from broker.adopt import forget_leases
from broker.dispatch import dispatch
from broker.known import job_name
from broker.models import Job
from broker.moves import jobs
from broker.recheck import recheck
from broker.reconcile import reconcile
from broker.top_ups import top_up_job
from quotas.models import Account, Hold
from storage.tables import utcnow


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


def site(region: World) -> FakeScheduler:
    assert isinstance(region.scheduler, FakeScheduler)
    return region.scheduler


def states(job: Any) -> list[str]:
    return [event["state"] for event in job["events"]]


def test_from_submission_to_settlement(region: World) -> None:
    job = region.submit(gpus=2)
    assert job["state"] == "held"
    assert job["held_credits"] == 2 * (3600 + 60) * 2000
    assert region.award()["held_credits"] == job["held_credits"]
    region.step()
    assert region.job(job["id"])["state"] == "queued"
    site(region).advance(0)
    region.step()
    assert region.job(job["id"])["state"] == "running"
    site(region).advance(600)
    site(region).finish(job_name(job["id"]))
    region.step()
    done = region.job(job["id"])
    assert states(done) == ["held", "dispatching", "queued", "running", "succeeded"]
    assert done["charged_credits"] == 2 * 600 * 2000
    assert done["settled_at"] is not None
    assert [usage["elapsed_s"] for usage in done["usage"]] == [600]
    award = region.award()
    assert award["held_credits"] == 0
    assert award["consumed_credits"] == 2 * 600 * 2000
    assert award["available_credits"] == 100 * HOUR - 2 * 600 * 2000


def test_observing_again_changes_nothing(region: World) -> None:
    job = region.submit()
    region.step()
    site(region).advance(0)
    site(region).advance(60)
    site(region).finish(job_name(job["id"]))
    region.step()
    before = region.award()
    region.step()
    assert reconcile(region.desk()) == 0
    assert region.award() == before


@pytest.mark.parametrize(
    "state",
    [
        AttemptState.FAILED,
        AttemptState.TIMED_OUT,
        AttemptState.OUT_OF_MEMORY,
        AttemptState.NODE_FAILED,
        AttemptState.PREEMPTED,
    ],
)
def test_every_end_is_charged_for_what_it_used(region: World, state: AttemptState) -> None:
    job = region.submit()
    region.step()
    site(region).advance(0)
    site(region).advance(120)
    site(region).finish(job_name(job["id"]), state, exit_code=3)
    region.step()
    done = region.job(job["id"])
    assert (done["state"], done["charged_credits"], done["exit_code"]) == (state.value, 120 * 2000, 3)


def test_a_rejected_job_fails_and_gives_its_hold_back(region: World) -> None:
    site(region).faults.refuse = "Invalid partition name specified"
    job = region.submit()
    region.step()
    done = region.job(job["id"])
    assert done["state"] == "failed"
    assert "Invalid partition" in done["reason"]
    assert done["charged_credits"] == 0
    assert region.award()["available_credits"] == 100 * HOUR


def test_an_unreachable_site_makes_jobs_wait(region: World) -> None:
    job = region.submit()
    site(region).faults.away = True
    dispatch(region.desk())
    waiting = region.job(job["id"])
    assert waiting["state"] == "held"
    assert "away" in waiting["reason"]
    site(region).faults.away = False
    assert dispatch(region.desk()) == 0  # not due yet


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_cut_batch_is_adopted_and_nothing_sent_twice(region: World, taken: int) -> None:
    ids = [region.submit()["id"] for _ in range(2)]
    site(region).faults.cut_after = taken
    region.step()
    for _ in range(3):
        make_due(region)
        region.step()
    assert {region.job(id_)["state"] for id_ in ids} == {"queued"}
    assert sorted(job.spec.name for job in site(region).jobs.values()) == sorted(job_name(id_) for id_ in ids)


def make_due(region: World) -> None:
    from sqlalchemy import update

    from broker.moves import jobs

    with region.services.database.write() as session:
        session.execute(update(jobs).where(jobs.c.next_try_at.is_not(None)).values(next_try_at=None))


def test_a_worker_that_died_while_sending_is_cleared_up(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = region.submit()

    def dies(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(site(region), "submit", dies)
    with pytest.raises(KeyboardInterrupt):
        dispatch(region.desk())
    monkeypatch.undo()
    assert region.job(job["id"])["state"] == "dispatching"
    region.step()
    assert region.job(job["id"])["state"] == "dispatching"  # its lease is not over
    forget_leases(region.desk())
    region.step()
    make_due(region)
    region.step()
    assert region.job(job["id"])["state"] == "queued"
    assert len(site(region).jobs) == 1


def test_accounting_that_is_away_is_not_an_end(region: World) -> None:
    job = region.submit()
    region.step()
    site(region).advance(0)
    region.step()
    site(region).advance(30)
    site(region).finish(job_name(job["id"]))
    site(region).faults.accounting_away = True
    region.step()
    assert region.job(job["id"])["state"] == "running"
    site(region).faults.accounting_away = False
    region.step()
    assert region.job(job["id"])["charged_credits"] == 30 * 2000


def test_a_job_that_nobody_knows_is_lost_and_its_hold_released(region: World) -> None:
    job = region.submit()
    region.step()
    site(region).forget(job_name(job["id"]))
    region.step()
    waiting = region.job(job["id"])
    assert (waiting["state"], waiting["settled_at"]) == ("queued", None), "one look is not enough"
    assert "the site no longer shows it" in waiting["reason"]
    missing_for(region, job["id"], 299)
    region.step()
    assert region.job(job["id"])["state"] == "queued"
    missing_for(region, job["id"], 300)
    region.step()
    done = region.job(job["id"])
    assert (done["state"], done["charged_credits"]) == ("lost", 0)
    assert region.award()["available_credits"] == 100 * HOUR


def test_an_id_that_was_given_twice_is_that_of_the_later_job(region: World) -> None:
    """A slurmctld that was killed forgot a job and gave its id to the next."""
    first = region.submit()
    region.step()
    before = region.job(first["id"])["site_job_id"]
    del site(region).jobs[before]
    site(region)._next_id = int(before)
    second = region.submit()
    region.step()
    assert region.job(second["id"])["site_job_id"] == before
    site(region).advance(0)
    region.step()
    assert region.job(second["id"])["state"] == "running"
    waits = region.job(first["id"])
    assert waits["state"] == "queued"
    assert "no longer shows it" in waits["reason"]
    region.post("ines", f"/jobs/{first['id']}/cancel", {})
    region.step()
    site(region).advance(60)
    region.step()
    assert region.job(second["id"])["state"] == "running", "the end of the one is not asked for under the other's id"
    missing_for(region, first["id"], 3600)
    site(region).finish(job_name(second["id"]))
    region.step()
    lost, done = region.job(first["id"]), region.job(second["id"])
    assert (lost["state"], lost["charged_credits"]) == ("lost", 0)
    assert (done["state"], done["charged_credits"]) == ("succeeded", 60 * 2000)


def test_a_job_that_comes_back_is_not_missing_any_more(region: World) -> None:
    job = region.submit()
    region.step()
    hidden = site(region).jobs.pop(region.job(job["id"])["site_job_id"])
    region.step()
    missing_for(region, job["id"], 1000)
    site(region).jobs[hidden.site_job_id] = hidden
    region.step()
    del site(region).jobs[hidden.site_job_id]
    region.step()
    assert region.job(job["id"])["state"] == "queued", "it is missing since now, not since then"


@pytest.mark.parametrize(("ran_s", "covered_s"), [(600, 600), (90_000, 3660)])
def test_a_runaway_is_charged_to_its_hold_and_the_rest_is_drift(region: World, ran_s: int, covered_s: int) -> None:
    job = running(region)
    site(region).lose_end(job_name(job["id"]))
    site(region).jobs[job["site_job_id"]].spec = replace(site(region).jobs[job["site_job_id"]].spec, time_limit_s=10**6)
    site(region).advance(ran_s)
    region.step()
    assert region.job(job["id"])["state"] == "running"
    missing_for(region, job["id"], 300)
    region.step()
    done = region.job(job["id"])
    assert (done["state"], done["charged_credits"]) == ("lost", covered_s * 2000)
    assert ("drift" in done["reason"]) == (ran_s > covered_s)
    assert region.award()["overrun_credits"] == 0
    site(region).jobs[job["site_job_id"]].runaway = False
    site(region).finish(job_name(job["id"]))
    assert recheck(region.desk()) == (ran_s > covered_s), "once its end is told, what it used is charged after all"
    assert region.job(job["id"])["charged_credits"] == ran_s * 2000


def test_a_raised_time_limit_is_held_too_and_charged_from_the_hold(region: World) -> None:
    job = running(region)
    left = region.award()["available_credits"]
    site(region).set_limit(job_name(job["id"]), 7200)
    region.step()
    region.step()
    longer = region.job(job["id"])
    assert (longer["time_limit_s"], longer["held_credits"]) == (7200, (7200 + 60) * 2000)
    assert region.award()["available_credits"] == left - 3600 * 2000
    assert longer["events"][-1]["cause"] == "the site raised its time limit to 120 min: 2 h more are held"
    assert region.faults() == []
    site(region).advance(7000)
    site(region).finish(job_name(job["id"]))
    region.step()
    assert region.job(job["id"])["charged_credits"] == 7000 * 2000
    award = region.award()
    assert (award["overrun_credits"], award["held_credits"]) == (0, 0)


def test_a_hold_without_a_contract_grows_alone(region: World) -> None:
    """As one that was made before there were contracts."""
    job = running(region)
    with region.services.database.write() as session:
        hold = session.get_one(Hold, job["id"])
        hold.contract_id = hold.contract_amount = hold.contract_remaining = hold.contract_weight_thousandths = None
        session.flush()
        row = session.execute(select(*jobs.c).where(jobs.c.id == job["id"])).one()
        assert top_up_job(session, row, 7200, utcnow()) is None
        assert (hold.award_id, session.get_one(Account, f"held:{hold.award_id}").balance) == (
            row.award_id, (7200 + 60) * 2000
        )  # fmt: skip
        session.rollback()


@pytest.mark.parametrize(("limit_s", "cause"), [(10**6, "was raised to 16666 min"), (None, "taken away")])
def test_a_time_limit_that_nobody_pays_for_ends_the_job(region: World, limit_s: int | None, cause: str) -> None:
    job = running(region)
    site(region).set_limit(job_name(job["id"]), limit_s or UNLIMITED_S)
    region.step()
    with region.services.database.read() as session:
        asked = session.get_one(Job, job["id"])
    assert cause in str(asked.cancel_cause)
    assert (asked.time_limit_s, asked.held_credits) == (3600, 3660 * 2000)
    region.step()
    region.step()
    assert region.job(job["id"])["state"] == "cancelled"
    assert region.award()["held_credits"] == 0


def running(region: World) -> Any:
    job = region.submit()
    region.step()
    site(region).advance(0)
    region.step()
    return region.job(job["id"])


def missing_for(region: World, job_id: str, seconds: int) -> None:
    with region.services.database.write() as session:
        session.get_one(Job, job_id).missing_since = utcnow() - timedelta(seconds=seconds)


def test_each_attempt_of_a_requeued_job_is_charged(region: World) -> None:
    job = region.submit()
    region.step()
    site(region).advance(0)
    region.step()
    site(region).advance(100)
    site(region).requeue(job_name(job["id"]))
    region.step()
    assert region.job(job["id"])["state"] == "queued"
    site(region).advance(0)
    site(region).advance(50)
    site(region).finish(job_name(job["id"]))
    region.step()
    done = region.job(job["id"])
    assert [usage["elapsed_s"] for usage in done["usage"]] == [100, 50]
    assert done["charged_credits"] == 150 * 2000


def test_cancel_of_a_held_job_releases_at_once(region: World) -> None:
    job = region.submit()
    done = region.post("ines", f"/jobs/{job['id']}/cancel")
    assert (done["state"], done["charged_credits"]) == ("cancelled", 0)
    region.step()
    assert site(region).jobs == {}
    again = region.post("ines", f"/jobs/{job['id']}/cancel")
    assert again["state"] == "cancelled"


def test_cancel_of_a_running_job_is_a_wish_until_its_end_is_seen(region: World) -> None:
    job = region.submit()
    region.step()
    site(region).advance(0)
    region.step()
    site(region).advance(40)
    asked = region.post("ines", f"/jobs/{job['id']}/cancel")
    assert asked["state"] == "running"
    assert asked["cancel_requested_at"] is not None
    region.step()
    done = region.job(job["id"])
    assert (done["state"], done["charged_credits"]) == ("cancelled", 40 * 2000)


def test_cancel_while_sending_waits_for_adoption(region: World) -> None:
    job = region.submit()
    site(region).faults.cut_after = 1
    dispatch(region.desk())
    assert region.post("ines", f"/jobs/{job['id']}/cancel")["state"] == "dispatching"
    region.step()
    region.step()
    region.step()
    assert region.job(job["id"])["state"] == "cancelled"
    assert len(site(region).jobs) == 1


def test_use_beyond_the_hold_is_overrun(region: World) -> None:
    job = region.submit(time_limit_s=60)
    region.step()
    site(region).advance(0)
    site(region).jobs["1"].spec = (
        site(region)
        .jobs["1"]
        .spec.__class__(name=job_name(job["id"]), account="idf001", gpus=1, gpu_type="a100", time_limit_s=10_000)
    )
    site(region).advance(500)
    site(region).finish(job_name(job["id"]))
    region.step()
    award = region.award()
    assert award["overrun_credits"] == (500 - 120) * 2000
    assert region.job(job["id"])["charged_credits"] == 500 * 2000


def test_a_job_that_got_more_than_it_holds_is_stopped(region: World) -> None:
    job = region.submit()
    region.step()
    site(region).advance(0)
    site(region)._change(site(region).jobs["1"], gpus=4)
    region.step()
    assert region.job(job["id"])["cancel_requested_at"] is not None
    region.step()
    region.step()
    assert region.job(job["id"])["state"] == "cancelled"


def test_unknown_gpus_are_never_zero(region: World) -> None:
    job = region.submit()
    region.step()
    site(region).advance(0)
    site(region).advance(60)
    site(region).finish(job_name(job["id"]))
    site(region)._change(site(region).jobs["1"], gpus=None)
    region.step()
    open_still = region.job(job["id"])
    assert open_still["settled_at"] is None
    assert "not accounted for" in open_still["reason"]


def test_a_state_that_nobody_knows_is_not_an_end(region: World) -> None:
    job = region.submit()
    region.step()
    site(region)._change(site(region).jobs["1"], state=AttemptState.UNKNOWN, native_state="EXPEDITING")
    region.step()
    waiting = region.job(job["id"])
    assert waiting["state"] == "queued"
    assert "EXPEDITING" in waiting["reason"]


def test_report_agrees_with_the_ledger(region: World) -> None:
    for seconds in (100, 200):
        job = region.submit(gpus=2)
        region.step()
        site(region).advance(0)
        site(region).advance(seconds)
        site(region).finish(job_name(job["id"]))
        region.step()
    for by, key in (("project", "vision"), ("programme", "pack-ia-2026"), ("site", "teratec")):
        report = region.get("marc", f"/reports/gpu?from=2026-01-01&to=2100-01-01&by={by}")
        assert report["agrees"]
        assert report["rows"] == [
            {
                "key": key,
                "jobs": 2,
                "attempts": 2,
                "gpu_seconds": 600,
                "charged_credits": 600 * 2000,
                "overrun_credits": 0,
                "refunds": 0,
                "refunded_credits": 0,
                "value_micro_euros": None,
                "region_micro_euros": None,
                "company_micro_euros": None,
                "partner_micro_euros": None,
                "unvalued_attempts": 2,
                "refunded_value_micro_euros": 0,
                "refunded_company_micro_euros": 0,
                "unvalued_refunds": 0,
            }
        ]
    assert region.get("paul", "/reports/gpu?from=2026-01-01&to=2100-01-01")["rows"] == []


def test_projects_never_share_an_account(region: World) -> None:
    first, second = region.submit("ines"), region.submit("paul", project="voice")
    region.step()
    accounts = {job.spec.name: job.spec.account for job in site(region).jobs.values()}
    assert accounts[job_name(first["id"])] != accounts[job_name(second["id"])]
