"""Where a project's data may go, from the certificate that an operator enters to the job that is placed by it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from world import HOUR, JOB, World, world

from broker.models import Job, Project
from cli.units import paris_today


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


def data_of(region: World, confidentiality: str = "internal", nature: str = "none") -> None:
    with region.services.database.write() as session:
        session.execute(update(Project).values(confidentiality=confidentiality, nature=nature))


def free_hours_first(region: World) -> None:
    policy = {"kind": "pack-ia", "default_time_limit_s": 1800, "free_hours_first": True}
    region.post("marc", "/programmes/pack-ia-2026/policy", policy)


def second_site(region: World, **changes: Any) -> None:
    region.enrol_site(name="second", **changes)


def allocated(region: World, site: str) -> None:
    region.enter_contract(
        site, kind="allocated", order_number=None, dossier="A018", holder="GENCI", holder_project="tpu"
    )


def table_of(plan: Any) -> dict[str, Any]:
    return {row["site"]: row for row in plan["sites"]}


def test_health_data_waits_for_a_certificate_that_two_operators_saw(region: World) -> None:
    data_of(region, nature="health")
    assert "site teratec has none" in region.refused()["detail"]
    entered = region.certification()
    assert "waits for a second operator's confirmation" in region.refused()["detail"]
    alone = region.call("olga", "POST", f"/certifications/{entered}/confirm")
    assert (alone.status_code, "takes two people" in alone.json()["detail"]) == (403, True)
    confirmed = region.post("otto", f"/certifications/{entered}/confirm")
    assert (confirmed["state"], confirmed["entered_by"], confirmed["confirmed_by"]) == ("valid", "olga", "otto")
    assert region.submit()["site"] == "teratec"
    withdrawn = region.post("otto", f"/certifications/{entered}/withdraw", {"reason": "suspended"})
    assert (withdrawn["state"], withdrawn["withdrawn_why"]) == ("withdrawn", "suspended")
    assert "site teratec has none" in region.refused()["detail"]
    again = region.call("otto", "POST", f"/certifications/{entered}/confirm")
    assert (again.status_code, "was withdrawn" in again.json()["detail"]) == (400, True)


def test_a_job_is_to_end_before_the_certificate_does(region: World) -> None:
    data_of(region, nature="health")
    last = paris_today() + timedelta(days=20)
    ended = region.certification(start_on="2020-01-01", end_on="2020-12-31")
    for id_ in (ended, region.certification(end_on=str(last))):
        region.post("otto", f"/certifications/{id_}/confirm")
    job = region.submit()
    listed = region.get("ines", "/certifications?site=teratec")["items"]
    assert [row["state"] for row in listed] == ["ended", "valid"]
    with region.services.database.read() as session:
        deadline_at = session.scalars(select(Job.deadline_at).where(Job.id == job["id"])).one()
    assert deadline_at.isoformat() == listed[1]["end_at"].replace("Z", "+00:00"), "sooner than award and contract"


def test_a_deployment_may_ask_for_more(region: World) -> None:
    region.services.settings.certifications_needed["internal"] = {"iso-27001": "2022"}
    assert "internal data is computed on by a service with ISO 27001 2022 only" in region.refused()["detail"]
    data_of(region, "public")
    assert region.submit()["state"] == "held", "public data never asks for a proof"


def test_free_hours_come_before_bought_ones_where_the_programme_says_so(region: World) -> None:
    region.enrol_site(name="zenith")
    allocated(region, "zenith")
    assert table_of(region.post("ines", "/jobs/plan", JOB))["teratec"]["chosen"], "alike: the first by name"
    free_hours_first(region)
    rows = table_of(region.post("ines", "/jobs/plan", JOB))
    assert (rows["zenith"]["chosen"], rows["zenith"]["contract_kind"]) == (True, "allocated")
    assert region.submit()["site"] == "zenith"


def test_the_table_of_a_dry_run_names_every_site_and_each_reason(region: World) -> None:
    second_site(region, gpus_per_job_max=4)
    region.enter_contract("second")
    second = {**JOB, "gpus": 8}
    rows = table_of(region.post("ines", "/jobs/plan", second))
    assert (rows["teratec"]["chosen"], rows["teratec"]["contract_kind"]) == (True, "purchased")
    assert rows["second"]["detail"] == "8 GPUs were asked for, site second gives a job at most 4"
    assert rows["second"]["remedy"] == "--gpus 4"
    assert rows["second"]["held_credits"] is None


def test_the_table_is_there_when_no_site_takes_the_job(region: World) -> None:
    second_site(region, gpus_per_job_max=4)
    answer = region.call("ines", "POST", "/jobs/plan", {**JOB, "gpus": 9}).json()
    assert answer["code"] == "placement-refused"
    assert {row["site"]: row["remedy"] for row in answer["sites"]} == {"second": "--gpus 4", "teratec": "--gpus 8"}


def test_an_award_that_cannot_pay_is_the_reason_at_every_site(region: World) -> None:
    second_site(region)
    answer = region.call("ines", "POST", "/jobs/plan", {**JOB, "gpus": 8, "time_limit_s": 24 * 3600}).json()
    assert answer["code"] == "award-too-small"
    assert {row["code"] for row in answer["sites"]} == {"award-too-small"}


def test_of_sites_that_start_alike_the_cheaper_is_chosen(region: World) -> None:
    second_site(region, gpu_types={"v100-32": "v100"})
    region.post("marc", "/gpu-classes", {"name": "v100-32", "weight_thousandths": 1000, "valid_from": "2026-01-01"})
    region.enter_contract("second", "v100-32")
    rows = table_of(region.post("ines", "/jobs/plan", JOB))
    assert (rows["second"]["chosen"], rows["teratec"]["chosen"]) == (True, False), "half the credits"
    assert rows["teratec"]["held_credits"] == 2 * rows["second"]["held_credits"]


def test_of_sites_that_cost_the_same_credits_the_one_of_lower_tariff_is_chosen(region: World) -> None:
    region.enrol_site(name="alpha")
    region.enter_contract("alpha")
    for site, tariff in (("alpha", 3_000_000), ("teratec", 2_000_000)):
        body = {"site": site, "gpu_class": "a100-80", "micro_euros_per_gpu_hour": tariff, "valid_from": "2026-01-01"}
        region.post("marc", "/tariffs", body)
    rows = table_of(region.post("ines", "/jobs/plan", JOB))
    assert rows["teratec"]["chosen"]
    assert rows["teratec"]["price_micro_euros"] == 2_000_000 * 3660 // 3600
    assert HOUR > rows["alpha"]["price_micro_euros"] > rows["teratec"]["price_micro_euros"]


def test_a_job_that_waits_is_not_sent_once_its_certificate_is_withdrawn(region: World) -> None:
    data_of(region, nature="health")
    first = region.certification()
    region.post("otto", f"/certifications/{first}/confirm")
    job = region.submit()["id"]
    region.post("olga", f"/certifications/{first}/withdraw", {"reason": "suspended"})
    region.step()
    waiting = region.job(job)
    assert waiting["state"] == "held"
    assert waiting["reason"].startswith("waits: health data is computed on by a service with HDS 2 only")
    region.post("otto", f"/certifications/{region.certification()}/confirm")
    with region.services.database.write() as session:
        session.execute(update(Job).values(next_try_at=None))
    region.step()
    assert region.job(job)["state"] == "queued"


def test_a_dry_run_says_what_the_hold_is_worth_where_there_is_one_site(region: World) -> None:
    assert table_of(region.post("ines", "/jobs/plan", JOB))["teratec"]["price_micro_euros"] is None, "unknown, not 0"
    tariff = {"micro_euros_per_gpu_hour": 2_000_000, "valid_from": "2026-01-01"}
    region.post("marc", "/tariffs", {"site": "teratec", "gpu_class": "a100-80", **tariff})
    rows = table_of(region.post("ines", "/jobs/plan", JOB))
    assert rows["teratec"]["price_micro_euros"] == 2_000_000 * 3660 // 3600
