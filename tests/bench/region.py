"""A region for measurements: one programme, some awards, one contract that every job may draw from."""

from datetime import timedelta

from quotas.contracts import open_contract
from quotas.policy import ProgrammePolicy
from quotas.programmes import grant_award, open_programme
from storage.database import Database
from storage.tables import utcnow

CREDITS_PER_HOUR = 3_600_000


def fill_region(database: Database, awards: int) -> tuple[list[str], str]:
    """Make the region; return the ids of its awards and of its contract, which none of our measurements can use up."""
    now = utcnow()
    span = {"start_at": now - timedelta(days=1), "end_at": now + timedelta(days=300)}
    with database.write() as session:
        budget = (span["start_at"], span["end_at"], 10**9 * CREDITS_PER_HOUR)
        programme = open_programme(session, name="bench", policy=ProgrammePolicy(), budgets=[budget])
        amount = 10**6 * CREDITS_PER_HOUR
        ids = [
            grant_award(session, project_id=f"prj-{n}", programme=programme, amount_credits=amount, **span).id
            for n in range(awards)
        ]
        contract = open_contract(
            session, site_id="sit-1", gpu_class="v100-32", kind="purchased", order_number="1",
            gpu_seconds=10**12, weight_thousandths=1000, **span,
        )  # fmt: skip
        return ids, contract.id
