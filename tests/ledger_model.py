"""What the books must say, reckoned by plain additions: awards, contracts and jobs without a database.

It is told what people and sites do, and knows nothing of postings, chains or rows.
"""

from dataclasses import dataclass, field
from datetime import datetime

REGION, CAPACITY, RESTORED = "treasury:region", "treasury:contracts", "treasury:restored"
KINDS = ("available", "held", "consumed", "overrun")


@dataclass
class ModelSide:
    """One side of a job's hold."""

    owner_id: str
    held: int
    left: int
    charged: int = 0
    refunded: int = 0
    overrun: int = 0
    asked_back: int = 0
    """What refunds were for, whatever they come to under a charge that fell since."""


@dataclass
class ModelJob:
    """A job with its hold's sides: the award's, then the contract's."""

    id: str
    sides: list[ModelSide]
    released: bool = False


@dataclass
class ModelAward:
    """An award, drawn from a budget until its end."""

    id: str
    budget_id: str
    start_at: datetime
    end_at: datetime
    over: bool = False


@dataclass
class Model:
    """All balances by account id, and who owns them."""

    balances: dict[str, int] = field(default_factory=dict)
    awards: list[ModelAward] = field(default_factory=list)
    contracts: dict[str, int] = field(default_factory=dict)
    """The weight of each, in thousandths."""
    jobs: list[ModelJob] = field(default_factory=list)

    def open(self, owner_id: str) -> None:
        self.balances |= {f"{kind}:{owner_id}": 0 for kind in KINDS}

    def move(self, debit_id: str, credit_id: str, amount: int) -> None:
        self.balances[debit_id] -= amount
        self.balances[credit_id] += amount

    def available(self, owner_id: str) -> int:
        return self.balances[f"available:{owner_id}"]

    def grant(self, award: ModelAward, amount: int) -> None:
        self.open(award.id)
        self.awards.append(award)
        self.move(f"programme:{award.budget_id}", f"available:{award.id}", amount)

    def sign(self, contract_id: str, weight: int, gpu_seconds: int) -> None:
        self.open(contract_id)
        self.contracts[contract_id] = weight
        self.move(CAPACITY, f"available:{contract_id}", weight * gpu_seconds)

    def hold(self, job: ModelJob) -> None:
        for side in job.sides:
            self.move(f"available:{side.owner_id}", f"held:{side.owner_id}", side.left)
        self.jobs.append(job)

    def top_up(self, job: ModelJob, more: tuple[int, int]) -> None:
        for side, amount in zip(job.sides, more, strict=False):
            self.move(f"available:{side.owner_id}", f"held:{side.owner_id}", amount)
            side.held += amount
            side.left += amount

    def settle(self, job: ModelJob, charges: list[int]) -> None:
        for side, charge in zip(job.sides, charges, strict=False):
            covered = charge if charge < side.left else side.left
            self.move(f"held:{side.owner_id}", f"consumed:{side.owner_id}", covered)
            self.move(f"overrun:{side.owner_id}", f"consumed:{side.owner_id}", charge - covered)
            side.left -= covered
            side.charged += charge
            side.overrun += charge - covered

    def release(self, job: ModelJob) -> None:
        for side in job.sides:
            self.move(f"held:{side.owner_id}", f"available:{side.owner_id}", side.left)
            side.left = 0
        job.released = True

    def refund(self, side: ModelSide, amount: int) -> None:
        to_overrun = amount if amount < side.overrun else side.overrun
        self.move(f"consumed:{side.owner_id}", f"overrun:{side.owner_id}", to_overrun)
        self.move(f"consumed:{side.owner_id}", f"available:{side.owner_id}", amount - to_overrun)
        side.overrun -= to_overrun
        side.refunded += amount
        side.asked_back += amount

    def adjust(self, side: ModelSide, charge: int) -> None:
        """Let a job cost another charge: as if it had always been so, but for what is not there any more."""
        refunded = side.asked_back if side.asked_back < charge else charge
        beyond_the_hold = charge - side.held if charge > side.held else 0
        overrun = beyond_the_hold - refunded if beyond_the_hold > refunded else 0
        paid_before = side.charged - side.refunded - side.overrun
        paid = charge - refunded - overrun
        missing = paid - paid_before - self.available(side.owner_id)
        if missing > 0:
            paid, overrun = paid - missing, overrun + missing
        self.move(f"available:{side.owner_id}", f"consumed:{side.owner_id}", paid - paid_before)
        self.move(f"overrun:{side.owner_id}", f"consumed:{side.owner_id}", overrun - side.overrun)
        side.charged, side.refunded, side.overrun = charge, refunded, overrun

    def expire(self, award: ModelAward) -> None:
        award.over = True
        self.move(f"available:{award.id}", f"programme:{award.budget_id}", self.available(award.id))

    def has_open_jobs(self, award: ModelAward) -> bool:
        return any(job.sides[0].owner_id == award.id and not job.released for job in self.jobs)

    def used_thousandths(self, award: ModelAward) -> int | None:
        """How much of what the award has had altogether its jobs have, or have set aside."""
        mine = {kind: self.balances[f"{kind}:{award.id}"] for kind in KINDS}
        total, used = sum(mine.values()), mine["held"] + mine["consumed"]
        return 1000 * used // total if total > 0 else None
