"""What managers and leads type about organisations and projects, from the command line to the real service."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from typed import Type, in_json, typing_at
from world import World, world

from cli.exits import Exit
from quotas.amounts import PARIS
from storage.tables import utcnow

TODAY = utcnow().astimezone(PARIS).date()


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def typed(
    region: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Type]:
    with typing_at(region, tmp_path, monkeypatch, capfd) as run:
        yield run


def test_an_organisation_from_nothing_to_its_undertaking(typed: Type) -> None:
    added = typed("marc", "org", "add", "orga", "--kind", "team", "--full-name", "L'équipe")
    assert added.out == "organisation orga is added; no identifier yet\n"
    changed = typed(
        "marc", "org", "set", "orga", "--kind", "company", "--size", "pme", "--siret", "732 829 320 00074",
        "--naf", "6201Z", "--departement", "91",
    )  # fmt: skip
    assert changed.out == "organisation orga is changed\n"
    linked = typed("marc", "org", "link", "orga", "acme", "--basis", "60 % of the shares", "--from", "2024-01-01")
    assert linked.out == "orga is linked with acme from 2024-01-01: 60 % of the shares\n"
    shown = typed("marc", "org", "show", "orga").out
    for line in (
        "kind         company, size pme",
        "identifier   SIRET 73282932000074",
        "département  91 Essonne",
        "undertaking  one with acme",
        "  linked with acme from 2024-01-01: 60 % of the shares",
    ):
        assert line in shown.splitlines()
    unlinked = typed("marc", "org", "unlink", "orga", "acme", "--on", "2024-12-31")
    assert unlinked.out == "orga was linked with acme from 2024-01-01 to 2024-12-31: 60 % of the shares\n"
    assert "undertaking  by itself" in typed("alma", "org", "show", "orga").out
    assert in_json(typed("alma", "org", "show", "orga", "--json"))["links"][0]["holds"] is False


def test_the_list_names_what_is_missing(typed: Type) -> None:
    typed("marc", "org", "set", "echo", "--foreign-country", "DE", "--foreign-id", "HRB 42243", "--departement", "2A")
    lines = typed("marc", "org", "list").out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["NAME", "acme", "echo"]
    assert "none yet" in lines[1]
    assert "DE HRB 42243" in lines[2]
    assert "2A (outside Île-de-France)" in typed("marc", "org", "show", "echo").out
    listed = in_json(typed("marc", "org", "list", "--json"))
    assert [each["identifier_problem"] for each in listed] == ["no identifier yet", None]


def test_an_identifier_is_cleared_to_make_room(typed: Type) -> None:
    typed("marc", "org", "set", "acme", "--foreign-country", "DE", "--foreign-id", "HRB 1")
    refused = typed("marc", "org", "set", "acme", "--siret", "73282932000074")
    assert (refused.code, "org set acme --clear foreign" in refused.err) == (3, True)
    done = in_json(typed("marc", "org", "set", "acme", "--siret", "73282932000074", "--clear", "foreign", "--json"))
    assert (done["siret"], done["foreign_id"]) == ("73282932000074", None)
    wrong = typed("marc", "org", "set", "acme", "--siret", "73282932000075")
    assert (wrong.code, "fails its check digit" in wrong.err) == (2, True)


def test_members_come_and_go(typed: Type) -> None:
    until = TODAY + timedelta(days=30)
    joined = typed("marc", "project", "join", "vision", "nemo", "--role", "coach", "--to", str(until))
    assert joined.code == 0
    assert joined.out.startswith("nemo is coach of vision from ")
    later = in_json(
        typed("marc", "project", "join", "vision", "paul", "--from", str(until), "--json"),
    )
    assert (later["role"], later["holds"]) == ("member", False)
    now = typed("ines", "project", "members", "vision").out.splitlines()
    assert [line.split()[:2] for line in now] == [["PERSON", "ROLE"], ["ines", "member"], ["nemo", "coach"]]
    every = typed("ines", "project", "members", "vision", "--all").out.splitlines()
    assert every[3].split()[0] == "paul"
    assert every[3].endswith("no")
    assert typed("marc", "project", "leave", "vision", "paul").out == "paul will not be member of vision\n"
    assert " until " in typed("marc", "project", "leave", "vision", "nemo", "--on", str(TODAY)).out
    assert in_json(typed("marc", "project", "leave", "vision", "nemo", "--json"))["holds"] is False
    assert typed("ines", "project", "join", "vision", "nemo").code == 6
    assert typed("paul", "project", "members", "vision").code == 4


def test_whoami_says_what_one_is_in_which_project(typed: Type) -> None:
    typed("marc", "project", "join", "vision", "nemo", "--role", "coach")
    assert typed("nemo", "whoami").out.startswith("nemo (engineer), coach of vision\n")
    assert "olga (operator), in no project" in typed("olga", "whoami").out


def test_a_coach_is_told_what_is_not_shown(region: World, typed: Type) -> None:
    job_id = region.submit(name="secret-plan")["id"]
    typed("marc", "project", "join", "vision", "nemo", "--role", "coach")
    shown = typed("nemo", "show", job_id)
    assert shown.code == 0, shown.err
    assert "secret-plan" not in shown.out
    assert "not shown to a project's coach: name, reason, notices, exit_code" in shown.out
    assert typed("nemo", "jobs").out.splitlines()[1].split()[1] == "-"
    refused = typed("nemo", "logs", job_id)
    assert (refused.code, "and you are its coach" in refused.err) == (6, True)


def test_an_address_of_mail_comes_and_goes(typed: Type) -> None:
    assert typed("olga", "person", "add", "zoe", "--email", "zoe@example.fr").code == 0
    assert "zoe@example.fr" in typed("olga", "person", "list").out
    assert typed("ines", "person", "set", "ines", "--email", "ines@example.fr").out == "ines is changed\n"
    assert in_json(typed("ines", "whoami", "--json"))["person"]["email"] == "ines@example.fr"
    typed("olga", "person", "set", "zoe", "--clear", "email", "--clear", "full-name")
    assert "zoe@example.fr" not in typed("olga", "person", "list", "--json").out


def test_a_name_that_does_not_fit_is_told_what_would(typed: Type) -> None:
    ran = typed("marc", "org", "add", "Béta SARL")
    assert ran.code == Exit.USAGE
    assert "a name has lower case letters, digits and hyphens, at most 40" in ran.err
    assert "`idf-compute org list` shows those that there are" in typed("marc", "org", "show", "nowhere").err
