"""From Jobs and pods to attempts. Pure.

An attempt is one pod, or one pod for each node of a job over several: the k-th pod of each index is of attempt k.
It lasts from the first pod's `startTime`, when a node's GPUs were taken, to the last container's end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import zip_longest

from adapters.k8s.seen import SeenJob, SeenPod, Size
from adapters.port import UNLIMITED_S, Attempt, AttemptState

_PREEMPTED = frozenset({"PreemptionByScheduler", "EvictionByEvictionAPI"})
"""Taken off a healthy node for somebody else, or because its admin drained it."""
_LOST = frozenset(
    {"Evicted", "NodeLost", "NodeShutdown", "Terminated", "Shutdown", "NodeAffinity", "UnexpectedAdmissionError"}
)
"""A kubelet that was short of something, went down, or could not keep its promise."""
_BROKEN_OFF = ("context canceled", "context deadline exceeded")
"""What a runtime says of a start that the kubelet took back, for it went down or waited too long."""

NOT_ADMITTED = "waits to be admitted by the pool's queue"


def attempts_of(job: SeenJob | None, pods: Iterable[SeenPod], cluster: str, now: datetime) -> tuple[Attempt, ...]:
    """Say how a job stands, oldest attempt first; nothing where its end is not told in full yet.

    A Job that somebody deleted is known by its pods alone, which its finalizer keeps until they are metered.
    """
    rounds = _rounds(pods)
    attempts = [
        _attempt(number, group, job, cluster, now, last=number == len(rounds)) for number, group in enumerate(rounds, 1)
    ]
    if job is None:
        return tuple(attempts)
    if not attempts:
        return () if job.had_pods else (_without_pod(job, cluster, 1),)  # what it used cannot be learnt any more
    waited_again = bool(job.queue) and attempts[-1].state is AttemptState.PREEMPTED
    if attempts[-1].state.ended and not job.finished and (job.cancelled_at is None or waited_again):
        if not job.suspended:
            return ()  # another pod may follow, or the Job is about to be told finished
        attempts.append(_without_pod(job, cluster, len(attempts) + 1))
    return tuple(attempts)


def attempts_of_tasks(
    job: SeenJob, pods: Sequence[SeenPod], asked: Iterable[int] | None, cluster: str, now: datetime
) -> tuple[tuple[Attempt, ...], frozenset[int]]:
    """Say how the tasks of an array stand, task by task, and which of those asked about it never had."""
    index_of = {task: index for index, task in enumerate(job.tasks)}
    by_index: dict[int, list[SeenPod]] = {}
    for pod in pods:
        by_index.setdefault(pod.index, []).append(pod)
    wanted = job.tasks if asked is None else sorted(asked)
    told: list[Attempt] = []
    for task in wanted:
        if task in index_of:
            own = [replace(pod, index=0) for pod in by_index.get(index_of[task], ())]
            some = attempts_of(_as_task(job, task, index_of[task]), own, cluster, now)
            told += [_of_task(attempt, task) for attempt in some]
    return tuple(told), frozenset(set(wanted) - set(index_of))


def _as_task(job: SeenJob, task: int, index: int) -> SeenJob:
    """One task as if it were a job of its own."""
    ended, failed = index in job.ended_indexes, index in job.failed_indexes
    finished = "Complete" if ended else "Failed" if failed else job.finished
    cancelled_at = job.cancelled_tasks.get(task, job.cancelled_at)
    return replace(job, finished=finished, cancelled_at=cancelled_at, had_pods=ended or failed)


def _of_task(attempt: Attempt, task: int) -> Attempt:
    base, _, number = attempt.source_key.rpartition("/")
    return replace(attempt, task=task, source_key=f"{base}_{task}/{number}")


def _rounds(pods: Iterable[SeenPod]) -> list[list[SeenPod]]:
    by_index: dict[int, list[SeenPod]] = {}
    for pod in sorted(pods, key=lambda pod: (pod.created_at, pod.name)):
        by_index.setdefault(pod.index, []).append(pod)
    return [[pod for pod in some if pod is not None] for some in zip_longest(*by_index.values())]


def _without_pod(job: SeenJob, cluster: str, number: int) -> Attempt:
    """A Job that waits for its next pod, or that ended without one."""
    state, ended_at, native = AttemptState.QUEUED, None, "Suspended" if job.suspended else "Pending"
    if job.cancelled_at is not None:
        state, ended_at, native = AttemptState.CANCELLED, job.cancelled_at, "Cancelled"
    elif job.finished:
        state, ended_at, native = AttemptState.FAILED, job.created_at, job.finished
    reason = job.reason or (NOT_ADMITTED if job.queue and job.suspended and ended_at is None else "")
    return Attempt(
        f"{cluster}/{job.uid}/{number}", job.uid, job.name, job.namespace, state, native, job.created_at,
        ended_at=ended_at, time_limit_s=_limit(job.size), reason=reason, expected_start=job.begin,
    )  # fmt: skip


def _attempt(
    number: int, pods: Sequence[SeenPod], job: SeenJob | None, cluster: str, now: datetime, *, last: bool
) -> Attempt:
    first, size = pods[0], pods[0].size
    started_at = min((pod.started_at for pod in pods if pod.started_at), default=None)
    over = all(pod.over for pod in pods) and (job is None or _complete(pods, job))
    told = _telling(pods) if over else next((pod for pod in pods if not pod.over), first)
    state = _end(pods, told, job, last=last) if over else AttemptState.RUNNING if started_at else AttemptState.QUEUED
    ended_at = max((pod.ended_at or pod.deleted_at or pod.created_at for pod in pods), default=None) if over else None
    if ended_at is not None and started_at is not None:
        ended_at = max(ended_at, started_at)
    elapsed_s = int(((ended_at or now) - started_at).total_seconds()) if started_at else 0
    count = len(pods)
    return Attempt(
        source_key=f"{cluster}/{first.job_uid}/{number}",
        site_job_id=first.job_uid,
        name=first.job_name,
        account=first.namespace,
        state=state,
        native_state=_native(told, job) if over else told.phase,
        submitted_at=(job or first).created_at if number == 1 else first.created_at,
        started_at=started_at,
        ended_at=ended_at,
        elapsed_s=max(elapsed_s, 0),
        gpus=size.gpus * count,
        gpu_types={size.gpu_type: size.gpus * count} if size.gpus else {},
        cpus=size.cpus * count,
        memory_mib=size.memory_mib * count,
        node_count=count,
        nodes=tuple(sorted({pod.node for pod in pods if pod.node})),
        time_limit_s=_limit(size),
        exit_code=told.exit_code if over else None,
        reason="" if state is AttemptState.SUCCEEDED else told.reason,
    )


def _complete(pods: Sequence[SeenPod], job: SeenJob) -> bool:
    """Say whether all pods of this round exist: the others of a job over several nodes may still be made."""
    return len(pods) >= job.nodes or bool(job.finished) or job.suspended


def _telling(pods: Sequence[SeenPod]) -> SeenPod:
    """The pod whose end says why: the first that failed by itself; others were then taken away with it."""
    failed = [pod for pod in pods if pod.phase == "Failed" or pod.deleted_at]
    return min(failed or pods, key=lambda pod: (pod.deleted_at is not None, pod.ended_at or pod.created_at, pod.index))


def _end(pods: Sequence[SeenPod], told: SeenPod, job: SeenJob | None, *, last: bool) -> AttemptState:
    """The first of these that holds; what the node says of a pod comes before what was wished of it."""
    lost = bool(told.disruption) or told.status_reason in _LOST or told.status_reason.startswith("OutOf")
    lost = lost or _lost_by_kubelet(told)
    suspended = job is not None and (job.suspended or bool(job.queue))  # it may be admitted again by now
    cases = (
        (all(pod.phase == "Succeeded" for pod in pods), AttemptState.SUCCEEDED),
        (told.status_reason == "DeadlineExceeded", AttemptState.TIMED_OUT),
        (told.container_reason == "OOMKilled", AttemptState.OUT_OF_MEMORY),
        (last and job is not None and _cancelled(told, job), AttemptState.CANCELLED),
        (told.disruption in _PREEMPTED, AttemptState.PREEMPTED),
        (lost, AttemptState.NODE_FAILED),
        (told.deleted_at is not None and suspended, AttemptState.PREEMPTED),
        (told.deleted_at is not None, AttemptState.CANCELLED),
    )
    return next((state for holds, state in cases if holds), AttemptState.FAILED)


def _lost_by_kubelet(told: SeenPod) -> bool:
    """Whether its kubelet broke its start off, so that nothing ran, or lost it, so that nobody saw its end."""
    broken_off = told.container_reason == "StartError" and any(words in told.reason for words in _BROKEN_OFF)
    return broken_off or told.container_reason == "ContainerStatusUnknown"


def _cancelled(told: SeenPod, job: SeenJob) -> bool:
    """Whether a wish ended it. One that the pool's queue took away before has ended by that, and waited again."""
    if job.cancelled_at is None:
        return False
    return not (job.queue and told.deleted_at and told.ended_at and told.ended_at < job.cancelled_at)


def _native(told: SeenPod, job: SeenJob | None) -> str:
    if job is None:
        return "Deleted"
    return told.disruption or told.status_reason or told.container_reason or told.phase


def _limit(size: Size) -> int:
    return size.limit_s if size.limit_s is not None else UNLIMITED_S


def utcnow() -> datetime:
    """Now, aware."""
    return datetime.now(UTC)
