"""The programme manager's way, typed against a real broker on both engines: file, programme, award, change."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from served import Typist, served
from world import JOB, World, world

from cli import programme_file
from cli.units import paris_today

TODAY = paris_today()
THIS_YEAR = ("--from", f"{TODAY.year}-01-01", "--to", f"{TODAY.year}-12-31")


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


@pytest.fixture
def typist(
    region: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Typist]:
    with served(region, tmp_path, monkeypatch, capfd) as made:
        yield made


def shown(typist: Typist, name: str) -> Any:
    return json.loads(typist.done("marc", "programme", "show", name, "--json"))


def test_each_ready_made_file_opens_a_programme_that_awards(typist: Typist) -> None:
    end = TODAY + timedelta(days=120)
    typist.done("marc", "tariff", "add", "teratec", "a100-80", "2", "--from", str(TODAY))
    typist.done("marc", "aid", "declare", "acme", "--none", "--on", str(TODAY), "--document", "GED-1")
    act = ("--act", "CP 2026-17", "--act-on", str(TODAY))
    for template in programme_file.templates():
        options = ("--template", template, "--name", f"{template}-x", "--budget", "500h")
        said = typist.done("marc", "programme", "create", *options)
        assert (
            said
            == f"programme {template}-x is open with 500 h to award from {TODAY.year}-01-01 to {TODAY.year}-12-31\n"
        )
        policy = shown(typist, f"{template}-x")["policy"]
        about = ("--confidentiality", policy["confidentialities"][-1], "--nature", policy["natures"][-1])
        typist.done("marc", "project", "add", f"{template}-p", "--org", "acme", "--programme", f"{template}-x", *about)
        typist.done("marc", "award", "grant", f"{template}-p", "100h", "--from", str(TODAY), "--to", str(end), *act)
        [budget] = shown(typist, f"{template}-x")["budgets"]
        assert (budget["awarded_credits"], budget["unawarded_credits"]) == (360_000_000, 1_440_000_000)
    assert len(json.loads(typist.done("marc", "programme", "list", "--json"))) == 1 + len(programme_file.templates())


def test_the_ready_made_pack_ia_is_the_plans(typist: Typist) -> None:
    typist.done("marc", "programme", "create", "--template", "pack-ia", "--name", "p", "--budget", "20000h", *THIS_YEAR)
    said = typist.done("marc", "programme", "show", "p")
    for sentence in (
        "an award lasts 3 to 6 months",
        "at most 100 awards begin in a calendar year",
        "its help is aid under de minimis",
        "from the beginning: Region 50 %, company 50 %",
    ):
        assert sentence in said
    assert f"{TODAY.year}-01-01  {TODAY.year}-12-31  20000 h" in said


def test_rules_change_money_is_added_and_shares_are_dated(typist: Typist, tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('name = "p"\nkind = "training"\nlongest_months = 6\n')
    typist.done("marc", "programme", "create", str(file))
    file.write_text('name = "p"\nkind = "training"\nlongest_months = 9\naward_max = "10h"\n')
    ran = typist("marc", "programme", "set", "p", str(file), "--yes")
    assert ran.err == "longest_months: 6 -> 9\naward_max: no bound -> 10 h\n"
    assert ran.out == "programme p is under policy 2\n"
    assert "nothing changes" in typist("marc", "programme", "set", "p", str(file)).err
    typist.done("marc", "programme", "fund", "p", "5h", *THIS_YEAR)
    typist.done("marc", "programme", "fund", "p", "7h", *THIS_YEAR)
    later = str(TODAY + timedelta(days=40))
    typist.done("marc", "programme", "shares", "p", "--from", later, "--region", "600", "--partner", "400")
    found = shown(typist, "p")
    assert [budget["budget_credits"] for budget in found["budgets"]] == [12 * 3_600_000]
    assert found["policy_version"] == 2
    assert f"from {later}: Region 60 %, partner 40 %" in typist.done("marc", "programme", "show", "p")


def test_free_hours_come_first_where_the_policy_says_so(region: World) -> None:
    """The allocated contract ends later, so by itself the purchased one that ends first would give the capacity."""
    later = str(TODAY + timedelta(days=300))
    dossier = {"dossier": "AD011", "holder": "IDRIS", "holder_project": "abc", "order_number": None}
    free = region.enter_contract(kind="allocated", end_on=later, **dossier)
    assert region.post("ines", "/jobs/plan", JOB)["contract"] != free["id"]
    policy = {"kind": "pack-ia", "default_time_limit_s": 1800, "free_hours_first": True}
    region.post("marc", "/programmes/pack-ia-2026/policy", policy)
    assert region.post("ines", "/jobs/plan", JOB)["contract"] == free["id"]
    region.submit(time_limit_s=None)


def test_refusals_reach_the_manager_with_what_would_pass(typist: Typist, tmp_path: Path) -> None:
    typist.done("marc", "programme", "open", "p", "--budget", "10h")
    ran = typist("marc", "programme", "fund", "p", "1h", "--from", f"{TODAY.year}-06-01", "--to", "2099-12-31")
    assert ran.code == 3
    assert f"has a budget from {TODAY.year}-01-01 to {TODAY.year}-12-31 already" in ran.err
    ran = typist("marc", "programme", "shares", "p", "--from", str(TODAY), "--region", "1000")
    assert (ran.code, "are never changed afterwards" in ran.err) == (3, True)
    ran = typist("marc", "programme", "shares", "p", "--from", str(TODAY + timedelta(days=9)), "--region", "900")
    assert (ran.code, "make 900 thousandths" in ran.err) == (3, True)
    file = tmp_path / "bad.toml"
    file.write_text('name = "q"\nregime = "exempted"\n')
    ran = typist("marc", "programme", "create", str(file))
    assert (ran.code, "the regime exempted needs scheme" in ran.err) == (2, True)
    assert typist("ines", "programme", "show", "p").code == 6
    assert typist("marc", "programme", "show", "none").code == 4
