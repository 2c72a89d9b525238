"""The commands on tariffs, refunds and weights, and what a job and a report say in euros."""

from typing import Any

import pytest
from unit.cli.conftest import NOW, Broker, job

from cli.exits import Exit
from cli.units import euros_text, exact_euros_text

TARIFF = {"site": "jean-zay", "gpu_class": "h100-80", "micro_euros_per_gpu_hour": 2_350_000}
EVENTS = [{"at": NOW, "state": "held", "cause": "submitted"}]
REFUND: dict[str, Any] = {
    "id": "rfd-1", "job_id": "j1", "project": "vision", "state": "posted", "reason": "node_failure",
    "evidence": "ticket\x1b 123", "amount_credits": 3_600_000, "with_contract": False, "contract_amount_credits": None,
    "requested_by": "marc", "requested_at": NOW, "decided_by": "marc", "decided_at": NOW, "decision": None,
    "value_micro_euros": 1_175_000, "region_micro_euros": 587_500, "company_micro_euros": 587_500,
    "partner_micro_euros": 0, "unknown_reason": None,
}  # fmt: skip
USAGE = {
    "source_key": "c/1/2", "revision": 1, "state": "succeeded", "started_at": NOW, "ended_at": NOW, "elapsed_s": 3600,
    "gpus": 1, "cpus": 8, "memory_mib": 1, "nodes": 1, "exclusive": False, "gpu_class": "a100-80",
    "rate_credits_per_s": 2000, "weight_thousandths": 2000, "charged_credits": 7_200_000,
    "tariff_micro_euros": 2_350_000, "value_micro_euros": 2_350_000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "sent"),
    [("2.35", 2_350_000), ("2,35", 2_350_000), ("37000", 37_000_000_000), ("0.000001", 1), ("0", 0)],
)
def test_euros_are_taken_exactly(run: Any, broker: Broker, typed: str, sent: int) -> None:
    entered = {
        **TARIFF,
        "micro_euros_per_gpu_hour": sent,
        "valid_from": "2025-12-31T23:00:00Z",
        "valued": 3,
        "unknown": 2,
    }
    broker.answers["POST", "/v1/tariffs"] = (201, entered)
    ran = run("tariff", "add", "jean-zay", "h100-80", typed, "--from", "2026-01-01")
    assert ran.code == 0
    assert broker.posted("/v1/tariffs") == [{**TARIFF, "micro_euros_per_gpu_hour": sent, "valid_from": "2026-01-01"}]
    assert ran.out == f"an hour of h100-80 at jean-zay costs {exact_euros_text(sent)} from 2026-01-01 on\n"
    assert "3 charges that had waited for a tariff have their value now" in ran.err
    assert "2 charges are still without a tariff" in ran.err


@pytest.mark.parametrize("typed", ["2.3500001", "1e3", "-1", "", "½", "2.", "inf"])
def test_what_is_no_exact_amount_of_euros_is_refused(run: Any, broker: Broker, typed: str) -> None:
    ran = run("tariff", "add", "jean-zay", "h100-80", "--", typed)
    assert ran.code == Exit.USAGE
    assert broker.posted("/v1/tariffs") == []


def test_tariffs_are_listed_for_a_day_and_completed(run: Any, broker: Broker) -> None:
    item = {**TARIFF, "valid_from": "2025-12-31T23:00:00Z"}
    broker.answers["GET", "/v1/tariffs"] = (200, {"items": [item], "next_cursor": None})
    out = run("tariff", "list", "--at", "2026-06-30").out
    assert out.splitlines()[1].split() == ["jean-zay", "h100-80", "2.35", "€", "2026-01-01"]
    assert broker.calls[-1].query["at"] == "2026-06-30"
    broker.answers["POST", "/v1/tariffs/complete"] = (200, {"valued": 3, "unknown": 1})
    assert run("tariff", "complete").out == "3 charges valued, 1 still without a tariff\n"


def test_the_history_of_a_weight(run: Any, broker: Broker) -> None:
    items = [{"name": "h100-80", "weight_thousandths": 4000, "valid_from": "2025-12-31T23:00:00Z"}]
    broker.answers["GET", "/v1/gpu-classes/history"] = (200, {"items": items, "next_cursor": None})
    assert run("class", "history", "h100-80").out.splitlines()[1].split() == ["2026-01-01", "4"]
    assert broker.calls[-1].query["name"] == "h100-80"


def test_a_refund_is_asked_for_in_hours_or_for_all(run: Any, broker: Broker) -> None:
    broker.answers["POST", "/v1/refunds"] = (201, REFUND)
    wanted = ("refund", "request", "j1", "--reason", "node_failure", "--evidence", "ticket 123")
    assert run(*wanted, "--amount", "1h").out == "refund rfd-1: 1 h given back, worth 1.17 €\n"
    waiting = {**REFUND, "state": "requested", "value_micro_euros": None}
    broker.answers["POST", "/v1/refunds"] = (201, waiting)
    assert "another person, a manager, must approve it" in run(*wanted, "--contract").out
    body = {"job_id": "j1", "reason": "node_failure", "evidence": "ticket 123"}
    assert broker.posted("/v1/refunds") == [
        {**body, "with_contract": False, "amount_credits": 3_600_000},
        {**body, "with_contract": True, "amount_credits": None},
    ]


def test_a_refund_is_approved_refused_and_listed(run: Any, broker: Broker) -> None:
    broker.answers["POST", "/v1/refunds/rfd-1/approve"] = (200, {**REFUND, "value_micro_euros": None})
    assert run("refund", "approve", "rfd-1").out == "refund rfd-1: 1 h given back, worth unknown\n"
    broker.answers["POST", "/v1/refunds/rfd-1/refuse"] = (200, {**REFUND, "state": "refused"})
    assert run("refund", "refuse", "rfd-1", "--why", "not so").out == "refund rfd-1 is refused\n"
    assert broker.posted("/v1/refunds/rfd-1/refuse") == [{"why": "not so"}]
    items = [REFUND, {**REFUND, "state": "requested", "value_micro_euros": None}]
    broker.answers["GET", "/v1/refunds"] = (200, {"items": items, "next_cursor": None})
    lines = run("refund", "list", "--state", "posted", "--job", "j1").out.splitlines()
    assert "1.17 €" in lines[1]
    assert r"ticket\x1b 123" in lines[1]
    assert "€" not in lines[2]
    assert broker.calls[-1].query == {"job": "j1", "state": "posted", **{"limit": broker.calls[-1].query["limit"]}}


def test_a_job_shows_its_value_what_the_company_pays_and_its_refunds(run: Any, broker: Broker) -> None:
    worth = {
        "value_micro_euros": 2_350_000, "region_micro_euros": 1_000_000, "company_micro_euros": 1_175_000,
        "partner_micro_euros": 175_000, "unknown_reason": None,
    }  # fmt: skip
    done = {"state": "succeeded", "settled_at": NOW, "charged_credits": 7_200_000, "refunded_credits": 3_600_000}
    broker.jobs = [job(**done, events=EVENTS, usage=[USAGE], refunds=[REFUND], worth=worth)]
    out = run("show", "j1").out
    assert "2 h charged" in out
    assert ", 1 h given back" in out
    assert "2.35 €, of which the company pays 1.17 €, partners 0.17 €" in out
    assert "-> 2 h, 2.35 €" in out
    assert r"1 h, 1.17 €: node_failure, ticket\x1b 123" in out


def test_an_unknown_value_is_shown_as_unknown(run: Any, broker: Broker) -> None:
    worth = {"value_micro_euros": None, "unknown_reason": "no tariff was known"}
    broker.jobs = [job(state="succeeded", settled_at=NOW, charged_credits=7_200_000, worth=worth, events=EVENTS,
                       usage=[{**USAGE, "value_micro_euros": None}])]  # fmt: skip
    out = run("show", "j1").out
    assert "unknown: no tariff was known" in out
    assert "-> 2 h, unknown" in out


def test_little_is_not_nothing_in_euros() -> None:
    assert [euros_text(n) for n in (None, 0, 1, 9_999, 10_000, -2_350_000)] == [
        "unknown", "0.00 €", "<0.01 €", "<0.01 €", "0.01 €", "-2.35 €",
    ]  # fmt: skip
    assert [exact_euros_text(n) for n in (0, 1, 2_350_000, 1_234_500_000)] == [
        "0.00 €",
        "0.000001 €",
        "2.35 €",
        "1234.50 €",
    ]
