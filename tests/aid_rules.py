"""State aid in tests: the two ceilings of the regulations, and awards to count."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlmodel import Session, select

from quotas.aid import AidWanted, DeclaredAid
from quotas.aid_arithmetic import AidCeiling, AidRules
from quotas.amounts import paris_day
from quotas.awards import Actor, Papers, Subject, Terms, grant
from quotas.models import Programme
from quotas.policy import ProgrammePolicy
from quotas.programmes import open_programme
from storage.tables import utcnow

HOUR = 3_600_000
EURO = 1_000_000
YEAR = timedelta(days=365)
OLD = AidCeiling(date(2014, 1, 1), date(2023, 12, 31), 200_000 * EURO, 3, "Regulation (EU) No 1407/2013, art. 3(2)")
NEW = AidCeiling(date(2024, 1, 1), date(2030, 12, 31), 300_000 * EURO, 3, "Regulation (EU) 2023/2831, art. 3(2)")
RULES = AidRules(ceilings=(OLD, NEW), authority="Région Île-de-France", declaration_days=36_500)


def noon(day: date) -> datetime:
    """A moment of a day in Paris, as good as any."""
    return datetime(day.year, day.month, day.day, 11, tzinfo=UTC)


def entered_award(session: Session) -> str:
    """Grant an award, for the foreign key of its lines."""
    now = utcnow()
    programme = session.exec(select(Programme)).first() or open_programme(
        session, name="pack-ia", policy=ProgrammePolicy(), budgets=[(now - timedelta(days=9), now + YEAR, 10**12)]
    )
    subject = Subject("prj-1", programme, "internal", "none")
    terms = Terms(HOUR, paris_day(now), paris_day(now))
    return grant(session, subject, terms, Actor("psn-marc", is_manager=True), Papers(), now).id


def wanted(award_id: str, day: date, euros: int, **changes: Any) -> AidWanted:
    """An award to `acme` whose aid is so many euros: as many hours at one euro, all of it public."""
    plain: dict[str, Any] = {
        "award_id": award_id,
        "organisation_id": "org-acme",
        "undertaking": ["org-acme"],
        "kind": "grant",
        "regime": "de-minimis",
        "scheme": None,
        "credits": euros * HOUR,
        "micro_euros_per_hour": EURO,
        "public_thousandths": 1000,
        "act_reference": "CP 2026-101",
        "act_on": day,
        "granted_at": noon(day),
    }
    return AidWanted(**{**plain, **changes})


def had(day: date, euros: int, **changes: Any) -> DeclaredAid:
    """An aid that a company declares."""
    plain: dict[str, Any] = {"giver": "Bpifrance", "act_reference": "BPI-7", "regime": "de-minimis"}
    return DeclaredAid(granted_on=day, value_micro_euros=euros * EURO, **{**plain, **changes})


NOTHING: Sequence[DeclaredAid] = ()
