"""What lies unused goes back: announced once, answered, decided, carried out once, and never more than announced."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlmodel import Session, select
from world import HOUR

from quotas.amounts import day_start
from quotas.awards import Actor
from quotas.balances import Balances, balances_of
from quotas.errors import ReclaimDecided, ReclaimUnknown
from quotas.invariants import broken
from quotas.ledger import Done, Movement, Posting, account_id, open_ledger, post
from quotas.models import Award, AwardEvent, ChainHead, Programme, ReclaimNotice
from quotas.policy import ProgrammePolicy, ReclaimRule
from quotas.programmes import grant_award, open_programme, policy_of
from quotas.reclaims import Outcome, announce, carry_out, decide, justify, last_day, rule_that_holds, used_thousandths
from storage.database import Database

START, END = day_start(date(2026, 1, 1)), day_start(date(2027, 1, 1))
HALF = datetime(2026, 7, 3, 12, 0, tzinfo=UTC)
"""A little after half of its time."""
DUE = day_start(date(2026, 7, 19))
RULES = [
    ReclaimRule(after_thousandths=500, used_below_thousandths=300, take_thousandths=500),
    ReclaimRule(after_thousandths=750, used_below_thousandths=600, take_thousandths=1000),
]
LEAD, MANAGER = Actor("psn-lead", is_manager=False), Actor("psn-manager", is_manager=True)


def award(session: Session, **changes: object) -> Award:
    if session.exec(select(ChainHead)).first() is None:
        open_ledger(session)
    policy = ProgrammePolicy.model_validate({"reclaim": RULES, "notice_days": 15, **changes})
    programme = open_programme(session, name="pack", policy=policy, budgets=[(START, END, 10_000 * HOUR)])
    return grant_award(
        session,
        project_id="prj-1",
        programme=programme,
        amount_credits=100 * HOUR,
        start_at=START,
        end_at=END,
    )


def move(session: Session, kind: str, source: str, target: str, award: Award, hours: int) -> None:
    session.flush()
    movement = Movement(
        f"{kind}/{hours}", kind, account_id(source, award.id), account_id(target, award.id), hours * HOUR, "job-1"
    )
    assert post(session.connection(), [Posting((movement,))], HALF) == [Done.POSTED]


def left(session: Session, award: Award) -> Balances:
    return balances_of(session, [award.id])[award.id]


def said(session: Session, award: Award, at: datetime) -> ReclaimNotice | None:
    policy = policy_of(session.get_one(Programme, award.programme_id))
    return announce(session, award, policy, left(session, award), at)


def announced(session: Session, award: Award, at: datetime = HALF) -> ReclaimNotice:
    notice = said(session, award, at)
    assert notice is not None
    return notice


def refused(error: type[Exception], why: str, act: object) -> None:
    with pytest.raises(error, match=why):
        act()  # type: ignore[operator]


def test_the_last_rule_whose_time_has_come_counts() -> None:
    policy = ProgrammePolicy(reclaim=RULES)
    held = Award(start_at=START, end_at=END)  # type: ignore[call-arg]
    unused, half_used = Balances(100, 0, 0, 0), Balances(50, 30, 20, 0)
    assert rule_that_holds(policy, held, unused, START + timedelta(days=100)) is None
    assert rule_that_holds(policy, held, unused, HALF) == RULES[0]
    assert rule_that_holds(policy, held, half_used, HALF) is None
    assert rule_that_holds(policy, held, half_used, START + timedelta(days=300)) == RULES[1]
    assert rule_that_holds(policy, held, Balances(40, 30, 30, 0), START + timedelta(days=300)) is None
    assert rule_that_holds(policy, held, Balances(0, 0, 0, 0), HALF) is None
    assert rule_that_holds(ProgrammePolicy(), held, unused, HALF) is None
    assert used_thousandths(Balances(0, 0, 0, 0)) is None


def test_a_reclaim_is_announced_once_and_carried_out_on_its_day(database: Database) -> None:
    with database.write() as session:
        one = award(session)
        move(session, "adjust", "available", "consumed", one, 20)
        notice = announced(session, one)
        assert said(session, one, HALF) is None
        assert (notice.announced_credits, notice.due_at, last_day(notice)) == (40 * HOUR, DUE, "2026-07-18")
        assert carry_out(session, one.id, DUE - timedelta(seconds=1)) is None
        done = carry_out(session, one.id, DUE)
        assert done is notice
        assert (done.outcome, done.reclaimed_credits, done.ended_at) == (Outcome.RECLAIMED, 40 * HOUR, DUE)
        assert left(session, one).available == 40 * HOUR
        assert carry_out(session, one.id, DUE) is None
        assert said(session, one, DUE) is None, "one notice per award and rule"
        assert left(session, one) == Balances(40 * HOUR, 0, 20 * HOUR, 0)
        assert [fault for fault in broken(session) if "award awd" not in fault] == []
        story = [event.kind for event in session.exec(select(AwardEvent).order_by(AwardEvent.id)).all()]  # type: ignore[arg-type]
        assert story[-2:] == ["reclaim", "reclaimed"]


def test_never_more_than_announced_and_no_more_than_its_share_then(database: Database) -> None:
    with database.write() as session:
        one = award(session)
        announced(session, one)
        move(session, "supplement", "overrun", "available", one, 900)
        assert carry_out(session, one.id, DUE).reclaimed_credits == 50 * HOUR  # type: ignore[union-attr]
    with database.write() as session:
        other = grant_award(
            session,
            project_id="prj-2",
            programme=session.get_one(Programme, one.programme_id),
            amount_credits=100 * HOUR,
            start_at=START,
            end_at=END,
        )
        announced(session, other)
        move(session, "hold", "available", "held", other, 29)
        assert carry_out(session, other.id, DUE).reclaimed_credits == 71 * HOUR // 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("used", "the award is used again"),
        ("extended", "the award lasts longer now"),
        ("ended", "the award has ended"),
        ("closed", "the award has ended"),
        ("emptied", "there is nothing left to take"),
    ],
)
def test_a_rule_that_holds_no_more_calls_it_off(database: Database, what: str, why: str) -> None:
    at = HALF + timedelta(days=1)
    with database.write() as session:
        one = award(session)
        announced(session, one)
        if what == "used":
            move(session, "hold", "available", "held", one, 30)
        elif what == "extended":
            one.end_at = END + timedelta(days=60)
        elif what == "ended":
            at = END
        elif what == "closed":
            one.state = "expiring"
        else:
            move(session, "transfer", "available", "overrun", one, 100)
        done = carry_out(session, one.id, at)
        assert done is not None
        assert (done.outcome, done.outcome_reason, done.reclaimed_credits) == (Outcome.CANCELLED, why, None)


def test_nothing_is_announced_that_could_not_be_carried_out(database: Database) -> None:
    with database.write() as session:
        one = award(session, notice_days=200)
        assert said(session, one, HALF) is None, "all goes back at its end anyway"
    with database.write() as session:
        session.refresh(session.get_one(Award, one.id))
        programme = session.get_one(Programme, one.programme_id)
        programme.policy = {**programme.policy, "notice_days": 0}
        move(session, "transfer", "available", "overrun", session.get_one(Award, one.id), 100)
        move(session, "back", "overrun", "consumed", session.get_one(Award, one.id), 1)
        assert said(session, session.get_one(Award, one.id), HALF) is None, "there is nothing to take"


def test_a_later_rule_waits_for_the_notice_that_is_open(database: Database) -> None:
    late = START + timedelta(days=280)
    with database.write() as session:
        one = award(session)
        announced(session, one)
        assert said(session, one, late) is None
        assert carry_out(session, one.id, late) is not None
        again = announced(session, one, late)
        assert (again.after_thousandths, again.announced_credits) == (750, 50 * HOUR)


def test_a_justification_that_is_accepted_keeps_everything(database: Database) -> None:
    with database.write() as session:
        one = award(session)
        refused(ReclaimUnknown, "no reclaim is announced", lambda: justify(session, one.id, "x", LEAD, HALF))
        announced(session, one)
        refused(
            ReclaimDecided, "nobody has justified", lambda: decide(session, one.id, "x", MANAGER, HALF, accepted=True)
        )
        justify(session, one.id, "the data came late", LEAD, HALF)
        justify(session, one.id, "the data comes in July", LEAD, HALF)
        refused(ReclaimDecided, "of their own", lambda: decide(session, one.id, "x", LEAD, HALF, accepted=True))
        assert carry_out(session, one.id, DUE + timedelta(days=9)) is None, "never against an unread justification"
        done = decide(session, one.id, "good reason", MANAGER, DUE + timedelta(days=9), accepted=True)
        assert (done.outcome, done.justification) == (Outcome.ACCEPTED, "the data comes in July")
        assert carry_out(session, one.id, DUE + timedelta(days=10)) is None
        assert left(session, one).available == 100 * HOUR
        refused(ReclaimUnknown, "no reclaim", lambda: decide(session, one.id, "x", MANAGER, DUE, accepted=False))


def test_a_justification_that_is_refused_changes_nothing(database: Database) -> None:
    with database.write() as session:
        one = award(session)
        announced(session, one)
        justify(session, one.id, "holidays", LEAD, HALF)
        decide(session, one.id, "others wait", MANAGER, HALF, accepted=False)
        refused(ReclaimDecided, "was refused: others wait", lambda: justify(session, one.id, "x", LEAD, HALF))
        refused(
            ReclaimDecided, "was refused already", lambda: decide(session, one.id, "x", MANAGER, HALF, accepted=True)
        )
        assert carry_out(session, one.id, HALF) is None
        assert carry_out(session, one.id, DUE).reclaimed_credits == 50 * HOUR  # type: ignore[union-attr]


def test_any_number_of_workers_take_it_once(database: Database) -> None:
    with database.write() as session:
        one = award(session)
        announced(session, one)

    def turn(_: int) -> int:
        with database.write() as session:
            done = carry_out(session, one.id, DUE)
            return 0 if done is None else 1

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(turn, range(8))) == 1
    with database.read() as session:
        assert left(session, one).available == 50 * HOUR
