"""Every way to an award counts its State aid in the transaction that grants it, and every way back lowers it."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aid_rules import EURO, HOUR
from world import World, world

from quotas.amounts import paris_day
from quotas.rates import set_tariff
from storage.tables import utcnow

TODAY = paris_day(utcnow())
OUTCOME = {
    "worked": "yes", "in_production": "no", "jobs_created": None, "benefit": "fewer scrapped cheeses",
    "next_step": "more", "reason": "done",
}  # fmt: skip


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    """Two companies in a de minimis programme; an hour is worth one euro, all of it public."""
    with world(database_url, tmp_path) as made:
        budget = {"start_on": "2020-01-01", "end_on": "2099-12-31", "credits": 10**13}
        made.post("marc", "/programmes", {"name": "pack-aide", "regime": "de-minimis", "budgets": [budget]})
        for organisation, project in (("laiterie", "fromage"), ("moulin", "farine")):
            made.post("marc", "/organisations", {"name": organisation})
            names = {"name": project, "organisation": organisation, "programme": "pack-aide"}
            made.post("marc", "/projects", names)
        yield made


def ready(region: World, *organisations: str) -> None:
    """Enter a tariff, and that companies had no aid."""
    with region.services.database.write() as session:
        set_tariff(session, "sit-1", "a100-80", utcnow() - timedelta(days=30), 2 * EURO)
    for organisation in organisations or ("laiterie", "moulin"):
        body = {"declared_on": str(TODAY), "document": "GED 1", "aids": []}
        region.post("marc", f"/organisations/{organisation}/aid-declarations", body)


def asked(project: str, hours: int, **changes: Any) -> dict[str, Any]:
    plain = {
        "project": project,
        "amount_credits": hours * HOUR,
        "start_on": str(TODAY),
        "end_on": str(TODAY + timedelta(days=90)),
        "act_reference": "CP 2026-101",
        "act_on": str(TODAY),
    }
    return {**plain, **changes}


def counted(region: World, organisation: str) -> int:
    shown: int = region.get("marc", f"/organisations/{organisation}/aid")["counted_micro_euros"]
    return shown // EURO


def unawarded(region: World) -> int:
    programmes = region.get("marc", "/programmes")["items"]
    left: int = next(one for one in programmes if one["name"] == "pack-aide")["unawarded_credits"]
    return left


def refused(region: World, path: str, body: Any = None) -> Any:
    answer = region.call("marc", "POST", path, body)
    assert answer.status_code == 422, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("made_ready", "changes", "code"),
    [
        (True, {"act_reference": None, "act_on": None}, "aid-incomplete"),
        (True, {"amount_credits": 300_001 * HOUR}, "aid-above-ceiling"),
        (False, {}, "aid-value-unknown"),
    ],
)
def test_a_refused_award_moves_nothing(region: World, made_ready: bool, changes: dict[str, Any], code: str) -> None:
    if made_ready:
        ready(region)
    before = unawarded(region)
    problem = refused(region, "/awards", asked("fromage", 10, **changes))
    assert problem["code"] == code
    assert problem["remedy"]
    assert unawarded(region) == before
    assert [award for award in region.get("marc", "/awards")["items"] if award["project"] == "fromage"] == []


def test_without_a_declaration_nothing_is_granted(region: World) -> None:
    ready(region, "moulin")
    assert refused(region, "/awards", asked("fromage", 10))["code"] == "aid-undeclared"
    assert region.post("marc", "/awards", asked("farine", 10))["state"] == "active"


def test_the_refusal_names_what_passes(region: World) -> None:
    ready(region)
    region.post("marc", "/awards", asked("fromage", 290_000))
    problem = refused(region, "/awards", asked("fromage", 20_000))
    assert problem["detail"].startswith(
        "0 € declared + 290000 € counted + 20000 € for this award = 310000 € > 300000 €"
    )
    assert problem["remedy"].startswith("grant at most 10000 h (10000 €); all of it from ")
    assert region.post("marc", "/awards", asked("fromage", 10_000))["state"] == "active"
    assert counted(region, "laiterie") == 300_000


def test_a_supplement_counts_and_a_closure_gives_back(region: World) -> None:
    ready(region)
    award_id = region.post("marc", "/awards", asked("fromage", 250_000))["id"]
    more = {"amount_credits": 60_000 * HOUR, "reason": "a larger model"}
    assert refused(region, f"/awards/{award_id}/supplements", more)["code"] == "aid-above-ceiling"
    region.post("marc", f"/awards/{award_id}/supplements", {**more, "amount_credits": 40_000 * HOUR})
    assert counted(region, "laiterie") == 290_000
    region.post("marc", f"/awards/{award_id}/close", OUTCOME)
    assert counted(region, "laiterie") == 0
    lines = region.get("marc", "/aid/register")["items"]
    assert sorted((line["kind"], line["credits"] // HOUR) for line in lines) == [
        ("grant", 250_000),
        ("reduction", -250_000),
        ("reduction", -40_000),
        ("supplement", 40_000),
    ]
    assert region.post("marc", "/awards", asked("fromage", 300_000))["state"] == "active"


def test_a_transfer_lowers_one_aid_and_counts_the_other(region: World) -> None:
    ready(region)
    giver = region.post("marc", "/awards", asked("fromage", 1000))["id"]
    receiver = region.post("marc", "/awards", asked("farine", 299_700))["id"]
    body = {"to_award": receiver, "amount_credits": 400 * HOUR, "reason": "they need it"}
    assert refused(region, f"/awards/{giver}/transfers", body)["code"] == "aid-above-ceiling"
    assert (counted(region, "laiterie"), counted(region, "moulin")) == (1000, 299_700)
    region.post("marc", f"/awards/{giver}/transfers", {**body, "amount_credits": 300 * HOUR})
    assert (counted(region, "laiterie"), counted(region, "moulin")) == (700, 300_000)


def test_an_approval_counts(region: World) -> None:
    ready(region)
    award_id = region.post("marc", "/awards/request", asked("fromage", 300_001))["id"]
    assert counted(region, "laiterie") == 0
    assert refused(region, f"/awards/{award_id}/approve", {})["code"] == "aid-above-ceiling"
    assert region.get("marc", f"/awards/{award_id}")["state"] == "requested"
    region.post("marc", f"/awards/{award_id}/approve", {"amount_credits": 300_000 * HOUR})
    assert counted(region, "laiterie") == 300_000


def test_two_grants_over_the_api_at_one_moment(region: World) -> None:
    ready(region)
    linked = {"other": "moulin", "basis": "one owner", "from_on": "2020-01-01"}
    region.post("marc", "/organisations/laiterie/links", linked)
    answers: list[int] = []
    start = threading.Barrier(2)

    def grant(project: str) -> None:
        start.wait()
        answers.append(region.call("marc", "POST", "/awards", asked(project, 200_000)).status_code)

    threads = [threading.Thread(target=grant, args=(project,)) for project in ("fromage", "farine")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201, 422]
    assert counted(region, "laiterie") == 200_000


HEADER = "organisation,project,lead,hours,from,to,act_reference,act_on,declared_on,declaration\n"


def row(name: str, hours: int, rest: str = "CP 1,{today},{today},GED 2") -> str:
    until = TODAY + timedelta(days=90)
    return f"{name},{name}-poc,{name}-lead,{hours},{TODAY},{until},{rest.format(today=TODAY)}\n"


def test_a_cohort_declares_in_its_file_and_is_counted_row_by_row(region: World) -> None:
    ready(region)
    tomorrow = TODAY + timedelta(days=1)
    bad = HEADER + row("good", 100) + row("rich", 300_001) + row("silent", 5, "CP 1,{today},,")
    bad += (
        row("lawless", 5, ",,{today},GED 2")
        + row("early", 5, f"CP 1,{{today}},{tomorrow},GED 2")
        + row("half", 5, "CP 1,,{today},GED 2")
    )
    half = region.call("marc", "POST", "/awards/import", {"programme": "pack-aide", "csv": bad}).json()
    assert [(f["line"], f["column"]) for f in half["rows"]] == [(7, "act_on")], half
    bad = bad.replace(row("half", 5, "CP 1,,{today},GED 2"), "")
    for dry_run in (True, False):
        answer = region.call(
            "marc", "POST", "/awards/import", {"programme": "pack-aide", "csv": bad, "dry_run": dry_run}
        )
        assert answer.status_code == 422
        assert answer.json()["detail"] == "4 of 5 rows are refused, so none is entered"
        assert [(f["line"], f["column"]) for f in answer.json()["rows"]] == [
            (3, "hours"), (4, "declared_on"), (5, "act_reference"), (6, "declared_on"),
        ]  # fmt: skip
    good = HEADER + row("good", 100) + row("rich", 300_000)
    tried = region.post("marc", "/awards/import", {"programme": "pack-aide", "csv": good, "dry_run": True})
    assert (tried["awards"], region.get("marc", "/aid/register")["items"]) == ([], [])
    made = region.post("marc", "/awards/import", {"programme": "pack-aide", "csv": good})
    assert len(made["awards"]) == 2
    assert (counted(region, "good"), counted(region, "rich")) == (100, 300_000)
    assert region.get("marc", f"/awards/{made['awards'][0]}")["act_reference"] == "CP 1"
    assert region.faults() == []


def test_an_award_from_before_the_register_is_closed_as_ever(region: World) -> None:
    award_id = region.award()["id"]
    region.post("marc", f"/awards/{award_id}/close", OUTCOME)
    assert region.get("marc", "/aid/register")["items"] == []
