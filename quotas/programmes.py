"""Programmes with a budget, awards out of it, GPU classes with a weight: what a first job needs.

Policy, contracts, funding shares and the life of an award come with the Region's money (docs/roadmap.md).
"""

from datetime import datetime

from sqlalchemy import Connection, Table, select
from sqlmodel import Session

from quotas.amounts import hours_text
from quotas.errors import ProgrammeTooSmall, QuotaError
from quotas.ledger import TREASURY, Movement, Posting, account_id, open_account, post
from quotas.models import Account, Award, GpuClass, Programme
from storage.tables import new_id, utcnow

_classes: Table = GpuClass.__table__  # type: ignore[attr-defined]


def open_programme(
    session: Session, *, name: str, kind: str, budget_credits: int, default_time_limit_s: int
) -> Programme:
    """Open a programme and fund it from the treasury."""
    programme = Programme(
        id=new_id("prg"), name=name, kind=kind, default_time_limit_s=default_time_limit_s, created_at=utcnow()
    )
    session.add(programme)
    open_account(session, "programme", programme.id)
    _move(
        session,
        f"fund/{programme.id}",
        "fund",
        TREASURY,
        account_id("programme", programme.id),
        budget_credits,
        programme.id,
    )
    session.flush()
    return programme


def grant_award(
    session: Session,
    *,
    project_id: str,
    programme: Programme,
    amount_credits: int,
    start_at: datetime,
    end_at: datetime,
) -> Award:
    """Grant an award out of a programme's budget.

    Raises:
        ProgrammeTooSmall: the programme has fewer unawarded credits.
    """
    award = Award(
        id=new_id("awd"),
        project_id=project_id,
        programme_id=programme.id,
        awarded_credits=amount_credits,
        start_at=start_at,
        end_at=end_at,
        created_at=utcnow(),
    )
    session.add(award)
    for kind in ("available", "held", "consumed", "overrun"):
        open_account(session, kind, award.id)
    source = account_id("programme", programme.id)
    try:
        _move(
            session,
            f"award/{award.id}",
            "award",
            source,
            account_id("available", award.id),
            amount_credits,
            award.id,
        )
    except ProgrammeTooSmall:
        left = unawarded_credits(session, programme.id)
        raise ProgrammeTooSmall(
            f"programme {programme.name} has {hours_text(left)} left to award, "
            f"{hours_text(amount_credits)} were asked for",
            remedy=f"award at most {hours_text(left)}",
        ) from None
    session.flush()
    return award


def unawarded_credits(session: Session, programme_id: str) -> int:
    """Return the credits of a programme that no award has yet."""
    account = session.get_one(Account, account_id("programme", programme_id))
    session.refresh(account)
    return account.balance


def set_weight(session: Session, name: str, weight_thousandths: int, valid_from: datetime) -> GpuClass:
    """Give a GPU class a weight from a moment on."""
    gpu_class = GpuClass(name=name, weight_thousandths=weight_thousandths, valid_from=valid_from)
    session.add(gpu_class)
    session.flush()
    return gpu_class


def weights(connection: Connection, at: datetime) -> dict[str, int]:
    """Return the weight of each GPU class at a moment, in thousandths of a V100, by name."""
    wanted = select(_classes.c.name, _classes.c.weight_thousandths).where(_classes.c.valid_from <= at)
    return {row.name: row.weight_thousandths for row in connection.execute(wanted.order_by(_classes.c.valid_from))}


def _move(session: Session, id_: str, kind: str, debit_id: str, credit_id: str, amount: int, reference_id: str) -> None:
    session.flush()
    movement = Movement(id_, kind, debit_id, credit_id, amount, reference_id)
    outcome = post(session.connection(), [Posting(movements=(movement,))], utcnow())[0]
    if isinstance(outcome, QuotaError):
        raise outcome
