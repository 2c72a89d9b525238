"""Whether a pool has nodes that a job could ever run on: without that, its pods would stay Pending for ever."""

import threading
import time
from collections import Counter

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

    def _known(self, api: Api) -> list[Json]:
        with self._lock:
            if self._asked_at is None or time.monotonic() - self._asked_at > KNOWN_S:
                pages = api.pages("/api/v1/nodes")
                self._nodes = [_reduced(node) for page in pages for node in page.get("items") or ()]
                self._asked_at = time.monotonic()
            return self._nodes


def _reduced(node: Json) -> Json:
    return {
        "labels": node["metadata"].get("labels") or {},
        "offers": (node.get("status") or {}).get("allocatable") or {},
    }


def _has(node: Json, wanted: NodeClass) -> bool:
    return bool(wanted.labels.items() <= node["labels"].items())


def _offers(node: Json, name: str) -> float:
    return quantity(node["offers"].get(name, "0"))


def _described(nodes: list[Json], asked: Json) -> str:
    sizes = Counter(", ".join(f"{node['offers'].get(name, '0')} {name}" for name in sorted(asked)) for node in nodes)
    return "; ".join(f"{count} with {size}" for size, count in sizes.most_common(3)) or "none"
