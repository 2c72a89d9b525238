"""State aid: whatever is granted, reduced and declared in whatever order, no three years hold more than the ceiling."""

from contextlib import suppress
from datetime import date, timedelta

import pytest
from aid_rules import EURO, HOUR, RULES, entered_award, had, wanted
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlmodel import Session

from quotas.aid import aids_of, count, declare, lines_of, reduce
from quotas.aid_arithmetic import CountedAid, sum_on
from quotas.errors import AidAboveCeiling
from storage.database import Database

FIRST = date(2024, 1, 2)
CEILING = 300_000 * EURO
organisations = ["org-acme", "org-mother", "org-sister"]

days = st.one_of(
    st.integers(0, 24).map(lambda quarter: FIRST + timedelta(days=91 * quarter)),
    st.sampled_from([date(2024, 2, 29), date(2025, 2, 28), date(2027, 2, 28), date(2027, 3, 1), date(2028, 2, 29)]),
)
amounts = st.integers(1, 60).map(lambda number: number * 5_000)
"""In coarse steps, since small numbers, which Hypothesis likes, would never meet the ceiling."""
grants = st.tuples(st.just("grant"), days, amounts, st.sampled_from(organisations))
reductions = st.tuples(st.just("reduction"), days, amounts, st.sampled_from(organisations))


def above(aids: list[CountedAid]) -> list[date]:
    """Days whose three years, counted day by day and knowing nothing of our windows, hold more than the ceiling."""
    found = []
    for end in {aid.granted_on for aid in aids}:
        earliest = date(end.year - 3, end.month, end.day) if (end.month, end.day) != (2, 29) else None
        since = earliest or date(end.year - 3, 2, 28)
        if sum(a.value_micro_euros for a in aids if since <= a.granted_on <= end) > CEILING:
            found.append(end)
    return found


def check_every_order(database: Database) -> None:
    """Grant, reduce and declare in whatever order, and look at every window after each step."""

    @settings(max_examples=60, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(
        declared=st.lists(st.tuples(days, st.integers(1, 20).map(lambda number: number * 5_000)), max_size=3),
        steps=st.lists(st.one_of(grants, grants, reductions), min_size=1, max_size=10),
    )
    def holds(declared: list[tuple[date, int]], steps: list[tuple[str, date, int, str]]) -> None:
        with database.write() as session:
            enter_declarations(session, declared)
            awards: dict[str, str] = {}
            for step in steps:
                take(session, awards, *step)
                now = aids_of(session, organisations, RULES)
                assert above(now) == []
                assert all(aid.value_micro_euros >= 0 for aid in now)
            session.rollback()

    holds()


def take(session: Session, awards: dict[str, str], kind: str, day: date, amount: int, organisation: str) -> None:
    """Take one step; a refused grant leaves things as they were."""
    if kind == "grant":
        award_id = entered_award(session)
        asked = wanted(award_id, day, amount, organisation_id=organisation, undertaking=organisations)
        with suppress(AidAboveCeiling):
            count(session, asked, RULES)
            awards[organisation] = award_id
    elif organisation in awards:
        take_back(session, awards[organisation], amount * HOUR, day)


def test_no_order_of_grants_puts_a_window_above_the_ceiling(database: Database) -> None:
    check_every_order(database)


def test_a_rule_that_only_looks_back_is_found_out(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quotas.aid.tightest", lambda aids, rules, day: sum_on(aids, rules.ceiling_on(day), day))
    with pytest.raises(AssertionError):
        check_every_order(database)


def enter_declarations(session: Session, declared: list[tuple[date, int]]) -> None:
    """Let each organisation declare in time for every grant; the mother names what it had."""
    for organisation in organisations:
        aids = [had(day, euros) for day, euros in declared] if organisation == "org-mother" else []
        for day, its in ((FIRST, []), (max((aid.granted_on for aid in aids), default=FIRST), aids)):
            declare(session, organisation_id=organisation, declared_on=day, document="d", aids=its, today=day)


def take_back(session: Session, award_id: str, amount: int, day: date) -> None:
    if taken := min(amount, sum(line.credits for line in lines_of(session, award_id))):
        reduce(session, award_id=award_id, credits_=taken, act_reference="r", act_on=day)
