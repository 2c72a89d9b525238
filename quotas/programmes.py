"""Programmes with a budget, awards out of it, GPU classes with a weight: what a first job needs.

Policy, contracts, funding shares and the life of an award come with the Region's money (docs/roadmap.md).
"""

from datetime import datetime

from sqlmodel import Session, col, select

from quotas.amounts import hours_text
from quotas.errors import AwardNotActive, GpuClassUnknown, ProgrammeTooSmall, QuotaError
from quotas.ledger import TREASURY, Movement, Posting, account_id, open_account, post
from quotas.models import Account, Award, GpuClass, Programme
from storage.tables import new_id, utcnow


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


def check_active(award: Award, now: datetime) -> None:
    """Refuse an award that does not run at this moment.

    Raises:
        AwardNotActive: it has not begun, or it has ended.
    """
    if now < award.start_at:
        raise AwardNotActive(f"award {award.id} begins at {award.start_at:%Y-%m-%d %H:%M} UTC", "wait until then")
    if now >= award.end_at:
        raise AwardNotActive(
            f"award {award.id} ended at {award.end_at:%Y-%m-%d %H:%M} UTC",
            "ask for an extension or another award",
        )


def set_weight(session: Session, name: str, weight_thousandths: int, valid_from: datetime) -> GpuClass:
    """Give a GPU class a weight from a moment on."""
    gpu_class = GpuClass(name=name, weight_thousandths=weight_thousandths, valid_from=valid_from)
    session.add(gpu_class)
    session.flush()
    return gpu_class


def weights(session: Session, at: datetime) -> dict[str, GpuClass]:
    """Return the GPU classes as they are weighted at a moment, by name."""
    found = session.exec(select(GpuClass).where(col(GpuClass.valid_from) <= at).order_by(col(GpuClass.valid_from)))
    return {gpu_class.name: gpu_class for gpu_class in found}


def weight_of(session: Session, name: str, at: datetime) -> int:
    """Return the weight of a class in thousandths at a moment.

    Raises:
        GpuClassUnknown: no weight is known for it then.
    """
    known = weights(session, at)
    if name not in known:
        raise GpuClassUnknown(f"no GPU class {name} is weighted today", f"known: {', '.join(sorted(known)) or 'none'}")
    return known[name].weight_thousandths


def _move(session: Session, id_: str, kind: str, debit_id: str, credit_id: str, amount: int, reference_id: str) -> None:
    session.flush()
    movement = Movement(id_, kind, debit_id, credit_id, amount, reference_id)
    outcome = post(session, [Posting(movements=(movement,))], utcnow())[0]
    if isinstance(outcome, QuotaError):
        raise outcome
