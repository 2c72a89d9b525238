"""The end of an award as it reaches jobs, and what people are told of it, on both engines."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import select
from world import HOUR, World, world

from adapters.fake import FakeScheduler
from broker import expiry
from broker.chores import CHORES
from broker.known import job_name
from broker.models import Job
from cli.units import paris_today
from quotas.models import Award, Transfer
from storage.tables import utcnow

CLOSE = {"worked": "yes", "in_production": "planned", "benefit": "a faster line", "next_step": "a pilot"}
TODAY = paris_today()


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


def site(region: World) -> FakeScheduler:
    assert isinstance(region.scheduler, FakeScheduler)
    return region.scheduler


def end_award(region: World, at: datetime) -> str:
    """Let the award of `vision` and the deadlines of its jobs be at a moment that is over."""
    award_id: str = region.award()["id"]
    with region.services.database.write() as session:
        session.execute(update(Award).where(Award.id == award_id).values(end_at=at))  # type: ignore[arg-type]
        session.execute(update(Job).where(Job.award_id == award_id).values(deadline_at=at))  # type: ignore[arg-type]
    return award_id


def shown(region: World, award_id: str) -> Any:
    return region.get("marc", f"/awards/{award_id}")


def expired(region: World) -> int:
    with region.services.database.read() as session:
        return len(session.exec(select(Transfer).where(Transfer.kind == "expire")).all())


def test_a_job_that_waits_at_the_broker_never_starts_after_the_end(region: World) -> None:
    job = region.submit()
    end_award(region, utcnow() - timedelta(minutes=1))
    region.step()
    done = region.job(job["id"])
    assert (done["state"], done["charged_credits"]) == ("cancelled", 0)
    assert done["reason"] == "the award ended before the job could start"
    assert site(region).calls.count("submit") == 0


def test_a_job_that_waits_at_the_site_has_the_awards_end_as_its_deadline(region: World) -> None:
    job = region.submit()
    region.step()
    [there] = site(region).jobs.values()
    assert there.spec.deadline == datetime.fromisoformat(region.award()["end_at"])
    site(region).gpus_total = 0
    end_award(region, utcnow() - timedelta(minutes=1))
    expiry.carry_out(region.services)
    region.step()
    region.step()
    done = region.job(job["id"])
    assert (done["state"], done["charged_credits"]) == ("cancelled", 0)
    assert done["cancel_requested_at"] is not None


def test_a_running_job_is_left_to_its_site_for_ten_minutes(region: World) -> None:
    job = region.submit()
    region.step()
    site(region).advance(0)
    region.step()
    now = utcnow()
    award_id = end_award(region, now - timedelta(minutes=9))
    expiry.carry_out(region.services, now)
    assert region.job(job["id"])["cancel_requested_at"] is None
    expiry.carry_out(region.services, now + timedelta(minutes=1))
    assert region.job(job["id"])["cancel_requested_at"] is not None
    region.step()
    region.step()
    expiry.carry_out(region.services, now + timedelta(minutes=2))
    award = shown(region, award_id)
    assert (award["state"], award["held_credits"], award["available_credits"]) == ("expiring", 0, 0)


def test_no_held_job_is_sent_once_its_award_was_closed(region: World) -> None:
    """Even one that nobody asked to cancel: it was promised before the closure, and committed after it."""
    job = region.submit()
    award_id = region.award()["id"]
    with region.services.database.write() as session:
        ended = utcnow() - timedelta(seconds=1)
        session.execute(update(Award).where(Award.id == award_id).values(end_at=ended, state="expiring"))  # type: ignore[arg-type]
    region.step()
    assert region.job(job["id"])["state"] == "cancelled"
    assert site(region).calls.count("submit") == 0


def test_a_closure_ends_waiting_and_running_jobs_and_is_done_when_the_last_is_settled(region: World) -> None:
    running, queued = region.submit(gpus=8)["id"], region.submit(gpus=8)["id"]
    region.step()
    site(region).advance(0)
    site(region).advance(60)
    region.step()
    held = region.submit()["id"]
    assert [region.job(id_)["state"] for id_ in (running, queued, held)] == ["running", "queued", "held"]
    award_id = region.award()["id"]
    closed = region.post("marc", f"/awards/{award_id}/close", CLOSE)
    assert (closed["state"], closed["available_credits"]) == ("expiring", 0)
    assert region.job(held)["state"] == "cancelled"
    assert region.refused()["code"] == "award-not-active"
    region.step()
    region.step()
    assert {region.job(id_)["state"] for id_ in (running, queued)} == {"cancelled"}
    assert shown(region, award_id)["state"] == "expiring"
    expiry.carry_out(region.services)
    award = shown(region, award_id)
    assert (award["state"], award["final_credits"]) == ("closed", 8 * 60 * 2000)
    assert (award["total_credits"], award["consumed_credits"]) == (8 * 60 * 2000, 8 * 60 * 2000)
    assert award["outcome"]["jobs_created"] is None
    assert region.job(running)["charged_credits"] == 8 * 60 * 2000


def test_an_award_without_jobs_is_closed_at_once(region: World) -> None:
    closed = region.post("marc", f"/awards/{region.award()['id']}/close", {**CLOSE, "jobs_created": 2})
    assert (closed["state"], closed["final_credits"], closed["outcome"]["jobs_created"]) == ("closed", 0, 2)
    assert [event["kind"] for event in closed["events"]][-3:] == ["expired", "closure", "closed"]


def test_what_came_of_it_after_its_end(region: World) -> None:
    award_id = end_award(region, utcnow() - timedelta(minutes=1))
    told = region.post("marc", f"/awards/{award_id}/close", CLOSE)
    assert (told["state"], told["changes"]) == ("expiring", [])
    assert told["outcome"]["worked"] == "yes"


def test_any_number_of_workers_expire_an_award_once(region: World) -> None:
    award_id = end_award(region, utcnow() - timedelta(minutes=1))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: expiry.carry_out(region.services), range(8)))
    assert expired(region) == 1
    assert [event["kind"] for event in shown(region, award_id)["events"]] == [
        "requested", "granted", "expiring", "expired"
    ]  # fmt: skip
    later = utcnow() + timedelta(days=31)
    expiry.carry_out(region.services, later)
    assert shown(region, award_id)["state"] == "closed"
    assert "award-expiry" in {chore.name for chore in CHORES}


def test_many_approvals_at_one_moment_grant_once(region: World) -> None:
    award_id = region.award_for("/approve")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: region.call("marc", "POST", f"/awards/{award_id}/approve", {}), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 7]
    award = shown(region, award_id)
    assert (award["state"], award["available_credits"]) == ("active", HOUR)


def test_one_award_that_fails_leaves_the_others_alone(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from quotas.errors import AwardUnknown

    award_id = end_award(region, utcnow() - timedelta(minutes=1))
    good = expiry.advance_one

    def faulty(session: Any, id_: str, at: datetime) -> Any:
        if id_ == "awd-x":
            raise AwardUnknown("gone")
        return good(session, id_, at)

    monkeypatch.setattr(expiry, "due", lambda _session, _at: ["awd-x", award_id])
    monkeypatch.setattr(expiry, "advance_one", faulty)
    assert expiry.carry_out(region.services) == 2
    assert shown(region, award_id)["state"] == "expiring"


def test_an_extension_leaves_the_deadline_of_submitted_jobs(region: World) -> None:
    job_id = region.submit()["id"]
    award = region.award()
    end_on = str(TODAY + timedelta(days=120))
    change = region.post("marc", f"/awards/{award['id']}/extensions", {"end_on": end_on, "reason": "late data"})
    assert change["state"] == "granted"
    assert "keep the deadline" in change["notices"][0]
    later = region.submit()["id"]
    region.step()
    deadlines = {there.spec.name: there.spec.deadline for there in site(region).jobs.values()}
    assert deadlines[job_name(job_id)] == datetime.fromisoformat(award["end_at"])
    assert deadlines[job_name(later)] == datetime.fromisoformat(region.award()["end_at"]) > deadlines[job_name(job_id)]


def test_the_end_is_told_long_before(region: World) -> None:
    assert region.award()["notices"] == []
    assert region.submit()["notices"] == []
    award_id = end_award(region, utcnow() + timedelta(days=10))
    [notice] = region.award()["notices"]
    assert notice.startswith("it ends in 10 days, with ")
    assert region.submit()["notices"] == [f"award {award_id}: {notice}"]
    assert region.post("ines", "/jobs/plan", {"project": "vision", "script": "#!/bin/sh\n"})["notices"][-1].endswith(
        notice
    )
    listed = {award["id"]: award for award in region.get("marc", "/awards")["items"]}
    assert listed[award_id]["notices"] == [notice]
    storage = listed[award_id]["storage"]
    assert storage["phase"] == "writable"
    assert storage["writable_until"] == listed[award_id]["end_at"]


def test_awards_that_end_are_told_of_in_quota_until_they_are_closed(region: World) -> None:
    award_id = end_award(region, utcnow() - timedelta(hours=1))
    expiry.carry_out(region.services)
    [award] = region.get("ines", "/quota?project=vision")["awards"]
    assert (award["state"], award["active"], award["storage"]["phase"]) == ("expiring", False, "read_only")
    assert award["notices"][0].startswith("it has ended; its data may be exported until ")
    expiry.carry_out(region.services, utcnow() + timedelta(days=40))
    assert region.get("ines", "/quota?project=vision")["awards"] == []
    assert shown(region, award_id)["final_credits"] == 0


def test_an_award_that_is_asked_for_pays_for_nothing(region: World) -> None:
    region.post("marc", f"/awards/{region.award()['id']}/close", CLOSE)
    days = {"start_on": str(TODAY - timedelta(days=1)), "end_on": str(TODAY + timedelta(days=90))}
    wanted = {"project": "vision", "amount_credits": HOUR, **days}
    asked = region.post("marc", "/awards/request", wanted)
    assert (asked["state"], asked["awarded_credits"], asked["available_credits"]) == ("requested", None, 0)
    assert region.refused()["code"] == "award-not-active"
    region.post("marc", f"/awards/{asked['id']}/refuse", {"reason": "not now"})
    assert region.refused()["code"] == "award-not-active"


def test_a_continuation_is_of_the_same_project(region: World) -> None:
    before = region.award()
    days = {"start_on": str(TODAY + timedelta(days=91)), "end_on": str(TODAY + timedelta(days=180))}
    wanted = {"project": "vision", "amount_credits": HOUR, "continues": before["id"], **days}
    assert region.post("marc", "/awards", wanted)["continues"] == before["id"]
    answer = region.call("marc", "POST", "/awards", {**wanted, "project": "voice"})
    assert (answer.status_code, answer.json()["code"]) == (404, "award-unknown")


def test_dates_that_make_no_award(region: World) -> None:
    wanted = {"project": "vision", "amount_credits": HOUR, "start_on": "2027-02-01", "end_on": "2027-01-31"}
    assert region.call("marc", "POST", "/awards/request", wanted).status_code == 422
    asked = region.post("marc", "/awards/request", {**wanted, "end_on": "2027-06-30"})
    answer = region.call("marc", "POST", f"/awards/{asked['id']}/approve", {"start_on": "2027-07-01"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")


def test_the_story_is_paged(region: World) -> None:
    award_id = region.award()["id"]
    for number in range(3):
        region.post("marc", f"/awards/{award_id}/comments", {"text": f"remark {number}"})
    first = region.get("ines", f"/awards/{award_id}/events?limit=3")
    rest = region.get("ines", f"/awards/{award_id}/events?limit=3&cursor={first['next_cursor']}")
    texts = [event["text"] for event in first["items"] + rest["items"]]
    assert texts[-3:] == ["remark 0", "remark 1", "remark 2"]
    assert region.call("ines", "GET", f"/awards/{award_id}/events?cursor=YWJj").status_code == 400
