"""Holds that grow: a job whose time limit its site raised is paid for by the second, or it is ended."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert
from sqlalchemy import select as select_columns
from sqlmodel import Session

from broker.lifecycle import JobState
from broker.moves import change_jobs, event_row, events
from broker.settlement import holds
from quotas.amounts import hours_text
from quotas.errors import QuotaError
from quotas.holds import Side, top_up
from quotas.ledger import Done, post


def top_up_job(session: Session, row: Row[Any], time_limit_s: int, now: datetime) -> QuotaError | None:
    """Hold what a job needs for its new time limit, of the award and the contract that pay for it.

    The job's row is locked by this transaction. Returns why not, if a rule refuses: nothing was moved then.
    """
    held = session.execute(select_columns(*holds.c).where(holds.c.id == row.id)).one()
    more_s = time_limit_s - row.time_limit_s
    award = Side(held.award_id, row.rate_credits_per_s * more_s, held.weight_thousandths)
    [outcome] = post(session.connection(), [top_up(row.id, award, _contract(held, row, more_s), time_limit_s)], now)
    if isinstance(outcome, QuotaError):
        return outcome
    if outcome is Done.POSTED:
        _note(session, row, award.amount, time_limit_s, now)
    return None


def _contract(held: Row[Any], row: Row[Any], more_s: int) -> Side | None:
    """Return the contract's part: it counts at its own weight, exactly as many credits each second as before."""
    if held.contract_id is None:
        return None
    held_s = row.held_credits // row.rate_credits_per_s
    amount = held.contract_amount // held_s * more_s
    return Side(held.contract_id, amount, held.contract_weight_thousandths)


def _note(session: Session, row: Row[Any], more_credits: int, time_limit_s: int, now: datetime) -> None:
    values: Mapping[str, Any] = {"time_limit_s": time_limit_s, "held_credits": row.held_credits + more_credits}
    change_jobs(session, [(row.id, values)])
    cause = f"the site raised its time limit to {time_limit_s // 60} min: {hours_text(more_credits)} more are held"
    session.connection().execute(insert(events), [event_row(row.id, JobState(row.state), cause, now)])
