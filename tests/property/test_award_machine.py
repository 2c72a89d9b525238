"""The life of awards: whatever is asked, decided, spent or outlived, no step is illegal and no credit is lost."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import count

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlmodel import Session, select

from quotas import award_changes, awards
from quotas.amounts import PARIS, period
from quotas.award_changes import Outcome
from quotas.award_ends import advance, due
from quotas.award_life import GRANTED, AwardState, InProduction, Worked, is_legal
from quotas.awards import Actor, Papers, Subject, Terms
from quotas.balances import NOTHING, balances_of
from quotas.errors import QuotaError
from quotas.holds import HoldLeft, Side, open_hold, release, settle
from quotas.invariants import broken
from quotas.ledger import account_id, post
from quotas.models import Account, Award, AwardChange, Programme
from quotas.policy import ProgrammePolicy
from quotas.programmes import open_programme
from storage.database import Database

BUDGET = 10_000
ACTORS = (Actor("lead", is_manager=False), Actor("marc", is_manager=True), Actor("mira", is_manager=True))
OUTCOME = Outcome(Worked.YES, InProduction.NO, None, "much", "more")
POLICY = ProgrammePolicy(longest_months=6, award_credits_max=3000, four_eyes_above_credits=1500, export_days=10)

picks = st.integers(min_value=0, max_value=1000)
actors = st.sampled_from(ACTORS)
managers = st.sampled_from(ACTORS[1:])
amounts = st.integers(min_value=1, max_value=3500)


class AwardMachine(RuleBasedStateMachine):
    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database

    @initialize()
    def begin(self) -> None:
        self.now = datetime(2027, 1, 5, 12, tzinfo=UTC)
        self.states: dict[str, AwardState] = {}
        self.changes: list[str] = []
        self.holds: dict[str, tuple[str, int]] = {}
        self.numbers = count(1)
        with self.database.write() as session:
            budget = (*period(date(2027, 1, 1), date(2028, 12, 31)), BUDGET)
            self.programme_id = open_programme(session, name="p", policy=POLICY, budgets=[budget]).id

    def _try(self, act: Callable[[Session], object]) -> None:
        """Do a step; one that is refused leaves nothing behind, which the invariants see."""
        with suppress(QuotaError), self.database.write() as session:
            act(session)

    def _subject(self, session: Session) -> Subject:
        return Subject("prj-1", session.get_one(Programme, self.programme_id), "public", "none")

    def _pick(self, number: int, *, changes: bool = False) -> str:
        ids = self.changes if changes else list(self.states)
        return ids[number % len(ids)] if ids else "awd-none"

    @rule(amount=amounts, days=st.integers(min_value=-5, max_value=250), actor=actors, at_once=st.booleans())
    def ask(self, amount: int, days: int, actor: Actor, at_once: bool) -> None:
        today = self.now.astimezone(PARIS).date()
        terms = Terms(amount, today, today + timedelta(days=max(0, days)))
        step = awards.grant if at_once and actor.is_manager else awards.request
        self._try(lambda session: step(session, self._subject(session), terms, actor, Papers(), self.now))

    @rule(number=picks, manager=managers, other=st.none() | amounts)
    def approve(self, number: int, manager: Actor, other: int | None) -> None:
        def act(session: Session) -> None:
            award = awards.locked(session, self._pick(number))
            before = awards.terms_of(award)
            terms = Terms(other, before.start_on, before.end_on) if other else None
            awards.approve(session, award.id, self._subject(session), manager, self.now, terms=terms)

        self._try(act)

    @rule(number=picks, actor=actors, step=st.sampled_from([awards.refuse, awards.withdraw, awards.comment]))
    def talk(self, number: int, actor: Actor, step: Callable[..., object]) -> None:
        self._try(lambda session: step(session, self._pick(number), "words", actor, self.now))

    @rule(
        number=picks, other=picks, amount=amounts, actor=actors, kind=st.sampled_from(["more", "later", "over", "end"])
    )
    def ask_change(self, number: int, other: int, amount: int, actor: Actor, kind: str) -> None:
        award_id, target, at = self._pick(number), self._pick(other), self.now
        later = at.astimezone(PARIS).date() + timedelta(days=amount % 200)
        steps: dict[str, Callable[[Session], object]] = {
            "more": lambda s: award_changes.ask_supplement(s, award_id, amount, "r", actor, at),
            "later": lambda s: award_changes.ask_extension(s, award_id, later, "r", actor, at),
            "over": lambda s: award_changes.ask_transfer(s, award_id, target, amount, "r", actor, at),
            "end": lambda s: award_changes.ask_closure(s, award_id, OUTCOME, "r", actor, at),
        }
        self._try(steps[kind])

    @rule(number=picks, manager=managers)
    def approve_change(self, number: int, manager: Actor) -> None:
        change_id = self._pick(number, changes=True)
        self._try(lambda session: award_changes.approve_change(session, change_id, manager, self.now))

    @rule(
        number=picks, actor=actors, step=st.sampled_from([award_changes.refuse_change, award_changes.withdraw_change])
    )
    def drop_change(self, number: int, actor: Actor, step: Callable[..., object]) -> None:
        self._try(lambda session: step(session, self._pick(number, changes=True), "words", actor, self.now))

    @rule(number=picks, amount=amounts)
    def hold(self, number: int, amount: int) -> None:
        award_id, job_id = self._pick(number), f"job-{next(self.numbers)}"
        if self.states.get(award_id) is not AwardState.ACTIVE:
            return
        with self.database.write() as session:
            [outcome] = post(session.connection(), [open_hold(job_id, Side(award_id, amount, 1000), None)], self.now)
        if not isinstance(outcome, QuotaError):
            self.holds[job_id] = (award_id, amount)

    @rule(number=picks, charge=amounts)
    def end_job(self, number: int, charge: int) -> None:
        if not self.holds:
            return
        job_id = sorted(self.holds)[number % len(self.holds)]
        award_id, held = self.holds.pop(job_id)
        left = held - min(held, charge)
        postings = [settle(HoldLeft(job_id, Side(award_id, held, 1000)), charge, 0, f"use-{job_id}")]
        if left:
            postings.append(release(HoldLeft(job_id, Side(award_id, left, 1000))))
        with self.database.write() as session:
            for posting in postings:
                assert not isinstance(post(session.connection(), [posting], self.now)[0], QuotaError)

    @rule(days=st.integers(min_value=0, max_value=60))
    def let_time_pass(self, days: int) -> None:
        self.now += timedelta(days=days)
        with self.database.read() as session:
            ids = due(session, self.now)
        for award_id in ids:
            open_jobs = any(owner == award_id for owner, _ in self.holds.values())
            with self.database.write() as session:
                advance(session, award_id, self.now, open_jobs=open_jobs)

    @invariant()
    def every_step_was_legal(self) -> None:
        with self.database.read() as session:
            now = {award.id: AwardState(award.state) for award in session.exec(select(Award))}
            self.changes += set(session.exec(select(AwardChange.id))) - set(self.changes)
        for award_id, state in now.items():
            before = self.states.get(award_id, AwardState.REQUESTED)
            passed = before is AwardState.ACTIVE and state is AwardState.CLOSED  # two steps of one turn
            assert state is before or passed or is_legal(before, state), (before, state)
        assert set(self.states) <= set(now)
        self.states |= now  # in the order in which they were made, whatever their ids

    @invariant()
    def no_credit_is_lost(self) -> None:
        with self.database.read() as session:
            awards_ = session.exec(select(Award)).all()
            balances = balances_of(session, [award.id for award in awards_])
            left = sum(account.balance for account in session.exec(select(Account).where(Account.kind == "programme")))
            assert left + sum(b.total for b in balances.values()) == BUDGET
            for award in awards_:
                balance = balances.get(award.id, NOTHING)
                assert (award.id in balances) == (AwardState(award.state) in GRANTED)
                assert balance.available >= 0
                if award.state == AwardState.CLOSED.value:
                    ended = (balance.available, balance.held, award.final_credits)
                    assert ended == (0, 0, balance.consumed)
            assert session.get_one(Account, account_id("treasury", "region")).balance == -BUDGET
            assert list(broken(session)) == []

    def teardown(self) -> None:
        self.database.close()


def test_no_step_of_an_award_is_illegal_and_no_credit_is_lost(fresh_url: Callable[[str], str]) -> None:
    numbers = count(1)
    run_state_machine_as_test(
        lambda: AwardMachine(Database(fresh_url(f"awards_{next(numbers)}"))),  # type: ignore[arg-type]  # any factory
        settings=settings(
            max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
