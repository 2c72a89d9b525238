"""What a site says of a job, as people of its project read it."""

from collections.abc import Sequence
from pathlib import Path

from world import World, world

from adapters.errors import Unreachable
from adapters.fake import FakeScheduler
from adapters.port import SiteEvent, Teller
from broker.known import job_name
from storage.tables import utcnow


class Telling(FakeScheduler):
    """A scheduler whose site keeps what its parts say."""

    away = False

    def site_events(self, account: str, name: str) -> Sequence[SiteEvent]:
        if self.away:
            raise Unreachable("its API server sleeps")
        return [SiteEvent(self.now, "FailedScheduling", f"{account} {name}: no GPU \x1b[2J", warning=True, count=3)]


def events(region: World, job_id: str, person: str = "ines") -> object:
    return region.get(person, f"/jobs/{job_id}/site-events")


def test_the_sites_words_are_told_to_those_who_read_logs(database_url: str, tmp_path: Path) -> None:
    scheduler = Telling(now=utcnow(), gpus_total=8)
    assert isinstance(scheduler, Teller)
    with world(database_url, tmp_path, scheduler) as region:
        job_id = region.submit()["id"]
        assert events(region, job_id) == {"items": [], "unknown": "it was not sent, or its site has let go of it"}
        region.step()
        told = region.get("ines", f"/jobs/{job_id}/site-events")
        [event] = told["items"]
        assert (event["reason"], event["warning"], event["count"]) == ("FailedScheduling", True, 3)
        assert event["message"] == f"idf001 {job_name(job_id)}: no GPU \x1b[2J"
        scheduler.away = True
        assert events(region, job_id) == {"items": [], "unknown": "site teratec: its API server sleeps"}
        assert region.call("paul", "GET", f"/jobs/{job_id}/site-events").status_code == 404


def test_a_slurm_site_tells_none(database_url: str, tmp_path: Path) -> None:
    with world(database_url, tmp_path) as region:
        job_id = region.submit()["id"]
        region.step()
        assert events(region, job_id) == {"items": [], "unknown": "a Slurm site tells no events"}
        assert not isinstance(region.scheduler, Teller)
