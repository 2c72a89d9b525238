"""The second line at sites: what it comes to, that it is written when it changes, and that nothing reads it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import select, update
from world import HOUR, SITE, World, world

from adapters.fake import FakeScheduler
from broker.accounts import group_of
from broker.backstops import Stand, gpu_minutes, limit_all
from broker.known import job_name
from broker.models import Project, ProjectAccount
from storage.tables import utcnow


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made


def stand(**changes: int) -> Stand:
    figures = {"used_gpu_s": 0, "held_gpu_s": 0, "left_credits": 0, "sites": 1, "weight_thousandths": 1000}
    return Stand(**{**figures, **changes})


@pytest.mark.parametrize(
    ("changes", "minutes"),
    [
        ({}, 0),
        ({"left_credits": HOUR}, 60),
        ({"left_credits": HOUR, "weight_thousandths": 2000}, 30),
        ({"left_credits": HOUR, "sites": 3}, 20),
        ({"left_credits": 1}, 1),
        ({"used_gpu_s": 61}, 2),
        ({"used_gpu_s": 600, "held_gpu_s": 300, "left_credits": HOUR, "sites": 2}, 45),
    ],
)
def test_it_is_what_was_used_and_held_and_a_share_of_what_is_left(changes: dict[str, int], minutes: int) -> None:
    assert gpu_minutes(stand(**changes)) == minutes


def limit(region: World, project: str = "vision") -> int | None:
    with region.services.database.read() as session:
        id_ = session.exec(select(Project.id).where(Project.name == project)).one()
    return region.upkeep.limits.get(group_of(id_))


def test_it_is_written_for_open_accounts_and_again_only_when_it_changes(region: World) -> None:
    assert limit_all(region.services) == 0
    region.submit(gpus=2, time_limit_s=3600)
    region.step()
    assert limit_all(region.services) == 1
    # 100 normalised GPU-hours of a class of weight 2 are 50 of its GPU-hours; the hold is among them.
    assert limit(region) == 50 * 60
    assert limit(region, "voice") is None
    assert limit_all(region.services) == 0
    assert region.upkeep.calls.count("limit") == 1


def test_what_an_award_can_pay_is_never_stopped_by_it(region: World) -> None:
    """After any course of jobs, the limit covers what Slurm counted and may count for what is held or left."""
    assert isinstance(region.scheduler, FakeScheduler)
    counted_s = 0
    for seconds in (600, 1234, 3600):
        job_id = region.submit(gpus=2, time_limit_s=3600)["id"]
        region.step()
        limit_all(region.services)
        region.scheduler.advance(0)
        region.scheduler.advance(seconds)
        if seconds < 3600:
            region.scheduler.finish(job_name(job_id))
        region.step()
        counted_s += 2 * seconds
        limit_all(region.services)
        left_s = region.award()["available_credits"] // 2000
        assert (limit(region) or 0) * 60 >= counted_s + left_s
    assert limit(region) == 50 * 60


def test_two_sites_share_what_is_left_and_each_has_what_is_held_there(region: World) -> None:
    region.enrol_site(name="second", accounts=["idf008", "idf009"])
    region.enter_contract("second")
    region.submit(site="teratec", gpus=2, time_limit_s=3600)
    region.step_everywhere()
    region.submit(site="second", gpus=4, time_limit_s=3600)
    region.step_everywhere()
    limit_all(region.services)
    held_1, held_2 = 2 * (3600 + SITE["kill_grace_s"]), 4 * (3600 + SITE["kill_grace_s"])
    left = region.award()["available_credits"]
    shares = {row.account: row.gpu_minutes_max for row in rows(region)}
    assert shares == {
        "idf001": -(-(held_1 + -(-left // 4000)) // 60),
        "idf008": -(-(held_2 + -(-left // 4000)) // 60),
    }


def rows(region: World) -> list[ProjectAccount]:
    with region.services.database.read() as session:
        found = session.exec(select(ProjectAccount)).all()
        for row in found:
            session.expunge(row)
        return list(found)


def test_a_site_that_is_away_gets_it_later(region: World) -> None:
    region.submit()
    region.step()
    region.upkeep.away = True
    assert limit_all(region.services) == 0
    assert rows(region)[0].gpu_minutes_max is None
    region.upkeep.away = False
    assert limit_all(region.services) == 1
    assert rows(region)[0].limited_at is not None


def test_it_is_never_read_back_into_the_ledger(region: World) -> None:
    region.submit()
    region.step()
    limit_all(region.services)
    before = region.award()
    with region.services.database.write() as session:
        session.execute(update(ProjectAccount).values(gpu_minutes_max=0, limited_at=utcnow()))
    region.upkeep.limits.clear()
    assert region.award() == before
    assert region.submit()["state"] == "held"
    limit_all(region.services)
    assert limit(region) == 50 * 60, "it is overwritten"
    assert region.faults() == []
