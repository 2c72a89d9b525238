"""From what was observed of an attempt to its usage record and the posting that charges it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Table

from accounting.errors import Unmeterable
from accounting.models import UsageRecord
from quotas.charging import CPU_CLASS, GPUS_ONLY, Rule, Size, rate_credits_per_s
from quotas.errors import NotChargeable, SizeUnknown
from quotas.holds import HoldLeft, after, settle
from quotas.ledger import Posting

_records: Table = UsageRecord.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose attempt it was and under which hold; the weight and the charging rule were frozen at the hold."""

    job_id: str
    award_id: str
    project_id: str
    programme_id: str
    site_id: str
    gpu_class: str
    weight_thousandths: int
    rule: Rule = GPUS_ONLY
    exclusive: bool = False
    """Whole nodes were held."""
    tasks: int = 1
    """How many tasks share the hold, each with an equal part; 1 for a job that is no array."""


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """One run as the source saw it end. What was allocated is None where the source does not tell."""

    source_key: str
    state: str
    native_state: str
    gpus: int | None
    elapsed_s: int
    started_at: datetime | None
    ended_at: datetime
    cpus: int | None = None
    memory_mib: int | None = None
    nodes: int | None = None
    task: int | None = None
    """Which task of an array."""


@dataclass(frozen=True, slots=True)
class Metered:
    """A usage record's charge in credits, its posting, and what is left of the hold after it."""

    charge: int
    left: HoldLeft
    posting: Posting
    record: Mapping[str, Any]
    """The usage record's row, which the posting writes."""


def usage_id(job_id: str, source_key: str) -> str:
    """Return the id of an attempt's usage record, the same for every replay."""
    return f"{job_id}/{sha256(source_key.encode()).hexdigest()[:32]}"


def allocated(owner: Owner, attempt: EndedAttempt) -> Size:
    """Return what to charge for.

    Raises:
        Unmeterable: it ran, and the source does not tell on how many GPUs.
    """
    gpus = 0 if owner.gpu_class == CPU_CLASS else attempt.gpus
    if not gpus and attempt.elapsed_s and owner.gpu_class != CPU_CLASS:
        raise Unmeterable(
            f"attempt {attempt.source_key} ran {attempt.elapsed_s} s and its GPUs are not accounted for: "
            "AccountingStorageTRES of the site must list gres/gpu"
        )
    return Size(gpus or 0, attempt.cpus, attempt.memory_mib, attempt.nodes, owner.exclusive)


def allocated_rate(owner: Owner, attempt: EndedAttempt, weight_thousandths: int) -> int:
    """Return what an attempt counts in credits a second by the rule of its hold; 0 where nothing was allocated.

    Raises:
        Unmeterable: it ran, and the source does not tell what the rule counts.
    """
    size = allocated(owner, attempt)
    if not attempt.elapsed_s and not attempt.gpus and not attempt.cpus:
        return 0
    try:
        return rate_credits_per_s(owner.rule, size, weight_thousandths)
    except (SizeUnknown, NotChargeable) as error:
        if not attempt.elapsed_s:
            return 0
        raise Unmeterable(f"attempt {attempt.source_key} ran {attempt.elapsed_s} s: {error.detail}") from error


def meter(owner: Owner, attempt: EndedAttempt, left: HoldLeft, recorded_at: datetime) -> Metered:
    """Charge an attempt: what the hold's rule counts of it at the hold's weight × elapsed seconds, exactly.

    The contract is charged by the same rule at its own weight. What goes beyond what is left of the hold is
    charged to `overrun`.

    Raises:
        Unmeterable: the source does not tell what was allocated.
    """
    rate = allocated_rate(owner, attempt, owner.weight_thousandths)
    charge = rate * attempt.elapsed_s
    id_ = usage_id(owner.job_id, attempt.source_key)
    contract_rate = allocated_rate(owner, attempt, left.contract.weight_thousandths) if left.contract else 0
    contract_charge = contract_rate * attempt.elapsed_s
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
        "gpus": attempt.gpus or 0,
        "cpus": attempt.cpus,
        "memory_mib": attempt.memory_mib,
        "nodes": attempt.nodes,
        "exclusive": owner.exclusive,
        "rate_credits_per_s": rate,
        "elapsed_s": attempt.elapsed_s,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "weight_thousandths": owner.weight_thousandths,
        "charge_credits": charge,
        "overrun_credits": overrun,
        "contract_id": left.contract.owner_id if left.contract else None,
        "contract_charge_credits": contract_charge if left.contract else None,
        "recorded_at": recorded_at,
        "task": attempt.task,
    }
    posting = settle(left, charge, contract_charge, id_, rows=((_records, row),))
    return Metered(charge, after(left, charge, contract_charge), posting, row)
