"""Contracts: the second side of every hold, on both engines."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlmodel import select
from world import World, world

from adapters.fake import FakeScheduler
from broker.models import Job
from cli.units import paris_today
from quotas.charging import GPUS_ONLY, Size
from quotas.contracts import Capacity, CapacityNeed, choose_contract
from quotas.errors import ContractTooSmall, QuotaError

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


def contract(region: World) -> dict[str, int]:
    [found] = region.get("marc", "/contracts")["items"]
    return {name: found[f"{name}gpu_seconds"] for name in ("", "available_", "held_", "consumed_", "overrun_")}


def offer(
    name: str, *, ends_in_s: int = 9_000, left_s: int = 10_000, weight: int = 1000, kind: str = "purchased"
) -> Capacity:
    return Capacity(name, kind, NOW - timedelta(days=1), NOW + timedelta(seconds=ends_in_s), weight, left_s * weight)


def need(gpu_seconds: int = 3_660, *, free_first: bool = False) -> CapacityNeed:
    return CapacityNeed("teratec", "a100-80", GPUS_ONLY, Size(1), gpu_seconds, 3_600, NOW, free_first)


def test_both_sides_of_a_hold_move_together(region: World) -> None:
    region.submit(gpus=2)
    held_s = 2 * (3600 + 60)
    assert contract(region) == {"": 5000 * 3600, "available_": 5000 * 3600 - held_s, "held_": held_s,
                                "consumed_": 0, "overrun_": 0}  # fmt: skip
    assert region.award()["held_credits"] == held_s * 2000


def test_what_ran_is_consumed_and_the_rest_given_back_on_both_sides(region: World) -> None:
    job = region.submit(gpus=2)
    region.step()
    assert isinstance(region.scheduler, FakeScheduler)
    region.scheduler.advance(100)
    region.post("ines", f"/jobs/{job['id']}/cancel")
    for _ in range(3):
        region.step()
    done = region.job(job["id"])
    assert done["settled_at"] is not None
    used_s = done["charged_credits"] // 2000
    left = contract(region)
    assert (left["held_"], left["consumed_"], left["available_"]) == (0, used_s, 5000 * 3600 - used_s)


def test_the_contract_counts_at_the_weight_of_its_signing(region: World) -> None:
    today = paris_today()
    region.post("marc", "/gpu-classes", {"name": "a100-80", "weight_thousandths": 2500, "valid_from": str(today)})
    region.submit()
    assert region.award()["held_credits"] == 3660 * 2500
    assert contract(region)["held_"] == 3660, "the contract was signed at 2000, and its GPU-hours stay GPU-hours"


def test_a_hold_that_no_contract_can_give_is_refused_whole(region: World) -> None:
    [only] = region.get("marc", "/contracts")["items"]
    region.post("marc", f"/contracts/{only['id']}/return", {"gpu_seconds": 4999 * 3600, "reason": "typed too many"})
    problem = region.refused(gpus=2)
    assert problem["code"] == "contract-too-small"
    assert problem["detail"] == (
        "the job may use 2.033 h of a100-80 and the Region's contract at site teratec has 1 h left"
    )
    assert region.award()["held_credits"] == 0
    assert region.submit(gpus=1, time_limit_s=3540)["state"] == "held"


def test_a_site_without_a_contract_is_passed_over(region: World) -> None:
    region.enrol_site(name="aaa")
    assert region.submit()["site"] == "teratec"
    problem = region.refused(site="aaa")
    assert problem["detail"] == "the Region has no contract for a100-80 at site aaa today"


def test_each_site_gives_its_own_reason(region: World) -> None:
    region.enrol_site(name="aaa")
    problem = region.refused(gpus=9)
    assert problem["code"] == "placement-refused"
    assert "site aaa gives a job at most 8" in problem["detail"]
    assert "site teratec gives a job at most 8" in problem["detail"]


def test_a_job_is_not_queued_beyond_its_contract(region: World) -> None:
    [only] = region.get("marc", "/contracts")["items"]
    job = region.submit()
    with region.services.database.read() as session:
        deadline = session.exec(select(Job.deadline_at).where(Job.id == job["id"])).one()
    assert deadline <= datetime.fromisoformat(only["end_at"])


def test_no_more_is_given_back_than_is_left(region: World) -> None:
    [only] = region.get("marc", "/contracts")["items"]
    answer = region.call("marc", "POST", f"/contracts/{only['id']}/return", {"gpu_seconds": 5001 * 3600, "reason": "x"})
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith("has 5000 h of a100-80 left, 5001 h were to go")
    assert answer.json()["remedy"] == "give back at most 5000 h"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "purchased", "dossier": "A018"}, "a purchased contract has an order_number, and no dossier"),
        ({"kind": "purchased", "order_number": None}, "a purchased contract has an order_number"),
        ({"kind": "allocated"}, "an allocated contract has a dossier"),
        ({"price_before_tax_micro_euros": 1}, "a price is given before and with tax, or not at all"),
        (
            {"price_before_tax_micro_euros": 2, "price_with_tax_micro_euros": 1},
            "the price with tax is below the price before tax",
        ),
        ({"end_on": "2020-01-01"}, "end_on is before start_on"),
        ({"gpu_class": "h100-80"}, "site teratec has no GPU class h100-80; it has: a100-80"),
        ({"start_on": "2020-01-01"}, "GPU class a100-80 has no weight on 2020-01-01"),
        ({"site": "nowhere"}, "no site nowhere"),
    ],
)
def test_a_contract_that_is_not_whole_is_refused(region: World, changes: dict[str, object], said: str) -> None:
    body = {
        "site": "teratec", "gpu_class": "a100-80", "gpu_seconds": 3600, "start_on": "2026-01-01",
        "end_on": "2099-01-01", "kind": "purchased", "order_number": "BC-1", **changes,
    }  # fmt: skip
    answer = region.call("marc", "POST", "/contracts", body)
    assert answer.status_code in (404, 422)
    assert said in answer.json()["detail"]


def test_a_contract_shows_what_it_rests_on(region: World) -> None:
    price = {"price_before_tax_micro_euros": 9_000_000_000, "price_with_tax_micro_euros": 10_800_000_000}
    bought = region.enter_contract(hours=10, **price)
    assert (bought["order_number"], bought["price_with_tax_micro_euros"]) == ("BC-2026-17", 10_800_000_000)
    dossier = {"kind": "allocated", "order_number": None, "dossier": "A018", "holder": "GENCI", "holder_project": "tpu"}
    given = region.enter_contract(hours=10, **dossier)
    assert (given["holder"], given["holder_project"], given["order_number"]) == ("GENCI", "tpu", None)
    assert region.get("alma", "/contracts?site=teratec")["items"][-1] == given


def test_the_one_that_ends_first_gives_and_free_hours_come_first_where_asked() -> None:
    offers = [offer("late", ends_in_s=90_000), offer("soon"), offer("free", ends_in_s=99_000, kind="allocated")]
    assert choose_contract(offers, need()).contract_id == "soon"
    assert choose_contract(offers, need(free_first=True)).contract_id == "free"
    assert choose_contract([*offers[:1], offer("soon", left_s=3_659)], need()).contract_id == "late"


@pytest.mark.parametrize(
    ("offers", "said", "remedy"),
    [
        ([], "no contract for a100-80 at site teratec today", "another site"),
        ([offer("a", ends_in_s=-1)], "no contract for a100-80", "another site"),
        ([offer("a", ends_in_s=1_800)], "ends in 30 min, before the job's time limit of 60 min", "--time 30"),
        ([offer("a", ends_in_s=50)], "ends in 0 min", "choose another site"),
        ([offer("a", left_s=1_800)], "may use 1.016 h .* has 0.5 h left", "fewer GPUs"),
    ],
)
def test_a_refusal_says_what_is_missing(offers: list[Capacity], said: str, remedy: str) -> None:
    with pytest.raises(ContractTooSmall, match=said) as refusal:
        choose_contract(offers, need())
    assert remedy in (refusal.value.remedy or "")
    assert isinstance(refusal.value, QuotaError)
