"""Programmes: a policy with its history, budgets by period, funding shares by date, and awards out of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, Table, func, select
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from quotas.amounts import PARIS, day_start, hours_text
from quotas.award_life import AwardState
from quotas.errors import BudgetOverlaps, NoBudget, ProgrammeTooSmall, SharesRefused
from quotas.ledger import TREASURY, Movement, account_id, open_account, open_accounts
from quotas.models import (
    Account,
    Award,
    FundingShare,
    GpuClass,
    Programme,
    ProgrammeBudget,
    ProgrammePolicyVersion,
    Transfer,
)
from quotas.policy import ProgrammePolicy
from quotas.posting import lock_books, move
from storage.tables import new_id, utcnow

BEGINNING = day_start(date(1970, 1, 1))
"""From when a programme's first share counts: before anything."""

_classes: Table = GpuClass.__table__  # type: ignore[attr-defined]
_transfers: Table = Transfer.__table__  # type: ignore[attr-defined]
_shares: Table = FundingShare.__table__  # type: ignore[attr-defined]

BudgetWanted = tuple[datetime, datetime, int]
"""Start, end (excluded) and credits."""
SharesWanted = tuple[datetime, int, int, int]
"""Valid from, then the thousandths of Region, company and partner."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Who pays a charge, in thousandths that make 1000."""

    region: int
    company: int
    partner: int


def open_programme(
    session: Session,
    *,
    name: str,
    policy: ProgrammePolicy,
    budgets: Sequence[BudgetWanted] = (),
    shares: Sequence[SharesWanted] = (),
    entered_by: str | None = None,
) -> Programme:
    """Open a programme with a policy, its budgets out of the treasury, and who pays which share.

    Where no share is given from the beginning, the Region pays all until the first one.

    Raises:
        BudgetOverlaps, SharesRefused: two budgets for one day, or shares that make no whole.
    """
    now = utcnow()
    programme = Programme(
        id=new_id("prg"), name=name, kind=policy.kind, policy=policy.model_dump(mode="json"), created_at=now
    )
    session.add(programme)
    session.flush()
    _keep_policy(session, programme, 1, entered_by, now)
    if all(valid_from > BEGINNING for valid_from, *_ in shares):
        session.add(_share(programme.id, (BEGINNING, 1000, 0, 0), None))
    for wanted in shares:
        session.add(_share(programme.id, wanted, entered_by))
    session.flush()
    for start_at, end_at, budget_credits in budgets:
        add_budget(session, programme, start_at, end_at, budget_credits)
    return programme


def policy_of(programme: Programme) -> ProgrammePolicy:
    """Return the policy in force."""
    return ProgrammePolicy.model_validate(programme.policy)


def change_policy(
    session: Session, programme: Programme, policy: ProgrammePolicy, *, entered_by: str | None
) -> ProgrammePolicyVersion:
    """Put a new policy in force and keep the one before it."""
    newest = policy_version(session, programme.id)
    programme.policy = policy.model_dump(mode="json")
    programme.kind = policy.kind
    session.add(programme)
    return _keep_policy(session, programme, newest + 1, entered_by, utcnow())


def policy_version(session: Session, programme_id: str) -> int:
    """Return the number of the policy in force; the first is 1."""
    wanted = select_rows(func.max(ProgrammePolicyVersion.version)).where(
        ProgrammePolicyVersion.programme_id == programme_id
    )
    return session.exec(wanted).one()


def add_budget(
    session: Session, programme: Programme, start_at: datetime, end_at: datetime, budget_credits: int
) -> ProgrammeBudget:
    """Fund a programme for the awards that begin in [start, end); the very same period again adds to its budget.

    Raises:
        BudgetOverlaps: another budget covers a part of it, and an award must draw from one.
    """
    lock_books(session)
    meeting = [b for b in budgets_of(session, programme.id) if b.start_at < end_at and start_at < b.end_at]
    same = next((budget for budget in meeting if (budget.start_at, budget.end_at) == (start_at, end_at)), None)
    if same is not None:
        times = _times_funded(session, same.id)
        same.budget_credits += budget_credits
        session.add(same)
        _fund(session, f"fund/{same.id}/{times + 1}", same.id, budget_credits)
        return same
    if meeting:
        other = f"{days_text(meeting[0].start_at, meeting[0].end_at)}"
        raise BudgetOverlaps(
            f"programme {programme.name} has a budget from {other} already, and an award must draw from one only",
            remedy="choose days outside it, or the very same days to add to it",
        )
    budget = ProgrammeBudget(
        id=new_id("bud"),
        programme_id=programme.id,
        start_at=start_at,
        end_at=end_at,
        budget_credits=budget_credits,
        created_at=utcnow(),
    )
    session.add(budget)
    open_account(session, "programme", budget.id)
    _fund(session, f"fund/{budget.id}", budget.id, budget_credits)
    return budget


def budgets_of(session: Session, programme_id: str) -> list[ProgrammeBudget]:
    """Return the budgets of a programme in the order of their periods."""
    wanted = select_rows(ProgrammeBudget).where(ProgrammeBudget.programme_id == programme_id)
    return list(session.exec(wanted.order_by(col(ProgrammeBudget.start_at)).execution_options(populate_existing=True)))


def budget_for(session: Session, programme_id: str, at: datetime) -> ProgrammeBudget:
    """Return the budget that an award draws from which begins at this moment.

    Raises:
        NoBudget: none covers it; names those that there are.
    """
    budgets = budgets_of(session, programme_id)
    found = next((budget for budget in budgets if budget.start_at <= at < budget.end_at), None)
    if found is not None:
        return found
    name = session.get_one(Programme, programme_id).name
    day = at.astimezone(PARIS).date()
    periods = "; ".join(days_text(budget.start_at, budget.end_at) for budget in budgets)
    raise NoBudget(
        f"programme {name} has no budget for an award that begins on {day}: it has "
        + (f"budgets from {periods}" if budgets else "none yet"),
        remedy=f"begin it on another day, or fund that one: idf-compute programme fund {name} HOURS --from … --to …",
    )


def unawarded_credits(session: Session, budget_id: str) -> int:
    """Return the credits of a budget that no award has."""
    account = session.get_one(Account, account_id("programme", budget_id))
    session.refresh(account)
    return account.balance


def add_shares(session: Session, programme: Programme, wanted: SharesWanted, *, entered_by: str | None) -> FundingShare:
    """Change who pays from a moment on that is still to come.

    Raises:
        SharesRefused: they make no whole, that moment has its shares already, or charges may have used others.
    """
    now = utcnow()
    valid_from = wanted[0]
    if valid_from <= now:
        tomorrow = now.astimezone(PARIS).date() + timedelta(days=1)
        raise SharesRefused(
            f"what began by {valid_from.astimezone(PARIS).date()} is charged by the shares of that day, "
            "which are never changed afterwards",
            remedy=f"begin on {tomorrow} or later",
        )
    if session.get(FundingShare, (programme.id, valid_from)) is not None:
        raise SharesRefused(
            f"programme {programme.name} has shares from {valid_from.astimezone(PARIS).date()} already",
            remedy="choose another day",
        )
    share = _share(programme.id, wanted, entered_by)
    session.add(share)
    session.flush()
    return share


def shares_of(session: Session, programme_id: str) -> list[FundingShare]:
    """Return all shares of a programme, the first before the others."""
    wanted = select_rows(FundingShare).where(FundingShare.programme_id == programme_id)
    return list(session.exec(wanted.order_by(col(FundingShare.valid_from))))


def shares_at(connection: Connection, programme_id: str, at: datetime) -> Shares:
    """Return who pays what begins at a moment. A programme has shares from its beginning on."""
    wanted = (
        select(_shares.c.region_thousandths, _shares.c.company_thousandths, _shares.c.partner_thousandths)
        .where(_shares.c.programme_id == programme_id, _shares.c.valid_from <= at)
        .order_by(_shares.c.valid_from.desc())
        .limit(1)
    )
    return Shares(*connection.execute(wanted).one())


def days_text(start_at: datetime, end_at: datetime) -> str:
    """Word [start, end) as days in Paris, the last one included: `2027-01-01 to 2027-12-31`."""
    last = (end_at - timedelta(microseconds=1)).astimezone(PARIS).date()
    return f"{start_at.astimezone(PARIS).date()} to {last}"


def grant_award(
    session: Session,
    *,
    project_id: str,
    programme: Programme,
    amount_credits: int,
    start_at: datetime,
    end_at: datetime,
) -> Award:
    """Grant an award that nobody reviews, out of a programme's budget; people's requests go through quotas.awards.

    Raises:
        NoBudget: no budget of the programme covers the day on which it begins.
        ProgrammeTooSmall: that budget has fewer unawarded credits.
    """
    now = utcnow()
    award = Award(
        id=new_id("awd"),
        project_id=project_id,
        programme_id=programme.id,
        budget_id=budget_for(session, programme.id, start_at).id,
        state=AwardState.ACTIVE.value,
        requested_credits=amount_credits,
        proposed_credits=amount_credits,
        awarded_credits=amount_credits,
        start_at=start_at,
        end_at=end_at,
        requested_at=now,
        granted_at=now,
        created_at=now,
    )
    session.add(award)
    fund_award(session, award, programme)
    return award


def fund_award(session: Session, award: Award, programme: Programme) -> None:
    """Open an award's accounts and move what is proposed for it out of its budget, in one posting.

    Raises:
        ProgrammeTooSmall: the budget has fewer unawarded credits; says how many.
    """
    session.flush()
    open_accounts(session, [award.id])
    draw_from_budget(session, award, programme, award_movement(award))


def award_movement(award: Award) -> Movement:
    """Return the movement that grants an award what is proposed for it."""
    source, target = account_id("programme", award.budget_id), account_id("available", award.id)
    return Movement(f"award/{award.id}", "award", source, target, award.proposed_credits, award.id)


def draw_from_budget(session: Session, award: Award, programme: Programme, movement: Movement) -> None:
    """Move credits from the budget of an award to the award.

    Raises:
        ProgrammeTooSmall: the budget has fewer unawarded credits; says how many.
    """
    try:
        move(session, movement, utcnow())
    except ProgrammeTooSmall:
        left = unawarded_credits(session, award.budget_id)
        raise ProgrammeTooSmall(
            f"programme {programme.name} has {hours_text(left)} left to award, "
            f"{hours_text(movement.amount)} were asked for",
            remedy=f"award at most {hours_text(left)}",
        ) from None


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


def _keep_policy(
    session: Session, programme: Programme, version: int, entered_by: str | None, at: datetime
) -> ProgrammePolicyVersion:
    kept = ProgrammePolicyVersion(
        programme_id=programme.id, version=version, policy=programme.policy, entered_by=entered_by, at=at
    )
    session.add(kept)
    session.flush()
    return kept


def _share(programme_id: str, wanted: SharesWanted, entered_by: str | None) -> FundingShare:
    valid_from, region, company, partner = wanted
    total = region + company + partner
    if min(region, company, partner) < 0 or total != 1000:
        raise SharesRefused(
            f"the shares of Region ({region}), company ({company}) and partner ({partner}) make {total} thousandths",
            remedy="give three shares, none below 0, that make 1000",
        )
    return FundingShare(
        programme_id=programme_id,
        valid_from=valid_from,
        region_thousandths=region,
        company_thousandths=company,
        partner_thousandths=partner,
        entered_by=entered_by,
    )


def _times_funded(session: Session, budget_id: str) -> int:
    wanted = select(func.count()).where(_transfers.c.reference_id == budget_id, _transfers.c.kind == "fund")
    return session.connection().execute(wanted).scalar_one()


def _fund(session: Session, id_: str, budget_id: str, amount_credits: int) -> None:
    budget = account_id("programme", budget_id)
    move(session, Movement(id_, "fund", TREASURY, budget, amount_credits, budget_id), utcnow())
