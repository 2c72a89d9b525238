"""Forecasts as they are shown: an award, its balances, and what becomes of it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import ColumnElement, and_
from sqlmodel import Session, col, select

from broker.models import Person, Project
from broker.schemas import ForecastOut
from quotas.award_life import AwardState
from quotas.balances import NOTHING, balances_of
from quotas.models import Award, Programme
from quotas.outlook import forecasts_of
from storage.tables import utcnow


def running_or_to_come(at: datetime) -> ColumnElement[bool]:
    """Return the condition that an award is granted and has not ended: what a forecast is for."""
    return and_(col(Award.state) == AwardState.ACTIVE.value, col(Award.end_at) > at)


def forecasts_out(session: Session, awards: Sequence[Award]) -> list[ForecastOut]:
    """Show what becomes of awards."""
    forecasts = forecasts_of(session, awards, utcnow())
    balances = balances_of(session, [award.id for award in awards])
    projects = names_of(session, Project, {award.project_id for award in awards})
    programmes = names_of(session, Programme, {award.programme_id for award in awards})
    return [
        ForecastOut(
            award=award.id,
            project=projects[award.project_id],
            programme=programmes[award.programme_id],
            start_at=award.start_at,
            end_at=award.end_at,
            total_credits=balances.get(award.id, NOTHING).total,
            available_credits=balances.get(award.id, NOTHING).available,
            held_credits=balances.get(award.id, NOTHING).held,
            consumed_credits=balances.get(award.id, NOTHING).consumed,
            **asdict(forecasts[award.id]),
        )
        for award in awards
    ]


def names_of(session: Session, model: type[Project | Programme | Person], ids: Iterable[str]) -> dict[str, str]:
    """Return names by ids."""
    return dict(session.exec(select(model.id, model.name).where(col(model.id).in_(set(ids)))).all())
