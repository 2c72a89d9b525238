"""Can this still be awarded? Policy, budget and contracts each give their answer, with the numbers behind it.

Nothing ties an award to a site, so what other awards may still draw counts against the capacity in full: an
answer of yes holds wherever they spend it.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from sqlalchemy import Connection, Table, func, select
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from quotas.amounts import CREDITS_PER_HOUR, hours_text, period
from quotas.awards import projects_begun_in
from quotas.balances import balances_of
from quotas.errors import NoBudget, PolicyRefused
from quotas.models import Account, Award, Contract, Programme, ProgrammeBudget
from quotas.policy import AwardAsked, refusals
from quotas.programmes import budget_for, days_text, policy_of, unawarded_credits, weights

Side = Literal["policy", "budget", "contracts"]

_accounts: Table = Account.__table__  # type: ignore[attr-defined]
_awards: Table = Award.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody would award: days in Paris, the last one included; None where it is left open."""

    credits: int
    start_on: date
    end_on: date
    programme: Programme | None = None
    project_id: str | None = None
    data_class: tuple[str, str] | None = None
    """Confidentiality and nature of the project's data."""
    site_id: str | None = None
    gpu_class: str | None = None

    @property
    def period(self) -> tuple[datetime, datetime]:
        """The days as [start, end) in UTC."""
        return period(self.start_on, self.end_on)


@dataclass(frozen=True, slots=True)
class BudgetLeft:
    """A budget that holds the award's first day, and what of it no award has."""

    programme: str
    budget_id: str
    start_at: datetime
    end_at: datetime
    left: int


@dataclass(frozen=True, slots=True)
class CapacityLeft:
    """A contract that runs during the award, in credits at the class's weight of the award's first day."""

    contract_id: str
    site_id: str
    gpu_class: str
    start_at: datetime
    end_at: datetime
    left: int
    """Neither used nor held by open jobs; below zero where jobs used more than the contract has."""
    held: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one side says no, and what would pass."""

    side: Side
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class CanAward:
    """The answer: yes where nothing refuses it."""

    refusals: list[Refusal]
    budgets: list[BudgetLeft]
    contracts: list[CapacityLeft]
    promised: int
    """What awards that run during the same days may still draw."""

    @property
    def budget_left(self) -> int:
        """The most that one budget can give."""
        return max((budget.left for budget in self.budgets), default=0)

    @property
    def capacity_left(self) -> int:
        """What the contracts can give once all other awards are spent; below zero where too much is promised."""
        return sum(contract.left for contract in self.contracts) - self.promised

    @property
    def largest(self) -> int:
        """The most that budget and contracts would give; policy bounds it too. Not above zero: nothing."""
        return min(self.budget_left, self.capacity_left)

    @property
    def binds(self) -> Side:
        """Who says no, or would be the first to."""
        if self.refusals:
            return self.refusals[0].side
        return "budget" if self.budget_left <= self.capacity_left else "contracts"


def can_award(session: Session, wanted: Wanted) -> CanAward:
    """Say whether an award could be granted now, and what binds; nothing is changed or set aside."""
    budgets, missing = _budgets(session, wanted)
    answer = CanAward([], budgets, _contracts(session, wanted), _promised(session.connection(), wanted))
    found = (_policy_refusal(session, wanted), missing or _budget_refusal(answer, wanted), _shortage(answer, wanted))
    answer.refusals.extend(refusal for refusal in found if refusal is not None)
    return answer


def _policy_refusal(session: Session, wanted: Wanted) -> Refusal | None:
    if wanted.programme is None:
        return None
    policy = policy_of(wanted.programme)
    confidentiality, nature = wanted.data_class or (policy.confidentialities[0], policy.natures[0])
    asked = AwardAsked(wanted.credits, wanted.start_on, wanted.end_on, confidentiality, nature)
    begun = projects_begun_in(session, wanted.programme.id, wanted.start_on.year) - {wanted.project_id}
    try:
        refusals(policy, asked, len(begun))
    except PolicyRefused as refusal:
        return Refusal("policy", refusal.detail, refusal.remedy or "")
    return None


def _budgets(session: Session, wanted: Wanted) -> tuple[list[BudgetLeft], Refusal | None]:
    start_at, _ = wanted.period
    if wanted.programme is not None:
        try:
            rows = [budget_for(session, wanted.programme.id, start_at)]
        except NoBudget as refusal:
            return [], Refusal("budget", refusal.detail, refusal.remedy or "")
    else:
        covering = select_rows(ProgrammeBudget).where(
            col(ProgrammeBudget.start_at) <= start_at, col(ProgrammeBudget.end_at) > start_at
        )
        rows = list(session.exec(covering))
    found = [
        BudgetLeft(
            programme=session.get_one(Programme, row.programme_id).name,
            budget_id=row.id,
            start_at=row.start_at,
            end_at=row.end_at,
            left=unawarded_credits(session, row.id),
        )
        for row in rows
    ]
    return sorted(found, key=lambda budget: (-budget.left, budget.programme)), None


def _budget_refusal(answer: CanAward, wanted: Wanted) -> Refusal | None:
    if answer.budget_left >= wanted.credits:
        return None
    if not answer.budgets:
        day = wanted.start_on
        return Refusal(
            "budget",
            f"no programme has a budget for an award that begins on {day}",
            "begin it on another day, or fund one: idf-compute programme fund PROGRAMME HOURS --from … --to …",
        )
    best = answer.budgets[0]
    days = days_text(best.start_at, best.end_at)
    first, last = days.split(" to ")
    missing = _rounded_up(wanted.credits - best.left).replace(" ", "")
    fund = f"idf-compute programme fund {best.programme} {missing} --from {first} --to {last}"
    who = f"programme {best.programme}" if wanted.programme else f"no programme has more than {best.programme}, which"
    return Refusal(
        "budget",
        f"{who} has {hours_text(best.left)} left to award of its budget from {days}, "
        f"{hours_text(wanted.credits)} are asked for",
        _at_most(best.left, f"add to that budget: {fund}"),
    )


def _contracts(session: Session, wanted: Wanted) -> list[CapacityLeft]:
    start_at, end_at = wanted.period
    rows = select_rows(Contract).where(col(Contract.start_at) < end_at, col(Contract.end_at) > start_at)
    if wanted.site_id is not None:
        rows = rows.where(Contract.site_id == wanted.site_id)
    if wanted.gpu_class is not None:
        rows = rows.where(Contract.gpu_class == wanted.gpu_class)
    contracts = list(session.exec(rows.order_by(col(Contract.site_id), col(Contract.gpu_class), col(Contract.end_at))))
    balances = balances_of(session, [contract.id for contract in contracts])
    known = weights(session.connection(), start_at)
    found = []
    for contract in contracts:
        signed = contract.weight_thousandths
        weight = known.get(contract.gpu_class, signed)
        own = balances[contract.id]
        found.append(
            CapacityLeft(
                contract_id=contract.id,
                site_id=contract.site_id,
                gpu_class=contract.gpu_class,
                start_at=contract.start_at,
                end_at=contract.end_at,
                left=(own.available - own.overrun) * weight // signed,
                held=own.held * weight // signed,
            )
        )
    return found


def _promised(connection: Connection, wanted: Wanted) -> int:
    start_at, end_at = wanted.period
    available = (
        select(func.coalesce(func.sum(_accounts.c.balance), 0))
        .join(_awards, _accounts.c.id == "available:" + _awards.c.id)
        .where(_awards.c.start_at < end_at, _awards.c.end_at > start_at)
    )
    return int(connection.execute(available).scalar_one())


def _shortage(answer: CanAward, wanted: Wanted) -> Refusal | None:
    left = answer.capacity_left
    if left >= wanted.credits:
        return None
    start_at, end_at = wanted.period
    days, missing = days_text(start_at, end_at), _rounded_up(wanted.credits - left)
    if not answer.contracts:
        return Refusal(
            "contracts",
            f"the Region has no such contract between {days.replace(' to ', ' and ')}, so no capacity to promise",
            "choose other days, another site or GPU class, or enter the contract: idf-compute contract add",
        )
    whole = sum(contract.left for contract in answer.contracts)
    return Refusal(
        "contracts",
        f"the contracts that run from {days} have {hours_text(whole)} left, other awards may still draw "
        f"{hours_text(answer.promised)}, which leaves {hours_text(left)}; {hours_text(wanted.credits)} are asked for",
        _at_most(left, f"get {missing} more capacity, or reclaim what lies unused"),
    )


def _at_most(left: int, otherwise: str) -> str:
    return f"award at most {hours_text(left)}, or {otherwise}" if left > 0 else otherwise


def _rounded_up(amount_credits: int) -> str:
    """Word credits as hours, rounded up to the thousandth, so that what is named is enough."""
    thousandth = CREDITS_PER_HOUR // 1000
    return hours_text(-(-amount_credits // thousandth) * thousandth)
