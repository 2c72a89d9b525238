"""A site that keeps ended jobs is told which are booked: all of them, and nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from world import World, world

from adapters.fake import FakeScheduler
from adapters.port import Accepted, Answer, Keeper, Known, Unreachable
from broker.known import job_name
from broker.let_go import let_go


class Keeping(FakeScheduler):
    """A site in memory that keeps all its ended jobs until it is told otherwise."""

    away = False

    def kept(self) -> Sequence[Known]:
        left = [
            job for job in self.jobs.values() if job.attempts[-1].state.ended and job.spec.name not in self.forgotten
        ]
        return [Known(job.spec.name, job.spec.account, job.site_job_id, self.now) for job in left]

    def forget(self, known: Sequence[Known]) -> Mapping[str, Answer]:
        if self.away:
            return {job.name: Unreachable("away") for job in known}
        self.forgotten.update(job.name for job in known)
        return {job.name: Accepted(job.site_job_id) for job in known}

    @property
    def forgotten(self) -> set[str]:
        return self.__dict__.setdefault("told", set())


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path, Keeping(accounts=frozenset({"idf001"}))) as made:
        yield made


def test_only_what_is_settled_is_let_go(region: World) -> None:
    site = region.scheduler
    assert isinstance(site, Keeping)
    settled = region.charged()["id"]
    open_id = region.submit()["id"]
    region.step()
    site.advance(0)
    site.finish(job_name(open_id))
    assert {job.name for job in site.kept()} == {job_name(settled), job_name(open_id)}
    assert let_go(region.desk()) == 1
    assert site.forgotten == {job_name(settled)}
    region.step()
    assert let_go(region.desk()) == 1
    assert let_go(region.desk()) == 0


def test_what_did_not_arrive_is_told_again(region: World) -> None:
    site = region.scheduler
    assert isinstance(site, Keeping)
    region.charged()
    site.away = True
    assert let_go(region.desk()) == 0
    site.away = False
    assert let_go(region.desk()) == 1


def test_a_job_of_that_name_under_another_id_stays(region: World) -> None:
    site = region.scheduler
    assert isinstance(site, Keeping)
    job_id = region.charged()["id"]
    job = next(iter(site.jobs.values()))
    site.jobs[job.site_job_id].site_job_id = "another"
    assert let_go(region.desk()) == 0
    assert job_name(job_id) not in site.forgotten


def test_a_site_that_keeps_nothing_is_not_asked(database_url: str, tmp_path: Path) -> None:
    with world(database_url, tmp_path) as made:
        assert not isinstance(made.scheduler, Keeper)
        assert let_go(made.desk()) == 0
