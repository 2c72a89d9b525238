"""The programme manager's commands: a programme as a file, in words, and what is refused before anything is sent."""

from pathlib import Path
from typing import Any

import pytest

from cli import programme_file
from cli.programme_views import change_text, rules, shares_text
from cli.units import paris_today

POLICY: dict[str, Any] = {
    "kind": "pack-ia", "full_name": "Pack IA", "default_time_limit_s": 3600, "shortest_months": 3,
    "longest_months": 6, "awards_per_year_max": 100, "award_credits_max": 3_600_000_000,
    "confidentialities": ["public", "internal"], "natures": ["none"], "regime": "de-minimis", "scheme": None,
    "four_eyes_above_credits": 1_800_000_000, "warn_at_thousandths": [750, 900],
    "reclaim": [{"after_thousandths": 500, "used_below_thousandths": 100, "take_thousandths": 335}],
    "notice_days": 15, "expiring_days": 30, "export_days": 30, "free_hours_first": True,
}  # fmt: skip
BARE: dict[str, Any] = {
    **POLICY, "full_name": None, "shortest_months": None, "longest_months": None, "awards_per_year_max": None,
    "award_credits_max": None, "regime": "none", "four_eyes_above_credits": None, "warn_at_thousandths": [],
    "reclaim": [], "free_hours_first": False,
}  # fmt: skip
PROGRAMME: dict[str, Any] = {
    "id": "prg-1",
    "name": "pack-ia-2027",
    "kind": "pack-ia",
    "policy": POLICY,
    "policy_version": 2,
    "policy_since": "2026-11-23T10:00:00Z",
    "budgets": [
        {
            "id": "bud-1",
            "start_at": "2026-12-31T23:00:00Z",
            "end_at": "2027-12-31T23:00:00Z",
            "budget_credits": 36_000_000_000,
            "awarded_credits": 3_600_000_000,
            "unawarded_credits": 32_400_000_000,
        }
    ],
    "shares": [
        {
            "valid_from": "1969-12-31T23:00:00Z",
            "region_thousandths": 500,
            "company_thousandths": 500,
            "partner_thousandths": 0,
        },
        {
            "valid_from": "2027-06-30T22:00:00Z",
            "region_thousandths": 333,
            "company_thousandths": 333,
            "partner_thousandths": 334,
        },
    ],
    "unawarded_credits": None,
    "created_at": "2026-11-23T10:00:00Z",
}
WHOLE = """
name = "pack-ia-2027"
kind = "pack-ia"
default_time_limit = "1h30m"
award_max = "1000h"
four_eyes_above = "0.5h"
regime = "de-minimis"
[[reclaim]]
after_thousandths = 500
used_below_thousandths = 100
take_thousandths = 500
[[budget]]
from = 2027-01-01
to = "2027-12-31"
hours = "20000h"
[[share]]
region_thousandths = 1000
[[share]]
from = 2027-07-01
region_thousandths = 500
company_thousandths = 500
"""


def parsed(text: str) -> dict[str, Any]:
    return programme_file.parsed(text.encode(), "p.toml")


def test_a_whole_file() -> None:
    assert parsed(WHOLE) == {
        "name": "pack-ia-2027",
        "kind": "pack-ia",
        "regime": "de-minimis",
        "reclaim": [{"after_thousandths": 500, "used_below_thousandths": 100, "take_thousandths": 500}],
        "default_time_limit_s": 5400,
        "award_credits_max": 3_600_000_000,
        "four_eyes_above_credits": 1_800_000,
        "budgets": [{"start_on": "2027-01-01", "end_on": "2027-12-31", "credits": 72_000_000_000}],
        "shares": [
            {"region_thousandths": 1000},
            {"valid_from": "2027-07-01", "region_thousandths": 500, "company_thousandths": 500},
        ],
    }


@pytest.mark.parametrize(
    ("text", "sentence", "remedy"),
    [
        ("longest_month = 6", "p.toml: the key 'longest_month' is not known", "did you mean longest_months?"),
        ("award_cap = 6", "p.toml: the key 'award_cap' is not known", "did you mean award_max?"),
        (
            "[[budget]]\nform = 2027-01-01",
            "p.toml, [[budget]]: the key 'form' is not known",
            "did you mean from?",
        ),
        (
            "[[share]]\nregion = 500",
            "p.toml, [[share]]: the key 'region' is not known",
            "did you mean region_thousandths?",
        ),
        (
            "[[reclaim]]\nafter = 500",
            "p.toml, [[reclaim]]: the key 'after' is not known",
            "did you mean after_thousandths?",
        ),
        ("default_time_limit = 60", "p.toml: default_time_limit is missing or no text", 'as default_time_limit = "1h"'),
        ("award_max = 1000", "p.toml: award_max is missing or no text", 'write it as award_max = "1000h"'),
        ('award_max = "much"', "the GPU-hours 'much' are not understood", "write 100h or 1.5h"),
        ('default_time_limit = "long"', "the time 'long' is not understood", "write 90m, 2h"),
        ("budget = 3", "p.toml: budget is no list of tables", "begin each of them with [[budget]]"),
        ("[share]\nregion_thousandths = 1", "p.toml: share is no list of tables", "with [[share]]"),
        ('[[budget]]\nto = 2027-01-01\nhours = "1h"', "p.toml, [[budget]]: from is missing or no day", "2027-01-01"),
        ("[[budget]]\nfrom = 2027-01-01T00:00:00", "[[budget]]: from is missing or no day", "2027-01-01"),
        ('[[budget]]\nfrom = "soon"', "the day 'soon' is not understood", "write it as 2026-12-31"),
        ("[[budget]]\nfrom = 2027-01-01\nto = 2027-01-02", "[[budget]]: hours is missing or no text", '"1000h"'),
        ("kind = ", "p.toml is not valid TOML: ", None),
    ],
)
def test_a_file_that_is_not_understood(
    text: str, sentence: str, remedy: str | None, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.toml").write_text(text)
    ran = run("programme", "create", "p.toml", "--name", "p")
    assert ran.code == 2
    assert sentence in ran.err
    assert remedy is None or remedy in ran.err


def test_a_file_that_cannot_be_read(run: Any, tmp_path: Path) -> None:
    assert "cannot read" in run("programme", "create", str(tmp_path / "none.toml")).err
    (tmp_path / "large.toml").write_bytes(b"#" * 1_000_001)
    assert "is above 1 MB" in run("programme", "create", str(tmp_path / "large.toml")).err
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    assert "is not valid TOML" in run("programme", "create", str(tmp_path / "bytes.toml")).err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "a programme is created from a file or from a template"),
        (["FILE", "--template", "pack-ia"], "a programme is created from a file or from a template"),
        (["--template", "pack-ai", "--name", "p"], "there is no template pack-ai"),
        (["--template", "pack-ia"], "the programme has no name"),
        (["FILE", "--name", "other"], "the file names it pack-ia-2027, --name other"),
        (["FILE", "--budget", "1h"], "the file has budgets already"),
    ],
)
def test_words_that_contradict_each_other(words: list[str], sentence: str, run: Any, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(WHOLE)
    ran = run("programme", "create", *(str(tmp_path / "p.toml") if word == "FILE" else word for word in words))
    assert (ran.code, sentence in ran.err) == (2, True), ran


def test_created_from_a_file(run: Any, broker: Any, tmp_path: Path) -> None:
    broker.answers["POST", "/v1/programmes"] = (201, PROGRAMME)
    (tmp_path / "p.toml").write_text(WHOLE)
    assert run("programme", "create", str(tmp_path / "p.toml")).out == (
        "programme pack-ia-2027 is open with 9000 h to award from 2027-01-01 to 2027-12-31\n"
    )
    assert broker.posted("/v1/programmes") == [parsed(WHOLE)]


def test_created_without_a_budget_says_how_to_fund_it(run: Any, broker: Any) -> None:
    broker.answers["POST", "/v1/programmes"] = (201, {**PROGRAMME, "budgets": []})
    ran = run("programme", "create", "--template", "pack-ia", "--name", "pack-ia-2027")
    assert ran.out == "programme pack-ia-2027 is open with no budget yet\n"
    assert ran.err == "fund it with: idf-compute programme fund pack-ia-2027 HOURS --from … --to …\n"


def test_templates_can_be_listed_and_printed(run: Any) -> None:
    names = [each["name"] for each in run("programme", "templates", "--json").json]
    assert names == [
        "calcul-souverain", "challenge-emploi", "challenge-oncologie", "challenge-transfer-learning", "formation-ia",
        "pack-ia",
    ]  # fmt: skip
    assert "Pack IA of one year" in run("programme", "templates").out
    printed = run("programme", "template", "pack-ia").out
    assert programme_file.parsed(printed.encode(), "printed")["longest_months"] == 6
    assert run("programme", "template", "pack-ia", "--json").json["text"] == printed
    assert run("programme", "template", "none").code == 2


def test_templates_say_where_each_choice_comes_from() -> None:
    for name in programme_file.templates():
        text = programme_file.template(name)
        assert "measure" in text.partition("\n")[0]
        keys = [line for line in text.splitlines() if " = " in line and not line.startswith("# ")]
        bare = [line for line in keys if not any(word in line for word in ("# plan", "# choice", "# default"))]
        allowed = ("kind", "full_name", "after_th", "used_below", "take_th", "region_th", "company_th", "partner_th")
        assert [line for line in bare if not line.startswith(allowed)] == [], name


def test_templates_are_in_the_wheel() -> None:
    from hatchling.builders.wheel import WheelBuilder

    root = Path(__file__).resolve().parents[3]
    packed = {file.distribution_path for file in WheelBuilder(str(root)).recurse_included_files()}
    assert {f"cli/policies/{name}.toml" for name in programme_file.templates()} <= packed


def test_a_programme_in_words(run: Any, broker: Any) -> None:
    broker.answers["GET", "/v1/programmes/pack-ia-2027"] = (200, PROGRAMME)
    assert (
        run("programme", "show", "pack-ia-2027").out
        == """\
programme pack-ia-2027: Pack IA, kind pack-ia

Rules (policy 2, since 2026-11-23 10:00:00)
  an award lasts 3 to 6 months
  an award is at most 1000 h
  at most 100 awards begin in a calendar year
  above 500 h two people approve
  data may be public, internal; its nature none
  its help is aid under de minimis
  a job that names no time limit gets 1:00:00
  a warning when 75 %, 90 % of an award is spent
  an award's end is shown 30 days before
  its data may leave until 30 days after
  what lies unused is taken back 15 days after a notice:
    after 50 % of its time with less than 10 % used: 33.5 % of what is available
  allocated hours (GENCI, EuroHPC) are used before purchased ones

Budgets (an award draws from the one that holds its first day)
  FROM        TO           BUDGET  AWARDED    LEFT
  2027-01-01  2027-12-31  10000 h   1000 h  9000 h

Who pays each charge
  from the beginning: Region 50 %, company 50 %
  from 2027-07-01: Region 33.3 %, company 33.3 %, partner 33.4 %
"""
    )
    assert run("programme", "show", "pack-ia-2027", "--json").json == PROGRAMME


def test_a_programme_without_bounds_in_words(run: Any, broker: Any) -> None:
    broker.answers["GET", "/v1/programmes/p"] = (200, {**PROGRAMME, "name": "p", "policy": BARE, "budgets": []})
    out = run("programme", "show", "p").out
    assert "none yet: idf-compute programme fund p 1000h --from 2027-01-01 --to 2027-12-31" in out
    for sentence in (
        "an award lasts as long as it is granted for",
        "an award may be of any size",
        "any number of awards may begin in a year",
        "no award needs a second person",
        "its help counts as no State aid",
        "no warning while an award is spent",
        "nothing that lies unused is taken back",
    ):
        assert f"  {sentence}\n" in out


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shortest_months": 1}, "an award lasts at least 1 month"),
        ({"shortest_months": 3}, "an award lasts at least 3 months"),
        ({"longest_months": 1}, "an award lasts at most 1 month"),
        ({"images": []}, "jobs may name these images only: none"),
        ({"images": ["a/b", "c"]}, "jobs may name these images only: a/b, c"),
        ({"regime": "exempted", "scheme": "SA.1"}, "its help is aid under the exempted scheme SA.1"),
    ],
)
def test_rules_in_words(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in list(rules({**BARE, **changes}))


def test_shares_in_words() -> None:
    whole = {"region_thousandths": 1000, "company_thousandths": 0, "partner_thousandths": 0}
    assert shares_text({"valid_from": "2027-06-30T22:00:00Z", **whole}) == "from 2027-07-01: Region 100 %"


@pytest.mark.parametrize(
    ("name", "before", "after", "text"),
    [
        ("longest_months", None, 6, "longest_months: no bound -> 6"),
        ("scheme", "SA.1", None, "scheme: SA.1 -> none"),
        ("award_credits_max", 3_600_000, None, "award_max: 1 h -> no bound"),
        ("default_time_limit_s", 3600, 1800, "default_time_limit: 1:00:00 -> 0:30:00"),
        ("natures", ["none"], ["none", "health"], "natures: none -> none, health"),
        ("warn_at_thousandths", [], [900], "warn_at_thousandths: none -> 900"),
        ("free_hours_first", False, True, "free_hours_first: false -> true"),
        ("reclaim", [], POLICY["reclaim"],
         "reclaim: nothing -> after 50 % of its time with less than 10 % used: 33.5 % of what is available"),
    ],
)  # fmt: skip
def test_changes_in_words(name: str, before: Any, after: Any, text: str) -> None:
    assert change_text({"name": name, "before": before, "after": after}) == text


PLAN = ("POST", "/v1/programmes/pack-ia-2027/policy/plan")
SET = ("POST", "/v1/programmes/pack-ia-2027/policy")
CHANGES = {"changes": [{"name": "longest_months", "before": 6, "after": 9}]}


@pytest.fixture
def whole(broker: Any, tmp_path: Path) -> str:
    broker.answers[PLAN] = (200, CHANGES)
    broker.answers[SET] = (200, {**PROGRAMME, "policy_version": 3})
    broker.answers["GET", "/v1/programmes/pack-ia-2027"] = (200, PROGRAMME)
    (tmp_path / "p.toml").write_text(WHOLE)
    return str(tmp_path / "p.toml")


def test_set_shows_what_changes(run: Any, broker: Any, whole: str) -> None:
    ran = run("programme", "set", "pack-ia-2027", whole, "--yes")
    assert (ran.code, ran.out) == (0, "programme pack-ia-2027 is under policy 3\n")
    assert ran.err == (
        "budgets and shares are left as they are: see `programme fund` and `programme shares`\nlongest_months: 6 -> 9\n"
    )
    [sent] = broker.posted(SET[1])
    assert not {"name", "budgets", "shares"} & set(sent)
    assert run("programme", "set", "pack-ia-2027", whole, "--yes", "--json").json["policy_version"] == 3


def test_set_asks_and_nobody_is_there(run: Any, broker: Any, whole: str) -> None:
    ran = run("programme", "set", "pack-ia-2027", whole)
    assert (ran.code, "nobody is there to be asked, nothing was changed" in ran.err) == (2, True)
    assert broker.posted(SET[1]) == []


@pytest.mark.parametrize(("answer", "sent"), [("n", 0), ("y", 1)])
def test_set_asks(run: Any, broker: Any, whole: str, monkeypatch: pytest.MonkeyPatch, answer: str, sent: int) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda _text, err: answer == "y")
    ran = run("programme", "set", "pack-ia-2027", whole)
    assert (ran.code, len(broker.posted(SET[1]))) == (0, sent)
    assert ("nothing was changed" in ran.err) == (answer == "n")


def test_set_that_changes_nothing_writes_no_version(run: Any, broker: Any, whole: str) -> None:
    broker.answers[PLAN] = (200, {"changes": []})
    ran = run("programme", "set", "pack-ia-2027", whole)
    assert (ran.code, ran.out) == (0, "programme pack-ia-2027 is under policy 2\n")
    assert "nothing changes" in ran.err
    assert broker.posted(SET[1]) == []


def test_set_refuses_the_file_of_another_programme(run: Any, whole: str) -> None:
    ran = run("programme", "set", "other", whole)
    assert (ran.code, "is of another programme than other" in ran.err) == (2, True)


def test_fund_and_shares(run: Any, broker: Any) -> None:
    broker.answers["POST", "/v1/programmes/pack-ia-2027/budgets"] = (201, PROGRAMME)
    broker.answers["POST", "/v1/programmes/pack-ia-2027/shares"] = (201, PROGRAMME)
    days = ("--from", "2028-01-01", "--to", "2028-12-31")
    assert run("programme", "fund", "pack-ia-2027", "5000h", *days).out == (
        "programme pack-ia-2027 has 5000 h more from 2028-01-01 to 2028-12-31\n"
    )
    assert broker.posted("/v1/programmes/pack-ia-2027/budgets") == [
        {"start_on": "2028-01-01", "end_on": "2028-12-31", "credits": 18_000_000_000}
    ]
    halves = ("--from", "2027-07-01", "--region", "500", "--company", "500")
    assert run("programme", "shares", "pack-ia-2027", *halves).out == (
        "WHO PAYS IN pack-ia-2027\n"
        "from the beginning: Region 50 %, company 50 %\n"
        "from 2027-07-01: Region 33.3 %, company 33.3 %, partner 33.4 %\n"
    )
    assert broker.posted("/v1/programmes/pack-ia-2027/shares") == [
        {"valid_from": "2027-07-01", "region_thousandths": 500, "company_thousandths": 500, "partner_thousandths": 0}
    ]
    for words in (("fund", "pack-ia-2027", "1h", *days), ("shares", "pack-ia-2027", *halves)):
        assert run("programme", *words, "--json").json == PROGRAMME


def test_list_says_that_no_budget_covers_today(run: Any, broker: Any) -> None:
    broker.answers["GET", "/v1/programmes"] = (200, {"items": [PROGRAMME], "next_cursor": None})
    assert run("programme", "list").out == (
        "NAME          KIND     AID         BUDGETS     TO AWARD NOW\n"
        "pack-ia-2027  pack-ia  de-minimis        1  no budget today\n"
    )


def test_open_funds_this_calendar_year(run: Any, broker: Any) -> None:

    broker.answers["POST", "/v1/programmes"] = (201, PROGRAMME)
    run("programme", "open", "p", "--budget", "1h", "--json")
    year = paris_today().year
    [sent] = broker.posted("/v1/programmes")
    assert sent["budgets"] == [{"start_on": f"{year}-01-01", "end_on": f"{year}-12-31", "credits": 3_600_000}]
