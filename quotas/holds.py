"""A hold's life as postings: open, settle an attempt, release the rest. Pure: nothing is read or written."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table

from quotas.ledger import Movement, Posting, account_id

Rows = tuple[tuple[Table, Mapping[str, Any]], ...]


def open_hold(job_id: str, award_id: str, amount: int, weight_thousandths: int, rows: Rows = ()) -> Posting:
    """Set credits aside for a job: award.available → award.held."""
    return Posting(
        movements=(
            Movement(
                id=f"hold/{job_id}",
                kind="hold",
                debit_id=account_id("available", award_id),
                credit_id=account_id("held", award_id),
                amount=amount,
                reference_id=job_id,
            ),
        ),
        holds=(
            {
                "id": job_id,
                "award_id": award_id,
                "amount": amount,
                "remaining": amount,
                "weight_thousandths": weight_thousandths,
            },
        ),
        rows=rows,
    )


def settle(job_id: str, award_id: str, remaining: int, charge: int, usage_id: str, rows: Rows = ()) -> Posting:
    """Charge one attempt: from the hold as far as it reaches, the rest from `overrun` in plain sight.

    The transfers' ids come from the usage record's, so a replay is a no-op. A charge of nothing is a
    posting without movements: its rows are still written.
    """
    covered = min(charge, remaining)
    consumed = account_id("consumed", award_id)
    sources = (
        ("settle", account_id("held", award_id), covered),
        ("overrun", account_id("overrun", award_id), charge - covered),
    )
    movements = tuple(
        Movement(f"{kind}/{usage_id}", kind, debit_id, consumed, amount, job_id)
        for kind, debit_id, amount in sources
        if amount
    )
    return Posting(movements=movements, draws={job_id: covered} if covered else {}, rows=rows)


def release(job_id: str, award_id: str, remaining: int, rows: Rows = ()) -> Posting:
    """Give back what a job did not use: award.held → award.available."""
    if not remaining:
        return Posting(movements=(), rows=rows)
    movement = Movement(
        id=f"release/{job_id}",
        kind="release",
        debit_id=account_id("held", award_id),
        credit_id=account_id("available", award_id),
        amount=remaining,
        reference_id=job_id,
    )
    return Posting(movements=(movement,), draws={job_id: remaining}, rows=rows)
