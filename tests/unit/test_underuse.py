"""Awards under watch: who is told what and when, and what goes back, over the API and the worker's chore."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, col, select, update
from world import HOUR, World, world

from broker import underuse
from broker.memberships import memberships
from broker.models import Notice, Person
from broker.schema_version import migrate_to
from broker.underuse import watch_awards
from cli.units import paris_today
from quotas.amounts import PARIS, day_start
from quotas.award_life import storage_dates
from quotas.ledger import Movement, Posting, account_id, post
from quotas.models import Award, ReclaimNotice
from storage.tables import utcnow

RULE = {"after_thousandths": 500, "used_below_thousandths": 300, "take_thousandths": 500}


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    """Ines leads `vision`, Paul is a member of `voice`, which nobody leads; both awards began half a year ago."""
    with world(database_url, tmp_path) as made:
        with made.services.database.write() as session:
            ines = session.exec(select(Person.id).where(Person.name == "ines")).one()
            session.execute(update(memberships).values(role="lead").where(memberships.c.person_id == ines))
            today = datetime.now(PARIS).date()
            span = {
                "start_at": day_start(today - timedelta(days=180)),
                "end_at": day_start(today + timedelta(days=120)),
            }
            session.exec(update(Award).values(**span))
        made.post("marc", "/programmes/pack-ia-2026/policy", {"kind": "pack-ia", "reclaim": [RULE], "notice_days": 15})
        yield made
        assert made.faults() == []


def award_of(region: World, project: str = "vision") -> str:
    return str(region.award(project)["id"])


def charge(region: World, award_id: str, hours: int) -> None:
    with region.services.database.write() as session:
        source, target = account_id("available", award_id), account_id("consumed", award_id)
        movement = Movement(f"settle/{award_id}/{hours}", "adjust", source, target, hours * HOUR, "job-1")
        assert post(session.connection(), [Posting((movement,))], utcnow())


def told(region: World) -> Counter[tuple[str, str]]:
    """The events that people were told of: the event's kind and the person's name."""
    with region.services.database.read() as session:
        rows = session.exec(select(Notice.key, Person.name).join(Person)).all()
    return Counter((key.split("/")[0], name) for key, name in rows)


def letter(region: World, event: str, name: str) -> Notice:
    with region.services.database.read() as session:
        found = select(Notice).join(Person).where(Person.name == name, col(Notice.key).startswith(f"{event}/"))
        return session.exec(found.order_by(col(Notice.created_at).desc())).first() or pytest.fail("no letter")


def due(region: World) -> datetime:
    with region.services.database.read() as session:
        return session.exec(select(ReclaimNotice.due_at)).first() or pytest.fail("no notice")


def test_thresholds_and_ends_are_told_once_to_the_leads(region: World) -> None:
    vision, voice = award_of(region), award_of(region, "voice")
    charge(region, vision, 40)
    charge(region, voice, 76)
    watch_awards(region.services)
    assert told(region) == {("award-spent", "marc"): 1}, "nobody leads voice, so the managers are told"
    charge(region, vision, 55)
    for _ in range(2):
        watch_awards(region.services)
    assert told(region) == {("award-spent", "marc"): 1, ("award-spent", "ines"): 1}
    said = letter(region, "award-spent", "ines")
    assert said.subject == f"vision: 90 % of award {vision} is spent"
    assert "95 h of 100 h normalised GPU-hours are spent" in said.text
    for _ in range(2):
        watch_awards(region.services, utcnow() + timedelta(days=100))
    assert told(region)["award-ends", "ines"] == 1
    text = letter(region, "award-ends", "ines").text
    today = datetime.now(PARIS).date()
    until = storage_dates(day_start(today + timedelta(days=120)), 30).export_until - timedelta(microseconds=1)
    days = [*(str(today + timedelta(days=number)) for number in (119, 120, 121)), str(until.astimezone(PARIS).date())]
    assert [line[:10] for line in text.splitlines()[:4]] == days, "last day, read-only, export, last day of export"


def test_what_lies_unused_is_announced_then_goes_back(region: World) -> None:
    vision = award_of(region)
    charge(region, award_of(region, "voice"), 40)
    for _ in range(2):
        watch_awards(region.services)
    assert told(region) == {("reclaim-announced", "ines"): 1, ("reclaim-announced", "marc"): 1}
    said = letter(region, "reclaim-announced", "ines")
    last = due(region).astimezone(PARIS).date() - timedelta(days=1)
    assert last == datetime.now(PARIS).date() + timedelta(days=15)
    assert said.subject == f"vision: 50 h of award {vision} go back after {last}"
    assert f'idf-compute award justify {vision} "..."' in said.text
    (open_one,) = region.get("ines", "/reclaims?due=true")["items"]
    assert (open_one["announced_credits"], open_one["outcome"]) == (50 * HOUR, None)
    for _ in range(2):
        watch_awards(region.services, due(region))
    assert told(region)["reclaim-ended", "ines"] == told(region)["reclaim-ended", "marc"] == 1
    assert region.award()["available_credits"] == 50 * HOUR
    assert region.get("marc", "/reclaims?due=true")["items"] == []
    (done,) = region.get("alma", "/reclaims?project=vision")["items"]
    assert (done["outcome"], done["reclaimed_credits"]) == ("reclaimed", 50 * HOUR)
    assert letter(region, "reclaim-ended", "ines").subject == f"vision: 50 h of award {vision} went back"


def test_nothing_goes_back_against_a_justification_that_nobody_read(region: World) -> None:
    vision = award_of(region)
    watch_awards(region.services)
    path = f"/awards/{vision}/justification"
    said = region.post("ines", path, {"text": "the hospital sends the data in July"})
    assert (said["justified_by"], said["decision"]) == ("ines", None)
    assert "the hospital sends the data in July" in letter(region, "reclaim-justified", "marc").text
    for days in (0, 0, 1, 7, 8):
        watch_awards(region.services, due(region) + timedelta(days=days))
    assert told(region)["reclaim-reminder", "marc"] == 2, "on the due day and each week"
    assert region.award()["available_credits"] == 100 * HOUR
    region.post("marc", f"{path}/accept", {"reason": "July is soon"})
    assert "A manager says: July is soon" in letter(region, "reclaim-decided", "ines").text
    watch_awards(region.services, due(region) + timedelta(days=9))
    assert region.award()["available_credits"] == 100 * HOUR
    assert [r["outcome"] for r in region.get("ines", "/reclaims?project=vision")["items"]] == ["accepted"]


def test_a_refused_justification_lets_the_reclaim_take_its_course(region: World) -> None:
    vision = award_of(region)
    watch_awards(region.services)
    path = f"/awards/{vision}/justification"
    region.post("ines", path, {"text": "holidays"})
    region.post("marc", f"{path}/refuse", {"reason": "others wait"})
    again = region.call("ines", "POST", path, {"text": "more holidays"})
    assert (again.status_code, again.json()["code"]) == (409, "reclaim-decided")
    watch_awards(region.services, due(region))
    assert region.award()["available_credits"] == 50 * HOUR


def test_use_calls_a_reclaim_off_and_that_is_told(region: World) -> None:
    vision = award_of(region)
    watch_awards(region.services)
    charge(region, vision, 30)
    watch_awards(region.services, utcnow() + timedelta(hours=1))
    assert letter(region, "reclaim-ended", "ines").text == "Nothing goes back: the award is used again.\n"


@pytest.mark.parametrize(
    ("person", "what", "status", "code"),
    [
        ("paul", "", 404, "award-unknown"),
        ("nemo", "", 404, "award-unknown"),
        ("marc", "", 403, "not-allowed"),
        ("ines", "/accept", 403, "not-allowed"),
        ("olga", "/refuse", 403, "not-allowed"),
        ("ines", "", 404, "reclaim-unknown"),
        ("marc", "/refuse", 404, "reclaim-unknown"),
    ],
)
def test_who_may_justify_and_decide(region: World, person: str, what: str, status: int, code: str) -> None:
    body = {"reason": "x"} if what else {"text": "x"}
    answer = region.call(person, "POST", f"/awards/{award_of(region)}/justification{what}", body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    unknown = region.call(person, "POST", f"/awards/awd-none/justification{what}", body)
    assert unknown.status_code in (403, 404)


def test_a_member_who_is_no_lead_does_not_justify(region: World) -> None:
    answer = region.call("paul", "POST", f"/awards/{award_of(region, 'voice')}/justification", {"text": "x"})
    assert (answer.status_code, answer.json()["detail"]) == (403, "a lead of the project justifies it")


def test_forecasts_of_ones_own_and_those_at_risk(region: World) -> None:
    vision, voice = award_of(region), award_of(region, "voice")
    with region.services.database.write() as session:
        fresh = {"start_at": day_start(paris_today() - timedelta(days=10))}
        session.exec(update(Award).where(col(Award.id) == voice).values(**fresh))
    charge(region, vision, 50)
    (own,) = region.get("ines", "/forecasts")["items"]
    assert (own["award"], own["project"], own["programme"]) == (vision, "vision", "pack-ia-2026")
    assert own["burn_credits_per_day"] > 0
    assert (own["risks"], own["ceiling_unknown"]) == (["runs_out"], "no ceiling of GPUs at once is set")
    assert [f["award"] for f in region.get("marc", "/forecasts")["items"]] == [vision, voice]
    assert [f["award"] for f in region.get("marc", "/forecasts?at_risk=true")["items"]] == [vision]
    first = region.get("marc", "/forecasts?limit=1&programme=pack-ia-2026")
    assert [f["award"] for f in region.get("marc", f"/forecasts?cursor={first['next_cursor']}")["items"]] == [voice]
    assert region.call("marc", "GET", "/forecasts?programme=none").status_code == 404
    assert region.call("paul", "GET", "/forecasts?project=vision").status_code == 404
    assert region.call("paul", "GET", "/reclaims?project=vision").status_code == 404
    quota = region.get("paul", "/quota")
    assert [(f["award"], f["burn_unknown"]) for f in quota["forecasts"]] == [(voice, "nothing has been charged yet")]


def test_one_awards_fault_leaves_the_others_alone(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    vision, whole = award_of(region), underuse.announce

    def fails(session: Session, award: Award, *others: Any) -> ReclaimNotice | None:
        if award.id == vision:
            raise RuntimeError("no luck")
        return whole(session, award, *others)

    monkeypatch.setattr(underuse, "announce", fails)
    assert watch_awards(region.services) == 2
    with region.services.database.read() as session:
        assert session.exec(select(ReclaimNotice.award_id)).all() == [award_of(region, "voice")]


def test_awards_beyond_a_page_are_watched_too(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(underuse, "PAGE", 1)
    assert watch_awards(region.services) == 2
    assert told(region)["reclaim-announced", "marc"] == 2


def test_awards_that_do_not_run_are_not_watched(region: World) -> None:
    with region.services.database.write() as session:
        session.exec(
            update(Award).values(start_at=datetime(2099, 1, 1, tzinfo=UTC), end_at=datetime(2099, 9, 1, tzinfo=UTC))
        )
    assert watch_awards(region.services) == 0
    assert watch_awards(region.services, datetime(2099, 9, 1, tzinfo=UTC)) == 0
    assert told(region) == {}


def test_notices_and_reclaims_survive_a_way_down_and_up(region: World, database_url: str) -> None:
    def rows() -> list[Any]:
        with region.services.database.read() as session:
            return [*session.exec(select(Notice).order_by(Notice.key)), *session.exec(select(ReclaimNotice))]

    watch_awards(region.services)
    before = [row.model_dump() for row in rows()]
    assert len(before) > 3
    region.services.database.close()
    migrate_to(database_url, "0007")
    migrate_to(database_url)
    assert [row.model_dump() for row in rows()] == before
