"""What becomes of awards on the way up from release 0001, down again, and up once more, on both engines."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlmodel import select
from world import HOUR, world

from broker.schema_version import migrate_to
from quotas.models import Award, AwardEvent
from storage.database import Database
from storage.tables import microseconds, utcnow


def test_awards_of_before_get_a_life(empty_url: str) -> None:
    migrate_to(empty_url, "0001")
    now = utcnow()
    made, past, future = (microseconds(now + timedelta(days=days)) for days in (-60, -1, 60))
    with Database(empty_url).write() as session:
        session.execute(text(f"INSERT INTO programme VALUES ('prg-1', 'p', 'other', 3600, {made})"))
        session.execute(
            text("INSERT INTO ledger_account VALUES ('programme:prg-1', 'programme', 'prg-1', 'credit', 0)")
        )
        session.execute(
            text(
                "INSERT INTO ledger_transfer VALUES (1, 'fund/prg-1', 'fund', 'treasury:region', 'programme:prg-1', "
                f"{20 * HOUR}, 'prg-1', {made}, 'x')"
            )
        )
        for id_, end in (("awd-1", past), ("awd-2", future)):
            session.execute(
                text(f"INSERT INTO award VALUES ('{id_}', 'prj-1', 'prg-1', {10 * HOUR}, {made}, {end}, {made})")
            )
    migrate_to(empty_url)
    with Database(empty_url).read() as session:
        awards = session.exec(select(Award).order_by(Award.id)).all()  # type: ignore[arg-type]
    assert [award.state for award in awards] == ["expiring", "active"]
    for award in awards:
        assert (award.requested_credits, award.proposed_credits, award.awarded_credits) == (10 * HOUR,) * 3
        assert (award.budget_id, award.requested_by, award.final_credits) == ("prg-1", None, None)
        assert award.requested_at == award.granted_at == award.created_at


TABLES = ("award", "award_event", "award_change", "award_outcome", "approval")


def rows(url: str) -> list[list[dict[str, Any]]]:
    database = Database(url)
    with database.rows() as connection:
        found = [
            [dict(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2")).mappings()]
            for table in TABLES
        ]
    database.close()
    return found


def test_down_and_up_loses_nothing(empty_url: str, tmp_path: Path) -> None:
    migrate_to(empty_url)
    with world(empty_url, tmp_path) as region:
        today = utcnow().date()
        days = {"start_on": str(today), "end_on": str(today + timedelta(days=60))}
        wanted = {"project": "vision", "amount_credits": HOUR, **days}
        asked = region.post("marc", "/awards/request", {**wanted, "purpose": "a trial", "act_on": "2026-01-31"})
        region.change_for()
        region.post("marc", "/awards", {**wanted, "continues": asked["id"]})
        answers = {"worked": "yes", "in_production": "no", "benefit": "b", "next_step": "n"}
        region.post("marc", f"/awards/{region.award('voice')['id']}/close", answers)
        assert region.faults() == []
    before = rows(empty_url)
    assert all(before)
    migrate_to(empty_url, "0006")
    with Database(empty_url).rows() as connection:
        assert connection.execute(text("SELECT count(*) FROM award")).scalar_one() == len(before[0]) - 1
    migrate_to(empty_url)
    assert rows(empty_url) == before
    with Database(empty_url).write() as session:
        session.add(AwardEvent(award_id=asked["id"], at=utcnow(), kind="commented", text="and on it goes"))
