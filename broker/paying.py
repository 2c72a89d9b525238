"""Which award pays for a job: a pure choice, which says by how much the others cannot."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from quotas.amounts import hours_text, time_limit_that_fits
from quotas.errors import AwardNotActive, AwardTooSmall, AwardUnknown


@dataclass(frozen=True, slots=True)
class Payer:
    """An award of the project and how it stands, in credits."""

    award_id: str
    start_at: datetime
    end_at: datetime
    available: int
    held: int = 0
    spent: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """What a job needs of an award."""

    project_name: str
    gpus: int
    rate_credits_per_s: int
    time_limit_s: int
    kill_grace_s: int
    now: datetime
    tasks: int = 1
    """Of an array: each needs all of the above."""
    runs: int = 1
    """How many times it, or each task, may run: once, and the requeues that its site may give it."""
    begin_at: datetime | None = None
    """It does not start before."""

    @property
    def held_credits(self) -> int:
        """What the job would hold: its tasks × the hold of one."""
        return self.tasks * self.task_credits

    @property
    def task_credits(self) -> int:
        """What one task would hold: its runs × that of one."""
        return self.runs * self.rate_credits_per_s * (self.time_limit_s + self.kill_grace_s)

    @property
    def starts_at(self) -> datetime:
        """When it starts at the earliest."""
        return max(self.now, self.begin_at or self.now)


def choose(payers: Sequence[Payer], award_id: str | None, need: Need) -> Payer:
    """Return the award that was asked for, else the active one that ends first among those that can pay the job whole.

    One that ends before the job's time limit cannot (docs/decisions/0006-the-award-that-lasts.md).

    Raises:
        AwardUnknown, AwardNotActive, AwardTooSmall: the rule that leaves none.
    """
    if award_id is not None:
        payers = [payer for payer in payers if payer.award_id == award_id]
        if not payers:
            raise AwardUnknown(
                f"project {need.project_name} has no award {award_id}", "`idf-compute quota` shows its awards"
            )
    active = [payer for payer in payers if payer.start_at <= need.now < payer.end_at]
    if not active:
        raise _none_active(payers, need)
    lasting = [payer for payer in active if _left_s(payer, need) >= need.time_limit_s]
    if not lasting:
        raise _ends_too_soon(max(active, key=lambda payer: payer.end_at), need)
    able = [payer for payer in lasting if payer.available >= need.held_credits]
    if not able:
        raise too_small(max(lasting, key=lambda payer: (payer.available, payer.award_id)), need)
    return min(able, key=lambda payer: (payer.end_at, payer.award_id))


def too_small(payer: Payer, need: Need) -> AwardTooSmall:
    """Say by how much an award cannot pay a hold, how it stands, and the smallest change that would pass."""
    each = f", {need.tasks} tasks × {hours_text(need.task_credits)}" if need.tasks > 1 else ""
    return AwardTooSmall(
        f"the job would hold {hours_text(need.held_credits)} (normalised GPU-hours{each}) "
        f"and project {need.project_name} "
        f"has {hours_text(payer.available)} available of award {payer.award_id}: "
        f"{hours_text(payer.held)} are held by open jobs, {hours_text(payer.spent)} are spent",
        smaller(payer.available, need),
    )


def smaller(available: int, need: Need) -> str:
    """Word the smallest changes of a job's size that so many credits could hold."""
    minutes = time_limit_that_fits(available // need.runs, need.tasks * need.rate_credits_per_s, need.kill_grace_s)
    fewer, tasks = available * need.gpus // need.held_credits, available // need.task_credits
    choices = [f"--time {minutes}"] if minutes else []
    choices += [f"--gpus {fewer}"] if fewer else []
    choices += [f"an array of at most {tasks} tasks"] if need.tasks > 1 and tasks else []
    return ", or ".join([*choices, "wait until running jobs settle"])


def _left_s(payer: Payer, need: Need) -> int:
    return int((payer.end_at - need.starts_at).total_seconds())


def _ends_too_soon(last: Payer, need: Need) -> AwardNotActive:
    left_s = _left_s(last, need)
    if left_s <= 0:
        return AwardNotActive(
            f"the job is to begin {_day(need.starts_at)}, and award {last.award_id} ends {_day(last.end_at)}",
            "an earlier --begin, or ask your programme manager for an extension",
        )
    return AwardNotActive(
        f"award {last.award_id} ends {_day(last.end_at)}, "
        f"{-(-(need.time_limit_s - left_s) // 60)} min before the job's time limit would",
        f"--time {left_s // 60}" if left_s >= 60 else "ask your programme manager for an extension",
    )


def _none_active(payers: Sequence[Payer], need: Need) -> AwardNotActive:
    project = f"project {need.project_name}"
    coming = [payer.start_at for payer in payers if payer.start_at > need.now]
    if coming:
        return AwardNotActive(f"{project} has no active award: the next begins {_day(min(coming))}", "wait until then")
    if payers:
        ended = _day(max(payer.end_at for payer in payers))
        return AwardNotActive(
            f"{project} has no active award: the last ended {ended}", "go on with another: idf-compute award continue"
        )
    return AwardNotActive(f"{project} has no award yet", "ask your programme manager for one")


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
