"""What the queue and the accounting database together say of jobs that the site accepted."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapters.errors import Unreachable
from adapters.port import Attempt, AttemptState, Known, Observation
from adapters.slurm.commands import CLOCK_SKEW_S, Reply, fields
from adapters.slurm.rows import Row, accounting_rows, queue_rows

Json = dict[str, Any]
Rows = tuple[Sequence[Row], Sequence[str]]
"""What a source told, and what of it could not be read."""


class Observe:
    """One command for all jobs of a site.

    A job that the queue shows at work is as the queue says. The end of one is told by accounting alone, since
    the charge comes from there: until accounting has it, nothing was learnt. Absent is a job that neither
    knows, when both answered and the controller has nothing left to tell accounting. A runaway is one that accounting
    alone shows, and at work.
    """

    def __init__(self, known: Sequence[Known], cluster: str) -> None:
        self._known, self._cluster = known, cluster
        self.request: Json = {"do": "observe", "ids": [job.site_job_id for job in known]}
        self._warnings: list[str] = []

    def read(self, reply: Reply) -> Observation:
        """Return how the jobs stand.

        Raises:
            Unreachable: the queue did not answer, or the answer is not whole.
        """
        site = reply.site
        if not reply.whole:
            raise reply.broken()
        if site["queue"]["rc"] != 0:
            raise Unreachable(f"the queue did not answer: {str(site['queue']['err']).strip()[:300]}")
        queue = queue_rows(site["queue"]["out"], fields(site, "queue"))
        accounting = self._accounting(site)
        complete = all(part["rc"] == 0 for part in site["accounting"]) and site.get("rows_not_written") == 0
        return self.decide(queue, accounting, complete=complete)

    def decide(
        self, in_queue: Rows, in_accounting: Rows, *, complete: bool, warnings: Iterable[str] = ()
    ) -> Observation:
        """Return how the jobs stand, from each source's rows and those that could not be read.

        `complete` says that accounting answered and the controller has nothing left to tell it. A row that
        cannot be read may be that of any job: beside one, none is absent.
        """
        self._warnings += warnings
        complete = complete and not in_queue[1] and not in_accounting[1]
        queue, accounting = self._by_job(in_queue), self._by_job(in_accounting)
        attempts: dict[str, tuple[Attempt, ...]] = {}
        absent: set[str] = set()
        runaways: set[str] = set()
        for job in self._known:
            seen = self._one(job, queue.get(job.site_job_id, ()), accounting.get(job.site_job_id, ()))
            if seen:
                attempts[job.site_job_id] = seen
                if complete and job.site_job_id not in queue and _is_at_work(seen[-1]):
                    runaways.add(job.site_job_id)
            elif complete and job.site_job_id not in queue and job.site_job_id not in accounting:
                absent.add(job.site_job_id)
        return Observation(attempts, frozenset(absent), tuple(self._warnings), frozenset(runaways))

    def _accounting(self, site: Json) -> tuple[list[Row], list[str]]:
        rows: list[Row] = []
        odd: list[str] = []
        for part in site["accounting"]:
            if part["rc"] != 0:
                self._warnings.append(f"the accounting database did not answer: {str(part['err']).strip()[:300]}")
                continue
            more, strange = accounting_rows(part["out"], fields(site, "accounting"))
            rows += more
            odd += strange
        return rows, odd

    def _by_job(self, read: Rows) -> Mapping[str, list[Row]]:
        rows, odd = read
        self._warnings += [f"a row that cannot be read: {line[:300]}" for line in odd]
        by_job: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_job[row.job].append(row)
        return by_job

    def _one(self, job: Known, queue: Sequence[Row], accounting: Sequence[Row]) -> tuple[Attempt, ...]:
        queue = [row for row in queue if self._is_ours(job, row)]
        accounting = [row for row in accounting if self._is_ours(job, row) and not _is_half_told(row)]
        at_work = [row for row in queue if not row.state.ended]
        ended = [row for row in accounting if row.state.ended or row.state is AttemptState.UNKNOWN]
        if at_work:
            return self._attempts(job, [*ended, *at_work])
        told = {row.submitted_at for row in ended}
        if any(row.submitted_at not in told for row in queue):
            return ()  # it ended a moment ago, and accounting does not know yet
        attempts = self._attempts(job, accounting)
        if attempts and attempts[-1].native_state == "REQUEUED":
            return ()  # another attempt follows, of which accounting does not know yet
        return attempts

    def _is_ours(self, job: Known, row: Row) -> bool:
        """An id can be used again, after years; another's job under it is neither ours nor a proof of absence."""
        floor = job.submitted_after.timestamp() - CLOCK_SKEW_S
        if row.submitted_at is not None and row.submitted_at.timestamp() < floor:
            return False
        if row.name == job.name and row.user == job.account:
            return True
        self._warnings.append(f"job {job.site_job_id} is not {job.name} of {job.account}: {row.name!r} of {row.user!r}")
        return False

    def _attempts(self, job: Known, rows: Iterable[Row]) -> tuple[Attempt, ...]:
        """Both sources may show one attempt: the one that says it ended, else the later one, is kept."""
        attempts: dict[str, Attempt] = {}
        for row in rows:
            if row.submitted_at is None:
                self._warnings.append(f"job {job.site_job_id} has no submit time")
                continue
            attempt = row.attempt(self._cluster, job.account)
            if attempt.state is AttemptState.UNKNOWN:
                self._warnings.append(f"job {job.site_job_id} is in a state that is not known: {row.native_state!r}")
            attempts[attempt.source_key] = attempt
        return tuple(sorted(attempts.values(), key=lambda attempt: attempt.submitted_at))


def _is_at_work(attempt: Attempt) -> bool:
    return attempt.state in (AttemptState.QUEUED, AttemptState.RUNNING)


def _is_half_told(row: Row) -> bool:
    """Say whether accounting has the end's state but not its time, as right after slurmdbd came back.

    Its elapsed time still grows then: a charge from it would be too high (seen on 22.05: 7 s for a job of 0 s).
    """
    return row.state.ended and row.ended_at is None
