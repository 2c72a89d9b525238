"""Every movement of money through its real function, beside the model that says what must come of it.

All examples share one migrated database and one open transaction: each begins at a savepoint and is undone
afterwards, so that thousands of them take minutes. The functions are looked up in their modules at each call,
so that a test can put a broken one in the place of a right one.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import count
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_model import CAPACITY, REGION, RESTORED, Model, ModelAward, ModelJob, ModelSide
from sqlalchemy import Connection
from sqlmodel import Session

from broker.schema_version import migrate_to
from quotas import award_changes, award_ends, awards, contracts, corrections, holds, ledger, programmes, reclaims
from quotas.amounts import PARIS, period
from quotas.audit import Audit
from quotas.award_changes import Outcome
from quotas.award_life import InProduction, Worked
from quotas.awards import Actor, Papers, Subject, Terms
from quotas.balances import balances_of
from quotas.errors import (
    AwardChangeRefused,
    AwardStateWrong,
    AwardTooSmall,
    ContractTooSmall,
    HoldTooSmall,
    ProgrammeTooSmall,
    QuotaError,
    RefundTooLarge,
    TransferReused,
)
from quotas.ledger import Done, Movement, Posting
from quotas.models import Award, Programme, ReclaimNotice
from quotas.policy import ProgrammePolicy, ReclaimRule
from storage.database import Database

BEGAN_AT = datetime(2027, 1, 5, 12, tzinfo=UTC)
BUDGETS = ((date(2027, 1, 1), date(2027, 12, 31)), (date(2028, 1, 1), date(2060, 12, 31)))
BUDGET = 3000
MANAGER = Actor("marc", is_manager=True)
OUTCOME = Outcome(Worked.YES, InProduction.NO, None, "much", "more")
RULES = [
    ReclaimRule(after_thousandths=50, used_below_thousandths=700, take_thousandths=500),
    ReclaimRule(after_thousandths=300, used_below_thousandths=900, take_thousandths=1000),
]
POLICY = ProgrammePolicy(reclaim=RULES, notice_days=2, export_days=10)
MAY_BE_BELOW_ZERO = {"treasury", "overrun"}

picks = st.integers(0, 11)
amounts = st.integers(1, 700)
charges = st.integers(0, 500)


@dataclass
class Books:
    """A migrated database in one open transaction, with what every example begins with."""

    connection: Connection
    programme_id: str
    budget_ids: tuple[str, ...]
    model: Model

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session whose changes stand when the block ends, or are undone when it raises."""
        session = Session(self.connection, join_transaction_mode="create_savepoint", expire_on_commit=False)
        with session, session.begin():
            yield session

    def found(self, query: str) -> list[Any]:
        return list(self.connection.exec_driver_sql(query))


@lru_cache(maxsize=1)
def books() -> Books:
    """Return the books that all examples of this process begin with; they end with it."""
    folder = tempfile.mkdtemp(prefix="idf-books-")
    url = f"sqlite:///{folder}/books.sqlite3"
    migrate_to(url)
    connection = Database(url).engine.execution_options(idf_write=True).connect()
    connection.begin()
    made = Books(connection, "", (), Model({REGION: 0, CAPACITY: 0, RESTORED: 0}))
    with made.write() as session:
        wanted = [(*period(*days), BUDGET) for days in BUDGETS]
        programme = programmes.open_programme(session, name="p", policy=POLICY, budgets=wanted)
        made.programme_id = programme.id
        made.budget_ids = tuple(budget.id for budget in programmes.budgets_of(session, programme.id))
        for budget_id in made.budget_ids:
            made.model.balances[f"programme:{budget_id}"] = 0
            made.model.move(REGION, f"programme:{budget_id}", BUDGET)
        for amount in (900, 600):
            terms = Terms(amount, date(2027, 1, 5), date(2027, 7, 4))
            award = awards.grant(session, subject(session, made), terms, MANAGER, Papers(), BEGAN_AT)
            made.model.grant(ModelAward(award.id, made.budget_ids[0], award.start_at, award.end_at), amount)
        for gpu_seconds in (500, 1000):
            sign(session, made.model, 2, gpu_seconds)
        run_two_jobs(session, made.model)
    return made


def subject(session: Session, within: Books) -> Subject:
    return Subject("prj-1", session.get_one(Programme, within.programme_id), "public", "none")


def sign(session: Session, model: Model, weight: int, gpu_seconds: int) -> None:
    """Sign a contract, in the books and in the model."""
    contract = contracts.open_contract(
        session,
        gpu_seconds=gpu_seconds,
        weight_thousandths=weight,
        site_id="sit-1",
        gpu_class="a100-80",
        kind="allocated",
        start_at=BEGAN_AT,
        end_at=BEGAN_AT + timedelta(days=9999),
        dossier="A0001",
        holder="Region",
        holder_project="p",
    )
    model.sign(contract.id, weight, gpu_seconds)


def run_two_jobs(session: Session, model: Model) -> None:
    """Charge two jobs a little more than they had set aside; the second one is not released yet."""
    owners = (model.awards[0].id, next(iter(model.contracts)))
    for job in (ModelJob(id_, [ModelSide(owner, 100, 100) for owner in owners]) for id_ in ("job-a", "job-b")):
        model.hold(job)
        opened = holds.open_hold(job.id, *sides_of(job))
        charged = holds.settle(left_of(job), 110, 90, f"{job.id}/0")
        model.settle(job, [110, 90])
        postings = [opened, charged]
        if job.id == "job-a":
            postings.append(holds.release(left_of(job)))
            model.release(job)
        for posting in postings:
            assert ledger.post(session.connection(), [posting], BEGAN_AT) == [Done.POSTED]


def sides_of(job: ModelJob) -> tuple[holds.Side, holds.Side | None]:
    award, *contract = (holds.Side(side.owner_id, side.left, 1000) for side in job.sides)
    return award, contract[0] if contract else None


def left_of(job: ModelJob) -> holds.HoldLeft:
    return holds.HoldLeft(job.id, *sides_of(job))


@dataclass
class Notice:
    """An announced reclaim."""

    rule: ReclaimRule
    amount: int
    due_at: datetime
    is_open: bool = True


class LedgerMachine(RuleBasedStateMachine):
    """Whatever is granted, held, settled, given back, moved on or replayed: the books are what the model says."""

    @initialize()
    def begin(self) -> None:
        self.books = books()
        self.books.connection.exec_driver_sql("SAVEPOINT example")
        self.model = deepcopy(self.books.model)
        self.now = BEGAN_AT
        self.numbers = count(1)
        self.posted: list[Posting] = []
        self.notices: dict[str, list[Notice]] = {}

    def teardown(self) -> None:
        if not hasattr(self, "books"):
            return
        try:
            assert list(Audit(self.books.connection).faults()) == []
        finally:
            self.books.connection.exec_driver_sql("ROLLBACK TO example")
            self.books.connection.exec_driver_sql("RELEASE example")

    def _do(self, act: Callable[[Session], Any], refusal: type[QuotaError] | None = None) -> Any:
        """Take a step that must be refused with this error, or must not be refused."""
        refused: QuotaError | None = None
        done = None
        try:
            with self.books.write() as session:
                done = act(session)
        except QuotaError as error:
            refused = error
        assert type(refused) is (refusal or type(None)), (refused, refusal)
        return done

    def _post(self, *postings: Posting) -> list[Any]:
        outcomes: list[Any] = self._do(lambda s: ledger.post(s.connection(), postings, self.now))
        self.posted += [p for p, outcome in zip(postings, outcomes, strict=True) if outcome is Done.POSTED]
        return [outcome if isinstance(outcome, Done) else type(outcome) for outcome in outcomes]

    def _award(self, number: int) -> ModelAward:
        return self.model.awards[number % len(self.model.awards)]

    def _contract(self, number: int) -> str:
        return list(self.model.contracts)[number % len(self.model.contracts)]

    def _jobs(self, *, released: bool) -> list[ModelJob]:
        return [job for job in self.model.jobs if job.released is released]

    def _is_over(self, award: ModelAward) -> bool:
        return award.over or award.end_at <= self.now

    # What the Region gives

    @rule(number=picks, amount=amounts)
    def fund(self, number: int, amount: int) -> None:
        which = number % len(BUDGETS)
        days = period(*BUDGETS[which])

        def act(session: Session) -> None:
            programme = session.get_one(Programme, self.books.programme_id)
            programmes.add_budget(session, programme, *days, amount)

        self._do(act)
        self.model.move(REGION, f"programme:{self.books.budget_ids[which]}", amount)

    @precondition(lambda self: len(self.model.awards) < 5)
    @rule(amount=st.integers(1, 3000), days=st.integers(10, 200), next_year=st.booleans())
    def award(self, amount: int, days: int, next_year: bool) -> None:
        start_on = self.now.astimezone(PARIS).date()
        if next_year:
            start_on = max(start_on, date(2028, 1, 10))
        terms = Terms(amount, start_on, start_on + timedelta(days=days))
        budget_id = self.books.budget_ids[0 if start_on.year == 2027 else 1]
        too_small = amount > self.model.balances[f"programme:{budget_id}"]
        made = self._do(
            lambda s: awards.grant(s, subject(s, self.books), terms, MANAGER, Papers(), self.now),
            ProgrammeTooSmall if too_small else None,
        )
        if made:
            self.model.grant(ModelAward(made.id, budget_id, *period(terms.start_on, terms.end_on)), amount)

    @rule(number=picks, amount=st.integers(1, 3000))
    def supplement(self, number: int, amount: int) -> None:
        award, budget = self._award(number), f"programme:{self._award(number).budget_id}"

        def act(session: Session) -> bool:
            change = award_changes.ask_supplement(session, award.id, amount, "r", MANAGER, self.now)
            award_changes.approve_change(session, change.id, MANAGER, self.now)
            return True

        if self._is_over(award):
            self._do(act, AwardStateWrong)
        elif self._do(act, ProgrammeTooSmall if amount > self.model.balances[budget] else None):
            self.model.move(budget, f"available:{award.id}", amount)

    @rule(number=picks, other=picks, amount=amounts)
    def transfer(self, number: int, other: int, amount: int) -> None:
        source, target = self._award(number), self._award(other)

        def act(session: Session) -> bool:
            change = award_changes.ask_transfer(session, source.id, target.id, amount, "r", MANAGER, self.now)
            award_changes.approve_change(session, change.id, MANAGER, self.now)
            return True

        refusal: type[QuotaError] | None = None
        if self._is_over(source) or (self._is_over(target) and source is not target):
            refusal = AwardStateWrong
        elif source is target:
            refusal = AwardChangeRefused
        elif amount > self.model.available(source.id):
            refusal = AwardTooSmall
        if self._do(act, refusal):
            self.model.move(f"available:{source.id}", f"available:{target.id}", amount)

    @precondition(lambda self: len(self.model.contracts) < 4)
    @rule(weight=st.integers(1, 3), gpu_seconds=amounts)
    def contract(self, weight: int, gpu_seconds: int) -> None:
        self._do(lambda s: sign(s, self.model, weight, gpu_seconds))

    @rule(number=picks, gpu_seconds=amounts, twice=st.booleans())
    def take_capacity_back(self, number: int, gpu_seconds: int, twice: bool) -> None:
        contract_id, id_ = self._contract(number), f"ret-{next(self.numbers)}"
        amount = gpu_seconds * self.model.contracts[contract_id]
        refusal = ContractTooSmall if amount > self.model.available(contract_id) else None

        def act(session: Session) -> bool:
            contract = session.get_one(contracts.Contract, contract_id)
            contracts.give_back(session, contract, gpu_seconds, id_)
            return True

        if self._do(act, refusal):
            self.model.move(f"available:{contract_id}", CAPACITY, amount)
            if twice:
                self._do(act)

    # What jobs use

    @rule(number=picks, which=picks | st.none(), wanted=st.lists(st.tuples(amounts, amounts), min_size=1, max_size=3))
    def hold(self, number: int, which: int | None, wanted: list[tuple[int, int]]) -> None:
        award = self._award(number)
        if self._is_over(award):
            return
        owners = [award.id] if which is None else [award.id, self._contract(which)]
        jobs = [
            ModelJob(f"job-{next(self.numbers)}", [ModelSide(o, a, a) for o, a in zip(owners, both, strict=False)])
            for both in wanted
        ]
        outcomes = self._post(*(holds.open_hold(job.id, *sides_of(job)) for job in jobs))
        for job, outcome in zip(jobs, outcomes, strict=True):
            short = [side.owner_id for side in job.sides if side.held > self.model.available(side.owner_id)]
            if not short:
                assert outcome is Done.POSTED
                self.model.hold(job)
            else:
                assert outcome is (AwardTooSmall if short[0] == award.id else ContractTooSmall), outcome

    @precondition(lambda self: self._jobs(released=False))
    @rule(number=picks, more=st.tuples(amounts, amounts))
    def top_up(self, number: int, more: tuple[int, int]) -> None:
        jobs = self._jobs(released=False)
        job = jobs[number % len(jobs)]
        award, *contract = [holds.Side(side.owner_id, each, 1000) for side, each in zip(job.sides, more, strict=False)]
        posting = holds.top_up(job.id, award, contract[0] if contract else None, next(self.numbers))
        short = [side for side in (award, *contract) if side.amount > self.model.available(side.owner_id)]
        if short:
            assert self._post(posting) == [AwardTooSmall if short[0] is award else ContractTooSmall]
        else:
            assert self._post(posting) == [Done.POSTED]
            self.model.top_up(job, more)

    @precondition(lambda self: self._jobs(released=False))
    @rule(number=picks, charge=st.tuples(charges, charges))
    def settle(self, number: int, charge: tuple[int, int]) -> None:
        jobs = self._jobs(released=False)
        job = jobs[number % len(jobs)]
        usage_id = f"{job.id}/{next(self.numbers)}"
        assert self._post(holds.settle(left_of(job), *charge, usage_id, details="value=1")) == [Done.POSTED]
        self.model.settle(job, list(charge))

    @precondition(lambda self: self._jobs(released=False))
    @rule(number=picks)
    def settle_more_than_is_left(self, number: int) -> None:
        """Somebody who read the hold before others drew on it takes nothing of other holds."""
        jobs = self._jobs(released=False)
        job = jobs[number % len(jobs)]
        stale = ModelJob(job.id, [replace(side, left=side.left + 1) for side in job.sides])
        usage_id = f"{job.id}/{next(self.numbers)}"
        too_much = [side.left for side in stale.sides] + [0]
        assert self._post(holds.settle(left_of(stale), *too_much[:2], usage_id)) == [HoldTooSmall]

    @precondition(lambda self: self._jobs(released=False))
    @rule(number=picks)
    def release(self, number: int) -> None:
        jobs = self._jobs(released=False)
        job = jobs[number % len(jobs)]
        assert self._post(holds.release(left_of(job))) == [Done.POSTED]
        self.model.release(job)

    # What is corrected

    @rule(number=picks, wanted=st.tuples(charges, charges))
    def refund(self, number: int, wanted: tuple[int, int]) -> None:
        """Give back what was charged or, now and then, up to twenty credits more."""
        job = self.model.jobs[number % len(self.model.jobs)]
        for index, (side, drawn) in enumerate(zip(job.sides, wanted, strict=False)):
            amount = drawn % (side.charged - side.refunded + 20)
            refund_id = f"rfd-{next(self.numbers)}"

            def act(session: Session, index: int = index, amount: int = amount, id_: str = refund_id) -> Posting:
                connection = session.connection()
                ledger.lock_head(connection)
                payer = corrections.payers_of(connection, job.id)[index]
                now = corrections.booked(connection, job.id, payer.owner_id)
                return Posting(movements=corrections.refund(payer, now, job.id, id_, amount))

            fits = 0 < amount <= side.charged - side.refunded
            posting = self._do(act, None if fits else RefundTooLarge)
            if posting is not None:
                assert self._post(posting) == [Done.POSTED]
                self.model.refund(side, amount)

    @rule(number=picks, charge=st.tuples(charges, charges))
    def adjust(self, number: int, charge: tuple[int, int]) -> None:
        jobs = self._jobs(released=True)
        job = jobs[number % len(jobs)]
        for index, (side, new_charge) in enumerate(zip(job.sides, charge, strict=False)):
            revision, refunded = next(self.numbers), min(side.asked_back, new_charge)

            def act(
                session: Session, index: int = index, charge: int = new_charge, n: int = revision, back: int = refunded
            ) -> Any:
                connection = session.connection()
                ledger.lock_head(connection)
                payer = corrections.payers_of(connection, job.id)[index]
                now = corrections.booked(connection, job.id, payer.owner_id)
                left = corrections.available_of(connection, payer.owner_id)
                return corrections.adjust(
                    payer, now, job.id, f"{job.id}/{n}", charge, left, refund_id=f"rfd-{n}", refunded=back
                )

            postings = self._do(act).postings
            assert self._post(*postings) == [Done.POSTED] * len(postings)
            self.model.adjust(side, new_charge)

    # What ends

    @rule(days=st.integers(0, 60))
    def let_time_pass(self, days: int) -> None:
        """Do what is due on a later day, as the broker does every day."""
        self.now += timedelta(days=days)
        late = [a for a in self.model.awards if self._is_over(a) and (not a.over or self.model.available(a.id))]
        with self.books.write() as session:
            due = award_ends.due(session, self.now)
        assert {award.id for award in late} <= set(due)
        for award in (award for award in self.model.awards if award.id in due):
            open_jobs = self.model.has_open_jobs(award)
            self._do(lambda s, a=award, o=open_jobs: award_ends.advance(s, a.id, self.now, open_jobs=o))
            self.model.expire(award)
        for award in self.model.awards:
            self._carry_out(award)

    def _carry_out(self, award: ModelAward) -> None:
        notice = next((n for n in self.notices.get(award.id, []) if n.is_open), None)
        made = self._do(lambda s: reclaims.carry_out(s, award.id, self.now))
        if notice is None:
            assert made is None
            return
        used = self.model.used_thousandths(award)
        share = self.model.available(award.id) * notice.rule.take_thousandths // 1000
        if award.over or (used is not None and used >= notice.rule.used_below_thousandths) or share == 0:
            assert made.outcome == "cancelled"
            notice.is_open = False
        elif self.now < notice.due_at:
            assert made is None
        else:
            amount = min(notice.amount, share)
            assert (made.outcome, made.reclaimed_credits) == ("reclaimed", amount)
            self.model.move(f"available:{award.id}", f"programme:{award.budget_id}", amount)
            notice.is_open = False

    @rule(number=picks, before=st.integers(0, 40), used=st.integers(0, 200), afterwards=st.integers(0, 6))
    def lie_unused(self, number: int, before: int, used: int, afterwards: int) -> None:
        """Let days go by around the announcement: too few for the reclaim, or enough; a little is used meanwhile."""
        self.let_time_pass(before)
        award = self._award(number)
        if not self._is_over(award):
            self._announce(award)
            if used:
                self.hold(number, None, [(used, used)])
            self.let_time_pass(afterwards)

    def _announce(self, award: ModelAward) -> None:

        def act(session: Session) -> ReclaimNotice | None:
            row = session.get_one(Award, award.id)
            return reclaims.announce(session, row, POLICY, balances_of(session, [row.id])[row.id], self.now)

        made, wanted = self._do(act), self._notice_due(award)
        assert (made is None) == (wanted is None)
        if wanted is not None:
            assert (made.announced_credits, made.due_at) == (wanted.amount, wanted.due_at)
            self.notices.setdefault(award.id, []).append(wanted)

    def _notice_due(self, award: ModelAward) -> Notice | None:
        gone = (self.now - award.start_at) / (award.end_at - award.start_at) * 1000
        reached = [wanted for wanted in RULES if wanted.after_thousandths <= gone]
        used = self.model.used_thousandths(award)
        if not reached or used is None or used >= reached[-1].used_below_thousandths:
            return None
        due_at = period(*[self.now.astimezone(PARIS).date() + timedelta(days=POLICY.notice_days)] * 2)[1]
        amount = self.model.available(award.id) * reached[-1].take_thousandths // 1000
        earlier = self.notices.get(award.id, [])
        again = any(n.is_open or n.rule.after_thousandths >= reached[-1].after_thousandths for n in earlier)
        return None if due_at >= award.end_at or amount == 0 or again else Notice(reached[-1], amount, due_at)

    @rule(number=picks)
    def close_early(self, number: int) -> None:
        award = self._award(number)

        def act(session: Session) -> bool:
            change = award_changes.ask_closure(session, award.id, OUTCOME, "r", MANAGER, self.now)
            award_changes.approve_change(session, change.id, MANAGER, self.now)
            return True

        if self._do(act, AwardStateWrong if self._is_over(award) else None):
            self.model.expire(award)

    # What comes twice

    @rule(number=st.integers(0, 60))
    def replay_a_posting(self, number: int) -> None:
        if not self.posted:
            return
        posting = self.posted[number % len(self.posted)]
        outcome = self._post(posting)
        if posting.movements:
            assert outcome == [Done.REPLAYED]

    @rule(number=st.integers(0, 200))
    def replay_a_movement(self, number: int) -> None:
        """Whatever was ever moved, people's decisions and dates included, is not moved again; nor something else."""
        columns = "id, kind, debit_id, credit_id, amount, reference_id, details"
        moved = self.books.found(f"SELECT {columns} FROM ledger_transfer ORDER BY sequence")
        movement = Movement(*moved[number % len(moved)])
        assert self._post(Posting(movements=(movement,))) == [Done.REPLAYED]
        others = [replace(movement, amount=movement.amount + 1), replace(movement, credit_id="treasury:region")]
        for other in others if movement.credit_id != "treasury:region" else others[:1]:
            assert self._post(Posting(movements=(other,))) == [TransferReused]

    # What always holds

    @invariant()
    def balances_are_the_models(self) -> None:
        found = dict(tuple(row) for row in self.books.found("SELECT id, balance FROM ledger_account"))
        assert found == self.model.balances
        assert sum(found.values()) == 0
        below_zero = {id_.split(":")[0] for id_, balance in found.items() if balance < 0}
        assert below_zero <= MAY_BE_BELOW_ZERO

    @invariant()
    def holds_are_the_models(self) -> None:
        found = {
            row[0]: tuple(row[1:]) for row in self.books.found("SELECT id, remaining, contract_remaining FROM hold")
        }
        sides = {job.id: [side.left for side in job.sides] for job in self.model.jobs}
        assert found == {job_id: (left[0], left[1] if len(left) > 1 else None) for job_id, left in sides.items()}

    @invariant()
    def closed_awards_know_what_they_came_to(self) -> None:
        ended = self.books.found("SELECT id, state FROM award WHERE state <> 'active'")
        assert {row[0] for row in ended} == {award.id for award in self.model.awards if award.over}
