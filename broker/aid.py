"""State aid of awards: whose it is, at what rate, by which regime; what an undertaking had; the register's lines.

The money's side counts (quotas.aid); here organisations, programmes and tariffs are put together for it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from sqlalchemy import Connection
from sqlmodel import Session, col, select

from broker.aid_letter import Letter, Subject, letter
from broker.aid_settings import AidSettings
from broker.errors import NotFound
from broker.models import Organisation, Project
from broker.undertakings import undertaking_of
from quotas import aid
from quotas.aid_arithmetic import AidRules, AidSum, reference_rate, tightest
from quotas.amounts import day_start, paris_day
from quotas.balances import balances_of
from quotas.ledger import lock_head
from quotas.models import AidDeclaration, AidLine, Award, Programme
from quotas.programmes import policy_of, shares_of, weights
from quotas.rates import tariffs

GrantKind = Literal["grant", "supplement", "transfer"]
"""A grant itself, more of it, or what came from another award."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a single undertaking had by a day, and what declarations that rests on."""

    organisation: Organisation
    undertaking: Sequence[Organisation]
    fullest: AidSum | None
    """The fullest window that holds the day; None where no ceiling is set for it."""
    declarations: Sequence[AidDeclaration]
    """The newest of each organisation of the undertaking."""


def count_grant(
    session: Session,
    rules: AidRules,
    award: Award,
    amount_credits: int,
    at: datetime,
    kind: GrantKind = "grant",
) -> AidLine | None:
    """Count credits that an award gets at a moment, in the transaction that grants them; None where they are no aid.

    A supplement and a transfer count as much as a grant does; they rest on the award's act. Of a transfer, first
    `take_back` from the giver: both may be one undertaking's.

    Raises:
        AidRefused: the rule, with the arithmetic; the transaction is then undone.
    """
    programme = session.get_one(Programme, award.programme_id)
    policy = policy_of(programme)
    session.flush()
    lock_head(session.connection())  # before anything is read: who is linked with whom, too
    organisation_id = session.get_one(Project, award.project_id).organisation_id
    wanted = aid.AidWanted(
        award_id=award.id,
        organisation_id=organisation_id,
        undertaking=undertaking_of(session, organisation_id, at),
        kind=kind,
        regime=policy.regime,
        scheme=policy.scheme,
        credits=amount_credits,
        micro_euros_per_hour=rate_at(session.connection(), at),
        public_thousandths=public_share(session, award),
        act_reference=award.act_reference,
        act_on=award.act_on,
        granted_at=at,
    )
    return aid.count(session, wanted, rules)


def take_back(session: Session, award: Award, amount_credits: int, reason: str, at: datetime) -> list[AidLine]:
    """Lower an award's aid by credits that this transaction took back: a reclaim, a transfer, an early closure.

    What merely runs out unused at the award's end lowers nothing: the right had been given (art. 3(3)). `reason`
    is the decision's reference, such as the id of the change or of the notice. Of an award whose hours are counted
    only in part, because its programme's regime changed, those that are no aid go first: aid is never understated.
    """
    left = balances_of(session, [award.id])[award.id]
    given_credits = left.available + left.held + left.consumed - left.overrun
    counted_credits = sum(line.credits for line in aid.lines_of(session, award.id))
    no_aid_credits = max(0, given_credits + amount_credits - counted_credits)
    lowered = max(0, amount_credits - no_aid_credits)
    return aid.reduce(session, award_id=award.id, credits_=lowered, act_reference=reason, act_on=paris_day(at))


def rate_at(connection: Connection, at: datetime) -> int | None:
    """Return the micro-euros per normalised GPU-hour that awards are valued at on a moment's day; None if unknown."""
    dear = {(t.site_id, t.gpu_class): t.micro_euros_per_gpu_hour for t in tariffs(connection, at)}
    return reference_rate(dear, weights(connection, at))


def public_share(session: Session, award: Award) -> int:
    """Return the largest share that the Region and partners will pay at any time of an award, in thousandths.

    Funding shares are dated; of those that are known when it is granted, the dearest for the public counts.
    """
    shares = shares_of(session, award.programme_id)
    at_start = [share for share in shares if share.valid_from <= award.start_at][-1:]
    later = [share for share in shares if award.start_at < share.valid_from < award.end_at]
    return max(1000 - share.company_thousandths for share in (*at_start, *later))


def standing(session: Session, rules: AidRules, organisation: Organisation, day: date) -> Standing:
    """Return what an organisation's single undertaking had by a day."""
    end_of_day = day_start(day + timedelta(days=1)) - timedelta(microseconds=1)
    ids = undertaking_of(session, organisation.id, end_of_day)
    members = session.exec(select(Organisation).where(col(Organisation.id).in_(ids)).order_by(col(Organisation.name)))
    return Standing(
        organisation=organisation,
        undertaking=members.all(),
        fullest=tightest(aid.aids_of(session, ids, rules), rules, day),
        declarations=aid.declarations_of(session, ids),
    )


@dataclass(frozen=True, slots=True)
class Registered:
    """A line of the register with whom and what it is for."""

    line: AidLine
    organisation: Organisation
    programme: Programme


def letter_of(session: Session, award: Award, settings: AidSettings) -> tuple[Subject, Letter]:
    """Return the letter that tells an award's organisation of its aid, and what it is about.

    Raises:
        NotFound: the award is no aid.
    """
    lines = aid.lines_of(session, award.id)
    if not lines:
        raise NotFound(
            f"award {award.id} is in no register of State aid",
            "an award has a letter once it is granted under de minimis or an exempted scheme",
        )
    programme = session.get_one(Programme, award.programme_id)
    subject = Subject(
        award=award,
        lines=lines,
        organisation=session.get_one(Organisation, lines[0].organisation_id),
        project=session.get_one(Project, award.project_id),
        programme_name=policy_of(programme).full_name or programme.name,
    )
    return subject, letter(subject, settings)


def registered(session: Session, lines: Iterable[AidLine]) -> list[Registered]:
    """Return lines with their organisations and programmes, in their order."""
    every = list(lines)
    whose = select(Organisation).where(col(Organisation.id).in_({line.organisation_id for line in every}))
    organisations = {organisation.id: organisation for organisation in session.exec(whose)}
    pairs = select(Award.id, Programme).join(Programme, col(Programme.id) == col(Award.programme_id))
    programmes = dict(session.exec(pairs.where(col(Award.id).in_({line.award_id for line in every}))).all())
    return [Registered(line, organisations[line.organisation_id], programmes[line.award_id]) for line in every]
