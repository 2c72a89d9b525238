"""A model against the ledger: whatever is held, settled, released or replayed, the books are right."""

import tempfile
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from broker.schema_version import migrate_to
from quotas.balances import Balances, balances_of
from quotas.errors import AwardTooSmall
from quotas.holds import HoldLeft, Side, open_hold, release, settle
from quotas.invariants import broken
from quotas.ledger import Done, Outcome, Posting, post
from quotas.policy import ProgrammePolicy
from quotas.programmes import grant_award, open_programme
from storage.database import Database
from storage.tables import utcnow

AWARDED = 1000
amounts = st.integers(min_value=1, max_value=400)


class LedgerMachine(RuleBasedStateMachine):
    holds = Bundle("holds")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        url = f"sqlite:///{Path(self.folder.name) / 'ledger.sqlite3'}"
        migrate_to(url)
        self.database = Database(url)
        now = utcnow()
        with self.database.write() as session:
            programme = open_programme(
                session, name="p", policy=ProgrammePolicy(), budgets=[(now, now + timedelta(days=1), AWARDED)]
            )
            award = grant_award(
                session,
                project_id="prj-1",
                programme=programme,
                amount_credits=AWARDED,
                start_at=now,
                end_at=now + timedelta(days=1),
            )
            self.award_id = award.id
        self.available, self.consumed, self.overrun = AWARDED, 0, 0
        self.remaining: dict[str, int] = {}
        self.done: list[Posting] = []
        self.count = 0

    def _post(self, posting: Posting) -> Outcome:
        with self.database.write() as session:
            [outcome] = post(session.connection(), [posting], utcnow())
        if outcome is Done.POSTED and posting.movements:
            self.done.append(posting)
        return outcome

    def _left(self, job_id: str) -> HoldLeft:
        return HoldLeft(job_id, Side(self.award_id, self.remaining[job_id], 1000))

    @rule(target=holds, amount=amounts)
    def hold(self, amount: int) -> str:
        self.count += 1
        job_id = f"job-{self.count}"
        outcome = self._post(open_hold(job_id, Side(self.award_id, amount, 1000), None))
        if amount > self.available:
            assert isinstance(outcome, AwardTooSmall)
            self.remaining[job_id] = 0
        else:
            assert outcome is Done.POSTED
            self.available -= amount
            self.remaining[job_id] = amount
        return job_id

    @rule(job_id=holds, charge=amounts)
    def settle(self, job_id: str, charge: int) -> None:
        self.count += 1
        left = self.remaining[job_id]
        assert self._post(settle(self._left(job_id), charge, 0, f"{job_id}/{self.count}")) is Done.POSTED
        self.remaining[job_id] -= min(left, charge)
        self.consumed += charge
        self.overrun += max(0, charge - left)

    @rule(job_id=consumes(holds))
    def release(self, job_id: str) -> None:
        self._post(release(self._left(job_id)))
        self.available += self.remaining.pop(job_id)

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        if self.done:
            assert self._post(data.draw(st.sampled_from(self.done))) is Done.REPLAYED

    @invariant()
    def books_are_right(self) -> None:
        held = sum(self.remaining.values())
        with self.database.read() as session:
            assert balances_of(session, [self.award_id])[self.award_id] == Balances(
                self.available, held, self.consumed, self.overrun
            )
            assert list(broken(session)) == []

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()


LedgerMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedgerMachine = LedgerMachine.TestCase
