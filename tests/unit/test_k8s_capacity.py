"""Whether a pool has room now: what its nodes offer less what their pods ask for."""

from typing import Any

import pytest

from adapters.k8s.capacity import Capacity
from adapters.k8s.settings import NodeClass

A100 = NodeClass(labels={"gpu": "a100"})


class Lists:
    """The two lists that are read, as an API server gives them."""

    def __init__(self, nodes: list[Any], pods: list[Any]) -> None:
        self._lists = {"/api/v1/nodes": nodes, "/api/v1/pods": pods}

    def pages(self, path: str, **_: Any) -> list[Any]:
        items = self._lists[path]
        return [{"items": items[:1]}, {"items": items[1:]}]


def node(name: str, gpus: int = 8, *, label: str = "a100", closed: bool = False) -> Any:
    offers = {"nvidia.com/gpu": str(gpus), "cpu": "64", "memory": "512Gi"}
    spec = {"unschedulable": True} if closed else {}
    return {"metadata": {"name": name, "labels": {"gpu": label}}, "spec": spec, "status": {"allocatable": offers}}


def pod(on: str | None, gpus: int) -> Any:
    containers = [{"resources": {"requests": {"nvidia.com/gpu": str(gpus), "cpu": "500m"}}}, {}]
    return {"spec": {"containers": containers, **({"nodeName": on} if on else {})}}


def room(nodes: list[Any], pods: list[Any], gpus: int = 4, *, apart: int = 1) -> bool:
    requests = {"nvidia.com/gpu": str(gpus), "cpu": "1", "memory": "1Gi"}
    spec: Any = {"containers": [{"resources": {"requests": requests}}], **({"affinity": {}} if apart > 1 else {})}
    body = {"spec": {"completions": apart, "template": {"spec": spec}}}
    return Capacity().has_room(Lists(nodes, pods), A100, body)  # type: ignore[arg-type]


CASES: dict[str, tuple[list[Any], list[Any], bool]] = {
    "an empty node": ([node("a")], [], True),
    "half a node": ([node("a")], [pod("a", 4)], True),
    "too little of each": ([node("a"), node("b")], [pod("a", 5), pod("b", 5)], False),
    "other pods of another kind of node": ([node("a"), node("c", label="v100")], [pod("c", 8)], True),
    "only nodes of another kind": ([node("c", label="v100")], [], False),
    "a node that is being emptied": ([node("a", closed=True)], [], False),
    "somebody waits already": ([node("a")], [pod(None, 8)], False),
    "somebody waits for no GPU": ([node("a")], [{"spec": {"containers": [{}]}}], True),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_there_is_room_where_a_node_has_it(case: str) -> None:
    nodes, pods, expected = CASES[case]
    assert room(nodes, pods) is expected


def test_a_job_over_several_nodes_needs_room_on_each() -> None:
    nodes = [node("a"), node("b")]
    assert room(nodes, [pod("a", 4)], apart=2)
    assert not room(nodes, [pod("a", 5)], apart=2)
