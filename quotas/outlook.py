"""What is read for the forecasts of a page of awards: one query each for charges, balances, ceilings and weights."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta

from sqlalchemy import ColumnElement, Select, Table, case, func, select, text, union_all
from sqlmodel import Session

from quotas.amounts import PARIS, day_start
from quotas.balances import NOTHING, balances_of
from quotas.ceilings import Scope, limits_of
from quotas.forecast import WINDOW_DAYS, Forecast, Use, forecast, window_start
from quotas.ledger import account_id
from quotas.models import Award, Transfer
from quotas.programmes import weights

_transfers: Table = Transfer.__table__  # type: ignore[attr-defined]


def forecasts_of(session: Session, awards: Sequence[Award], at: datetime) -> dict[str, Forecast]:
    """Return what becomes of awards, by their ids, seen from a moment."""
    ids = [award.id for award in awards]
    charged = charged_by_day(session, ids, at)
    balances = balances_of(session, ids)
    ceilings = _gpus_running_max(session, awards)
    heaviest = max(weights(session.connection(), at).values(), default=None)
    return {
        award.id: forecast(
            Use(
                start_at=award.start_at,
                end_at=award.end_at,
                balances=balances.get(award.id, NOTHING),
                charged_by_day=charged.get(award.id, {}),
                gpus_running_max=ceilings.get(award.id),
                weight_thousandths=heaviest,
            ),
            at,
        )
        for award in awards
    }


def _gpus_running_max(session: Session, awards: Sequence[Award]) -> dict[str, int]:
    """Return how many GPUs awards may have running at once, by the strictest ceiling; those without are left out."""
    above = {award.id: _owners(award) for award in awards}
    owners = sorted({owner for some in above.values() for owner in some})
    limits = {
        (limit.scope, limit.scope_id): limit.amount
        for limit in limits_of(session.connection(), owners)
        if limit.what == "gpus_running"
    }
    found = {id_: [limits[owner] for owner in some if owner in limits] for id_, some in above.items()}
    return {id_: min(amounts) for id_, amounts in found.items() if amounts}


def _owners(award: Award) -> list[tuple[Scope, str]]:
    return [("award", award.id), ("project", award.project_id), ("programme", award.programme_id)]


def charged_by_day(session: Session, award_ids: Iterable[str], at: datetime) -> dict[str, dict[date, int]]:
    """Return the credits charged less those given back, by award and day, over the days of a burn rate."""
    owners = {account_id("consumed", id_): id_ for id_ in award_ids}
    first = window_start(at)
    first_day = first.astimezone(PARIS).date()
    sides = union_all(
        _side(_transfers.c.credit_id, _transfers.c.amount, owners, first),
        _side(_transfers.c.debit_id, -_transfers.c.amount, owners, first),
    ).subquery()
    wanted = select(sides.c.account, sides.c.day, func.sum(sides.c.amount)).group_by(sides.c.account, sides.c.day)
    found: dict[str, dict[date, int]] = {}
    for account, day, amount in session.connection().execute(wanted):
        found.setdefault(owners[account], {})[first_day + timedelta(days=day)] = int(amount)
    return found


def _side(
    account: ColumnElement[str], amount: ColumnElement[int], owners: Iterable[str], first: datetime
) -> Select[tuple[str, int, int]]:
    """Select what one side of the transfers adds to accounts; the condition in words is that of the partial index."""
    first_day = first.astimezone(PARIS).date()
    later = [(number, day_start(first_day + timedelta(days=number))) for number in range(1, WINDOW_DAYS)]
    day = case(*((_transfers.c.at >= start, number) for number, start in reversed(later)), else_=0)
    return select(account.label("account"), day.label("day"), amount.label("amount")).where(
        account.in_(list(owners)),
        text(f"substr({account.key}, 1, 13) = 'consumed:awd-'"),
        _transfers.c.at >= first,
    )
