"""What an operator may change of an enrolled site, and what still stands on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select, update
from world import SITE, World, world

from broker.lifecycle import JobState
from broker.models import Job, Project, Site


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made


def change(region: World, **changes: Any) -> Any:
    return region.post("olga", "/sites/teratec/settings", {**SITE, **changes})


def refused(region: World, **changes: Any) -> str:
    answer = region.call("olga", "POST", "/sites/teratec/settings", {**SITE, **changes})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request"), answer.text
    assert answer.json()["remedy"]
    return str(answer.json()["detail"])


def test_a_change_is_audited_and_holds_from_then_on(region: World) -> None:
    calls = region.upkeep.calls.count("audit")
    answer = change(region, accounts=["idf001", "idf002", "idf003", "idf004"], gpus_per_job_max=4)
    assert (answer["free_accounts"], answer["gpus_per_job_max"], answer["problems"]) == (4, 4, [])
    assert region.upkeep.calls.count("audit") == calls + 1
    assert region.get("ines", "/sites")["items"][0]["gpus_per_job_max"] == 4
    assert "4" in region.refused(gpus=8)["detail"]


def test_a_change_that_brings_a_problem_keeps_jobs_away(region: World) -> None:
    assert change(region, cluster="other")["problems"]
    region.refused()
    assert change(region)["problems"] == []
    assert region.submit()["state"] == "held"


def test_the_file_of_another_site_changes_nothing(region: World) -> None:
    assert "describes site second" in refused(region, name="second")
    assert region.call("olga", "POST", "/sites/second/settings", {**SITE, "name": "second"}).status_code == 404


def test_the_cluster_of_a_site_that_had_jobs_stays(region: World) -> None:
    region.charged()
    assert "part of the name of each attempt" in refused(region, cluster="other")


def test_an_account_that_a_project_has_stays_in_the_pool(region: World) -> None:
    region.submit()
    region.step()
    assert "projects have idf001" in refused(region, accounts=["idf002", "idf003"])
    change(region, accounts=["idf001", "idf002"])
    assert "cannot change while" in refused(region, isolation="shared")


def test_the_one_account_of_a_shared_site_stays_while_jobs_are_there(region: World) -> None:
    change(region, isolation="shared", accounts=["idf"])
    with region.services.database.write() as session:
        session.execute(update(Project).values(confidentiality="public"))
    region.submit()
    assert "account of site teratec" in refused(region, isolation="shared", accounts=["other"])


def test_a_class_that_a_job_holds_stays(region: World) -> None:
    region.submit()
    assert "jobs at site teratec hold a100-80" in refused(region, gpu_types={"h100-80": "h100"}, constraints={})


def test_a_job_of_a_class_that_went_meanwhile_waits(region: World) -> None:
    job = region.submit()
    with region.services.database.write() as session:
        site = session.exec(select(Site)).one()
        site.settings = {**site.settings, "gpu_types": {"h100-80": "h100"}}
        session.add(site)
    region.step()
    assert region.get("ines", f"/jobs/{job['id']}")["state"] == "held"


@pytest.mark.parametrize(
    "way", [{"port": 2222}, {"login": "other"}, {"transport": "rest", "rest_url": "http://127.0.0.1:6820"}]
)
def test_how_a_site_is_reached_stays_while_jobs_are_being_sent(region: World, way: dict[str, Any]) -> None:
    job = region.submit()
    with region.services.database.write() as session:
        row = session.exec(select(Job).where(Job.id == job["id"])).one()
        row.state = JobState.DISPATCHING.value
        session.add(row)
    assert "are being sent" in refused(region, **way)
    change(region, gpus_per_job_max=4)
