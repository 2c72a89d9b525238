"""What is made of an attempt that a site reports: what accounting needs of its end, and whether it got too much."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from accounting.errors import Unmeterable
from accounting.meter import EndedAttempt, Owner, allocated_rate
from adapters.port import Attempt, AttemptState
from quotas.charging import Rule


@dataclass(frozen=True, slots=True)
class Terms:
    """What the jobs of a site are held to: the site's names of GPU classes, and the rules of their holds by id."""

    gpu_types: Mapping[str, str]
    rules: Mapping[str | None, Rule]


def ended_attempt(attempt: Attempt, owner: Owner) -> EndedAttempt:
    """Return an ended attempt as accounting knows it.

    Raises:
        Unmeterable: the source does not tell what was allocated.
    """
    ended = _as_seen(attempt)
    allocated_rate(owner, ended, owner.weight_thousandths)
    return ended


def _as_seen(attempt: Attempt) -> EndedAttempt:
    return EndedAttempt(
        source_key=attempt.source_key,
        state=attempt.state.value,
        native_state=attempt.native_state[:64],
        gpus=attempt.gpus,
        elapsed_s=attempt.elapsed_s,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at or attempt.submitted_at,
        cpus=attempt.cpus,
        memory_mib=attempt.memory_mib,
        nodes=attempt.node_count,
        task=attempt.task,
    )


def too_much(row: Row[Any], newest: Attempt, owner: Owner, gpu_types: Mapping[str, str]) -> str | None:
    """Say what a job, or a task, that is not over got beyond what its hold pays for; None where it did not."""
    expected = gpu_types[row.gpu_class] if row.gpus else "no GPU"
    rate = _rate_now(newest, owner)
    if rate > row.rate_credits_per_s:
        return (
            f"the site allocated {_given(newest)}, which counts {rate} credits a second "
            f"where {row.rate_credits_per_s} are held"
        )
    if any(name != expected for name in newest.gpu_types):
        return f"the site allocated {', '.join(sorted(newest.gpu_types))} where {expected} is held"
    if newest.time_limit_s is not None and newest.time_limit_s > row.time_limit_s:
        return f"its time limit was raised to {newest.time_limit_s // 60} min where {row.time_limit_s // 60} are held"
    return None


def _rate_now(newest: Attempt, owner: Owner) -> int:
    """Return what a job that is not over counts; 0 as long as the site does not tell: from that nothing follows."""
    try:
        return allocated_rate(owner, _as_seen(newest), owner.weight_thousandths)
    except Unmeterable:
        return 0


def _given(newest: Attempt) -> str:
    figures = [(newest.gpus, "GPUs"), (newest.cpus, "CPUs"), (newest.memory_mib, "MiB"), (newest.node_count, "nodes")]
    return ", ".join(f"{amount} {what}" for amount, what in figures if amount is not None)


def where_text(attempt: Attempt) -> str:
    """Word where an attempt runs: ` on node1, node2`; nothing where the site does not tell."""
    return f" on {', '.join(attempt.nodes)}" if attempt.nodes else ""


def end_text(attempt: Attempt) -> str:
    """Word how an attempt ended, in the site's own words."""
    code = f", exit code {attempt.exit_code}" if attempt.exit_code else ""
    signal = f", signal {attempt.signal}" if attempt.signal else ""
    return f"the site reports {attempt.native_state}{code}{signal}"


def outcome_values(newest: Attempt) -> dict[str, Any]:
    """Return the columns that a state brings along: why it waits or failed, and of an end its time and exit code."""
    reason = (newest.reason or None) if newest.state is not AttemptState.SUCCEEDED else None
    values: dict[str, Any] = {"reason": reason[:1000] if reason else None}
    if newest.state.ended:
        values |= {"ended_at": newest.ended_at, "exit_code": newest.exit_code}
    return values
