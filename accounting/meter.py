"""From what was observed of an attempt to its usage record and the posting that charges it."""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Table

from accounting.errors import Unmeterable
from accounting.models import UsageRecord
from quotas.amounts import credits_of
from quotas.holds import HoldLeft, after, settle
from quotas.ledger import Posting

_records: Table = UsageRecord.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose attempt it was and under which hold; `weight_thousandths` was frozen at the hold."""

    job_id: str
    award_id: str
    project_id: str
    programme_id: str
    site_id: str
    gpu_class: str
    weight_thousandths: int


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """One run as the source saw it end. `gpus` is None when the source does not tell."""

    source_key: str
    state: str
    native_state: str
    gpus: int | None
    elapsed_s: int
    started_at: datetime | None
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Metered:
    """A usage record's charge in credits, its posting, and what is left of the hold after it."""

    charge: int
    left: HoldLeft
    posting: Posting


def usage_id(job_id: str, source_key: str) -> str:
    """Return the id of an attempt's usage record, the same for every replay."""
    return f"{job_id}/{sha256(source_key.encode()).hexdigest()[:32]}"


def allocated_gpus(attempt: EndedAttempt) -> int:
    """Return the GPUs to charge for.

    Raises:
        Unmeterable: it ran, and the source does not tell on how many.
    """
    if attempt.gpus is not None:
        return attempt.gpus
    if attempt.elapsed_s == 0:
        return 0
    raise Unmeterable(
        f"attempt {attempt.source_key} ran {attempt.elapsed_s} s and its GPUs are not accounted for: "
        "AccountingStorageTRES of the site must list gres/gpu"
    )


def meter(owner: Owner, attempt: EndedAttempt, left: HoldLeft, recorded_at: datetime) -> Metered:
    """Charge an attempt: allocated GPUs × elapsed seconds × the hold's weight, exactly.

    The contract is charged at its own weight. What goes beyond what is left of the hold is charged to `overrun`.

    Raises:
        Unmeterable: the source does not tell what was allocated.
    """
    gpus = allocated_gpus(attempt)
    charge = credits_of(gpus, attempt.elapsed_s, owner.weight_thousandths)
    id_ = usage_id(owner.job_id, attempt.source_key)
    contract_charge = credits_of(gpus, attempt.elapsed_s, left.contract.weight_thousandths) if left.contract else 0
    overrun = max(0, charge - left.award.amount)
    row: dict[str, Any] = {
        "id": id_,
        "attempt_id": id_,
        "revision": 1,
        "site_id": owner.site_id,
        "source_key": attempt.source_key,
        "job_id": owner.job_id,
        "award_id": owner.award_id,
        "project_id": owner.project_id,
        "programme_id": owner.programme_id,
        "state": attempt.state,
        "native_state": attempt.native_state,
        "gpu_class": owner.gpu_class,
        "gpus": gpus,
        "elapsed_s": attempt.elapsed_s,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "weight_thousandths": owner.weight_thousandths,
        "charge_credits": charge,
        "overrun_credits": overrun,
        "contract_id": left.contract.owner_id if left.contract else None,
        "contract_charge_credits": contract_charge if left.contract else None,
        "recorded_at": recorded_at,
    }
    posting = settle(left, charge, contract_charge, id_, rows=((_records, row),))
    return Metered(charge, after(left, charge, contract_charge), posting)
