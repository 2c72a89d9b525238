"""What always holds, derived again from the transfers alone: every balance, every hold, the whole chain."""

from collections import Counter
from collections.abc import Iterator

from sqlmodel import Session, col, select

from quotas.holds import CONTRACT
from quotas.ledger import GENESIS, Movement, account_id, link_hash
from quotas.models import BELOW_ZERO_KINDS, Account, Award, ChainHead, Hold, Transfer
from quotas.programme_faults import broken_programmes


def broken(session: Session) -> Iterator[str]:
    """Yield a sentence for each rule that does not hold; nothing when the books are right."""
    derived: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    given: Counter[str] = Counter()
    yield from _broken_chain(session, derived, drawn, given)
    yield from _broken_balances(session, derived)
    yield from _broken_holds(session, drawn)
    yield from _broken_awards(session, derived, given)
    yield from broken_programmes(session)


GIVING = ("award", "supplement", "transfer", "reclaim", "expire")
"""Kinds of transfers that change what an award has altogether; all others move it between its own accounts."""


def _broken_chain(session: Session, derived: Counter[str], drawn: Counter[str], given: Counter[str]) -> Iterator[str]:
    sequence, previous_hash = 0, GENESIS
    for row in session.exec(select(Transfer).order_by(col(Transfer.sequence)).execution_options(yield_per=1000)):
        sequence += 1
        movement = Movement(row.id, row.kind, row.debit_id, row.credit_id, row.amount, row.reference_id, row.details)
        if row.sequence != sequence:
            yield f"transfer {row.sequence}: {sequence} was expected, so a row is missing"
            sequence = row.sequence
        if row.hash != link_hash(previous_hash, row.sequence, movement, row.at):
            yield f"transfer {row.sequence}: its hash does not follow from the row before it"
        previous_hash = row.hash
        derived[row.debit_id] -= row.amount
        derived[row.credit_id] += row.amount
        if row.kind.removeprefix(CONTRACT) in ("settle", "release"):
            drawn[_side(row.kind, row.reference_id)] += row.amount
        if row.kind in GIVING:
            given[row.credit_id] += row.amount
            given[row.debit_id] -= row.amount
    head = session.exec(select(ChainHead)).one()
    if (head.sequence, head.hash) != (sequence, previous_hash):
        yield f"the head names transfer {head.sequence}, the last row is {sequence}"


def _broken_balances(session: Session, derived: Counter[str]) -> Iterator[str]:
    for account in session.exec(select(Account).order_by(col(Account.id))):
        if account.balance != derived[account.id]:
            yield f"account {account.id}: balance {account.balance}, its transfers say {derived[account.id]}"
        if account.balance < 0 and account.kind not in BELOW_ZERO_KINDS:
            yield f"account {account.id}: {account.balance} is below zero"


def _broken_holds(session: Session, drawn: Counter[str]) -> Iterator[str]:
    held: Counter[str] = Counter()
    for hold in session.exec(select(Hold)):
        held[account_id("held", hold.award_id)] += hold.remaining
        if hold.amount - hold.remaining != drawn[hold.id]:
            yield f"hold {hold.id}: {hold.amount - hold.remaining} were drawn, its transfers say {drawn[hold.id]}"
        if hold.contract_amount is not None and hold.contract_remaining is not None:
            held[f"held:{hold.contract_id}"] += hold.contract_remaining
            used, said = hold.contract_amount - hold.contract_remaining, drawn[CONTRACT + hold.id]
            if used != said:
                yield f"hold {hold.id}: {used} were drawn of its contract, its transfers say {said}"
    for account in session.exec(select(Account).where(col(Account.kind) == "held")):
        if account.balance != held[account.id]:
            yield f"account {account.id}: balance {account.balance}, its holds have {held[account.id]} left"


def _side(kind: str, job_id: str) -> str:
    return CONTRACT + job_id if kind.startswith(CONTRACT) else job_id


def _broken_awards(session: Session, derived: Counter[str], given: Counter[str]) -> Iterator[str]:
    wanted = select(Transfer.reference_id, Transfer.amount).where(col(Transfer.kind) == "award")
    granted = dict(session.exec(wanted).all())
    for award in session.exec(select(Award)):
        total = sum(derived[account_id(kind, award.id)] for kind in ("available", "held", "consumed", "overrun"))
        flows = given[account_id("available", award.id)]
        if total != flows:
            yield f"award {award.id}: {flows} were given to it, its accounts sum up to {total}"
        if award.awarded_credits != granted.get(award.id):
            yield f"award {award.id}: {award.awarded_credits} awarded, its transfer says {granted.get(award.id)}"
