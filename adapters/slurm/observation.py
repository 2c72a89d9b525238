"""What the queue and the accounting database together say of jobs that the site accepted."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from adapters.arrays import task_name
from adapters.errors import Unreachable
from adapters.port import Attempt, AttemptState, Known, Observation
from adapters.slurm.commands import CLOCK_SKEW_S, Reply, fields
from adapters.slurm.rows import Row, accounting_rows, queue_rows

Json = dict[str, Any]
_AT_WORK = (AttemptState.QUEUED, AttemptState.RUNNING)
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
        ids = [job.site_job_id for job in known]
        self.request: Json = {"do": "observe", "ids": ids, "tasks": _runs_told(known)}
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
            rows = _not_of_namesakes(job, queue), _not_of_namesakes(job, accounting)
            is_array = job.tasks is not None or any(row.task is not None for row in chain(*rows))
            seen = self._tasks(job, *rows) if is_array else self._one(job, *rows)
            if seen:
                attempts[job.name] = seen
            if complete:
                absent |= _absent(job, *rows)
                runaways |= _runaways(job, rows[0], seen)
        return Observation(attempts, frozenset(absent), tuple(self._warnings), frozenset(runaways))

    def _tasks(self, job: Known, queue: Sequence[Row], accounting: Sequence[Row]) -> tuple[Attempt, ...]:
        """Look at each task of an array by itself, and only at those that somebody asked about."""
        by_task: dict[int, tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
        for source, rows in enumerate((queue, accounting)):
            for row in rows:
                if row.task is not None and (job.tasks is None or row.task in job.tasks):
                    by_task[row.task][source].append(row)
        own = {task: (queue, _own(accounting)) for task, (queue, accounting) in by_task.items()}
        return tuple(chain.from_iterable(self._one(job, *own[task]) for task in sorted(own)))

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
        """A stranger's job under the id, which may be used again, is neither ours nor a proof of absence."""
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


def _runs_told(known: Iterable[Known]) -> Mapping[str, int]:
    """Return how many first runs the queue must show under an id before accounting need not be asked, where not one.

    An id that several jobs share is always asked about: the queue may show one while accounting has another's end.
    """
    runs: dict[str, int] = defaultdict(int)
    for job in known:
        runs[job.site_job_id] += (1 if job.tasks is None else len(job.tasks)) + len(job.namesakes)
    arrays = {job.site_job_id for job in known if job.tasks is not None}
    return {job: count for job, count in runs.items() if count > 1 or job in arrays}


def _not_of_namesakes(job: Known, by_job: Mapping[str, Sequence[Row]]) -> Sequence[Row]:
    rows = by_job.get(job.site_job_id, ())
    return [row for row in rows if row.name not in job.namesakes] if job.namesakes else rows


def _own(rows: list[Row]) -> list[Row]:
    """Return a task's own rows; one that it shares with others only where there is none.

    The record of those that wait is not always told of each that leaves it (seen on 22.05).
    """
    return [row for row in rows if not row.tasks] or rows


def _absent(job: Known, queue: Sequence[Row], accounting: Sequence[Row]) -> set[str]:
    """Return what neither source knows, given that both told everything: the job, or some tasks of an array."""
    if not queue and not accounting:
        return {job.name}
    if job.tasks is None:
        return set()
    known = {row.task for row in chain(queue, accounting)}
    return {task_name(job.name, task) for task in job.tasks if task not in known}


def _runaways(job: Known, queue: Sequence[Row], seen: Sequence[Attempt]) -> set[str]:
    """Return what accounting shows at work and the queue does not know: the job, or some tasks of an array."""
    in_queue = {row.task for row in queue}
    newest = {attempt.task: attempt for attempt in seen}
    at_work = (task for task, attempt in newest.items() if attempt.state in _AT_WORK)
    return {task_name(job.name, task) for task in at_work if task not in in_queue}


def _is_half_told(row: Row) -> bool:
    """Say whether accounting has the end's state but not its time, as right after slurmdbd came back.

    Its elapsed time still grows then: a charge from it would be too high (seen on 22.05: 7 s for a job of 0 s).
    """
    return row.state.ended and row.ended_at is None
