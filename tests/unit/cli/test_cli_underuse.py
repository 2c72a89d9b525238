"""Forecasts, reclaims and justifications, typed."""

from typing import Any

import pytest
from unit.cli.conftest import FORECAST, NOW, Broker, Ran

from cli.exits import Exit
from cli.outlook import outlook_text, risks_text

RECLAIM = {
    "id": "rcl-1",
    "award": "w1",
    "project": "vision",
    "after_thousandths": 500,
    "used_below_thousandths": 300,
    "take_thousandths": 500,
    "announced_credits": 180_000_000,
    "noticed_at": NOW,
    "due_at": "2026-12-08T23:00:00Z",
    "justification": None,
    "justified_by": None,
    "justified_at": None,
    "decision": None,
    "decision_reason": None,
    "decided_by": None,
    "decided_at": None,
    "outcome": None,
    "outcome_reason": None,
    "ended_at": None,
    "reclaimed_credits": None,
}


def page(*items: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"items": list(items), "next_cursor": None}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "at 12 h a day the budget runs out on 2026-01-09"),
        (
            {"runs_out_on": None, "left_at_end_credits": 36_000_000, "unburnable_credits": 0},
            "at 12 h a day 10 h are left at its end, 2026-06-30",
        ),
        (
            {"burn_credits_per_day": None, "burn_unknown": "nothing has\x1b been charged yet", "runs_out_on": None,
             "left_at_end_credits": None, "unburnable_credits": 7_200_000},
            "burn rate unknown: nothing has\\x1b been charged yet; "
            "2 h cannot be used before then with the GPUs allowed at once",
        ),
    ],
)  # fmt: skip
def test_an_outlook_in_words(changes: dict[str, Any], text: str) -> None:
    assert outlook_text({**FORECAST, **changes}) == text


def test_risks_in_words() -> None:
    assert risks_text({"risks": []}) is None
    assert risks_text({"risks": ["unused", "new\x1b"]}) == "never used, new\\x1b"


def test_forecasts(run: Any, broker: Broker) -> None:
    broker.answers["GET", "/v1/forecasts"] = page(FORECAST)
    ran: Ran = run("award", "forecast", "--programme", "pack-ia", "--at-risk")
    assert "at 12 h a day the budget runs out on 2026-01-09" in ran.out
    assert "runs out before its end" in ran.out
    assert broker.calls[-1].query.items() >= {"programme": "pack-ia", "at_risk": "true"}.items()
    run("award", "forecast", "-p", "vision")
    assert "at_risk" not in broker.calls[-1].query
    assert run("award", "forecast", "--json").json == [FORECAST]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "announced"),
        ({"justification": "later\x1b"}, "undecided  later\\x1b"),
        ({"justification": "later", "decision": "refused", "decision_reason": "no"}, "refused  no"),
        (
            {"outcome": "reclaimed", "outcome_reason": "it lay unused", "reclaimed_credits": 3_600_000},
            "1 h  2026-12-08  reclaimed  it lay unused",
        ),
    ],
)
def test_reclaims(run: Any, broker: Broker, changes: dict[str, Any], words: str) -> None:
    broker.answers["GET", "/v1/reclaims"] = page({**RECLAIM, **changes})
    ran: Ran = run("award", "reclaims", "--due")
    assert words in ran.out.splitlines()[1]
    assert "2026-12-08" in ran.out
    assert broker.calls[-1].query["due"] == "true"
    assert run("award", "reclaims", "--json").json[0]["id"] == "rcl-1"


@pytest.mark.parametrize(
    ("words", "path", "body", "said"),
    [
        (("justify", "w1", "July"), "", {"text": "July"}, "the 50 h stay until a manager has decided"),
        (("accept-justification", "w1", "--reason", "ok"), "/accept", {"reason": "ok"}, "everything stays with award"),
        (("refuse-justification", "w1", "--reason", "no"), "/refuse", {"reason": "no"}, "up to 50 h go back after"),
    ],
)
def test_justifications(
    run: Any, broker: Broker, words: tuple[str, ...], path: str, body: dict[str, str], said: str
) -> None:
    broker.answers["POST", f"/v1/awards/w1/justification{path}"] = (200, RECLAIM)
    assert run("award", *words).out.startswith(said)
    assert broker.posted(f"/v1/awards/w1/justification{path}") == [body]
    assert run("award", *words, "--json").json["id"] == "rcl-1"
    assert run("award", words[0], "..", *words[2:]).code == Exit.NOT_FOUND
