"""Who belongs to which project, as what, from when to when; and people's addresses of mail."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select, update
from world import World, world

from broker.models import Idempotency, Membership, Person, Project
from broker.schema_version import migrate_to
from quotas.amounts import PARIS, day_start
from storage.database import Database
from storage.tables import microseconds, utcnow

TODAY = utcnow().astimezone(PARIS).date()
DAY = timedelta(days=1)


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made


def join(region: World, person: str, project: str = "vision", *, by: str = "marc", **body: Any) -> Any:
    body = {name: str(value) if isinstance(value, date) else value for name, value in body.items()}
    return region.call(by, "POST", f"/projects/{project}/members", {"person": person, **body})


def leave(region: World, person: str, project: str = "vision", *, by: str = "marc", **body: Any) -> Any:
    body = {name: str(value) for name, value in body.items()}
    return region.call(by, "POST", f"/projects/{project}/members/leave", {"person": person, **body})


def members(region: World, *, by: str = "marc", every: bool = False) -> list[tuple[str, str]]:
    items = region.get(by, f"/projects/vision/members{'?all=true' if every else ''}")["items"]
    return sorted((item["person"], item["role"]) for item in items)


def shift(region: World, person: str, **columns: datetime) -> None:
    """Move a membership in time, as if time had passed."""
    with region.services.database.write() as session:
        row = session.exec(select(Membership).join(Person).where(col(Person.name) == person)).one()
        row.sqlmodel_update(columns)
        session.add(row)


def test_joining_and_leaving(region: World) -> None:
    joined = join(region, "nemo", role="viewer").json()
    assert (joined["person"], joined["project"], joined["role"]) == ("nemo", "vision", "viewer")
    assert (joined["end_at"], joined["holds"]) == (None, True)
    assert members(region) == [("ines", "member"), ("nemo", "viewer")]
    assert region.get("nemo", "/me")["memberships"] == [{"project": "vision", "role": "viewer", "until": None}]
    assert region.get("nemo", "/projects")["items"][0]["members"] == ["ines", "nemo"]
    left = leave(region, "nemo").json()
    assert (left["id"], left["holds"]) == (joined["id"], False)
    assert members(region) == [("ines", "member")]
    assert members(region, every=True) == [("ines", "member"), ("nemo", "viewer")]
    assert region.get("nemo", "/me")["memberships"] == []
    assert region.get("marc", "/projects")["items"][0]["members"] == ["ines"]


def test_a_membership_has_days(region: World) -> None:
    made = join(region, "nemo", from_on=TODAY + DAY, to_on=TODAY + 2 * DAY).json()
    assert made["holds"] is False
    assert datetime.fromisoformat(made["start_at"]) == day_start(TODAY + DAY)
    assert datetime.fromisoformat(made["end_at"]) == day_start(TODAY + 3 * DAY)
    assert region.call("nemo", "GET", "/projects/vision/members").status_code == 404
    assert members(region) == [("ines", "member")]
    shift(region, "nemo", start_at=utcnow() - DAY)
    assert members(region) == [("ines", "member"), ("nemo", "member")]
    shift(region, "nemo", end_at=utcnow())
    assert members(region) == [("ines", "member")]


def test_from_today_means_from_now_on(region: World) -> None:
    before = utcnow()
    made = join(region, "nemo", from_on=TODAY, to_on=TODAY).json()
    assert before <= datetime.fromisoformat(made["start_at"]) <= utcnow()
    assert datetime.fromisoformat(made["end_at"]) == day_start(TODAY + DAY)
    assert made["holds"] is True


def test_the_same_again_stays_as_it_is(region: World) -> None:
    first = join(region, "nemo").json()
    assert join(region, "nemo").json() == first
    assert len(members(region, every=True)) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"role": "viewer"},
        {"from_on": TODAY + DAY},
        {"to_on": TODAY + DAY},
        {"role": "member", "from_on": TODAY, "to_on": TODAY},
    ],
)
def test_nobody_belongs_to_a_project_twice_at_a_time(region: World, body: dict[str, Any]) -> None:
    answer = join(region, "ines", **body)
    assert (answer.status_code, answer.json()["code"]) == (409, "membership-clash")
    assert f"ines is member of vision from {TODAY} on already" in answer.json()["detail"]
    assert "idf-compute project leave vision ines" in answer.json()["remedy"]


def test_two_memberships_one_after_the_other(region: World) -> None:
    join(region, "nemo", to_on=TODAY + DAY)
    clash = join(region, "nemo", role="coach", from_on=TODAY + DAY)
    assert f"from {TODAY} to {TODAY + DAY} already" in clash.json()["detail"]
    assert join(region, "nemo", role="coach", from_on=TODAY + 2 * DAY).status_code == 201
    assert join(region, "nemo", role="coach").status_code == 409, "without end it would reach into the next"
    assert members(region, every=True) == [("ines", "member"), ("nemo", "coach"), ("nemo", "member")]


def test_a_role_changes_by_leaving_and_joining(region: World) -> None:
    leave(region, "ines")
    assert join(region, "ines", role="lead").status_code == 201
    assert members(region) == [("ines", "lead")]
    assert members(region, every=True) == [("ines", "lead"), ("ines", "member")]


def test_a_membership_that_has_not_begun_is_taken_back(region: World) -> None:
    join(region, "nemo", role="coach", from_on=TODAY + DAY)
    taken = leave(region, "nemo").json()
    assert taken["end_at"] == taken["start_at"]
    assert join(region, "nemo", from_on=TODAY + DAY).status_code == 201, "what never began is in nobody's way"


def test_leaving_with_a_day(region: World) -> None:
    left = leave(region, "ines", on=TODAY + DAY).json()
    assert (datetime.fromisoformat(left["end_at"]), left["holds"]) == (day_start(TODAY + 2 * DAY), True)
    later = leave(region, "ines", on=TODAY + 2 * DAY)
    assert (later.status_code, later.json()["code"]) == (400, "bad-request")
    assert f"lasts from {TODAY} to {TODAY + DAY}, without {TODAY + 2 * DAY}" in later.json()["detail"]
    assert leave(region, "ines", on=TODAY).json()["holds"] is True


@pytest.mark.parametrize(
    ("send", "body", "status", "words"),
    [
        (join, {"from_on": TODAY - DAY}, 400, "nobody joins in the past"),
        (join, {"to_on": TODAY - DAY}, 400, "lies before the first"),
        (join, {"from_on": TODAY + DAY, "to_on": TODAY}, 422, "before from_on"),
        (join, {"role": "boss"}, 422, "role"),
        (leave, {}, 404, "nemo does not belong to vision"),
        (leave, {"on": TODAY}, 404, "nemo does not belong to vision"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    region: World, send: Any, body: dict[str, Any], status: int, words: str
) -> None:
    answer = send(region, "nemo", **body)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text


def test_leaving_in_the_past_and_before_the_beginning(region: World) -> None:
    past = leave(region, "ines", on=TODAY - DAY)
    assert (past.status_code, "is seen" in past.json()["detail"]) == (400, True)
    join(region, "nemo", from_on=TODAY + 2 * DAY)
    early = leave(region, "nemo", on=TODAY + DAY)
    assert (early.status_code, f"lasts from {TODAY + 2 * DAY} on" in early.json()["detail"]) == (400, True)


def test_eight_who_enter_one_person_at_one_instant(region: World) -> None:
    barrier = threading.Barrier(8)
    roles = ["member", "viewer", "coach", "lead"] * 2

    def send(role: str) -> int:
        barrier.wait()
        return int(join(region, "nemo", role=role, to_on=TODAY + 5 * DAY).status_code)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(send, roles)) == [201] + [409] * 7


def test_the_table_refuses_it_too(region: World) -> None:
    broken = (
        "UPDATE membership SET role = 'boss'",
        "UPDATE membership SET end_at = start_at - 1",
        "INSERT INTO membership (id, person_id, project_id, role, start_at)"
        " SELECT 'mbr-x', person_id, project_id, 'coach', start_at + 5 FROM membership LIMIT 1",
    )
    for statement in broken:
        with pytest.raises(IntegrityError):
            with region.services.database.write() as session:
                session.execute(text(statement))


def test_a_lead_lets_others_in_and_out_but_leads(region: World) -> None:
    leave(region, "ines")
    join(region, "ines", role="lead")
    for role in ("member", "viewer", "coach"):
        assert join(region, "nemo", by="ines", role=role).status_code == 201
        assert leave(region, "nemo", by="ines").status_code == 200
    for answer in (join(region, "nemo", by="ines", role="lead"), leave(region, "ines", by="ines")):
        assert (answer.status_code, answer.json()["code"]) == (403, "not-allowed")
        assert "only a manager may" in answer.json()["detail"]
    assert members(region) == [("ines", "lead")], "what was refused has changed nothing"
    assert join(region, "nemo", "voice", by="ines").status_code == 404, "another project is as good as none"


def test_a_lead_who_was_one_no_longer_is(region: World) -> None:
    leave(region, "ines")
    join(region, "ines", role="lead")
    key = "again"
    body = {"person": "nemo"}
    assert region.call("ines", "POST", "/projects/vision/members", body, key=key).status_code == 201
    leave(region, "ines")
    for again in (key, "another"):
        assert region.call("ines", "POST", "/projects/vision/members", body, key=again).status_code == 404
    join(region, "ines", role="member")
    assert region.call("ines", "POST", "/projects/vision/members", body, key=key).status_code == 403


def test_nothing_passes_from_one_project_of_a_person_to_the_other(region: World) -> None:
    """A consultant who leads one company's project coaches another's: each is seen as its own role allows."""
    join(region, "nemo", "vision", role="lead")
    join(region, "nemo", "voice", role="coach")
    mine, theirs = region.submit("nemo", name="mine"), region.submit("paul", project="voice", name="theirs")
    listed = {job["id"]: job for job in region.get("nemo", "/jobs")["items"]}
    assert (listed[mine["id"]]["name"], listed[theirs["id"]]["name"]) == ("mine", None)
    assert region.call("nemo", "GET", f"/jobs/{mine['id']}/log").status_code == 200
    assert region.call("nemo", "GET", f"/jobs/{theirs['id']}/log").status_code == 403
    assert region.submit("nemo", project=None)["project"] == "vision", "the only one that they may submit to"
    assert join(region, "olga", "voice", by="nemo").status_code == 403
    assert region.call("ines", "GET", f"/jobs/{theirs['id']}").status_code == 404


@pytest.mark.parametrize(("role", "project"), [("viewer", "vision"), ("coach", "vision"), ("coach", None)])
def test_who_may_not_submit_is_told_why(region: World, role: str, project: str | None) -> None:
    join(region, "nemo", role=role)
    problem = region.refused("nemo", project=project)
    assert (problem["status"], problem["code"]) == (403, "not-allowed")
    assert problem["detail"] == f"you are {role} of the project vision, and only leads and members submit jobs"


def test_a_repeat_needs_the_role_of_this_moment(region: World) -> None:
    body = {"project": "vision", "arguments": ["true"], "gpus": 1}
    assert region.call("ines", "POST", "/jobs", body, key="k").status_code == 201
    leave(region, "ines")
    join(region, "ines", role="viewer")
    again = region.call("ines", "POST", "/jobs", body, key="k")
    assert (again.status_code, "leads, members only, and you are its viewer" in again.json()["detail"]) == (403, True)


def test_an_address_of_mail_is_kept_and_erased(region: World) -> None:
    made = region.post("olga", "/persons", {"name": "zoe", "full_name": "Zoé", "email": "zoe@example.fr"})
    assert "email" not in made
    listed = {person["name"]: person["email"] for person in region.get("olga", "/persons")["items"]}
    assert (listed["zoe"], listed["ines"]) == ("zoe@example.fr", None)
    region.post("ines", "/persons/ines", {"email": "ines@example.fr", "full_name": "Inès"})
    assert region.get("ines", "/me")["person"]["email"] == "ines@example.fr"
    assert region.call("ines", "POST", "/persons/zoe", {"clear": ["email"]}).status_code == 403
    assert region.call("olga", "POST", "/persons/nobody", {"clear": ["email"]}).status_code == 404
    region.post("olga", "/persons/zoe", {"clear": ["email", "full_name"]})
    region.post("ines", "/persons/ines", {"clear": ["email"]})
    assert (
        region.get("ines", "/me")["person"] | {"email": None, "full_name": "Inès"}
        == region.get("ines", "/me")["person"]
    )
    with region.services.database.read() as session:
        people = session.exec(select(Person.email, Person.full_name)).all()
        assert all(email is None for email, _ in people)
        assert "example.fr" not in "".join(answer or "" for answer in session.exec(select(Idempotency.answer)))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"email": "zoe"}, "name@example.fr"),
        ({"email": "z@example.fr\nBcc: x@example.fr"}, "name@example.fr"),
        ({}, "nothing is to be changed"),
        ({"email": "z@example.fr", "clear": ["email"]}, "not both"),
        ({"clear": ["roles"]}, "clear.0"),
    ],
)
def test_other_changes_of_a_person_are_refused(region: World, body: dict[str, Any], words: str) -> None:
    answer = region.call("olga", "POST", "/persons/ines", body)
    assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.text


def test_members_of_the_first_release_are_converted_and_come_back(database_url: str, tmp_path: Path) -> None:
    with world(database_url, tmp_path) as region:
        join(region, "nemo", role="coach")
        join(region, "olga", role="viewer")
        join(region, "marc", from_on=TODAY + DAY)
        region.post("ines", "/persons/ines", {"email": "ines@example.fr"})
        before = rows(region.services.database)
    migrate_to(database_url, "0001")
    database = Database(database_url)
    with database.write() as session:
        held = session.execute(text("SELECT p.name FROM membership m JOIN person p ON p.id = m.person_id")).scalars()
        assert sorted(held) == ["ines", "paul"], "no coach or viewer becomes a member by going back"
        ids = dict(session.execute(text("SELECT name, id FROM person")).all())  # type: ignore[arg-type]
        vision = session.execute(text("SELECT id FROM project WHERE name = 'vision'")).scalar_one()
        for name in ("nemo", "alma", "marc"):
            session.execute(
                text("INSERT INTO membership (person_id, project_id, since) VALUES (:person, :project, :since)"),
                {"person": ids[name], "project": vision, "since": microseconds(utcnow())},
            )
    migrate_to(database_url)
    after = rows(database)
    assert {row for row in before if row[0] in ("ines", "paul", "olga")} <= after
    now = {row[:2] for row in after if row[3]}
    assert now == {
        *(("ines", "member"), ("paul", "member"), ("olga", "viewer")),
        *(("nemo", "member"), ("alma", "member"), ("marc", "member")),
    }
    assert len(after) == len(before) + 3, "what nemo and marc were before is still told"
    with database.read() as session:
        assert session.exec(select(Person.email).where(col(Person.name) == "ines")).one() == "ines@example.fr"
    migrate_to(database_url, "0001")
    migrate_to(database_url)
    assert rows(database) == after
    database.close()


def rows(database: Database) -> set[tuple[str, str, str, bool]]:
    """Person, role, id and whether it is open, of every membership."""
    with database.read() as session:
        wanted = select(Person.name, Membership.role, Membership.id, col(Membership.end_at).is_(None)).join(Membership)
        return {tuple(row) for row in session.execute(wanted).all()}  # type: ignore[misc]


def test_a_plain_database_of_the_first_release_is_converted(database_url: str) -> None:
    migrate_to(database_url, "base")
    migrate_to(database_url, "0001")
    database = Database(database_url)
    since = datetime(2026, 3, 1, 12, tzinfo=UTC)
    with database.write() as session:
        for statement in (
            "INSERT INTO person (id, name, roles, created_at) VALUES ('psn-1', 'ines', '[\"engineer\"]', 0)",
            "INSERT INTO organisation (id, name, created_at) VALUES ('org-1', 'acme', 0)",
            "INSERT INTO programme (id, name, kind, default_time_limit_s, created_at)"
            " VALUES ('prg-1', 'p', 'other', 60, 0)",
            "INSERT INTO ledger_account VALUES ('programme:prg-1', 'programme', 'prg-1', 'credit', 0)",
            "INSERT INTO ledger_transfer"
            " VALUES (1, 'fund/prg-1', 'fund', 'treasury:region', 'programme:prg-1', 3600000, 'prg-1', 0, 'x')",
            "INSERT INTO project (id, name, organisation_id, programme_id, confidentiality, nature, created_at)"
            " VALUES ('prj-1', 'vision', 'org-1', 'prg-1', 'public', 'none', 0)",
        ):
            session.execute(text(statement))
        session.execute(text(f"INSERT INTO membership VALUES ('psn-1', 'prj-1', {microseconds(since)})"))
    migrate_to(database_url)
    with database.read() as session:
        row = session.exec(select(Membership)).one()
        assert (row.person_id, row.project_id, row.role) == ("psn-1", "prj-1", "member")
        assert (row.start_at, row.end_at) == (since, None)
        assert session.exec(select(Project.name)).one() == "vision"
    database.close()


def test_the_clock_of_this_moment_decides(region: World) -> None:
    """A membership that ends while its owner looks on is over at the next request."""
    join(region, "nemo", to_on=TODAY + DAY)
    job = region.submit("nemo")
    assert region.call("nemo", "GET", f"/jobs/{job['id']}").status_code == 200
    with region.services.database.write() as session:
        nemo = session.exec(select(Person.id).where(col(Person.name) == "nemo")).one()
        session.execute(update(Membership).where(col(Membership.person_id) == nemo).values(end_at=utcnow()))
    for method, path in (("GET", ""), ("GET", "/log"), ("POST", "/cancel")):
        assert region.call("nemo", method, f"/jobs/{job['id']}{path}").status_code == 404
    assert region.refused("nemo")["status"] == 404
    assert region.job(job["id"])["state"] == "held"


def test_a_submission_asks_for_its_project_once(region: World) -> None:
    """The way of every job: role and dates are part of the one statement that finds the project."""
    asked: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    engine = region.services.database.engine
    event.listen(engine, "before_cursor_execute", listen)
    region.submit()
    event.remove(engine, "before_cursor_execute", listen)
    assert len([statement for statement in asked if "membership" in statement]) == 1
