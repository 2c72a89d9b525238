"""What is made of an attempt that a site reports: what accounting needs of its end, and whether it got too much."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row

from accounting.errors import Unmeterable
from accounting.meter import EndedAttempt, Owner, allocated_rate
from adapters.port import UNLIMITED_S, Attempt, AttemptState
from quotas.charging import Rule

NOBODY_KNOWS = "neither the queue nor the accounting database of the site knows it"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the jobs of a site are held to."""

    gpu_types: Mapping[str, str]
    """The site's names of GPU classes."""
    rules: Mapping[str | None, Rule]
    """The rules of their holds, by id."""
    now: datetime
    lost_after_s: int


@dataclass(frozen=True, slots=True)
class RunawayEnd:
    """How a run is ended that accounting shows at work, and whose end nobody will ever tell."""

    ended: tuple[EndedAttempt, ...]
    drift_s: int
    """How long it is shown at work beyond what its hold pays for."""
    cause: str


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


def too_much(row: Row[Any], newest: Attempt, owner: Owner, gpu_types: Mapping[str, str], runs: int) -> str | None:
    """Say what a job, or a task, that is not over got beyond what its hold pays for; None where it did not."""
    if runs > 1 + row.requeues:
        return f"the site runs it again, and its hold pays for {_runs(1 + row.requeues)}"
    expected = gpu_types[row.gpu_class] if row.gpus else "no GPU"
    rate = _rate_now(newest, owner)
    if rate > row.rate_credits_per_s:
        return (
            f"the site allocated {_given(newest)}, which counts {rate} credits a second "
            f"where {row.rate_credits_per_s} are held"
        )
    if any(name != expected for name in newest.gpu_types):
        return f"the site allocated {', '.join(sorted(newest.gpu_types))} where {expected} is held"
    if newest.time_limit_s == UNLIMITED_S:
        return f"its time limit was taken away where {row.time_limit_s // 60} min are held"
    return None


def _runs(count: int) -> str:
    return "one run" if count == 1 else f"{count} runs"


def held_s(row: Row[Any]) -> int:
    """Return for how many seconds the hold of a job, or that of each task of an array, pays."""
    seconds: int = row.held_credits // row.tasks // row.rate_credits_per_s
    return seconds


def waited_for(missing_since: datetime | None, terms: Terms) -> datetime | None:
    """Return until when is waited for what a site does not show as it should; None where that is over."""
    until = (missing_since or terms.now) + timedelta(seconds=terms.lost_after_s)
    return until if terms.now < until else None


def missing_text(until: datetime) -> str:
    """Word that a job, or a task, is waited for."""
    return f"the site no longer shows it; the broker waits until {until:%H:%M:%S} UTC for it"


def unknown_text(newest: Attempt) -> str:
    """Word that an attempt is in a state that is kept open."""
    return f"the site reports a state that nobody knows: {newest.native_state}"


def runaway_end(attempts: Sequence[Attempt], owner: Owner, held_s: int) -> RunawayEnd:
    """End a runaway where its hold ends, at most: a run without an end would be charged for ever (docs/rules.md).

    What runs before it used of the hold is used up.

    Raises:
        Unmeterable: the source does not tell what was allocated.
    """
    newest = attempts[-1]
    before = tuple(ended_attempt(attempt, owner) for attempt in attempts[:-1] if attempt.state.ended)
    covered_s = min(newest.elapsed_s, max(0, held_s - sum(attempt.elapsed_s for attempt in before)))
    drift_s = newest.elapsed_s - covered_s
    ended = before
    if newest.started_at is not None:
        ended_at = newest.started_at + timedelta(seconds=covered_s)
        ended = (*before, replace(ended_attempt(newest, owner), elapsed_s=covered_s, ended_at=ended_at))
    cause = f"accounting shows it at work, the queue does not know it: a runaway, charged for {covered_s} s"
    rest = f"; {drift_s} s beyond its hold are drift, charged to nobody" if drift_s else ""
    return RunawayEnd(ended, drift_s, cause + rest)


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
