"""Upkeep of a Slurm site, through the gateway that lies there and the idf-upkeep.py beside it."""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from adapters.errors import Rejected, SiteError, Uncertain, Unreachable
from adapters.port import Accepted, JobSpec, Known
from adapters.slurm import proof
from adapters.slurm.commands import Cancel, Reply, Submit, frame
from adapters.slurm.findings import Facts, findings
from adapters.slurm.logs import Follower, LogRounds
from adapters.slurm.scheduler import SlurmSettings
from adapters.slurm.ssh import SshConnection
from adapters.upkeep import Audit, Expected, Finding, Severity

Json = dict[str, Any]

FACTS_S_MAX = 150.0
CHANGE_S_MAX = 120.0
WIPE_S_MAX = 320.0
"""idf-wipe itself ends after 240 s."""
LATE_S = 120
"""A change that has not begun by then, by the site's clock, never begins."""
LOG_BYTES_MAX = 64 << 10
LOOK_S = 5.0
"""How long one look waits for more of a log."""
PROOF_S_MAX = 240.0
"""For all jobs of the proof together, their wait in the queue included; on an empty cluster it takes some 15 s."""


class SlurmUpkeep:
    """A Slurm site as an operator keeps it. Safe to share between threads."""

    def __init__(self, settings: SlurmSettings, proof_s_max: float = PROOF_S_MAX) -> None:
        self._settings = settings
        self._proof_s_max = proof_s_max
        self._connection = SshConnection(settings.ssh)
        self._logs = LogRounds(self._read_logs)

    def audit(self, expected: Expected) -> Audit:
        """See the port."""
        began = time.time()
        try:
            said = self._ask("facts", FACTS_S_MAX)
        except Uncertain as error:
            raise Unreachable(error.reason) from error
        ended = time.time()
        half_s = (ended - began) / 2
        facts = Facts(said, expected, float(said["now"]) - (began + half_s), half_s)
        found = list(findings(facts))
        proven: bool | None = None
        if expected.accounts:
            proven, more = self._prove(expected)
            found += more
        else:
            found += self._try_log(expected)
        release, cluster = facts.output("release").strip(), facts.configuration.get("ClusterName", "")
        return Audit(release, cluster, tuple(found), proven, facts.array_size_max)

    def open_account(self, account: str, group: str) -> None:
        """See the port."""
        said = self._change("open", account=account, group=group)
        if said.get("open") != [group]:
            raise Unreachable(f"{account} is not open on {group} alone: {str(said.get('open'))[:200]}")

    def limit_groups(self, gpu_minutes: Mapping[str, int]) -> Mapping[str, SiteError]:
        """See the port."""
        if not gpu_minutes:
            return {}
        try:
            said = self._change("limit", groups=dict(gpu_minutes))
        except SiteError as error:
            return dict.fromkeys(gpu_minutes, error)
        return {group: Rejected(str(why)[:300]) for group, why in said.get("refused_groups", {}).items()}

    def close_account(self, account: str) -> None:
        """See the port."""
        said = self._change("close", account=account)
        if said.get("left"):
            raise Unreachable(f"{len(said['left'])} jobs of {account} have not ended yet")
        if said.get("not_written"):
            raise Unreachable(f"accounting does not know yet how {len(said['not_written'])} jobs of {account} ended")
        if not said.get("closed"):
            raise Unreachable(f"{account} is not known to be closed")

    def wipe(self, account: str) -> None:
        """See the port."""
        try:
            done = self._change("wipe", WIPE_S_MAX, account=account).get("wiped", {})
        except Uncertain as error:
            raise Uncertain(f"the wipe of {account} may still be under way: {error.reason}") from error
        if done.get("rc") != 0:
            raise Rejected(str(done.get("err", "")).strip()[-300:] or f"the wipe of {account} was ended")

    def close(self) -> None:
        """See the port."""
        self._connection.close()

    # ── the gateway ──

    def _change(self, what: str, limit_s: float = CHANGE_S_MAX, **request: object) -> Json:
        """Ask for a change.

        Raises:
            Unreachable: the gateway refused the request, or it never arrived.
            Uncertain: no answer came.
            Rejected: Slurm refused it.
        """
        said = self._ask(what, limit_s, not_after=time.time() + LATE_S, **request)
        if "failed" in said:
            raise Rejected(str(said["failed"])[:300])
        return said

    def _ask(self, what: str, limit_s: float, **request: object) -> Json:
        answer = self._connection.ask(frame({"do": "upkeep", "what": what, **request}), limit_s)
        reply = Reply.read(answer.output, answer.error)
        if not reply.whole:
            raise Uncertain(reply.broken().reason)
        return reply.site

    # ── the proof, or at least a job ──

    def _try_log(self, expected: Expected) -> list[Finding]:
        """Let one job write to its log, and read that."""
        deadline, sent = time.monotonic() + self._proof_s_max, None
        try:
            sent = self._hand_over(proof.log_spec(expected.pool[0], secrets.token_hex(8)), expected)
            self._wait(sent, proof.is_done, deadline)
        except SiteError as error:
            if sent is not None:
                self._connection.ask(frame(Cancel([sent]).request), self._settings.answer_s_max)
            sentence = f"a job that only writes to its log did not come to its end: {error.reason}"
            remedy = "see whether the partition takes jobs, and whether the home is the same on nodes and login node"
            return [Finding("log-not-read", Severity.PROBLEM, sentence, remedy)]
        return []

    def _prove(self, expected: Expected) -> tuple[bool | None, list[Finding]]:
        """Try to cross between two accounts that no project has; they are closed and wiped again afterwards."""
        if len(expected.free) < len(proof.GROUPS):
            remedy = "widen the pool: install-gateway.sh --accounts N, and `accounts` in the site's file"
            return None, [proof.unproven("it needs two accounts that no project has", remedy)]
        pair = (expected.free[0], expected.free[1])
        try:
            for account, group in zip(pair, proof.GROUPS, strict=True):
                self.close_account(account)  # ends what an interrupted proof may have left
                self.open_account(account, group)
            proven, found = proof.judge(self._cross(pair, expected))
        except SiteError as error:
            proven, found = None, [proof.unproven(error.reason)]
        for account in pair:
            try:
                self.close_account(account)
                self.wipe(account)
            except SiteError as error:
                found.append(_not_cleared(account, error))
        return proven, found

    def _cross(self, pair: tuple[str, str], expected: Expected) -> list[proof.Trial]:
        """Let the two accounts try on each other; return what came of it.

        Raises:
            SiteError: a job of the proof was refused, or did not come to its end in time.
        """
        deadline = time.monotonic() + self._proof_s_max
        one, two = pair
        first = self._victim(self._send(one, expected), deadline)
        second = self._send(two, expected, first)
        log_of_two = self._wait(second, proof.is_done, deadline)
        there = proof.victim(log_of_two)
        if there is None:
            raise Unreachable("a job of the proof did not say where it lies")
        log_of_one = self._wait(self._send(one, expected, there), proof.is_done, deadline)
        return [proof.Trial.read(two, log_of_two), proof.Trial.read(one, log_of_one)]

    def _send(self, account: str, expected: Expected, theirs: proof.Victim | None = None) -> Known:
        """Send one job of the proof, to the other's node if there is one.

        Raises:
            SiteError: it was not accepted.
        """
        token = secrets.token_hex(8)
        return self._hand_over(proof.spec(account, token, theirs.words if theirs else ""), expected, theirs)

    def _hand_over(self, job: JobSpec, expected: Expected, theirs: proof.Victim | None = None) -> Known:
        job = replace(job, partition=expected.partition)
        command = Submit(f"batch-{job.name}", [job], parallel=1, timeout_s=30, sbatch_s=30)
        if theirs is not None:
            command.request["accounts"][job.account]["jobs"][0]["args"].append(f"--nodelist={theirs.node}")
        answer = self._connection.ask(frame(command.request), self._settings.answer_s_max)
        given = command.read(Reply.read(answer.output, answer.error))[job.name]
        if not isinstance(given, Accepted):
            raise given
        return Known(job.name, job.account, given.site_job_id, datetime.now(UTC))

    def _victim(self, job: Known, deadline: float) -> proof.Victim:
        found = proof.victim(self._wait(job, lambda log: proof.victim(log) is not None, deadline))
        assert found is not None  # noqa: S101 (waited for; for the type checker)
        return found

    def _read_logs(self, request: Json, wait_s: float) -> Reply:
        answer = self._connection.ask(frame(request), self._settings.answer_s_max + wait_s)
        return Reply.read(answer.output, answer.error)

    def _wait(self, job: Known, enough: Callable[[bytes], bool], deadline: float) -> bytes:
        """Return a job's log once it bears what is waited for.

        Raises:
            Unreachable: that did not come in time.
        """
        log = b""
        while not enough(log):
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"a job of it wrote too little within {self._proof_s_max:.0f} s: the queue may be long, or a home "
                    "may not be the same on nodes and login node"
                )
            until = min(deadline, time.monotonic() + LOOK_S)
            log += self._logs.read(Follower(job.account, job.name, len(log), LOG_BYTES_MAX, until)).data
        return log


def _not_cleared(account: str, error: SiteError) -> Finding:
    sentence = f"{account} could not be closed and wiped after the proof: {error.reason}"
    remedy = "run install-gateway.sh again, then `idf-compute site doctor`"
    return Finding("account-not-cleared", Severity.PROBLEM, sentence, remedy)
