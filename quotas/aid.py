"""State aid: each award's value is counted when it is granted, and none passes that would exceed the ceiling.

An award under the regime `none` is no aid: it has no line. One under an exempted scheme has a line in the
register, which adds up to no ceiling here. Rows are never changed: a mistake is answered by a further line.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from sqlmodel import Session, col, select

from quotas.aid_arithmetic import (
    COUNTED_REGIMES,
    AidRules,
    AidSum,
    CountedAid,
    aid_value,
    first_fitting_day,
    largest_credits,
    tightest,
)
from quotas.amounts import CREDITS_PER_HOUR, euros_text, hours_text, paris_day
from quotas.errors import (
    AidAboveCeiling,
    AidCeilingUnknown,
    AidDeclarationRefused,
    AidIncomplete,
    AidReductionTooLarge,
    AidUndeclared,
    AidValueUnknown,
)
from quotas.ledger import lock_head
from quotas.models import AidDeclaration, AidDeclared, AidLine
from storage.tables import new_id, utcnow

_SHOWN_CREDITS = CREDITS_PER_HOUR // 1000
"""The step of `hours_text`: an amount that a refusal names can be typed as it stands."""


@dataclass(frozen=True, slots=True)
class AidWanted:
    """An award, or more of one, as it is about to be granted. Its row of `award` must stand in the transaction."""

    award_id: str
    organisation_id: str
    undertaking: Sequence[str]
    """All organisations that count as one with it on that day, itself included or not."""
    kind: Literal["grant", "supplement", "transfer"]
    regime: Literal["de-minimis", "exempted", "none"]
    scheme: str | None
    credits: int
    micro_euros_per_hour: int | None
    """Of a normalised GPU-hour (quotas.aid_arithmetic.reference_rate); None where no tariff is known."""
    public_thousandths: int
    act_reference: str | None
    act_on: date | None
    granted_at: datetime


@dataclass(frozen=True, slots=True)
class DeclaredAid:
    """One aid that a company declares to have had."""

    granted_on: date
    giver: str
    value_micro_euros: int
    act_reference: str
    regime: str


def count(session: Session, wanted: AidWanted, rules: AidRules) -> AidLine | None:
    """Count an award's value as aid to its undertaking; None under the regime `none`, which is no aid.

    Takes the chain head's lock first, so that of two grants at one moment the second sees the first.

    Raises:
        AidIncomplete: the act, its day or the scheme's number is missing, or the act is of a later day.
        AidValueUnknown: no rate is known.
        AidUndeclared: the organisation has declared nothing, or too long ago.
        AidCeilingUnknown: no ceiling is set for the day.
        AidAboveCeiling: shows the sum, and the most that would pass.
    """
    if wanted.regime == "none":
        return None
    lock_head(session.connection())
    line = _line(wanted)
    if wanted.regime == "de-minimis":
        _check_declared(session, wanted, rules)
        _check_ceiling(session, wanted, rules, line)
    session.add(line)
    session.flush()
    return line


def _line(wanted: AidWanted) -> AidLine:
    """Value the award, or say what is missing for it."""
    if wanted.regime == "exempted" and not wanted.scheme:
        raise AidIncomplete(
            "an exempted scheme is known by its number, and the programme names none",
            "enter the scheme's number (SA.…) in the programme's policy",
        )
    if not wanted.act_reference or wanted.act_on is None:
        raise AidIncomplete(
            "State aid is granted by an act: its reference or its day is missing",
            "give both: --act REFERENCE --act-on DAY, in a file act_reference and act_on",
        )
    if wanted.act_on > paris_day(wanted.granted_at):
        raise AidIncomplete(
            f"the act {wanted.act_reference} is of {wanted.act_on}, after the day of the grant",
            "grant on the act's day or later",
        )
    if wanted.micro_euros_per_hour is None:
        raise AidValueUnknown(
            "no tariff is known for the day of the grant, so the award's value as aid cannot be told",
            "enter the sites' tariffs: idf-compute tariff add",
        )
    return AidLine(
        id=new_id("aid"),
        award_id=wanted.award_id,
        organisation_id=wanted.organisation_id,
        kind=wanted.kind,
        regime=wanted.regime,
        scheme=wanted.scheme if wanted.regime == "exempted" else None,
        credits=wanted.credits,
        micro_euros_per_hour=wanted.micro_euros_per_hour,
        public_thousandths=wanted.public_thousandths,
        value_micro_euros=aid_value(wanted.credits, wanted.micro_euros_per_hour, wanted.public_thousandths),
        act_reference=wanted.act_reference,
        act_on=wanted.act_on,
        granted_at=wanted.granted_at,
        entered_at=utcnow(),
    )


def _check_declared(session: Session, wanted: AidWanted, rules: AidRules) -> None:
    """Ask for the declaration that must come before each grant (Regulation (EU) 2023/2831, art. 7(4))."""
    day = paris_day(wanted.granted_at)
    newest = newest_before(session, wanted.organisation_id, day)
    remedy = "enter its declaration of the aids it had: idf-compute aid declare"
    if newest is None:
        raise AidUndeclared("the organisation has made no declaration of its aids before this grant", remedy)
    if not is_young_enough(newest, rules, day):
        old, days = newest.declared_on, rules.declaration_days
        raise AidUndeclared(f"the organisation's declaration is of {old}, more than {days} days before {day}", remedy)


def newest_before(session: Session, organisation_id: str, day: date) -> AidDeclaration | None:
    """Return the newest declaration that an organisation had made by a day."""
    wanted = select(AidDeclaration).where(
        col(AidDeclaration.organisation_id) == organisation_id, col(AidDeclaration.declared_on) <= day
    )
    return session.exec(wanted.order_by(col(AidDeclaration.declared_on).desc()).limit(1)).first()


def is_young_enough(declaration: AidDeclaration, rules: AidRules, day: date) -> bool:
    """Say whether a declaration may still stand behind a grant of a day."""
    return declaration.declared_on >= day - timedelta(days=rules.declaration_days)


def _check_ceiling(session: Session, wanted: AidWanted, rules: AidRules, line: AidLine) -> None:
    day = paris_day(wanted.granted_at)
    aids = aids_of(session, {wanted.organisation_id, *wanted.undertaking}, rules)
    fullest = tightest(aids, rules, day)
    if fullest is None:
        raise AidCeilingUnknown(
            f"no de minimis ceiling is set for {day}", "set one under [aid] in the broker's settings"
        )
    value = line.value_micro_euros
    if value > 0 and fullest.left_micro_euros < value:
        raise AidAboveCeiling(
            f"{fullest.words(value)}; this award is worth {hours_text(line.credits)} × "
            f"{euros_text(line.micro_euros_per_hour)} × {_percent(line.public_thousandths)} paid by the public",
            _most(line, fullest, first_fitting_day(aids, rules, day, value)),
        )


def _most(line: AidLine, fullest: AidSum, passes_on: date | None) -> str:
    """Word the largest amount that would pass, and the day from which all of it would."""
    most = largest_credits(fullest.left_micro_euros, line.micro_euros_per_hour, line.public_thousandths) or 0
    most -= most % _SHOWN_CREDITS
    value = aid_value(most, line.micro_euros_per_hour, line.public_thousandths)
    now = (
        f"grant at most {hours_text(most)} ({euros_text(value)})" if most else "nothing more can be granted on this day"
    )
    return f"{now}; all of it from {passes_on} on, if nothing else is granted until then" if passes_on else now


def _percent(thousandths: int) -> str:
    whole, rest = divmod(thousandths, 10)
    return f"{whole}.{rest} %" if rest else f"{whole} %"


def reduce(session: Session, *, award_id: str, credits_: int, act_reference: str, act_on: date) -> list[AidLine]:
    """Take hours that an award gave back out of its aid, from its newest lines first, each at its own rate.

    A reduction counts on the day of the line it lowers, so that it leaves the window of years with that line.
    An award without a line, under the regime `none` or older than the register, has nothing to lower.

    Raises:
        AidReductionTooLarge: the award's lines count fewer hours.
    """
    lock_head(session.connection())
    left = _net(lines_of(session, award_id))
    counted = sum(credits_left for _, credits_left, _ in left)
    if left and credits_ > counted:
        raise AidReductionTooLarge(
            f"{hours_text(credits_)} were to be taken back, the award's aid counts {hours_text(counted)}",
            f"take back at most {hours_text(counted)}",
        )
    made = []
    for line, credits_left, value_left in reversed(left):
        taken = min(credits_, credits_left)
        if taken:
            all_of_it = taken == credits_left
            value = value_left if all_of_it else aid_value(taken, line.micro_euros_per_hour, line.public_thousandths)
            made.append(_reduction(line, taken, value, act_reference, act_on))
            credits_ -= taken
    session.add_all(made)
    session.flush()
    return made


def _reduction(line: AidLine, taken_credits: int, value: int, act_reference: str, act_on: date) -> AidLine:
    same = line.model_dump(include={"award_id", "organisation_id", "regime", "scheme", "granted_at"})
    return AidLine(
        **same,
        id=new_id("aid"),
        kind="reduction",
        reduces_id=line.id,
        credits=-taken_credits,
        micro_euros_per_hour=line.micro_euros_per_hour,
        public_thousandths=line.public_thousandths,
        value_micro_euros=-value,
        act_reference=act_reference,
        act_on=act_on,
        entered_at=utcnow(),
    )


def lines_of(session: Session, award_id: str) -> list[AidLine]:
    """Return an award's lines, reductions among them, in the order of their grants."""
    wanted = select(AidLine).where(col(AidLine.award_id) == award_id)
    return list(session.exec(wanted.order_by(col(AidLine.granted_at), col(AidLine.entered_at), col(AidLine.id))))


def _net(lines: Iterable[AidLine]) -> list[tuple[AidLine, int, int]]:
    """Return each line that is no reduction with the credits and micro-euros left of it."""
    every = list(lines)
    credits_left = {line.id: line.credits for line in every if line.reduces_id is None}
    value_left = {line.id: line.value_micro_euros for line in every if line.reduces_id is None}
    for line in every:
        if line.reduces_id is not None:
            credits_left[line.reduces_id] += line.credits
            value_left[line.reduces_id] += line.value_micro_euros
    return [(line, credits_left[line.id], value_left[line.id]) for line in every if line.reduces_id is None]


def declare(
    session: Session,
    *,
    organisation_id: str,
    declared_on: date,
    document: str,
    aids: Sequence[DeclaredAid],
    today: date,
) -> AidDeclaration:
    """Enter a company's declaration of all aids it had; it stands whole in place of the one before it.

    Raises:
        AidDeclarationRefused: it is of a day to come, or names an aid of a later day than its own.
    """
    if declared_on > today:
        raise AidDeclarationRefused(
            f"the declaration is of {declared_on}, a day to come", "give the day on which it was signed"
        )
    for aid in aids:
        if aid.granted_on > declared_on:
            raise AidDeclarationRefused(
                f"the aid {aid.act_reference} of {aid.granted_on} is later than the declaration of {declared_on}",
                "give the day on which the right to the aid was granted",
            )
    declaration = AidDeclaration(
        id=new_id("dec"),
        organisation_id=organisation_id,
        declared_on=declared_on,
        document=document,
        entered_at=utcnow(),
    )
    session.add(declaration)
    session.flush()
    for number, aid in enumerate(aids, 1):
        session.add(
            AidDeclared(
                declaration_id=declaration.id,
                number=number,
                granted_on=aid.granted_on,
                giver=aid.giver,
                value_micro_euros=aid.value_micro_euros,
                act_reference=aid.act_reference,
                regime=aid.regime,
            )
        )
    session.flush()
    return declaration


def declarations_of(session: Session, organisation_ids: Iterable[str]) -> list[AidDeclaration]:
    """Return the declaration that stands of each organisation: its newest."""
    wanted = select(AidDeclaration).where(col(AidDeclaration.organisation_id).in_(list(organisation_ids)))
    dated = session.exec(
        wanted.order_by(col(AidDeclaration.declared_on), col(AidDeclaration.entered_at), col(AidDeclaration.id))
    )
    newest = {declaration.organisation_id: declaration for declaration in dated}
    return [newest[id_] for id_ in sorted(newest)]


def aids_of(session: Session, undertaking: Iterable[str], rules: AidRules) -> list[CountedAid]:
    """Return the de minimis aids of the organisations of one undertaking: counted here, and declared by them.

    A declared aid that is a line of ours (same giver, act, day, and euros to the cent) counts once. One that two
    linked organisations both declare counts twice: better too much than too little.
    """
    organisations = sorted(set(undertaking))
    lines = session.exec(
        select(AidLine).where(col(AidLine.organisation_id).in_(organisations), col(AidLine.regime) == "de-minimis")
    )
    net = _net(lines)
    ours = {_sameness(paris_day(a.granted_at), rules.authority, a.act_reference, value) for a, _, value in net}
    counted = [
        CountedAid(paris_day(line.granted_at), line.organisation_id, value, line.act_reference, None, line.id)
        for line, _, value in net
    ]
    for declaration in declarations_of(session, organisations):
        for aid in declared_aids(session, declaration.id):
            same = _sameness(aid.granted_on, aid.giver, aid.act_reference, aid.value_micro_euros)
            if aid.regime in COUNTED_REGIMES and same not in ours:
                counted.append(_declared(declaration, aid))
    return counted


def declared_aids(session: Session, declaration_id: str) -> list[AidDeclared]:
    """Return the aids that a declaration names, in its order."""
    wanted = select(AidDeclared).where(col(AidDeclared.declaration_id) == declaration_id)
    return list(session.exec(wanted.order_by(col(AidDeclared.number))))


def _declared(declaration: AidDeclaration, aid: AidDeclared) -> CountedAid:
    return CountedAid(
        granted_on=aid.granted_on,
        organisation_id=declaration.organisation_id,
        value_micro_euros=aid.value_micro_euros,
        reference=aid.act_reference,
        giver=aid.giver,
        id=f"{declaration.id}/{aid.number}",
    )


def _sameness(granted_on: date, giver: str, act_reference: str, value_micro_euros: int) -> tuple[date, str, str, int]:
    """Return what two mentions of one aid have in common: letters' size, spaces and parts of a cent do not count."""
    cents = value_micro_euros // 10_000
    return granted_on, " ".join(giver.casefold().split()), " ".join(act_reference.casefold().split()), cents
