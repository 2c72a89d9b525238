"""What is kept of a Job and of a pod that the API server tells of: a few fields, for there are many."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Any

from adapters.arrays import parse_array
from adapters.k8s.manifests import (
    AFTER,
    ARRAY,
    BEGIN,
    CANCELLED,
    DEADLINE,
    FINALIZER,
    GPU_TYPE,
    INDEX,
    JOB,
    QUEUE_NAME,
    REASON,
    TOMBSTONE,
)

Json = dict[str, Any]

_CONTROLLER = "batch.kubernetes.io/controller-uid"
_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | {
    f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)
}
_QUANTITY = re.compile(r"([0-9.]+(?:e[0-9]+)?)([A-Za-z]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Size:
    """What one pod asks for, which is what it is given."""

    gpus: int = 0
    gpu_type: str = ""
    cpus: int = 0
    memory_mib: int = 0
    limit_s: int | None = None


@dataclass(frozen=True, slots=True)
class SeenJob:
    """A Job."""

    uid: str
    name: str
    namespace: str
    created_at: datetime
    nodes: int
    size: Size
    finished: str
    """`Complete` or `Failed`; empty before."""
    reason: str
    suspended: bool
    cancelled_at: datetime | None
    deadline: datetime | None
    tombstone: bool
    had_pods: bool
    """Some of its pods are counted as ended."""
    begin: datetime | None = None
    after: tuple[tuple[str, str], ...] = ()
    """Kind and uid of the jobs whose ends it waits for."""
    tasks: tuple[int, ...] = ()
    """Of an array, by the index that Kubernetes gives them; empty otherwise."""
    ended_indexes: frozenset[int] = frozenset()
    failed_indexes: frozenset[int] = frozenset()
    cancelled_tasks: Mapping[int, datetime] = field(default_factory=dict)
    queue: str = ""
    """Of Kueue, which suspends it and lets it go; empty where none does."""


@dataclass(frozen=True, slots=True)
class SeenPod:
    """A pod of a Job."""

    uid: str
    name: str
    namespace: str
    job_uid: str
    job_name: str
    index: int
    created_at: datetime
    phase: str
    node: str
    started_at: datetime | None
    ended_at: datetime | None
    deleted_at: datetime | None
    disruption: str
    """Why it was taken off its node by others, in Kubernetes' word; empty where it was not."""
    status_reason: str
    """The pod's own reason, such as `DeadlineExceeded` or `Evicted`."""
    exit_code: int | None
    container_reason: str
    """Why its container ended, such as `OOMKilled`."""
    reason: str
    """Why it waits or ended, in words."""
    held: bool
    """Our finalizer keeps it."""
    size: Size = field(default_factory=Size)

    @property
    def over(self) -> bool:
        """Whether nothing of it runs any more: it ended, or was taken away before it got a node."""
        return self.phase in ("Succeeded", "Failed") or (self.deleted_at is not None and not self.node)


def job_of(item: Json) -> SeenJob:
    """Read a Job.

    Raises:
        ValueError, KeyError, TypeError: it is not as Kubernetes words one.
    """
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    annotations = metadata.get("annotations") or {}
    true = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    ended = next((true[kind] for kind in ("Complete", "Failed") if kind in true), None)
    return SeenJob(
        uid=metadata["uid"],
        name=metadata["name"],
        namespace=metadata["namespace"],
        created_at=_time(metadata["creationTimestamp"]),
        nodes=1 if ARRAY in annotations else spec.get("completions") or 1,
        size=_size(spec["template"]["spec"], spec["template"].get("metadata", {}).get("labels") or {}),
        finished=ended["type"] if ended else "",
        reason=annotations.get(REASON) or (_words(ended.get("reason"), ended.get("message")) if ended else ""),
        suspended=bool(spec.get("suspend")),
        cancelled_at=_maybe(annotations.get(CANCELLED)),
        deadline=_maybe(annotations.get(DEADLINE)),
        tombstone=TOMBSTONE in annotations,
        had_pods=bool((status.get("succeeded") or 0) + (status.get("failed") or 0)),
        begin=_maybe(annotations.get(BEGIN)),
        after=_pairs(annotations.get(AFTER, "")),
        tasks=parse_array(annotations[ARRAY]).tasks if ARRAY in annotations else (),
        ended_indexes=_indexes(status.get("completedIndexes")),
        failed_indexes=_indexes(status.get("failedIndexes")),
        cancelled_tasks={
            int(name.removeprefix(f"{CANCELLED}-")): _time(value)
            for name, value in annotations.items()
            if name.startswith(f"{CANCELLED}-")
        },
        queue=(metadata.get("labels") or {}).get(QUEUE_NAME, ""),
    )


def pod_of(item: Json) -> SeenPod:
    """Read a pod.

    Raises:
        ValueError, KeyError, TypeError: it is not as Kubernetes words one.
    """
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    disruption = conditions.get("DisruptionTarget", {})
    disrupted = disruption.get("status") == "True"
    containers: list[Json] = status.get("containerStatuses") or [{}]
    own: Json = containers[0].get("state") or {}
    done = own.get("terminated") or {}
    deleted_at = _maybe(metadata.get("deletionTimestamp"))
    ended_at = _last_end(status)
    if ended_at is None and status.get("phase") in ("Succeeded", "Failed"):
        ended_at = _maybe(disruption.get("lastTransitionTime")) or deleted_at or _since(conditions, "Ready")
    return SeenPod(
        uid=metadata["uid"],
        name=metadata["name"],
        namespace=metadata["namespace"],
        job_uid=labels[_CONTROLLER],
        job_name=labels[JOB],
        index=int((metadata.get("annotations") or {}).get(INDEX, 0)),
        created_at=_time(metadata["creationTimestamp"]),
        phase=status.get("phase", "Pending"),
        node=spec.get("nodeName") or "",
        started_at=_maybe(status.get("startTime")),
        ended_at=ended_at,
        deleted_at=deleted_at,
        disruption=str(disruption.get("reason", "")) if disrupted else "",
        status_reason=str(status.get("reason") or ""),
        exit_code=done.get("exitCode"),
        container_reason=str(done.get("reason") or ""),
        reason=_why(status, conditions, own),
        held=FINALIZER in (metadata.get("finalizers") or ()),
        size=_size(spec, labels),
    )


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((kind, uid) for kind, _, uid in (word.partition(":") for word in text.split(",") if word))


def _indexes(text: str | None) -> frozenset[int]:
    """Read Kubernetes' own list, such as `0,2-4`."""
    return frozenset(parse_array(text).tasks) if text else frozenset()


def _why(status: Json, conditions: Mapping[str, Json], own: Json) -> str:
    """The first that says something: the pod itself, what disrupted it, what it waits for, how it ended."""
    scheduled = conditions.get("PodScheduled", {})
    candidates = (
        status,
        conditions.get("DisruptionTarget", {}),
        scheduled if scheduled.get("status") == "False" else {},
        own.get("waiting") or {},
        own.get("terminated") or {},
    )
    return next(filter(None, (_words(said.get("reason"), said.get("message")) for said in candidates)), "")


def _words(reason: str | None, message: str | None) -> str:
    return ": ".join(word for word in (reason, message) if word)[:1000]


def _last_end(status: Json) -> datetime | None:
    """The last container's end: until then the GPU was taken, while images came and others prepared."""
    kinds = ("initContainerStatuses", "containerStatuses")
    ends = [(state.get("state") or {}).get("terminated") for kind in kinds for state in status.get(kind) or ()]
    times = [_time(end["finishedAt"]) for end in ends if end and end.get("finishedAt")]
    return max(times, default=None)


def _since(conditions: Mapping[str, Json], kind: str) -> datetime | None:
    return _maybe(conditions.get(kind, {}).get("lastTransitionTime"))


def _size(spec: Json, labels: Mapping[str, str]) -> Size:
    asked = [container.get("resources") or {} for container in spec["containers"]]
    requests = [resources.get("requests") or {} for resources in asked]
    gpu_type = labels.get(GPU_TYPE, "")
    devices = [value for some in requests for name, value in some.items() if "/" in name]
    return Size(
        gpus=int(_sum(devices)),
        gpu_type=gpu_type,
        cpus=ceil(_sum(some.get("cpu", "0") for some in requests)),
        memory_mib=int(_sum(some.get("memory", "0") for some in requests)) >> 20,
        limit_s=spec.get("activeDeadlineSeconds"),
    )


def _sum(quantities: Iterable[str]) -> float:
    return sum(map(quantity, quantities))


def quantity(text: str) -> float:
    """Read a quantity such as `500m` or `600Mi`.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(str(text))
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"not a quantity: {text!r}")
    return float(found[1]) * float(_UNITS[found[2]])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _maybe(text: str | None) -> datetime | None:
    return _time(text) if text else None
