"""Organisations: what is known of them, links, single undertakings, and what is missing."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from broker_command import BrokerCommand
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select
from world import World, world

from broker.models import Organisation, OrganisationLink
from broker.organisations import without_identifier, wrong_identifiers
from broker.schema_version import migrate_to
from broker.undertakings import undertaking_of
from quotas.amounts import PARIS, day_start
from storage.database import Database
from storage.tables import new_id, utcnow

SIRET = "73282932000074"
SAME_SIREN = "73282932000082"
OTHER_SIRET = "35600000000048"
TODAY = utcnow().astimezone(PARIS).date()


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made


def refused(region: World, path: str, body: Any, person: str = "marc") -> tuple[int, str]:
    answer = region.call(person, "POST", path, body)
    assert answer.status_code >= 400, answer.text
    return answer.status_code, answer.json()["detail"]


def test_an_organisation_with_all_its_facts(region: World) -> None:
    body = {"name": "orga", "full_name": "Orga SAS", "kind": "company", "size": "pme", "siret": "732 829 320 00074"}
    made = region.post("marc", "/organisations", {**body, "naf": "6201z", "departement": "91"})
    assert (made["siret"], made["naf"], made["departement"]) == (SIRET, "62.01Z", "91")
    assert (made["departement_name"], made["is_in_region"]) == ("Essonne", True)
    assert made["identifier_problem"] is None
    seen = region.get("marc", "/organisations/orga")
    assert (seen["siren"], seen["undertaking"], seen["links"]) == (SIRET[:9], ["orga"], [])
    assert {key: seen[key] for key in made} == made


def test_an_organisation_abroad_and_one_without_identifier(region: World) -> None:
    abroad = {"name": "passau", "kind": "laboratory", "foreign_country": "de", "foreign_id": "de 811335517"}
    made = region.post("marc", "/organisations", abroad)
    assert (made["foreign_country"], made["foreign_id"]) == ("DE", "DE 811335517")
    assert (made["size"], made["is_in_region"], made["identifier_problem"]) == (None, None, None)
    team = region.post("marc", "/organisations", {"name": "les-six", "kind": "team", "departement": "2a"})
    assert (team["identifier_problem"], team["is_in_region"]) == ("no identifier yet", False)
    assert team["departement_name"] is None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"siret": "73282932000075"}, "siret: the SIRET 73282932000075 fails its check digit"),
        ({"siret": "7328"}, "has 4 digits"),
        ({"naf": "62"}, "four digits and a letter"),
        ({"departement": "20"}, "2A and 2B"),
        ({"kind": "shop"}, "kind: Input should be 'company', 'laboratory'"),
        ({"size": "PME"}, "size: Input should be 'micro', 'pme'"),
        ({"foreign_country": "DE"}, "go together"),
        ({"foreign_id": "DE1"}, "go together"),
        ({"foreign_country": "FR", "foreign_id": "1"}, "known by its SIRET"),
        ({"foreign_country": "DE", "foreign_id": "1", "siret": SIRET}, "not both"),
    ],
)
def test_facts_that_cannot_be_are_refused_in_a_sentence(region: World, facts: dict[str, Any], words: str) -> None:
    status, detail = refused(region, "/organisations", {"name": "orga", **facts})
    assert (status, words in detail) == (422, True), detail
    status, detail = refused(region, "/organisations/acme", facts)
    assert (status, words in detail) == (422, True), detail
    assert region.get("marc", "/organisations/acme")["siret"] is None


def test_an_identifier_that_arrives_later(region: World) -> None:
    assert region.get("marc", "/organisations/acme")["identifier_problem"] == "no identifier yet"
    changed = region.post("marc", "/organisations/acme", {"siret": SIRET, "size": "micro"})
    assert (changed["siret"], changed["size"], changed["identifier_problem"]) == (SIRET, "micro", None)
    again = region.post("marc", "/organisations/acme", {"full_name": "Acme", "clear": ["size"]})
    assert (again["siret"], again["size"], again["full_name"]) == (SIRET, None, "Acme")


def test_one_identifier_takes_the_place_of_the_other_in_one_request_only(region: World) -> None:
    abroad = {"foreign_country": "DE", "foreign_id": "HRB 1"}
    region.post("marc", "/organisations/acme", abroad)
    status, detail = refused(region, "/organisations/acme", {"siret": SIRET})
    assert (status, detail) == (422, "acme is known by HRB 1 already, and has one identifier at a time")
    changed = region.post("marc", "/organisations/acme", {"siret": SIRET, "clear": ["foreign"]})
    assert (changed["siret"], changed["foreign_id"], changed["foreign_country"]) == (SIRET, None, None)
    answer = region.call("marc", "POST", "/organisations/acme", abroad)
    assert (answer.json()["code"], "--clear siret" in answer.json()["remedy"]) == ("identifier-clash", True)
    back = region.post("marc", "/organisations/acme", {**abroad, "clear": ["siret"]})
    assert (back["siret"], back["foreign_id"]) == (None, "HRB 1")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "nothing is to be changed"),
        ({"siret": SIRET, "clear": ["siret"]}, "siret: give a new value or clear it"),
        ({"foreign_country": "DE", "foreign_id": "1", "clear": ["foreign"]}, "foreign: give a new value"),
        ({"clear": ["kind"]}, "clear.0"),
    ],
)
def test_a_change_says_one_thing(region: World, body: dict[str, Any], words: str) -> None:
    status, detail = refused(region, "/organisations/acme", body)
    assert (status, words in detail) == (422, True), detail


@pytest.mark.parametrize(
    "columns",
    [
        "kind = 'shop'",
        "size = 'PME'",
        f"siret = '{SIRET}', foreign_id = '1', foreign_country = 'DE'",
        "foreign_id = '1'",
        "foreign_country = 'DE'",
    ],
)
def test_the_tables_refuse_it_too(region: World, columns: str) -> None:
    with pytest.raises(IntegrityError):
        with region.services.database.write() as session:
            session.execute(text(f"UPDATE organisation SET {columns} WHERE name = 'acme'"))


def test_a_siret_that_an_earlier_release_took_in_is_named(
    region: World, database_url: str, broker_command: BrokerCommand
) -> None:
    with region.services.database.write() as session:
        session.execute(text("UPDATE organisation SET siret = '12345678901234' WHERE name = 'acme'"))
    listed = {o["name"]: o["identifier_problem"] for o in region.get("marc", "/organisations")["items"]}
    assert "SIREN 123456789 fails its check digit" in listed["acme"]
    assert listed["echo"] == "no identifier yet"
    with region.services.database.read() as session:
        assert list(wrong_identifiers(session)) == [f"organisation acme: {listed['acme']}"]
        assert without_identifier(session) == ["echo"]
    done = broker_command("doctor", DATABASE_URL=database_url)
    assert done.code == 1
    assert f"✗ organisation acme: {listed['acme']}" in done.out.splitlines()
    assert "· organisations without an identifier yet (`idf-compute org set`): 1, echo" in done.out.splitlines()


def test_a_missing_identifier_is_no_fault(database: Database, database_url: str, broker_command: BrokerCommand) -> None:
    with database.write() as session:
        for number in range(12):
            organisation(session, f"o{number:02}")
    done = broker_command("doctor", DATABASE_URL=database_url)
    assert (done.code, "in order" in done.out) == (0, True)
    assert "12, o00, o01, o02, o03, o04, o05, o06, o07, o08, o09 …" in done.out


def organisation(session: Session, name: str, **facts: Any) -> str:
    row = Organisation(id=new_id("org"), name=name, kind="company", created_at=utcnow(), **facts)
    session.add(row)
    session.flush()
    return row.id


def linked(session: Session, one: str, other: str, since: datetime, until: datetime | None = None) -> None:
    first, second = sorted((one, other))
    session.add(
        OrganisationLink(
            id=new_id("lnk"), organisation_id=first, other_id=second, since=since, until=until, basis="shares"
        )
    )
    session.flush()


T0, T1, T2, T3 = (datetime(year, 1, 1, tzinfo=UTC) for year in (2023, 2024, 2025, 2026))


def test_an_undertaking_is_what_hangs_together_at_a_moment(database: Database) -> None:
    with database.write() as session:
        a, b, c, d, alone = (organisation(session, name) for name in ("a", "b", "c", "d", "alone"))
        linked(session, b, a, T0)
        linked(session, b, c, T1, T2)
        linked(session, d, c, T0)
        assert undertaking_of(session, a, T0 - timedelta(days=1)) == [a]
        assert undertaking_of(session, a, T0) == sorted([a, b])
        assert undertaking_of(session, a, T1) == sorted([a, b, c, d])
        assert undertaking_of(session, d, T2 - timedelta(microseconds=1)) == sorted([a, b, c, d])
        assert undertaking_of(session, d, T2) == sorted([c, d])
        assert undertaking_of(session, alone, T1) == [alone]


def test_establishments_of_one_company_are_one_undertaking_by_themselves(database: Database) -> None:
    with database.write() as session:
        one = organisation(session, "one", siret=SIRET)
        two = organisation(session, "two", siret=SAME_SIREN)
        far = organisation(session, "far", siret=OTHER_SIRET)
        organisation(session, "none")
        linked(session, two, far, T1)
        assert undertaking_of(session, one, T0) == sorted([one, two])
        assert undertaking_of(session, one, T1) == undertaking_of(session, far, T1) == sorted([one, two, far])
        german = organisation(session, "german", foreign_country="DE", foreign_id="HRB 42243")
        again = organisation(session, "again", foreign_country="DE", foreign_id="HRB-42243")
        organisation(session, "swiss", foreign_country="CH", foreign_id="HRB 42243")
        assert undertaking_of(session, german, T1) == sorted([german, again])


def test_a_chain_of_three_hundred_is_one_undertaking(database: Database) -> None:
    with database.write() as session:
        ids = [organisation(session, f"o{number}") for number in range(300)]
        for one, other in pairwise(ids):
            linked(session, one, other, T0)
        assert undertaking_of(session, ids[150], T1) == sorted(ids)


def test_linked_and_unlinked(region: World) -> None:
    made = region.post("marc", "/organisations/acme/links", {"other": "echo", "basis": "60 %", "from_on": "2024-01-01"})
    assert (made["other"], made["from_on"], made["to_on"], made["holds"]) == ("echo", "2024-01-01", None, True)
    assert region.get("alma", "/organisations/echo")["undertaking"] == ["acme", "echo"]
    assert [each["other"] for each in region.get("alma", "/organisations/echo")["links"]] == ["acme"]
    ended = region.post("marc", "/organisations/echo/links/end", {"other": "acme", "on": "2025-12-31"})
    assert (ended["to_on"], ended["holds"]) == ("2025-12-31", False)
    assert region.get("alma", "/organisations/acme")["undertaking"] == ["acme"]
    with region.services.database.read() as session:
        acme = session.exec(select(Organisation.id).where(col(Organisation.name) == "acme")).one()
        assert len(undertaking_of(session, acme, day_start(date(2025, 12, 31)))) == 2
        assert len(undertaking_of(session, acme, day_start(date(2026, 1, 1)))) == 1


def test_an_unlink_without_a_day_ends_yesterday(region: World) -> None:
    region.post("marc", "/organisations/acme/links", {"other": "echo", "basis": "60 %", "from_on": "2024-01-01"})
    ended = region.post("marc", "/organisations/acme/links/end", {"other": "echo"})
    assert ended["to_on"] == str(TODAY - timedelta(days=1))


def test_a_link_that_never_held(region: World) -> None:
    region.post("marc", "/organisations/acme/links", {"other": "echo", "basis": "a slip"})
    assert refused(region, "/organisations/acme/links/end", {"other": "echo", "on": "2020-01-01"})[0] == 400
    ended = region.post("marc", "/organisations/acme/links/end", {"other": "echo"})
    assert (ended["from_on"], ended["holds"]) == (str(TODAY), False)
    again = {"other": "echo", "basis": "60 %", "from_on": str(TODAY)}
    assert region.post("marc", "/organisations/acme/links", again)["holds"] is True
    assert len(region.get("marc", "/organisations/acme")["links"]) == 2


def test_two_links_of_a_pair_never_overlap(region: World) -> None:
    def body(first: str, last: str | None) -> dict[str, Any]:
        return {"other": "echo", "basis": "x", "from_on": first, "to_on": last}

    region.post("marc", "/organisations/acme/links", body("2024-01-01", "2024-12-31"))
    for first, last in (("2023-01-01", None), ("2024-12-31", "2025-12-31"), ("2023-01-01", "2024-01-01")):
        answer = region.call("marc", "POST", "/organisations/acme/links", body(first, last))
        assert (answer.status_code, answer.json()["code"]) == (409, "link-clash")
        assert "acme and echo are linked from 2024-01-01 to 2024-12-31 already" in answer.json()["detail"]
    region.post("marc", "/organisations/acme/links", body("2025-01-01", None))
    region.post("marc", "/organisations/acme/links", body("2022-01-01", "2023-12-31"))
    reverse = region.call("marc", "POST", "/organisations/echo/links", {"other": "acme", "basis": "x"})
    assert (reverse.status_code, "from 2025-01-01 on" in reverse.json()["detail"]) == (409, True)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("links", {"other": "acme", "basis": "x"}, 400, "with itself"),
        ("links", {"other": "nobody", "basis": "x"}, 404, "no organisation nobody"),
        ("links", {"other": "echo"}, 422, "basis"),
        ("links", {"other": "echo", "basis": "x", "to_on": "2020-01-01"}, 400, "lies before the first"),
        (
            "links",
            {"other": "echo", "basis": "x", "from_on": "2026-02-01", "to_on": "2026-01-01"},
            422,
            "before from_on",
        ),
        ("links/end", {"other": "echo"}, 404, "no link between acme and echo lasts beyond"),
    ],
)
def test_links_that_cannot_be(region: World, path: str, body: dict[str, Any], status: int, words: str) -> None:
    got, detail = refused(region, f"/organisations/acme/{path}", body)
    assert (got, words in detail) == (status, True), detail


def test_the_table_of_links_refuses_it_too(database: Database) -> None:
    with database.write() as session:
        a, b = organisation(session, "a"), organisation(session, "b")
    for one, other, until in ((a, a, None), (a, b, T0)):
        with pytest.raises(IntegrityError):
            with database.write() as session:
                linked(session, one, other, T1, until)


def test_organisations_of_the_first_release_are_converted(database_url: str) -> None:
    migrate_to(database_url, "0001")
    database = Database(database_url)
    with database.write() as session:
        session.execute(
            text(
                "INSERT INTO organisation (id, name, siret, created_at) VALUES ('org-1', 'acme', '12345678901234', 0),"
                " ('org-2', 'echo', NULL, 0)"
            )
        )
    migrate_to(database_url)
    with database.write() as session:
        acme, echo = session.exec(select(Organisation).order_by(col(Organisation.name))).all()
        assert (acme.kind, acme.size, acme.siret) == ("company", None, "12345678901234")
        assert (echo.kind, echo.siret) == ("company", None)
        assert len(list(wrong_identifiers(session))) == 1
        echo.sqlmodel_update({"kind": "school", "foreign_country": "DE", "foreign_id": "1", "departement": "75"})
        session.add(echo)
        linked(session, "org-1", "org-2", T0)
    migrate_to(database_url, "0001")
    with database.write() as session:
        session.execute(text("INSERT INTO organisation (id, name, created_at) VALUES ('org-3', 'late', 0)"))
    migrate_to(database_url)
    with database.read() as session:
        kinds = session.exec(select(Organisation.name, Organisation.kind, Organisation.foreign_id)).all()
        assert sorted(kinds) == [("acme", "company", None), ("echo", "school", "1"), ("late", "company", None)]
        assert undertaking_of(session, "org-1", T3) == ["org-1", "org-2"]
    database.close()
