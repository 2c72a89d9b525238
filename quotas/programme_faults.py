"""What always holds of programmes: a budget is what the treasury gave it, the policy in force is the newest kept."""

from collections.abc import Iterator

from sqlalchemy import Table, and_, func, select
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from quotas.ledger import TREASURY, account_id
from quotas.models import Programme, ProgrammeBudget, ProgrammePolicyVersion, Transfer

_budgets: Table = ProgrammeBudget.__table__  # type: ignore[attr-defined]
_transfers: Table = Transfer.__table__  # type: ignore[attr-defined]


def broken_programmes(session: Session) -> Iterator[str]:
    """Yield a sentence for each budget or policy that is not what it should be."""
    yield from _broken_budgets(session)
    yield from _broken_policies(session)


def _broken_budgets(session: Session) -> Iterator[str]:
    funding = and_(_transfers.c.reference_id == _budgets.c.id, _transfers.c.kind == "fund")
    wanted = (
        select(
            _budgets.c.id,
            _budgets.c.budget_credits,
            func.coalesce(func.sum(_transfers.c.amount), 0).label("given"),
            func.min(_transfers.c.debit_id).label("giver"),
            func.min(_transfers.c.credit_id).label("taker"),
        )
        .join(_transfers, funding, isouter=True)
        .group_by(_budgets.c.id, _budgets.c.budget_credits)
        .order_by(_budgets.c.id)
    )
    for row in session.connection().execute(wanted):
        if row.given != row.budget_credits:
            yield f"budget {row.id}: {row.budget_credits} credits, its transfers give {row.given}"
        elif (row.giver, row.taker) != (TREASURY, account_id("programme", row.id)):
            yield f"budget {row.id}: funded from {row.giver} to {row.taker}"


def _broken_policies(session: Session) -> Iterator[str]:
    newest: dict[str, ProgrammePolicyVersion] = {}
    for version in session.exec(select_rows(ProgrammePolicyVersion).order_by(col(ProgrammePolicyVersion.version))):
        newest[version.programme_id] = version
    for programme in session.exec(select_rows(Programme).order_by(col(Programme.id))):
        kept = newest.get(programme.id)
        if kept is None or kept.policy != programme.policy:
            yield f"programme {programme.id}: its policy in force is not the newest that was entered"
