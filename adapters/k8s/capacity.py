"""Whether a pool has nodes that a job could ever run on, and whether it has room for one now.

Without the first its pods would stay Pending for ever; the second is what can be said of when it would start.
"""

import threading
import time
from collections import Counter, defaultdict

from adapters.errors import Rejected
from adapters.k8s.client import Api, Json
from adapters.k8s.seen import quantity
from adapters.k8s.settings import NodeClass

KNOWN_S = 30.0
"""How long what the nodes offer is believed."""


class Capacity:
    """What the nodes of a pool offer, asked for now and then. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: list[Json] = []
        self._asked_at: float | None = None
        self._pods: list[Json] = []
        self._pods_at: float | None = None

    def require(self, api: Api, wanted: NodeClass, body: Json) -> None:
        """Refuse a Job that no nodes of its class could hold, were they all free.

        Raises:
            Rejected: they could not; how large they are.
            Unreachable: the nodes could not be learnt.
        """
        pod, count = body["spec"]["template"]["spec"], body["spec"]["completions"]
        asked = pod["containers"][0]["resources"]["requests"]
        apart = count if "affinity" in pod else 1
        alike = [node for node in self._known(api) if _has(node, wanted)]
        fitting = sum(all(_offers(node, name) >= quantity(value) for name, value in asked.items()) for node in alike)
        if fitting < apart:
            words = ", ".join(f"{value} {name}" for name, value in sorted(asked.items()))
            raise Rejected(
                f"Requested node configuration is not available: {apart} of these nodes with {words} each; "
                f"there are {_described(alike, asked)}"
            )

    def has_room(self, api: Api, wanted: NodeClass, body: Json) -> bool:
        """Say whether a Job's first pods would find nodes now: what is free there, and nobody waits for it.

        Raises:
            Unreachable: the nodes or their pods could not be learnt.
        """
        pod, count = body["spec"]["template"]["spec"], body["spec"]["completions"]
        asked = pod["containers"][0]["resources"]["requests"]
        apart = count if "affinity" in pod else 1
        taken: dict[str, Counter[str]] = defaultdict(Counter)
        for name, requests in ((each["node"], each["requests"]) for each in self._running(api)):
            if not name and requests.keys() & asked.keys() - {"cpu", "memory"}:
                return False  # others wait for such GPUs already
            taken[name].update(requests)
        open_ = [node for node in self._known(api) if _has(node, wanted) and not node["closed"]]
        return sum(_fits(node, asked, taken[node["name"]]) for node in open_) >= apart

    def _running(self, api: Api) -> list[Json]:
        """What all pods of the pool ask for, those of others included."""
        with self._lock:
            if self._pods_at is None or time.monotonic() - self._pods_at > KNOWN_S:
                pages = api.pages("/api/v1/pods", fieldSelector="status.phase!=Succeeded,status.phase!=Failed")
                pods = (pod for page in pages for pod in page.get("items") or ())
                self._pods = [_asked(pod) for pod in pods if not _withdrawn(pod)]
                self._pods_at = time.monotonic()
            return self._pods

    def _known(self, api: Api) -> list[Json]:
        with self._lock:
            if self._asked_at is None or time.monotonic() - self._asked_at > KNOWN_S:
                pages = api.pages("/api/v1/nodes")
                self._nodes = [_reduced(node) for page in pages for node in page.get("items") or ()]
                self._asked_at = time.monotonic()
            return self._nodes


def _reduced(node: Json) -> Json:
    return {
        "name": node["metadata"]["name"],
        "labels": node["metadata"].get("labels") or {},
        "closed": bool((node.get("spec") or {}).get("unschedulable")),
        "offers": (node.get("status") or {}).get("allocatable") or {},
    }


def _has(node: Json, wanted: NodeClass) -> bool:
    return bool(wanted.labels.items() <= node["labels"].items())


def _offers(node: Json, name: str) -> float:
    return quantity(node["offers"].get(name, "0"))


def _described(nodes: list[Json], asked: Json) -> str:
    sizes = Counter(", ".join(f"{node['offers'].get(name, '0')} {name}" for name in sorted(asked)) for node in nodes)
    return "; ".join(f"{count} with {size}" for size, count in sizes.most_common(3)) or "none"


def _asked(pod: Json) -> Json:
    """A pod's node, empty while it has none, and the sum of what its containers ask for."""
    requests: Counter[str] = Counter()
    for container in pod["spec"].get("containers") or ():
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            requests[name] += quantity(value)  # type: ignore[assignment]
    return {"node": pod["spec"].get("nodeName") or "", "requests": requests}


def _fits(node: Json, asked: Json, taken: Counter[str]) -> bool:
    return all(_offers(node, name) - taken[name] >= quantity(value) for name, value in asked.items())


def _withdrawn(pod: Json) -> bool:
    """Whether a pod goes without ever having had a node."""
    return "deletionTimestamp" in pod.get("metadata", {}) and not pod["spec"].get("nodeName")
