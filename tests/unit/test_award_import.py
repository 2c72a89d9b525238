"""A cohort's awards from a CSV file: all with what they need, or none and every reason, on both engines."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import func, select
from world import HOUR, World, world

from broker.award_file import COLUMNS, ROWS_MAX, read
from broker.errors import BadRequest
from broker.models import Membership, Organisation, Person, Project
from cli.units import paris_today
from quotas.models import Award, Transfer
from quotas.policy import ProgrammePolicy

HEADER = "organisation,full_name,siret,kind,size,naf,departement,project,lead,lead_email,hours,from,to"
YEAR = paris_today().year + 1
MADE = (Organisation, Project, Person, Membership, Award, Transfer)


def siret(number: int) -> str:
    """A SIRET that passes both checks of Luhn."""

    def closed(digits: str) -> str:
        total = sum(
            (d := int(c) * (1 + (place + 1) % 2)) - (9 if d > 9 else 0) for place, c in enumerate(reversed(digits))
        )
        return digits + str(-total % 10)

    return closed(f"{closed(f'{number:08}')}0001")


def row(number: int, **changes: str) -> dict[str, str]:
    values = {
        "organisation": f"company-{number}",
        "full_name": f"Société n° {number}",
        "siret": siret(number),
        "kind": "company",
        "size": "pme",
        "naf": "62.01Z",
        "departement": "92",
        "project": f"project-{number}",
        "lead": f"lead-{number}",
        "lead_email": f"lead{number}@example.fr",
        "hours": "20",
        "from": f"{YEAR}-01-01",
        "to": f"{YEAR}-06-30",
    }
    return {**values, **changes}


def csv_of(rows: list[dict[str, str]], header: str = HEADER, delimiter: str = ",") -> str:
    names = header.split(",")
    lines = [delimiter.join(names), *(delimiter.join(row[name] for name in names) for row in rows)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        policy = ProgrammePolicy(
            kind="pack-ia",
            shortest_months=3,
            longest_months=6,
            awards_per_year_max=100,
            award_credits_max=500 * HOUR,
            four_eyes_above_credits=400 * HOUR,
        )
        budget = {"start_on": f"{YEAR}-01-01", "end_on": f"{YEAR}-12-31", "credits": 3000 * HOUR}
        made.post("marc", "/programmes", {"name": "cohort", "budgets": [budget], **policy.model_dump(mode="json")})
        yield made
        assert made.faults() == []


def counts(region: World) -> list[int]:
    with region.services.database.read() as session:
        return [session.exec(select(func.count()).select_from(model)).one() for model in MADE]


def imported(region: World, text: str, *, key: str | None = None, dry_run: bool = False) -> Any:
    return region.post("marc", "/awards/import", {"programme": "cohort", "csv": text, "dry_run": dry_run}, key=key)


def refused(region: World, text: str) -> list[tuple[int, str | None, str]]:
    answer = region.call("marc", "POST", "/awards/import", {"programme": "cohort", "csv": text})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["code"] == "import-refused"
    return [(fault["line"], fault["column"], fault["rule"]) for fault in problem["rows"]]


BAD: dict[int, tuple[str | None, dict[str, str], str]] = {
    7: ("siret", {"siret": "73282932000075"}, "fails its check digit"),
    13: ("size", {"size": "big"}, "is none of micro, pme, eti, ge"),
    21: ("hours", {"hours": "-3"}, "are no hours"),
    34: (None, {"to": f"{YEAR}-01-31"}, "lasts at least 3 months"),
    55: ("to", {"to": "June"}, "is no day"),
    89: ("project", {"project": "project-3"}, "stands in line 4 already"),
    100: ("lead_email", {"lead_email": "lead at example"}, "name@example.fr"),
}
"""Row → which column is wrong, how, and a part of the reason."""


def test_a_cohort_of_100_with_7_bad_rows(region: World) -> None:
    rows = [row(number, **BAD.get(number, (None, {}, ""))[1]) for number in range(1, 101)]
    before = counts(region)
    reasons = refused(region, csv_of(rows))
    assert [(line - 1, column) for line, column, _ in reasons] == [(number, BAD[number][0]) for number in BAD]
    for (line, _, rule), (_, _, words) in zip(reasons, BAD.values(), strict=True):
        assert words in rule, line
    assert counts(region) == before, "nothing was written"
    made = imported(region, csv_of([row(number) for number in range(1, 101)]))
    assert (made["rows"], len(set(made["awards"])), made["amount_credits"]) == (100, 100, 2000 * HOUR)
    assert [after - b for after, b in zip(counts(region), before, strict=True)] == [100] * 6
    assert made["left_credits"] == 1000 * HOUR


def test_what_an_import_makes(region: World) -> None:
    made = imported(region, csv_of([row(1, hours="12.5")]))
    award = region.get("marc", f"/awards/{made['awards'][0]}")
    assert (award["state"], award["awarded_credits"], award["requested_by"]) == (
        "active",
        12 * HOUR + HOUR // 2,
        "marc",
    )
    with region.services.database.read() as session:
        person = session.exec(select(Person).where(Person.name == "lead-1")).one()
        member = session.exec(select(Membership).where(Membership.person_id == person.id)).one()
        organisation = session.exec(select(Organisation).where(Organisation.name == "company-1")).one()
        project = session.exec(select(Project).where(Project.name == "project-1")).one()
    assert (person.roles, person.email, member.role, member.end_at) == (["engineer"], "lead1@example.fr", "lead", None)
    assert (organisation.naf, organisation.size, organisation.full_name) == ("62.01Z", "pme", "Société n° 1")
    assert (project.confidentiality, project.nature, project.id) == ("internal", "none", member.project_id)


def test_the_same_key_imports_once(region: World) -> None:
    text = csv_of([row(1)])
    first = imported(region, text, key="cohort")
    before = counts(region)
    assert imported(region, text, key="cohort") == first
    assert counts(region) == before
    assert [rule for _, _, rule in refused(region, text)] == [
        f"project project-1 has award {first['awards'][0]} {YEAR}-01-01 to {YEAR}-06-30 already"
    ]


def test_a_dry_run_writes_nothing(region: World) -> None:
    before = counts(region)
    would = imported(region, csv_of([row(1), row(2)]), dry_run=True)
    assert (would["dry_run"], would["awards"], would["organisations"]) == (True, [], ["company-1", "company-2"])
    assert (would["projects"], would["persons"]) == (["project-1", "project-2"], ["lead-1", "lead-2"])
    assert counts(region) == before
    assert imported(region, csv_of([row(1), row(2)]))["left_credits"] == would["left_credits"]


def test_what_stands_is_used(region: World) -> None:
    imported(region, csv_of([row(1)]))
    before = counts(region)
    again = row(1, **{"from": f"{YEAR}-07-01", "to": f"{YEAR}-12-31"})
    same = {name: row(1)[name] for name in ("organisation", "siret", "full_name", "lead", "lead_email")}
    made = imported(region, csv_of([again, row(2, **same)]))
    assert (made["organisations"], made["projects"], made["persons"]) == ([], ["project-2"], [])
    assert [after - b for after, b in zip(counts(region), before, strict=True)] == [0, 1, 0, 1, 2, 2]


def test_two_rows_of_one_new_organisation_and_one_new_lead(region: World) -> None:
    header = "organisation,size,naf,project,lead,lead_full_name,hours,from,to"
    one = {**row(1), "lead_full_name": "Inès", "naf": ""}
    two = {**row(2), "organisation": "company-1", "lead": "lead-1", "lead_full_name": "", "size": "", "naf": "62.01Z"}
    made = imported(region, csv_of([one, two], header))
    assert (made["organisations"], made["persons"], len(made["projects"])) == (["company-1"], ["lead-1"], 2)
    with region.services.database.read() as session:
        organisation = session.exec(select(Organisation).where(Organisation.name == "company-1")).one()
    assert (organisation.size, organisation.naf) == ("pme", "62.01Z")


Change = Callable[[dict[str, str]], None]


@pytest.mark.parametrize(
    ("changes", "column", "words"),
    [
        ({"organisation": "acme", "siret": siret(9)}, "siret", "organisation acme stands with nothing there"),
        ({"siret": siret(1)}, "siret", "is the SIRET of organisation company-1"),
        ({"organisation": "company-1", "siret": siret(1), "size": "ge"}, "size", "line 2 says pme"),
        ({"lead": "lead-1", "lead_email": "other@example.fr"}, "lead_email", "line 2 says something else"),
        ({"lead": "ines", "lead_email": "other@example.fr"}, "lead_email", "stands with another one"),
        ({"lead": "marc", "lead_email": ""}, "lead", "has not the role engineer"),
        ({"project": "vision"}, "project", "belongs to another organisation"),
        ({"hours": "501"}, None, "at most 500 h"),
        ({"hours": "401"}, "hours", "two managers must approve"),
        ({"hours": "0.0000001"}, "hours", "no whole number of credits"),
        ({"hours": "0"}, "hours", "cannot be awarded"),
        ({"hours": "999999999999"}, "hours", "cannot be awarded"),
        ({"from": f"{YEAR + 1}-01-01", "to": f"{YEAR + 1}-06-30"}, "from", "no budget"),
        ({"from": f"{YEAR}-02-30"}, "from", "is no day of the calendar"),
        ({"to": f"{YEAR - 1}-06-30"}, "to", "lies before from"),
        ({"lead": ""}, "lead", "it is empty"),
        ({"organisation": "Acme SAS"}, "organisation", "is no name"),
        ({"naf": "6201"}, "naf", "four digits and a letter"),
        ({"departement": "20"}, "departement", "is one of 01 to 95"),
        ({"kind": "club"}, "kind", "is none of company"),
        ({"full_name": "x" * 201}, "full_name", "at most 200 characters"),
    ],
)
def test_each_reason_names_its_column(region: World, changes: dict[str, str], column: str | None, words: str) -> None:
    bare = {**row(2), "full_name": "", "naf": "", "departement": "", **changes}
    if changes.get("organisation") == "acme":
        bare |= {"size": "", "kind": ""}
    reasons = [fault for fault in refused(region, csv_of([row(1), bare])) if words in fault[2]]
    assert [(line, name) for line, name, _ in reasons] == [(3, column)]


def test_projects_and_parts_that_stand_otherwise(region: World) -> None:
    header = "organisation,project,lead,hours,from,to,confidentiality,nature"
    text = csv_of([{**row(1), "organisation": "acme", "project": "vision", "lead": "ines", "confidentiality": "public",
                    "nature": "health"}], header)  # fmt: skip
    assert {(column, rule) for _, column, rule in refused(region, text)} >= {
        ("project", "project vision belongs to another programme"),
        ("confidentiality", "project vision stands with internal"),
        ("nature", "project vision stands with none"),
        ("lead", "person ines is member of project vision"),
    }


def test_foreign_identifiers(region: World) -> None:
    header = "organisation,siret,foreign_country,foreign_id,project,lead,hours,from,to"

    def one(country: str, number: str, own: str = "") -> str:
        return csv_of([{**row(1), "siret": own, "foreign_country": country, "foreign_id": number}], header)

    assert "go together" in refused(region, one("DE", ""))[0][2]
    assert "not both" in refused(region, one("DE", "DE811569869", siret(1)))[0][2]
    assert "ISO 3166" in refused(region, one("XX", "1"))[0][2]
    imported(region, one("de", "de811569869"))
    with region.services.database.read() as session:
        made = session.exec(select(Organisation).where(Organisation.name == "company-1")).one()
    assert (made.foreign_country, made.foreign_id, made.siret) == ("DE", "DE811569869", None)


def test_all_rows_together_must_fit_the_budget(region: World) -> None:
    rows = [row(number, hours="301") for number in range(1, 11)]
    assert refused(region, csv_of(rows)) == [
        (1, "hours", "all rows together need 3010 h, and the budget has 3000 h left")
    ]


def test_the_cohort_is_counted_with_the_rows_before(region: World) -> None:
    imported(region, csv_of([row(number) for number in range(1, 100)]))
    reasons = refused(region, csv_of([row(number) for number in range(100, 103)]))
    assert [line for line, _, _ in reasons] == [3, 4]
    assert all("at most 100 awards a year, 100 begin" in rule for _, _, rule in reasons)


def test_a_programme_that_nobody_knows(region: World) -> None:
    body = {"programme": "nothing", "csv": csv_of([row(1)])}
    assert region.call("marc", "POST", "/awards/import", body).status_code == 404


# ── the file alone ──


def test_what_spreadsheets_write() -> None:
    french = csv_of([row(1, hours="1,5", **{"from": "01/02/2027", "to": "30/06/2027"})], delimiter=";")
    [line], faults = read("\ufeff" + french.replace("\n", "\r\n") + ";;;;;;;;;;;;\r\n\r\n")
    assert faults == []
    assert (line.credits, line.start_on, line.number) == (HOUR + HOUR // 2, date(2027, 2, 1), 2)


def test_a_quoted_value_over_two_lines_does_not_shift_the_count() -> None:
    one = csv_of([row(1, full_name='"two\nlines"'), row(2, size="big")])
    _, faults = read(one)
    assert [(fault.line, fault.column) for fault in faults] == [(2, "full_name"), (4, "size")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no header"),
        ("a,b\n1,2\n", "no header"),
        (HEADER + "\n", "no row"),
        (HEADER.replace("siret", "sirte") + "\n", "no column sirte"),
        (HEADER + ",zzz\n", "no column zzz"),
        (HEADER + ",\n", "no column without a name"),
        (HEADER + ",hours\n", "the column hours stands there twice"),
        (HEADER.replace(",lead,", ",") + "\n", "lacks the column lead"),
        (HEADER + '\n"a"b,c\n', "line 2 is no CSV"),
        (csv_of([row(1)] * (ROWS_MAX + 1)), "more than 2000 rows"),
    ],
)
def test_files_that_cannot_be_read_as_a_whole(text: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words) as refusal:
        read(text)
    assert refusal.value.remedy
    if "sirte" in words:
        assert refusal.value.remedy == "did you mean siret?"


def test_a_row_of_another_length() -> None:
    _, [fault] = read(csv_of([row(1)]) + "a,b\n")
    assert (fault.line, fault.column, fault.rule) == (3, None, "the row has 2 values and the header 13 columns")


def test_the_template_can_be_read() -> None:
    from cli.award_file import TEMPLATE

    lines, faults = read(TEMPLATE)
    assert (len(lines), faults) == (2, [])
    assert tuple(TEMPLATE.splitlines()[0].split(",")) == COLUMNS
