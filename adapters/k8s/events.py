"""What a pool's own parts said of a job and its pods: the scheduler, kubelet, the job controller, the queue.

Kubernetes keeps events for an hour, and counts those that repeat.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from adapters.k8s.client import Api, Json, NotFound
from adapters.k8s.manifests import JOB, WORKLOAD_OF
from adapters.k8s.settings import Kueue
from adapters.port import SiteEvent

PODS_MAX = 8
"""Of a job with more pods, the newest are asked about."""
EVENTS_MAX = 100
TEXT_MAX = 1000


def events_of(api: Api, account: str, name: str, kueue: Kueue | None = None) -> tuple[SiteEvent, ...]:
    """Return what was said of a Job, its newest pods and its place in the pool's queue, oldest first.

    Raises:
        Unreachable: the site did not answer.
    """
    path = f"/api/v1/namespaces/{account}"
    try:
        pods = [pod for page in api.pages(f"{path}/pods", labelSelector=f"{JOB}={name}") for pod in _items(page)]
        newest = sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))[-PODS_MAX:]
        about = [f"involvedObject.kind=Job,involvedObject.name={name}"]
        about += [f"involvedObject.uid={pod['metadata']['uid']}" for pod in newest]
        about += [f"involvedObject.uid={uid}" for uid in _queued(api, account, name, kueue)]
        told = [each for chosen in about for each in _listed(api, f"{path}/events", chosen)]
    except NotFound:
        return ()
    return tuple(sorted(told, key=lambda event: event.at)[-EVENTS_MAX:])


def _queued(api: Api, account: str, name: str, kueue: Kueue | None) -> Iterator[str]:
    """The uids of what stands for a Job in the queue, which says there why it admits it not."""
    if kueue is None:
        return
    uid = api.get(f"/apis/batch/v1/namespaces/{account}/jobs/{name}")["metadata"]["uid"]
    path = f"/apis/kueue.x-k8s.io/{kueue.api}/namespaces/{account}/workloads"
    yield from (each["metadata"]["uid"] for each in _items(api.get(path, labelSelector=f"{WORKLOAD_OF}={uid}")))


def _listed(api: Api, path: str, chosen: str) -> Iterator[SiteEvent]:
    page = api.get(path, fieldSelector=chosen, limit=EVENTS_MAX)
    yield from filter(None, map(_event, _items(page)))


def _items(page: Json) -> Iterable[Any]:
    return page.get("items") or ()


def _event(item: Json) -> SiteEvent | None:
    """Read an event; None for one without a time, of which nothing can be said."""
    series = item.get("series") or {}
    at = series.get("lastObservedTime") or item.get("lastTimestamp") or item.get("eventTime")
    at = at or (item.get("metadata") or {}).get("creationTimestamp")
    if not isinstance(at, str):
        return None
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return SiteEvent(
        at=moment,
        reason=str(item.get("reason") or "")[:TEXT_MAX],
        message=str(item.get("message") or "")[:TEXT_MAX],
        warning=item.get("type") == "Warning",
        count=int(series.get("count") or item.get("count") or 1),
    )
