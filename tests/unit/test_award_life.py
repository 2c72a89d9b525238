"""The life of awards over the ledger, on both engines: every step, every refusal, and the books after each."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlmodel import select

from quotas import approvals, award_changes, awards
from quotas.amounts import CREDITS_PER_HOUR as HOUR
from quotas.amounts import day_start, period
from quotas.award_changes import Outcome
from quotas.award_ends import advance, due, expire
from quotas.award_life import AwardState, InProduction, Worked
from quotas.awards import Actor, Papers, Subject, Terms
from quotas.balances import balances_of
from quotas.errors import (
    ApprovedAlready,
    AwardChangeRefused,
    AwardStateWrong,
    AwardTooSmall,
    AwardUnknown,
    NoBudget,
    PolicyRefused,
    ProgrammeTooSmall,
    QuotaError,
)
from quotas.holds import HoldLeft, Side, open_hold, release, settle
from quotas.invariants import broken
from quotas.ledger import Movement, Posting, account_id, post
from quotas.models import Award, AwardChange, AwardEvent, AwardOutcome, Programme
from quotas.policy import ProgrammePolicy
from quotas.posting import move
from quotas.programmes import budgets_of, change_policy, grant_award, open_programme, unawarded_credits
from storage.database import Database

LEAD, MARC, MIRA = Actor("psn-lead", False), Actor("psn-marc", True), Actor("psn-mira", True)
NOW = datetime(2027, 1, 10, 12, tzinfo=UTC)
HALF_YEAR = Terms(100 * HOUR, date(2027, 1, 1), date(2027, 6, 30))
OUTCOME = Outcome(Worked.PARTLY, InProduction.PLANNED, None, "a faster line", "a pilot")
POLICY = ProgrammePolicy(
    kind="pack-ia",
    shortest_months=3,
    longest_months=6,
    awards_per_year_max=3,
    award_credits_max=500 * HOUR,
    four_eyes_above_credits=200 * HOUR,
    confidentialities=["public", "internal"],
)


class Books:
    """A programme with 1,000 h a year, and steps on its awards, each a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.write() as session:
            budgets = [(*period(date(year, 1, 1), date(year, 12, 31)), 1000 * HOUR) for year in (2027, 2028)]
            self.programme = open_programme(session, name="pack-ia", policy=POLICY, budgets=budgets)

    def subject(self, project_id: str = "prj-1", confidentiality: str = "internal") -> Subject:
        return Subject(project_id, self.programme, confidentiality, "none")

    def request(self, terms: Terms = HALF_YEAR, by: Actor = LEAD, project_id: str = "prj-1") -> str:
        with self.database.write() as session:
            return awards.request(session, self.subject(project_id), terms, by, Papers("a trial"), NOW).id

    def grant(self, terms: Terms = HALF_YEAR, by: Actor = MARC, project_id: str = "prj-1") -> str:
        with self.database.write() as session:
            return awards.grant(session, self.subject(project_id), terms, by, Papers(), NOW).id

    def approve(self, award_id: str, by: Actor = MARC, terms: Terms | None = None) -> str:
        with self.database.write() as session:
            return awards.approve(session, award_id, self.subject(), by, NOW, terms=terms).state

    def award(self, award_id: str) -> Award:
        with self.database.read() as session:
            return session.get_one(Award, award_id)

    def available(self, award_id: str) -> int:
        with self.database.read() as session:
            return balances_of(session, [award_id])[award_id].available

    def left(self, year: int = 2027) -> int:
        with self.database.read() as session:
            [budget] = [b for b in budgets_of(session, self.programme.id) if b.start_at == day_start(date(year, 1, 1))]
            return unawarded_credits(session, budget.id)

    def story(self, award_id: str) -> list[tuple[str, str | None]]:
        with self.database.read() as session:
            wanted = select(AwardEvent).where(AwardEvent.award_id == award_id).order_by(AwardEvent.id)  # type: ignore[arg-type]
            return [(event.kind, event.person_id) for event in session.exec(wanted)]

    def change(self, change_id: str) -> AwardChange:
        with self.database.read() as session:
            return session.get_one(AwardChange, change_id)

    def decide(self, change_id: str, by: Actor = MARC, at: datetime = NOW) -> str:
        with self.database.write() as session:
            return award_changes.approve_change(session, change_id, by, at).state

    def post(self, posting: Posting) -> None:
        with self.database.write() as session:
            [outcome] = post(session.connection(), [posting], NOW)
            assert not isinstance(outcome, QuotaError), outcome

    def advance(self, award_id: str, at: datetime, *, open_jobs: bool = False) -> AwardState:
        with self.database.write() as session:
            return advance(session, award_id, at, open_jobs=open_jobs)

    def due(self, at: datetime) -> list[str]:
        with self.database.read() as session:
            return due(session, at)


@pytest.fixture
def books(database: Database) -> Iterator[Books]:
    made = Books(database)
    yield made
    with database.read() as session:
        assert list(broken(session)) == []


# ── from a request to a grant ──


def test_a_request_is_reviewed_and_granted(books: Books) -> None:
    award_id = books.request()
    assert books.award(award_id).state == "requested"
    with books.database.write() as session:
        awards.comment(session, award_id, "which model?", MARC, NOW)
    assert books.award(award_id).state == "in_review"
    with books.database.write() as session:
        awards.comment(session, award_id, "a transformer", LEAD, NOW)
    assert books.approve(award_id) == "active"
    award = books.award(award_id)
    assert (award.requested_credits, award.awarded_credits, award.final_credits) == (100 * HOUR, 100 * HOUR, None)
    assert (award.requested_by, award.granted_at) == (LEAD.person_id, NOW)
    assert books.available(award_id) == 100 * HOUR
    assert books.left() == 900 * HOUR
    assert books.story(award_id) == [
        ("requested", "psn-lead"), ("commented", "psn-marc"), ("commented", "psn-lead"), ("granted", "psn-marc"),
    ]  # fmt: skip


def test_a_manager_may_grant_other_terms_than_those_asked_for(books: Books) -> None:
    award_id = books.request()
    assert books.approve(award_id, terms=Terms(60 * HOUR, date(2027, 2, 1), date(2027, 6, 30))) == "active"
    award = books.award(award_id)
    assert (award.requested_credits, award.proposed_credits, award.awarded_credits) == (
        100 * HOUR,
        60 * HOUR,
        60 * HOUR,
    )
    assert award.start_at == day_start(date(2027, 2, 1))
    with books.database.read() as session:
        text = session.exec(select(AwardEvent.text).where(AwardEvent.kind == "granted")).one()
    assert text == "60 h, 2027-02-01 to 2027-06-30 granted of 100 h asked"


def test_papers_are_kept(books: Books) -> None:
    award_id = books.request()
    with books.database.write() as session:
        papers = Papers(act_reference="CP 2027-014", act_on=date(2027, 1, 8))
        awards.approve(session, award_id, books.subject(), MARC, NOW, papers=papers)
    award = books.award(award_id)
    assert (award.purpose, award.act_reference, award.act_on) == ("a trial", "CP 2027-014", date(2027, 1, 8))


@pytest.mark.parametrize(("step", "state"), [(awards.refuse, "refused"), (awards.withdraw, "withdrawn")])
def test_a_request_ends_with_a_reason_and_moves_nothing(books: Books, step: object, state: str) -> None:
    award_id = books.request()
    with books.database.write() as session:
        assert step(session, award_id, "not now", MARC, NOW).state == state  # type: ignore[operator]
    assert books.left() == 1000 * HOUR
    assert books.story(award_id)[-1] == (state, "psn-marc")
    with pytest.raises(AwardStateWrong, match=f"was {state}: it cannot be approved") as refusal:
        books.approve(award_id)
    assert refusal.value.remedy


def test_nothing_is_granted_twice(books: Books) -> None:
    award_id = books.request()
    books.approve(award_id)
    with pytest.raises(AwardStateWrong, match="is granted"):
        books.approve(award_id, MIRA)
    with pytest.raises(AwardStateWrong), books.database.write() as session:
        awards.refuse(session, award_id, "too late", MARC, NOW)
    assert books.left() == 900 * HOUR


def test_an_award_that_nobody_knows(books: Books) -> None:
    with pytest.raises(AwardUnknown, match="no award awd-x"):
        books.approve("awd-x")


# ── policy, at the request and at the approval ──


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        (Terms(HOUR, date(2027, 1, 1), date(2027, 2, 28)), "at least 3 months"),
        (Terms(HOUR, date(2027, 1, 1), date(2027, 12, 31)), "at most 6 months"),
        (Terms(501 * HOUR, date(2027, 1, 1), date(2027, 6, 30)), "at most 500 h"),
    ],
)
def test_the_policy_refuses_a_request(books: Books, terms: Terms, words: str) -> None:
    with pytest.raises(PolicyRefused, match=words):
        books.request(terms)
    award_id = books.request()
    with pytest.raises(PolicyRefused, match=words):
        books.approve(award_id, terms=terms)
    assert books.award(award_id).state == "requested", "a refused approval leaves nothing behind"


def test_the_policy_refuses_a_data_class(books: Books) -> None:
    with pytest.raises(PolicyRefused, match="confidential"), books.database.write() as session:
        awards.request(session, books.subject(confidentiality="confidential"), HALF_YEAR, LEAD, Papers(), NOW)


def test_a_policy_that_changed_meanwhile_refuses_the_approval(books: Books) -> None:
    award_id = books.request()
    with books.database.write() as session:
        stricter = POLICY.model_copy(update={"award_credits_max": 10 * HOUR})
        books.programme = session.get_one(Programme, books.programme.id)
        change_policy(session, books.programme, stricter, entered_by=None)
    with pytest.raises(PolicyRefused):
        books.approve(award_id)


def test_the_cohort_counts_projects_of_a_year(books: Books) -> None:
    for number in (1, 2, 3):
        books.grant(project_id=f"prj-{number}")
    with pytest.raises(PolicyRefused, match="3 begin in 2027 already"):
        books.request(project_id="prj-4")
    books.grant(Terms(HOUR, date(2027, 7, 1), date(2027, 12, 31)), project_id="prj-1")
    books.request(Terms(HOUR, date(2028, 1, 1), date(2028, 6, 30)), project_id="prj-4")


def test_no_budget_for_the_day(books: Books) -> None:
    with pytest.raises(NoBudget):
        books.request(Terms(HOUR, date(2029, 1, 1), date(2029, 6, 30)))


def test_a_budget_that_does_not_reach(books: Books) -> None:
    award_id = books.request(Terms(200 * HOUR, date(2027, 1, 1), date(2027, 6, 30)))
    for number in (2, 3):
        books.grant(Terms(200 * HOUR, date(2027, 1, 1), date(2027, 6, 30)), project_id=f"prj-{number}")
    for start in (date(2027, 7, 1), date(2027, 7, 2)):
        books.grant(Terms(200 * HOUR, start, date(2027, 12, 31)), project_id="prj-2")
    books.approve(award_id, MARC, Terms(200 * HOUR + 1, date(2027, 1, 1), date(2027, 6, 30)))
    with pytest.raises(ProgrammeTooSmall, match="200 h left") as refusal:
        books.approve(award_id, MIRA)
    assert refusal.value.remedy == "award at most 200 h"


# ── four eyes ──

LARGE = Terms(300 * HOUR, date(2027, 1, 1), date(2027, 6, 30))


def test_two_managers_must_approve_above_the_threshold(books: Books) -> None:
    award_id = books.request(LARGE)
    assert books.approve(award_id, MARC) == "in_review"
    assert books.left() == 1000 * HOUR
    with pytest.raises(ApprovedAlready, match="one person counts once"):
        books.approve(award_id, MARC)
    assert books.approve(award_id, MIRA) == "active"
    assert books.story(award_id)[1:] == [("approved", "psn-marc"), ("granted", "psn-mira")]


def test_a_manager_who_enters_it_has_approved_it(books: Books) -> None:
    award_id = books.request(LARGE, by=MARC)
    with pytest.raises(ApprovedAlready):
        books.approve(award_id, MARC)
    assert books.approve(award_id, MIRA) == "active"


def test_a_grant_above_the_threshold_waits_for_the_second(books: Books) -> None:
    award_id = books.grant(LARGE)
    assert books.award(award_id).state == "in_review"
    assert books.approve(award_id, MIRA) == "active"


def test_below_the_threshold_one_manager_may_do_both(books: Books) -> None:
    award_id = books.request(by=MARC)
    assert books.approve(award_id, MARC) == "active"


def test_other_terms_begin_the_approval_anew(books: Books) -> None:
    award_id = books.request(LARGE)
    assert books.approve(award_id, MARC) == "in_review"
    larger = Terms(400 * HOUR, date(2027, 1, 1), date(2027, 6, 30))
    assert books.approve(award_id, MIRA, larger) == "in_review", "nobody else has approved 400 h"
    assert books.approve(award_id, MARC) == "active"
    assert books.award(award_id).awarded_credits == 400 * HOUR


def test_lowered_below_the_threshold_one_is_enough(books: Books) -> None:
    award_id = books.request(LARGE)
    assert books.approve(award_id, MARC) == "in_review"
    assert books.approve(award_id, MARC, HALF_YEAR) == "active"


def test_a_threshold_that_was_lifted_meanwhile(books: Books) -> None:
    award_id = books.request(LARGE)
    assert books.approve(award_id, MARC) == "in_review"
    with books.database.write() as session:
        books.programme = session.get_one(Programme, books.programme.id)
        change_policy(
            session, books.programme, POLICY.model_copy(update={"four_eyes_above_credits": None}), entered_by=None
        )
    assert books.approve(award_id, MARC) == "active"


def test_one_movement_at_a_time(books: Books) -> None:
    award_id = books.grant()
    available, programme = account_id("available", award_id), account_id("programme", books.award(award_id).budget_id)
    with books.database.write() as session:
        some = Movement("expire/x/1", "expire", available, programme, HOUR, award_id)
        assert move(session, some, NOW)
        assert not move(session, some, NOW), "a replay"
        with pytest.raises(AwardTooSmall):
            move(session, replace(some, id="expire/x/2", amount=100 * HOUR), NOW)


def test_approvals_by_subject(books: Books) -> None:
    with books.database.write() as session:
        assert approvals.approve(session, "rfd-1", "psn-b", NOW) == 1
        assert approvals.approve(session, "rfd-1", "psn-a", NOW + timedelta(seconds=1)) == 2
        assert approvals.approvers_of(session, ["rfd-1", "rfd-2"]) == {"rfd-1": ["psn-b", "psn-a"]}
        approvals.forget(session, "rfd-1")
        assert approvals.approvers(session, "rfd-1") == []


# ── supplements, extensions, transfers ──


def test_a_supplement_is_asked_for_and_granted(books: Books) -> None:
    award_id = books.grant()
    with books.database.write() as session:
        change = award_changes.ask_supplement(session, award_id, 50 * HOUR, "more data", LEAD, NOW)
    assert (change.state, books.available(award_id)) == ("requested", 100 * HOUR)
    assert books.decide(change.id) == "granted"
    assert books.available(award_id) == 150 * HOUR
    assert books.left() == 850 * HOUR
    assert books.award(award_id).awarded_credits == 100 * HOUR, "what was granted first is kept"
    with pytest.raises(AwardChangeRefused, match="is granted already"):
        books.decide(change.id)


def test_a_supplement_counts_with_all_that_the_award_had(books: Books) -> None:
    award_id = books.grant()
    with books.database.write() as session:
        change = award_changes.ask_supplement(session, award_id, 150 * HOUR, "more", LEAD, NOW)
    assert books.decide(change.id, MARC) == "in_review"
    with pytest.raises(ApprovedAlready):
        books.decide(change.id, MARC)
    assert books.decide(change.id, MIRA) == "granted"
    with pytest.raises(PolicyRefused, match="at most 500 h"), books.database.write() as session:
        award_changes.ask_supplement(session, award_id, 251 * HOUR, "more", LEAD, NOW)


def test_a_manager_who_asks_for_a_large_change_has_approved_it(books: Books) -> None:
    award_id = books.grant()
    with books.database.write() as session:
        change = award_changes.ask_supplement(session, award_id, 150 * HOUR, "more", MARC, NOW)
    assert change.state == "in_review"
    assert books.decide(change.id, MIRA) == "granted"


@pytest.mark.parametrize(
    ("step", "state"), [(award_changes.refuse_change, "refused"), (award_changes.withdraw_change, "withdrawn")]
)
def test_a_change_ends_with_a_reason(books: Books, step: object, state: str) -> None:
    award_id = books.grant()
    with books.database.write() as session:
        change = award_changes.ask_supplement(session, award_id, HOUR, "more", LEAD, NOW)
    with books.database.write() as session:
        assert step(session, change.id, "no", MARC, NOW).state == state  # type: ignore[operator]
    assert books.change(change.id).decided_at == NOW
    assert books.available(award_id) == 100 * HOUR
    with pytest.raises(AwardChangeRefused, match=f"is {state} already"):
        books.decide(change.id)


def test_a_change_that_nobody_knows(books: Books) -> None:
    with pytest.raises(AwardUnknown, match="no change chg-x"):
        books.decide("chg-x")


def test_an_extension_moves_the_end(books: Books) -> None:
    award_id = books.grant(Terms(HOUR, date(2027, 1, 1), date(2027, 3, 31)))
    with books.database.write() as session:
        change = award_changes.ask_extension(session, award_id, date(2027, 6, 30), "late data", LEAD, NOW)
    assert books.award(award_id).end_at == day_start(date(2027, 4, 1))
    assert books.decide(change.id) == "granted"
    assert books.award(award_id).end_at == day_start(date(2027, 7, 1))


@pytest.mark.parametrize(
    ("end_on", "error", "remedy"),
    [
        (date(2027, 6, 30), AwardChangeRefused, "extend it until 2027-07-01 or later"),
        (date(2027, 7, 1), PolicyRefused, "end it on 2027-06-30 or earlier"),
    ],
)
def test_an_extension_has_bounds(books: Books, end_on: date, error: type[QuotaError], remedy: str) -> None:
    award_id = books.grant()
    with pytest.raises(error) as refusal, books.database.write() as session:
        award_changes.ask_extension(session, award_id, end_on, "late", LEAD, NOW)
    assert refusal.value.remedy == remedy


def test_a_transfer_moves_what_is_available(books: Books) -> None:
    one, other = books.grant(), books.grant(project_id="prj-2")
    with books.database.write() as session:
        change = award_changes.ask_transfer(session, one, other, 40 * HOUR, "they need it", LEAD, NOW)
    assert books.decide(change.id) == "granted"
    assert (books.available(one), books.available(other)) == (60 * HOUR, 140 * HOUR)
    assert books.story(other)[-1] == ("transfer", "psn-marc")
    assert books.left() == 800 * HOUR


def test_a_transfer_has_bounds(books: Books) -> None:
    one, other = books.grant(), books.grant(project_id="prj-2")
    with books.database.write() as session:
        stranger = open_programme(
            session, name="other", policy=ProgrammePolicy(), budgets=[(NOW, NOW + timedelta(days=9), HOUR)]
        )
        start_at, end_at = NOW - timedelta(days=1), NOW + timedelta(days=8)
        foreign = grant_award(
            session, project_id="prj-9", programme=stranger, amount_credits=HOUR, start_at=NOW, end_at=end_at
        ).id
    assert start_at < end_at
    for target, amount, error, words in [
        (one, HOUR, AwardChangeRefused, "to itself"),
        (foreign, HOUR, AwardChangeRefused, "two programmes"),
        (other, 100 * HOUR + 1, AwardTooSmall, "100 h available"),
        ("awd-x", HOUR, AwardUnknown, "no award awd-x"),
    ]:
        with pytest.raises(error, match=words), books.database.write() as session:
            award_changes.ask_transfer(session, one, target, amount, "x", LEAD, NOW)


def test_what_was_held_meanwhile_is_not_transferred(books: Books) -> None:
    one, other = books.grant(), books.grant(project_id="prj-2")
    with books.database.write() as session:
        change = award_changes.ask_transfer(session, one, other, 80 * HOUR, "they need it", LEAD, NOW)
    books.post(open_hold("job-1", Side(one, 30 * HOUR, 1000), None))
    with pytest.raises(AwardTooSmall, match="70 h available"):
        books.decide(change.id)
    assert books.change(change.id).state == "requested"


def test_changes_need_a_running_award(books: Books) -> None:
    award_id = books.request()
    for at in (NOW, NOW + timedelta(days=900)):
        with pytest.raises(AwardStateWrong, match="cannot be supplemented"), books.database.write() as session:
            award_changes.ask_supplement(session, award_id, HOUR, "more", LEAD, at)
        if books.award(award_id).state == "requested":
            books.approve(award_id)


# ── ends ──

END = day_start(date(2027, 7, 1))
AFTER_EXPORT = END + timedelta(days=30)


def test_an_end_reaches_all_that_is_left(books: Books) -> None:
    award_id = books.grant()
    books.post(open_hold("job-1", Side(award_id, 30 * HOUR, 1000), None))
    assert books.due(END - timedelta(seconds=1)) == []
    assert books.due(END) == [award_id]
    assert books.advance(award_id, END) is AwardState.EXPIRING
    assert (books.available(award_id), books.left()) == (0, 970 * HOUR)
    assert books.due(END) == [], "nothing is due while the last hold is out"
    books.post(settle(HoldLeft("job-1", Side(award_id, 30 * HOUR, 1000)), 10 * HOUR, 0, "use-1"))
    books.post(release(HoldLeft("job-1", Side(award_id, 20 * HOUR, 1000))))
    assert books.due(END) == [award_id]
    assert books.advance(award_id, END) is AwardState.EXPIRING
    assert books.left() == 990 * HOUR
    assert books.due(AFTER_EXPORT - timedelta(seconds=1)) == []
    assert books.due(AFTER_EXPORT) == [award_id]
    assert books.advance(award_id, AFTER_EXPORT, open_jobs=True) is AwardState.EXPIRING
    assert books.advance(award_id, AFTER_EXPORT) is AwardState.CLOSED
    award = books.award(award_id)
    assert (award.final_credits, award.closed_at) == (10 * HOUR, AFTER_EXPORT)
    assert books.due(AFTER_EXPORT) == []
    assert [kind for kind, _ in books.story(award_id)] == [
        "requested",
        "granted",
        "expiring",
        "expired",
        "expired",
        "closed",
    ]


def test_a_step_taken_twice_is_taken_once(books: Books) -> None:
    award_id = books.grant()
    assert books.advance(award_id, NOW) is AwardState.ACTIVE
    for _ in range(2):
        books.advance(award_id, END)
    with books.database.write() as session:
        assert expire(session, session.get_one(Award, award_id), END) == 0
    for _ in range(2):
        books.advance(award_id, AFTER_EXPORT)
    assert [kind for kind, _ in books.story(award_id)] == ["requested", "granted", "expiring", "expired", "closed"]


def test_money_that_comes_back_after_the_closure_goes_back_too(books: Books) -> None:
    award_id = books.grant()
    books.post(open_hold("job-1", Side(award_id, 30 * HOUR, 1000), None))
    books.post(settle(HoldLeft("job-1", Side(award_id, 30 * HOUR, 1000)), 30 * HOUR, 0, "use-1"))
    books.advance(award_id, AFTER_EXPORT)
    assert books.award(award_id).final_credits == 30 * HOUR
    consumed, available = account_id("consumed", award_id), account_id("available", award_id)
    books.post(Posting((Movement("refund/rfd-1", "refund", consumed, available, 5 * HOUR, "rfd-1"),)))
    assert books.due(AFTER_EXPORT) == [award_id]
    assert books.advance(award_id, AFTER_EXPORT) is AwardState.CLOSED
    assert books.award(award_id).final_credits == 25 * HOUR
    assert (books.available(award_id), books.left()) == (0, 975 * HOUR)
    assert books.due(AFTER_EXPORT) == []


def test_an_early_closure_keeps_what_came_of_it(books: Books) -> None:
    award_id = books.grant()
    books.post(open_hold("job-1", Side(award_id, 30 * HOUR, 1000), None))
    with books.database.write() as session:
        change = award_changes.ask_closure(session, award_id, OUTCOME, "done", LEAD, NOW)
    with pytest.raises(AwardChangeRefused, match="asked for already"), books.database.write() as session:
        award_changes.ask_closure(session, award_id, OUTCOME, "done", LEAD, NOW)
    assert books.decide(change.id) == "granted"
    award = books.award(award_id)
    assert (award.state, award.end_at, books.left()) == ("expiring", NOW, 970 * HOUR)
    assert books.advance(award_id, NOW, open_jobs=True) is AwardState.EXPIRING
    books.post(release(HoldLeft("job-1", Side(award_id, 30 * HOUR, 1000))))
    assert books.advance(award_id, NOW) is AwardState.CLOSED, "its closure waits for the last hold, not for the export"
    assert (books.award(award_id).final_credits, books.left()) == (0, 1000 * HOUR)
    with books.database.read() as session:
        outcome = session.get_one(AwardOutcome, award_id)
    assert (outcome.worked, outcome.jobs_created, outcome.next_step) == ("partly", None, "a pilot")
    with pytest.raises(AwardStateWrong, match="is closed"), books.database.write() as session:
        award_changes.ask_closure(session, award_id, OUTCOME, "again", LEAD, NOW)


def test_an_award_closed_before_it_began(books: Books) -> None:
    award_id = books.grant(Terms(HOUR, date(2027, 2, 1), date(2027, 6, 30)))
    with books.database.write() as session:
        change = award_changes.ask_closure(session, award_id, OUTCOME, "never mind", MARC, NOW)
    books.decide(change.id)
    assert books.advance(award_id, NOW) is AwardState.CLOSED
    assert books.left() == 1000 * HOUR


def test_what_came_of_it_may_be_told_after_the_end(books: Books) -> None:
    award_id = books.grant()
    with pytest.raises(AwardStateWrong, match="told the outcome"), books.database.write() as session:
        award_changes.answer_late(session, award_id, OUTCOME, LEAD, NOW)
    books.advance(award_id, END)
    for worked in (Worked.NO, Worked.YES):
        with books.database.write() as session:
            told = Outcome(worked, InProduction.NO, 3, "none", "none")
            award_changes.answer_late(session, award_id, told, LEAD, END)
    with books.database.read() as session:
        assert session.get_one(AwardOutcome, award_id).worked == "yes"
    assert books.story(award_id)[-1] == ("outcome", "psn-lead")


def test_a_cohort_is_granted_together_or_not_at_all(books: Books) -> None:
    wanted = [(books.subject(f"prj-{number}"), HALF_YEAR) for number in range(10)]
    with books.database.write() as session:
        made = awards.grant_many(session, wanted, MARC, NOW)
    assert (len(made), books.left()) == (10, 0)
    assert books.story(made[0].id) == [("granted", "psn-marc")]
    with pytest.raises(ProgrammeTooSmall), books.database.write() as session:
        awards.grant_many(session, wanted, MARC, NOW)
    with books.database.read() as session:
        assert len(session.exec(select(Award)).all()) == 10
