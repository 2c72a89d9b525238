"""Accounts of a pool: given, opened, waited for, taken back, wiped and given again."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select, update
from world import World, world

from adapters.errors import Rejected, Uncertain
from adapters.fake import FakeScheduler
from broker import accounts as pool
from broker.accounts import LEASE, OPEN_AGAIN, group_of
from broker.dispatch import dispatch
from broker.known import job_name
from broker.leaving import take_back_all
from broker.models import Job, Project, ProjectAccount, Site
from quotas.award_life import AwardState
from quotas.models import Award
from storage.tables import utcnow


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    """A region whose site has two accounts."""
    with world(database_url, tmp_path) as made:
        with made.services.database.write() as session:
            site = session.exec(select(Site)).one()
            site.settings = {**site.settings, "accounts": ["idf001", "idf002"]}
            session.add(site)
        yield made


def scheduler(region: World) -> FakeScheduler:
    assert isinstance(region.scheduler, FakeScheduler)
    return region.scheduler


def held_accounts(region: World) -> dict[str, ProjectAccount]:
    """By project."""
    with region.services.database.read() as session:
        rows = session.exec(
            select(ProjectAccount, Project.name).join(Project, col(Project.id) == col(ProjectAccount.project_id))
        ).all()
        for row, _ in rows:
            session.expunge(row)
        return {name: row for row, name in rows}


def project_id(region: World, name: str) -> str:
    with region.services.database.read() as session:
        return session.exec(select(Project.id).where(Project.name == name)).one()


def another_project(region: World, name: str, person: str = "nemo") -> None:
    """A third project, for which the pool has no room."""
    region.post("marc", "/projects", {"name": name, "organisation": "acme", "programme": "pack-ia-2026"})
    region.post("marc", f"/projects/{name}/members", {"person": person})
    today = utcnow().date()
    days = {"start_on": str(today - timedelta(days=1)), "end_on": str(today + timedelta(days=90))}
    region.post("marc", "/awards", {"project": name, "amount_credits": 360_000_000, **days})


def set_awards(region: World, name: str, state: AwardState) -> None:
    with region.services.database.write() as session:
        theirs = col(Award.project_id) == project_id(region, name)
        final = 0 if state is AwardState.CLOSED else None
        session.execute(update(Award).where(theirs).values(state=state.value, final_credits=final))


def finish(region: World, job_id: str) -> None:
    scheduler(region).advance(0)
    scheduler(region).advance(60)
    scheduler(region).finish(job_name(job_id))
    region.step()


def later(region: World, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the clock of what keeps accounts."""
    from broker import leaving

    def then() -> datetime:
        return utcnow() + timedelta(seconds=seconds)

    monkeypatch.setattr(pool, "utcnow", then)
    monkeypatch.setattr(leaving, "utcnow", then)


def full(region: World) -> tuple[str, str]:
    """Both accounts are taken by jobs that have ended; the third project's job waits. Returns it and voice's job."""
    first, second = region.submit()["id"], region.submit("paul", project="voice")["id"]
    region.step()
    finish(region, first)
    finish(region, second)
    another_project(region, "sound")
    return region.submit("nemo", project="sound")["id"], second


def test_an_account_is_opened_on_the_books_of_its_project_before_anything_is_sent(region: World) -> None:
    region.submit()
    region.step()
    assert region.upkeep.open == {"idf001": group_of(project_id(region, "vision"))}
    assert held_accounts(region)["vision"].opened_at is not None
    region.submit()
    region.step()
    assert region.upkeep.calls.count("open") == 1, "once"


def test_a_job_waits_while_its_account_cannot_be_opened(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    region.upkeep.away = True
    job_id = region.submit()["id"]
    region.step()
    region.step()
    job = region.job(job_id)
    assert job["state"] == "held"
    assert "account at site teratec is not open yet: the fake site is away" in job["reason"]
    assert not scheduler(region).jobs
    region.upkeep.away = False
    region.step()
    assert region.job(job_id)["state"] == "held", "it is not asked at every turn"
    later(region, 20, monkeypatch)
    region.step()
    assert (region.job(job_id)["state"], region.job(job_id)["reason"]) == ("queued", None)


def test_a_job_waits_with_the_reason_while_the_pool_is_used_up(region: World) -> None:
    waiting, _ = full(region)
    job = region.job(waiting, "nemo")
    assert job["state"] == "held"
    assert "no account of site teratec is free" in job["reason"]
    assert any("no account of site teratec is free" in notice for notice in job["notices"])
    region.step()
    assert region.job(waiting, "nemo")["state"] == "held"
    assert region.award("sound")["held_credits"] > 0, "its hold stands"
    assert region.submit()["state"] == "held", "a project's own account stays its own"
    region.step()
    assert len(scheduler(region).jobs) == 3


def test_a_plan_says_that_it_would_wait(region: World) -> None:
    full(region)
    planned = region.post("nemo", "/jobs/plan", {**{"script": "true", "gpus": 1, "time_limit_s": 60}})
    assert any("no account of site teratec is free" in notice for notice in planned["notices"])


def test_a_waiting_job_can_be_cancelled_and_ends_with_its_deadline(region: World) -> None:
    waiting, _ = full(region)
    late = region.submit("nemo", project="sound")["id"]
    with region.services.database.write() as session:
        session.execute(update(Job).where(col(Job.id) == late).values(deadline_at=utcnow() - timedelta(seconds=1)))
    region.step()
    assert region.job(late, "nemo")["state"] == "cancelled"
    region.post("nemo", f"/jobs/{waiting}/cancel")
    assert region.job(waiting, "nemo")["state"] == "cancelled"
    assert region.award("sound")["held_credits"] == 0


def test_an_account_comes_free_when_its_projects_last_award_is_closed(region: World) -> None:
    waiting, _ = full(region)
    region.upkeep.left_over["idf002"] = ["/home/idf002/model.pt", "/dev/shm/key"]
    assert take_back_all(region.services) == 0, "an award still runs"
    set_awards(region, "voice", AwardState.EXPIRING)
    assert take_back_all(region.services) == 0, "what lies there is being exported"
    set_awards(region, "voice", AwardState.CLOSED)
    assert take_back_all(region.services) == 1
    assert "idf002" not in region.upkeep.open
    assert region.upkeep.left_over == {}
    region.step()
    assert region.job(waiting, "nemo")["state"] == "queued"
    assert region.upkeep.open["idf002"] == group_of(project_id(region, "sound"))
    assert {job.spec.account for job in scheduler(region).jobs.values()} == {"idf001", "idf002"}
    assert region.faults() == []


def test_access_goes_at_once_and_what_lies_there_waits_for_an_award_that_is_asked_for(region: World) -> None:
    full(region)
    set_awards(region, "voice", AwardState.CLOSED)
    region.award_for("")  # of vision, to see that it is not that one's that counts
    today = utcnow().date()
    days = {"start_on": str(today), "end_on": str(today + timedelta(days=9))}
    asked = region.post("marc", "/awards/request", {"project": "voice", "amount_credits": 3_600_000, **days})
    assert take_back_all(region.services) == 0
    assert "idf002" not in region.upkeep.open
    assert "wipe" not in region.upkeep.calls
    region.post("marc", f"/awards/{asked['id']}/refuse", {"reason": "no"})
    assert take_back_all(region.services) == 1


def test_a_project_that_gets_a_new_award_has_its_account_opened_again(region: World) -> None:
    full(region)
    set_awards(region, "voice", AwardState.CLOSED)
    today = utcnow().date()
    days = {"start_on": str(today - timedelta(days=1)), "end_on": str(today + timedelta(days=9))}
    region.post("marc", "/awards/request", {"project": "voice", "amount_credits": 3_600_000, **days})
    take_back_all(region.services)
    assert "idf002" not in region.upkeep.open
    region.post("marc", "/awards", {"project": "voice", "amount_credits": 360_000_000, **days})
    job_id = region.submit("paul", project="voice")["id"]
    region.step()
    assert region.job(job_id, "paul")["state"] == "queued"
    assert "idf002" in region.upkeep.open


def test_an_account_with_jobs_is_not_left(region: World) -> None:
    region.submit()
    region.step()
    set_awards(region, "vision", AwardState.CLOSED)
    assert take_back_all(region.services) == 0
    assert held_accounts(region)["vision"].left_at is None
    assert region.upkeep.open


def test_what_cannot_be_wiped_is_not_given_again_and_says_why(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, _ = full(region)
    set_awards(region, "voice", AwardState.CLOSED)
    region.upkeep.stuck = "/dev/shm"
    assert take_back_all(region.services) == 0
    region.step()
    assert region.job(waiting, "nemo")["state"] == "held"
    listed = {row["account"]: row for row in region.get("olga", "/sites/teratec/accounts")["items"]}
    assert listed["idf002"]["state"] == "leaving"
    assert listed["idf002"]["trouble"] == "something in /dev/shm cannot be removed"
    assert (listed["idf001"]["state"], listed["idf001"]["project"]) == ("open", "vision")
    region.upkeep.stuck = ""
    assert take_back_all(region.services) == 0, "not at every turn"
    later(region, 20, monkeypatch)
    assert take_back_all(region.services) == 1


def test_a_wipe_that_may_still_be_under_way_is_left_alone(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    full(region)
    set_awards(region, "voice", AwardState.CLOSED)
    calls: list[str] = []

    def cut(account: str) -> None:
        calls.append(account)
        raise Uncertain("the connection broke before the answer came")

    monkeypatch.setattr(region.upkeep, "wipe", cut)
    take_back_all(region.services)
    later(region, LEASE.total_seconds() - 30, monkeypatch)
    take_back_all(region.services)
    assert calls == ["idf002"]
    later(region, LEASE.total_seconds() + 30, monkeypatch)
    take_back_all(region.services)
    assert calls == ["idf002", "idf002"]
    assert "voice" in held_accounts(region)


def test_an_opening_that_was_cut_is_repeated_soon_and_nothing_is_closed_before_its_end(
    region: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = region.upkeep.open_account, []

    def cut(account: str, group: str) -> None:
        calls.append(account)
        if len(calls) == 1:
            raise Uncertain("the connection broke before the answer came")
        real(account, group)

    monkeypatch.setattr(region.upkeep, "open_account", cut)
    job = region.submit()
    region.step()
    region.step()
    assert (len(calls), region.job(job["id"])["state"]) == (1, "held")
    later(region, OPEN_AGAIN.total_seconds() + 1, monkeypatch)
    region.step()
    assert (len(calls), region.job(job["id"])["state"]) == (2, "queued")
    finish(region, job["id"])
    region.step()
    set_awards(region, "vision", AwardState.CLOSED)
    assert take_back_all(region.services) == 0, "the first opening may still be under way"
    assert "vision" in held_accounts(region)
    later(region, 2 * LEASE.total_seconds(), monkeypatch)
    assert take_back_all(region.services) == 1


def test_two_workers_do_not_wipe_the_same_account(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    full(region)
    set_awards(region, "voice", AwardState.CLOSED)
    real, calls = region.upkeep.wipe, []

    def meanwhile(account: str) -> None:
        calls.append(account)
        take_back_all(region.services)
        real(account)

    monkeypatch.setattr(region.upkeep, "wipe", meanwhile)
    assert take_back_all(region.services) == 1
    assert calls == ["idf002"]


def test_a_job_that_came_in_while_its_account_was_left_waits_for_another(region: World) -> None:
    """The plan was made before the account was left, the hold committed after it."""
    job_id = region.submit()["id"]
    region.step()
    finish(region, job_id)
    late = region.submit()["id"]
    with region.services.database.write() as session:
        session.execute(update(ProjectAccount).values(left_at=utcnow()))
    dispatch(region.desk())
    assert region.job(late)["state"] == "held"
    assert "no account" in region.job(late)["reason"]
    assert len(scheduler(region).jobs) == 1
    planned = region.post("ines", "/jobs/plan", {**{"script": "true", "gpus": 1, "time_limit_s": 60}})
    assert any("no account" in notice for notice in planned["notices"]), "one that is being wiped is none"


def test_a_job_never_runs_as_an_account_that_is_anothers_by_now(region: World) -> None:
    late = region.submit()["id"]
    with region.services.database.write() as session:
        session.execute(update(ProjectAccount).values(project_id=project_id(region, "voice"), opened_at=utcnow()))
    dispatch(region.desk())
    dispatch(region.desk())
    sent = [job.spec.account for job in scheduler(region).jobs.values()]
    assert sent in ([], ["idf002"])
    assert region.job(late)["state"] == ("queued" if sent else "held")


def test_the_log_of_an_account_that_was_given_again_is_not_read(region: World) -> None:
    waiting, voices = full(region)
    scheduler(region).write_log(job_name(voices), b"voice's secret")
    assert region.call("paul", "GET", f"/jobs/{voices}/log").content == b"voice's secret"
    set_awards(region, "voice", AwardState.CLOSED)
    take_back_all(region.services)
    region.step()
    scheduler(region).write_log(job_name(voices), b" forged")
    answer = region.call("paul", "GET", f"/jobs/{voices}/log")
    assert (answer.status_code, answer.content, answer.headers["Idf-Log-Exists"]) == (200, b"", "false")
    assert region.job(waiting, "nemo")["state"] == "queued"


def test_a_refusal_to_open_is_shown_and_tried_again(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(account: str, group: str) -> None:
        raise Rejected(f"sacctmgr add user: {account} is not known on {group}")

    monkeypatch.setattr(region.upkeep, "open_account", refuse)
    job_id = region.submit()["id"]
    region.step()
    region.step()
    assert "idf001 is not known" in region.job(job_id)["reason"]
    assert "idf001 is not known" in (held_accounts(region)["vision"].trouble or "")


def test_jobs_whose_account_cannot_be_opened_hold_up_nobody(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = region.upkeep.open_account

    def only_the_second(account: str, group: str) -> None:
        if account == "idf001":
            raise Rejected("no")
        real(account, group)

    monkeypatch.setattr(region.upkeep, "open_account", only_the_second)
    desk_settings = region.services.settings
    blocked = [region.submit()["id"] for _ in range(3)]
    monkeypatch.setattr(desk_settings, "dispatch_batch_max", 2)
    other = region.submit("paul", project="voice")["id"]
    region.step()
    region.step()
    assert region.job(other, "paul")["state"] == "queued"
    assert {region.job(id_)["state"] for id_ in blocked} == {"held"}


def test_only_those_who_see_to_sites_see_who_has_which_account(region: World) -> None:
    for person, status in {"olga": 200, "alma": 200, "marc": 403, "ines": 403}.items():
        assert region.call(person, "GET", "/sites/teratec/accounts").status_code == status
    listed: Any = region.get("olga", "/sites/teratec/accounts")
    assert listed == {"items": [], "next_cursor": None}
