"""The hold of an array: what its tasks settle and release comes to it exactly, whatever the order and the replays."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from money import EVER, fake
from sqlmodel import Session, col, select
from world import World, world

from adapters.arrays import array_words, parse_array, task_name
from adapters.port import AttemptState
from broker import arrays
from broker.known import job_name
from broker.recheck import recheck
from broker.reconcile import reconcile
from quotas.corrections import Payer, adjust, available_of, booked
from quotas.holds import HoldLeft, Side, after, open_hold, part_of, release, settle
from quotas.invariants import broken
from quotas.ledger import Done, Movement, Posting, account_id, lock_head, open_account, post
from quotas.models import Account, Hold, Transfer
from storage.database import Database
from storage.tables import utcnow

PART, CONTRACT_PART = 1000, 700
PLENTY = 1_000_000
S = 2000
_numbers = count()
some = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
few = settings(some, max_examples=12)

runs = st.lists(st.integers(0, 900), max_size=3)
"""The charges of one task's attempts, on the award's side."""


@given(st.sets(st.integers(0, 200), min_size=1), st.none() | st.integers(1, 50))
def test_words_say_the_tasks_that_they_were_made_of(tasks: set[int], limit: int | None) -> None:
    array = parse_array(array_words(sorted(tasks), limit))
    assert (array.tasks, array.limit) == (tuple(sorted(tasks)), limit)
    assert array.at_once == min(len(tasks), limit or len(tasks))


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.write() as opened:
        yield opened
        assert list(broken(opened)) == []


def opened(session: Session, tasks: int) -> HoldLeft:
    """An array's hold, of an award and a contract of its own."""
    name = f"job-{next(_numbers)}"
    for owner in (f"awd-{name}", f"ctr-{name}"):
        for kind in ("available", "held", "consumed", "overrun"):
            open_account(session, kind, owner)
        accounts = ("treasury:region", account_id("available", owner))
        said = Movement(f"contract/{owner}", "contract", *accounts, PLENTY, owner)
        posted(session, [Posting(movements=(said,))])
    award, contract = Side(f"awd-{name}", tasks * PART, 10), Side(f"ctr-{name}", tasks * CONTRACT_PART, 7)
    posted(session, [open_hold(name, award, contract)])
    return HoldLeft(name, award, contract)


def posted(session: Session, postings: list[Posting]) -> list[object]:
    done = post(session.connection(), postings, utcnow())
    assert set(done) <= {Done.POSTED, Done.REPLAYED}, done
    return list(done)


def ended(whole: HoldLeft, tasks: int, task: int, charges: list[int]) -> list[Posting]:
    left, postings = part_of(whole, tasks), []
    for number, charge in enumerate(charges):
        of_contract = charge * 7 // 10
        postings.append(settle(left, charge, of_contract, f"{whole.job_id}/{task}.{number}"))
        left = after(left, charge, of_contract)
    return [*postings, release(left, task=task)]


def balances(session: Session, owner: str) -> dict[str, int]:
    session.expire_all()
    return {row.kind: row.balance for row in session.exec(select(Account).where(col(Account.owner_id) == owner))}


@given(st.lists(runs, min_size=1, max_size=6), st.data())
@some
def test_settled_and_released_make_the_hold_in_any_order_with_any_replay(
    session: Session, tasks: list[list[int]], data: st.DataObject
) -> None:
    whole = opened(session, len(tasks))
    for task in data.draw(st.permutations(range(len(tasks)))):
        postings = ended(whole, len(tasks), task, tasks[task])
        posted(session, postings)
        if data.draw(st.booleans()):
            moving = [posting for posting in postings if posting.movements]
            assert set(posted(session, moving)) <= {Done.REPLAYED}
    hold = session.get_one(Hold, whole.job_id, populate_existing=True)
    assert (hold.remaining, hold.contract_remaining) == (0, 0)
    assert whole.contract is not None
    for side, part, of in ((whole.award, PART, 10), (whole.contract, CONTRACT_PART, 7)):
        charges = [sum(charge * of // 10 for charge in charges) for charges in tasks]
        over = sum(max(0, charge - part) for charge in charges)
        used = sum(charges)
        assert balances(session, side.owner_id) == {
            "available": PLENTY - used + over, "held": 0, "consumed": used, "overrun": -over
        }  # fmt: skip
    wanted = select(Transfer.kind, Transfer.amount).where(col(Transfer.reference_id) == whole.job_id)
    moved = session.exec(wanted).all()
    given_out = sum(amount for kind, amount in moved if kind in ("settle", "release"))
    assert given_out == whole.award.amount


@given(st.lists(st.lists(st.integers(0, 1500), min_size=1, max_size=3), min_size=2, max_size=4), st.data())
@some
def test_what_becomes_known_later_of_tasks_comes_to_the_same_in_any_order(
    session: Session, tasks: list[list[int]], data: st.DataObject
) -> None:
    """Of each task one attempt: the charge at its end, then what the site says later, the last for good."""
    whole = opened(session, len(tasks))
    for task, known in enumerate(tasks):
        posted(session, ended(whole, len(tasks), task, known[:1]))
    charges = [known[0] for known in tasks]
    turns = [task for task, known in enumerate(tasks) for _ in known[1:]]
    revisions = [iter(known[1:]) for known in tasks]
    payer = Payer(whole.award.owner_id, whole.award.amount, 10)
    for number, task in enumerate(data.draw(st.permutations(turns))):
        charges[task] = next(revisions[task])
        connection = session.connection()
        lock_head(connection)
        made = adjust(
            payer, booked(connection, whole.job_id, payer.owner_id), whole.job_id, f"{whole.job_id}/{task}/{number}",
            sum(charges), available_of(connection, payer.owner_id),
            over=sum(max(0, charge - PART) for charge in charges),
        )  # fmt: skip
        posted(session, list(made.postings))
    over, used = sum(max(0, charge - PART) for charge in charges), sum(charges)
    assert balances(session, payer.owner_id) == {
        "available": PLENTY - used + over, "held": 0, "consumed": used, "overrun": -over
    }  # fmt: skip


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []
        assert made.get("marc", EVER)["agrees"]


class Killed(BaseException):
    """The worker died at this instruction."""


@given(st.lists(st.integers(0, 500), min_size=1, max_size=5), st.data())
@few
def test_whatever_is_seen_when_and_whoever_is_killed_each_task_is_charged_what_it_used(
    region: World, seconds: list[int], data: st.DataObject
) -> None:
    """A worker sees the tasks end in any order and in any groups, dies between writes, and the site revises one.

    All is drawn before anything is done, since an example that is given up halfway would leave its tasks running.
    """
    order = data.draw(st.permutations(range(len(seconds))))
    seen = [data.draw(st.sampled_from(["now", "later", "killed"])) for _ in seconds]
    revised, later = data.draw(st.sampled_from(range(len(seconds)))), data.draw(st.integers(0, 500))
    before = region.award()
    job_id = region.submit(array=f"0-{len(seconds) - 1}", time_limit_s=300)["id"]
    region.step()
    fake(region).advance(0)
    region.step()
    for task in order:
        _ran(region, job_id, task, seconds[task])
        if seen[task] == "killed":
            with patch.object(arrays, "post_all", side_effect=Killed), pytest.raises(Killed):
                reconcile(region.desk())
        if seen[task] != "later":
            reconcile(region.desk())
    reconcile(region.desk())
    assert reconcile(region.desk()) == 0
    _check(region, job_id, before, seconds)
    seconds = [*seconds[:revised], later, *seconds[revised + 1 :]]
    _ran(region, job_id, revised, later)
    recheck(region.desk())
    _check(region, job_id, before, seconds)


def _ran(region: World, job_id: str, task: int, seconds: int) -> None:
    """Let the site say that a task ended after so long."""
    job = next(job for job in fake(region).jobs.values() if job.name == task_name(job_name(job_id), task))
    begun = job.attempts[-1].started_at
    assert begun is not None
    end = {"state": AttemptState.SUCCEEDED, "native_state": "COMPLETED", "ended_at": begun + timedelta(seconds=seconds)}
    job.attempts[-1] = replace(job.attempts[-1], **end)  # type: ignore[arg-type]


def _check(region: World, job_id: str, before: dict[str, int], seconds: list[int]) -> None:
    part, award = 360 * S, region.award()
    over = sum(max(0, used * S - part) for used in seconds)
    charged = sum(seconds) * S
    assert award["held_credits"] == before["held_credits"]
    assert award["consumed_credits"] - before["consumed_credits"] == charged
    assert award["overrun_credits"] - before["overrun_credits"] == over
    assert before["available_credits"] - award["available_credits"] == charged - over
    assert region.job(job_id)["charged_credits"] == charged
    rows = region.get("ines", f"/jobs/{job_id}/tasks")["items"]
    assert [row["charged_credits"] for row in rows] == [used * S for used in seconds]
