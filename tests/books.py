"""A short ledger with one of each movement, for tests that read it again or break it."""

from datetime import UTC, datetime, timedelta

from quotas.holds import HoldLeft, Side, after, open_hold, release, settle
from quotas.ledger import Posting, post
from quotas.policy import ProgrammePolicy
from quotas.programmes import grant_award, open_programme
from storage.database import Database

HOUR = 3_600_000
BEGAN_AT = datetime(2026, 5, 1, 8, tzinfo=UTC)
DETAILS = "region=700;company=300;value=1200000"


def write_books(database: Database, jobs: int = 3) -> str:
    """Fund a programme, grant an award, and run jobs of which the last stays open; return the award's id.

    Transfers 1 and 2 are the fund and the award, then each job has a hold, a settle and a release.
    """
    with database.write() as session:
        end_at = BEGAN_AT + timedelta(days=90)
        programme = open_programme(
            session,
            name="pack-ia",
            policy=ProgrammePolicy(kind="pack-ia"),
            budgets=[(BEGAN_AT, end_at, 1000 * HOUR)],
        )
        award = grant_award(
            session,
            project_id="prj-1",
            programme=programme,
            amount_credits=100 * HOUR,
            start_at=BEGAN_AT,
            end_at=end_at,
        )
    run_jobs(database, award.id, 1, jobs)
    return award.id


def run_jobs(database: Database, award_id: str, first: int, last: int) -> None:
    """Hold, charge and release jobs; the last one keeps its hold."""
    for number in range(first, last + 1):
        job = f"job-{number}"
        side = Side(award_id, 10 * HOUR, 1000)
        move(database, open_hold(job, side, None), hours=number)
        if number < last:
            left = HoldLeft(job, side)
            charged = settle(left, 4 * HOUR, 0, f"{job}/1", details=DETAILS)
            move(database, charged, release(after(left, 4 * HOUR, 0)), hours=number)


def move(database: Database, *postings: Posting, hours: int = 0) -> None:
    with database.write() as session:
        outcomes = post(session.connection(), postings, BEGAN_AT + timedelta(hours=hours))
    assert {getattr(outcome, "value", outcome) for outcome in outcomes} == {"posted"}
