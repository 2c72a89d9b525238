"""The second port in memory: accounts that are open on one group, left-overs that only a wipe removes."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from adapters.errors import Rejected, SiteError, Unreachable
from adapters.upkeep import Audit, Expected, Finding, Severity


@dataclass
class FakeUpkeep:
    """A site's accounts as an operator keeps them; a test brings findings, left-overs and faults."""

    cluster: str = "fake"
    pool: frozenset[str] | None = None
    """The accounts that exist; None: any."""
    findings: tuple[Finding, ...] = ()
    isolated: bool = True
    array_size_max: int | None = 1001
    away: bool = False
    """Nothing reaches the site."""
    stuck: str = ""
    """What a wipe cannot remove."""
    open: dict[str, str] = field(default_factory=dict)
    """Account → group."""
    limits: dict[str, int] = field(default_factory=dict)
    """Group → GPU-minutes."""
    left_over: dict[str, list[str]] = field(default_factory=dict)
    """Account → what its jobs left there."""
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()

    def audit(self, expected: Expected) -> Audit:
        """See the port."""
        self._called("audit")
        found, proven = list(self.findings), None
        if expected.accounts and len(expected.free) >= 2:
            proven = self.isolated
            if not proven:
                sentence = f"not isolated: {expected.free[0]} could read a file in the other's home"
                found.append(Finding("isolation-broken", Severity.PROBLEM, sentence, "chmod 0700 the homes"))
        elif expected.accounts:
            sentence = "the isolation of project accounts is not proven: it needs two accounts that no project has"
            found.append(Finding("isolation-not-proven", Severity.PROBLEM, sentence, "widen the pool"))
        return Audit("fake 1", self.cluster, tuple(found), proven, self.array_size_max)

    def open_account(self, account: str, group: str) -> None:
        """See the port."""
        with self._lock:
            self._called("open")
            self._known(account)
            self.open[account] = group

    def limit_groups(self, gpu_minutes: Mapping[str, int]) -> Mapping[str, SiteError]:
        """See the port."""
        with self._lock:
            if not gpu_minutes:
                return {}
            try:
                self._called("limit")
            except SiteError as error:
                return dict.fromkeys(gpu_minutes, error)
            there = {group: minutes for group, minutes in gpu_minutes.items() if group in self.open.values()}
            self.limits |= there
            return {group: Rejected(f"no group {group}") for group in gpu_minutes if group not in there}

    def close_account(self, account: str) -> None:
        """See the port."""
        with self._lock:
            self._called("close")
            self._known(account)
            self.open.pop(account, None)

    def wipe(self, account: str) -> None:
        """See the port."""
        with self._lock:
            self._called("wipe")
            self._known(account)
            if account in self.open:
                raise Unreachable(f"{account} is still open")
            if self.stuck:
                raise Rejected(f"something in {self.stuck} cannot be removed")
            self.left_over.pop(account, None)

    def close(self) -> None:
        """See the port."""

    def _called(self, what: str) -> None:
        if self.away:
            raise Unreachable("the fake site is away")
        self.calls.append(what)

    def _known(self, account: str) -> None:
        if self.pool is not None and account not in self.pool:
            raise Unreachable(f"the site's gateway refused: {account} is no account of this site")
