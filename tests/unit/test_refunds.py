"""Refunds with evidence: alone up to a bound, by two people above it, and never more than a job cost."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from money import EVER, TARIFF, details, ran, refusal, share
from sqlalchemy import text
from sqlmodel import col, select
from world import HOUR, World, world

from broker.auth import new_token
from broker.models import Person
from quotas.models import Account
from storage.tables import new_id, utcnow

CHARGE = 2 * 600 * 2000
ASKED = {"reason": "node_failure", "evidence": "ticket 123"}


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        enter_manager(made, "mona")
        yield made
        assert made.faults() == []


def enter_manager(region: World, name: str) -> None:
    with region.services.database.write() as session:
        person = Person(id=new_id("psn"), name=name, roles=["manager"], created_at=utcnow())
        session.add(person)
        session.flush()
        region.tokens[name], row = new_token(person.id, "tests", timedelta(days=1))
        session.add(row)


def alone_up_to(region: World, hours: int) -> None:
    region.services.settings.refund_alone_max_hours = hours


def contract(region: World) -> dict[str, int]:
    """What the contract's accounts have."""
    with region.services.database.read() as session:
        rows = session.exec(select(Account).where(col(Account.owner_id).startswith("ctr-"))).all()
        return {row.kind: row.balance for row in rows}


def listed(region: World, query: str) -> list[str]:
    return [item["id"] for item in region.get("alma", f"/refunds?{query}")["items"]]


def test_a_manager_alone_gives_a_little_back_at_once(region: World) -> None:
    share(region, company=500)
    region.post("marc", "/tariffs", TARIFF)
    job = region.charged(gpus=2)
    before = contract(region)
    made = region.post("marc", "/refunds", {**ASKED, "job_id": job["id"], "amount_credits": CHARGE // 3})
    assert (made["state"], made["requested_by"], made["decided_by"]) == ("posted", "marc", "marc")
    assert (made["value_micro_euros"], made["company_micro_euros"]) == (783_333 // 3, 130_555)
    award = region.award()
    assert award["consumed_credits"] == CHARGE - CHARGE // 3
    assert award["available_credits"] == 100 * HOUR - award["consumed_credits"]
    assert contract(region) == before, "the site keeps what it was used for"
    shown = region.job(job["id"])
    assert shown["refunded_credits"] == CHARGE // 3
    assert shown["charged_credits"] == CHARGE, "a charge is never changed"
    assert [refund["evidence"] for refund in shown["refunds"]] == ["ticket 123"]
    said = dict(details(region, job["id"]))
    assert said["refund"] == "weight=2000;value=261111;region=130556;company=130555;partner=0"


def test_all_that_is_left_comes_back_with_exactly_its_value(region: World) -> None:
    share(region, company=333, partner=333)
    region.post("marc", "/tariffs", TARIFF)
    job = region.charged(gpus=2)
    parts = [
        region.post("marc", "/refunds", {**ASKED, "job_id": job["id"], "amount_credits": amount})
        for amount in (7, 11, None)
    ]
    for name in ("value_micro_euros", "region_micro_euros", "company_micro_euros", "partner_micro_euros"):
        assert sum(part[name] for part in parts) == job["worth"][name]
    assert region.award()["available_credits"] == 100 * HOUR
    problem = refusal(region, "/refunds", {**ASKED, "job_id": job["id"]})
    assert (problem["code"], problem["remedy"]) == ("refund-too-large", "nothing is left to give back of it")


def test_more_than_the_charge_is_refused_with_what_would_pass(region: World) -> None:
    job = region.charged(gpus=2)
    region.post("marc", "/refunds", {**ASKED, "job_id": job["id"], "amount_credits": CHARGE // 2})
    problem = refusal(region, "/refunds", {**ASKED, "job_id": job["id"], "amount_credits": CHARGE // 2 + 1})
    assert problem["code"] == "refund-too-large"
    assert "was charged 0.666 h, of which 0.333 h were given back" in problem["detail"]
    assert problem["remedy"] == f"give back at most 0.333 h ({CHARGE // 2} credits)"


def test_above_the_bound_a_second_manager_must_approve(region: World) -> None:
    alone_up_to(region, 0)
    job = region.charged(gpus=2)
    made = region.post("marc", "/refunds", {**ASKED, "job_id": job["id"]})
    assert (made["state"], made["amount_credits"], made["value_micro_euros"]) == ("requested", CHARGE, None)
    assert region.award()["consumed_credits"] == CHARGE
    path = f"/refunds/{made['id']}/approve"
    assert refusal(region, path, None)["code"] == "approved-already"
    assert refusal(region, path, None, "olga")["code"] == "not-allowed"
    posted = region.post("mona", path)
    assert (posted["state"], posted["decided_by"]) == ("posted", "mona")
    assert region.award()["consumed_credits"] == 0
    assert refusal(region, path, None, "mona")["code"] == "refund-decided"
    assert refusal(region, f"/refunds/{made['id']}/refuse", {"why": "too late"})["code"] == "refund-decided"


def test_what_an_operator_asks_for_a_manager_approves_or_refuses(region: World) -> None:
    job = region.charged(gpus=2)
    first, second = (
        region.post("olga", "/refunds", {**ASKED, "reason": "operator_fault", "job_id": job["id"]}) for _ in range(2)
    )
    assert (first["state"], second["state"]) == ("requested", "requested")
    assert listed(region, "state=requested") == [second["id"], first["id"]]
    refused = region.post("marc", f"/refunds/{first['id']}/refuse", {"why": "the node was not at fault"})
    assert (refused["state"], refused["decision"]) == ("refused", "the node was not at fault")
    assert region.award()["consumed_credits"] == CHARGE
    assert region.post("marc", f"/refunds/{second['id']}/approve")["state"] == "posted"
    assert region.award()["consumed_credits"] == 0
    assert listed(region, f"job={job['id']}&state=posted") == [second["id"]]


def test_an_approval_that_comes_too_late_is_refused(region: World) -> None:
    job = region.charged(gpus=2)
    waiting = region.post("olga", "/refunds", {**ASKED, "job_id": job["id"]})
    region.post("marc", "/refunds", {**ASKED, "job_id": job["id"], "amount_credits": 1})
    problem = refusal(region, f"/refunds/{waiting['id']}/approve", None)
    assert problem["code"] == "refund-too-large"
    assert region.get("marc", f"/refunds?job={job['id']}")["items"][1]["state"] == "requested", "nothing was written"


def test_overrun_gets_back_first_what_it_paid(region: World) -> None:
    job_id = ran(region, 600, time_limit_s=60)
    overrun, charged = (600 - 120) * 2000, 600 * 2000
    assert region.award()["overrun_credits"] == overrun
    region.post("marc", "/refunds", {**ASKED, "job_id": job_id, "amount_credits": overrun - 5})
    award = region.award()
    assert (award["overrun_credits"], award["available_credits"]) == (5, 100 * HOUR - 120 * 2000)
    region.post("marc", "/refunds", {**ASKED, "job_id": job_id, "amount_credits": 10})
    award = region.award()
    assert (award["overrun_credits"], award["consumed_credits"]) == (0, charged - overrun - 5)


def test_the_site_gives_its_capacity_back_where_it_says_so(region: World) -> None:
    job = region.charged(gpus=2)
    made = region.post("marc", "/refunds", {**ASKED, "job_id": job["id"], "with_contract": True})
    assert made["contract_amount_credits"] == CHARGE
    assert contract(region)["consumed"] == 0
    assert [kind for kind, _ in details(region, job["id"])][-2:] == ["refund", "contract-refund"]


def test_the_value_of_a_refund_is_unknown_as_long_as_the_charges_is(region: World) -> None:
    job = region.charged(gpus=2)
    first = region.post("marc", "/refunds", {**ASKED, "job_id": job["id"], "amount_credits": CHARGE // 2})
    assert first["value_micro_euros"] is None
    assert "no tariff of a100-80" in first["unknown_reason"]
    row = region.get("marc", EVER)["rows"][0]
    assert (row["refunds"], row["refunded_value_micro_euros"], row["unvalued_refunds"]) == (1, None, 1)
    region.post("marc", "/tariffs", TARIFF)
    found = region.get("marc", "/refunds")["items"][0]
    assert (found["value_micro_euros"], found["unknown_reason"]) == (783_333 // 2, None)
    rest = region.post("marc", "/refunds", {**ASKED, "job_id": job["id"]})
    assert rest["value_micro_euros"] == 783_333 - 783_333 // 2


def test_the_report_shows_refunds_apart_and_agrees_with_the_ledger(region: World) -> None:
    region.post("marc", "/tariffs", TARIFF)
    job = region.charged(gpus=2)
    region.charged()
    region.post("marc", "/refunds", {**ASKED, "job_id": job["id"], "with_contract": True})
    for by in ("project", "programme", "site"):
        report = region.get("marc", f"{EVER}&by={by}")
        assert report["agrees"]
        assert report["refunded_credits"] == report["ledger_refunded_credits"] == CHARGE
        assert report["charged_credits"] == report["ledger_credits"] == CHARGE + CHARGE // 2
        row = report["rows"][0]
        assert (row["refunded_credits"], row["refunded_value_micro_euros"]) == (CHARGE, 783_333)
    assert region.get("paul", EVER)["rows"] == []
    with region.services.database.write() as session:
        session.execute(text("UPDATE refund SET amount_credits = amount_credits - 1"))
    assert not region.get("marc", EVER)["agrees"]
    with region.services.database.write() as session:
        session.execute(text("UPDATE refund SET amount_credits = amount_credits + 1"))


def test_a_refund_of_a_job_without_attempts_in_the_period_has_a_row_of_its_own(region: World) -> None:
    job = region.charged(gpus=2)
    with region.services.database.write() as session:
        session.execute(text("UPDATE usage_record SET ended_at = ended_at - 40 * 86400000000"))
    region.post("marc", "/refunds", {**ASKED, "job_id": job["id"]})
    today = utcnow().date()
    row = region.get("marc", f"/reports/gpu?from={today}&to=2100-01-01")["rows"][0]
    assert (row["key"], row["jobs"], row["refunds"], row["value_micro_euros"]) == ("vision", 0, 1, 0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"job_id": "job-x"}, "not-found"),
        ({"reason": "adjusted"}, "invalid-request"),
        ({"evidence": "  "}, "invalid-request"),
        ({"amount_credits": 0}, "invalid-request"),
    ],
)
def test_bad_requests_are_refused(region: World, change: Any, code: str) -> None:
    job_id = region.submit()["id"]
    assert refusal(region, "/refunds", {**ASKED, "job_id": job_id, **change})["code"] == code


def test_what_was_not_charged_yet_cannot_be_given_back(region: World) -> None:
    job_id = region.submit()["id"]
    assert refusal(region, "/refunds", {**ASKED, "job_id": job_id})["code"] == "refund-too-large"
    assert region.call("marc", "POST", "/refunds/rfd-x/approve").status_code == 404


def test_two_who_give_all_back_at_one_instant_give_it_back_once(region: World) -> None:
    job_id = region.charged(gpus=2)["id"]
    waiting = [region.post("olga", "/refunds", {**ASKED, "job_id": job_id})["id"] for _ in range(4)]
    barrier, answers = threading.Barrier(4), []

    def approve(person: str, refund_id: str) -> None:
        barrier.wait()
        answers.append(region.call(person, "POST", f"/refunds/{refund_id}/approve").status_code)

    people = ("marc", "mona", "marc", "mona")
    threads = [threading.Thread(target=approve, args=pair) for pair in zip(people, waiting, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 422, 422, 422]
    assert region.award()["available_credits"] == 100 * HOUR


def test_two_who_approve_one_refund_at_one_instant_post_it_once(region: World) -> None:
    job_id = region.charged(gpus=2)["id"]
    refund_id = region.post("olga", "/refunds", {**ASKED, "job_id": job_id, "amount_credits": 100})["id"]
    barrier, answers = threading.Barrier(2), []

    def approve(person: str) -> None:
        barrier.wait()
        answers.append(region.call(person, "POST", f"/refunds/{refund_id}/approve").status_code)

    threads = [threading.Thread(target=approve, args=(person,)) for person in ("marc", "mona")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 409]
    assert region.award()["consumed_credits"] == CHARGE - 100
