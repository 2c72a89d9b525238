"""The second port: what keeping a site in order asks of it, apart from the jobs that run there.

A site is audited when it is enrolled and whenever an operator asks; the accounts of its pool are opened to a
project, limited, closed, and wiped before they are given again. Nothing here is read back into the ledger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from adapters.errors import Rejected, SiteError, Uncertain, Unreachable


class Severity(StrEnum):
    """What a finding means for the site."""

    PROBLEM = "problem"
    """No job is sent there while it stands."""
    ADVICE = "advice"
    """Jobs are sent; something is worse than it could be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an audit found: what it is, and what would change it."""

    code: str
    """Stable, for programs: such as `gpus-not-accounted`."""
    severity: Severity
    sentence: str
    """May bear text from a site, to be shown with care."""
    remedy: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What the enrolment says of a site, for the audit to compare."""

    accounts: bool
    """Whether projects have accounts of their own there."""
    pool: Sequence[str]
    """All of its accounts."""
    free: Sequence[str]
    """Those that no project has: the proof of isolation runs as the first two."""
    gpu_types: Sequence[str]
    """The site's own names of its GPU classes."""
    partition: str | None
    """Where jobs go; None for the site's default."""
    time_limit_s_max: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit learnt."""

    scheduler: str
    """Name and release, such as `slurm 22.05.8`."""
    cluster: str
    findings: tuple[Finding, ...]
    proven: bool | None
    """Whether two project accounts were proven to be isolated; None where that was not tried to its end."""
    array_size_max: int | None = None
    """Every index of an array's task lies below it; None: the site did not tell."""

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that keep jobs away."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.PROBLEM)


class Upkeep(Protocol):
    """A site as an operator keeps it. Every call is bounded in time; each change may be repeated."""

    def audit(self, expected: Expected) -> Audit:
        """Look at the site as a whole, and try to cross from one project account into another.

        Raises:
            Unreachable: the site did not answer.
        """
        ...

    def open_account(self, account: str, group: str) -> None:
        """Let an account of the pool run jobs, on the books of `group` and of no other.

        Raises:
            Unreachable, Uncertain: it is not known to be open; ask again.
            Rejected: the site refuses it.
        """
        ...

    def limit_groups(self, gpu_minutes: Mapping[str, int]) -> Mapping[str, SiteError]:
        """Set how many GPU-minutes each group may ever use there; return those that could not be set, and why."""
        ...

    def close_account(self, account: str) -> None:
        """Take the right to run jobs away, and end what still runs.

        Raises:
            Unreachable, Uncertain: it is not known to be closed, or something of it still runs; ask again.
            Rejected: the site refuses it.
        """
        ...

    def wipe(self, account: str) -> None:
        """Remove everything that a closed account left: processes, home, temporary files, shared memory, timed jobs.

        Raises:
            Unreachable: it was not wiped; ask again.
            Uncertain: the wipe may still be under way, or may still begin.
            Rejected: the site refuses it, or something could not be removed.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


__all__ = [
    "Audit", "Expected", "Finding", "Rejected", "Severity", "SiteError", "Uncertain", "Unreachable", "Upkeep",
]  # fmt: skip
