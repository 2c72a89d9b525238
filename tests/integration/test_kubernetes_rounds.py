"""Rounds of faults on a real pool: no job doubled, none lost, none charged otherwise than its pod's own times say.

`make torture-k8s ROUNDS=200` runs them and prints the table; `make test` runs ten.
"""

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import kubernetes
import pytest
from clusters.cutting_proxy import FROM_SITE, TO_SITE, CuttingProxy
from clusters.kubernetes.region import PoolRegion
from integration.test_fault_rounds import _print

if TYPE_CHECKING:
    from clusters.kubernetes.pool import KubernetesPool

pytestmark = [pytest.mark.kubernetes, pytest.mark.torture]
ROUNDS = int(os.environ.get("IDF_TORTURE_ROUNDS", "10"))
JOBS_A_ROUND = 4
WEIGHT = 2000


@dataclass
class Rig:
    """A region whose pool is reached through a proxy that cuts."""

    region: PoolRegion
    proxy: CuttingProxy

    @property
    def pool(self) -> "KubernetesPool":
        pool: KubernetesPool = self.region.cluster
        return pool


Fault = Callable[[Rig, int], AbstractContextManager[None]]


@pytest.fixture
def rig(real_node: "KubernetesPool", tmp_path: Path) -> Iterator[Rig]:
    server = urlsplit(real_node.server)
    proxy = CuttingProxy(str(server.hostname), int(server.port or 0))
    region = PoolRegion.make(tmp_path / "region", real_node)
    region.kubeconfig = _through(proxy, real_node.kubeconfig("broker"), tmp_path / "kubeconfig")
    region.start()
    region.enrol("10000h")
    yield Rig(region, proxy)
    region.stop()
    proxy.close()
    assert "in order" in region.admin("doctor"), "quotas.invariants.broken finds nothing"


def _through(proxy: CuttingProxy, kubeconfig: Path, target: Path) -> Path:
    content = json.loads(kubeconfig.read_text())
    content["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    target.write_text(json.dumps(content))
    return target


@contextmanager
def broker_killed(rig: Rig, _: int) -> Iterator[None]:
    yield
    time.sleep(random.uniform(0, 0.5))
    rig.region.kill()
    rig.region.start()


def cut(direction: str, size_max: int) -> Fault:
    """Connections are cut after so many further bytes of a direction, a few times."""

    @contextmanager
    def fault(rig: Rig, _: int) -> Iterator[None]:
        rig.proxy.cut_after(direction, random.randrange(size_max))
        yield
        for _ in range(random.randrange(4)):
            time.sleep(random.uniform(0, 0.5))
            rig.proxy.cut_after(direction, random.randrange(size_max))
        time.sleep(1)
        rig.proxy.let_pass()

    return fault


def restarted(*daemons: str) -> Fault:
    """Daemons end, in order or by SIGKILL, and come back."""

    @contextmanager
    def fault(rig: Rig, turn: int) -> Iterator[None]:
        for daemon in daemons:
            (rig.pool.kill_daemon if turn % 2 else rig.pool.stop_daemon)(daemon)
        yield
        time.sleep(random.uniform(0, 3))
        rig.pool.start_daemon(*reversed(daemons))
        rig.pool.wait(rig.pool.answers, "the API server did not come back", "kube-apiserver")
        rig.pool.wait(rig.pool.node_is_ready, "the node did not come back", "kubelet")

    return fault


FAULTS: dict[str, Fault] = {
    "broker killed": broker_killed,
    "request cut off": cut(TO_SITE, 12_000),
    "answer cut off": cut(FROM_SITE, 20_000),
    "API server restarted": restarted("kube-apiserver"),
    "etcd restarted": restarted("kube-apiserver", "etcd"),
    "controllers restarted": restarted("kube-controller-manager", "kube-scheduler"),
    "kubelet restarted": restarted("kubelet"),
}


class Jobs:
    """Jobs that say once that they ran."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self.ids = rig, []
        headers = {"Authorization": f"Bearer {rig.region.token('ines')}"}
        self._client = httpx.Client(base_url=f"{rig.region.url}/v1", headers=headers, timeout=30)

    def submit(self, number: int, *, seconds: float) -> list[str]:
        script = f"#!/bin/sh\necho ran\nsleep {seconds}\n"
        body = {"project": "vision", "script": script, "time_limit_s": 300}
        for _ in range(number):
            headers = {"Idempotency-Key": str(uuid4())}
            answer = self._client.post("/jobs", json=body, headers=headers).raise_for_status()
            self.ids.append(answer.json()["id"])
        return self.ids[-number:]

    def wait(self, ids: list[str], *, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        for id_ in ids:
            while (job := self.job(id_))["settled_at"] is None:
                assert time.monotonic() < end, job
                time.sleep(0.2)

    def job(self, id_: str) -> Any:
        return self._client.get(f"/jobs/{id_}").raise_for_status().json()

    def tally(self) -> dict[str, list[str]]:
        """Name the jobs that stand or ran at the site twice or never, or were charged otherwise than their pod says."""
        core = self._rig.pool.core()
        jobs = kubernetes.client.BatchV1Api(self._rig.pool.client()).list_job_for_all_namespaces().items
        named = Counter(job.metadata.name for job in jobs)
        pods: dict[str, list[Any]] = {}
        for pod in core.list_pod_for_all_namespaces(label_selector="idf-compute/job").items:
            pods.setdefault(pod.metadata.labels["idf-compute/job"], []).append(pod)
        found: dict[str, list[str]] = {"doubled": [], "lost": [], "mischarged": []}
        for id_ in self.ids:
            name = f"idf-{id_}"
            own = pods.get(name, [])
            logs = [core.read_namespaced_pod_log(pod.metadata.name, pod.metadata.namespace) for pod in own]
            if named[name] > 1 or "".join(logs).count("ran") > 1:
                found["doubled"].append(id_)
            elif not named[name] or len(own) != 1 or logs != ["ran\n"]:
                found["lost"].append(id_)
            elif not self._is_charged(id_, own[0]):
                found["mischarged"].append(id_)
        return found

    def _is_charged(self, id_: str, pod: Any) -> bool:
        ended = pod.status.container_statuses[0].state.terminated.finished_at
        elapsed_s = int((ended - pod.status.start_time).total_seconds())
        job = self.job(id_)
        amounts = [(usage["elapsed_s"], usage["charged_credits"]) for usage in job["usage"]]
        return job["state"] == "succeeded" and amounts == [(elapsed_s, elapsed_s * WEIGHT)]


@pytest.mark.timeout(600 + 60 * ROUNDS)
def test_nothing_is_doubled_lost_or_mischarged(rig: Rig) -> None:
    jobs, turns, fault_of = Jobs(rig), Counter[str](), dict[str, str]()
    for number in range(ROUNDS):
        name = list(FAULTS)[number % len(FAULTS)]
        before = jobs.submit(1, seconds=random.uniform(0, 3))
        time.sleep(random.uniform(0, 1.5))
        with FAULTS[name](rig, turns[name]):
            during = jobs.submit(JOBS_A_ROUND - 1, seconds=random.uniform(0, 1))
            time.sleep(random.uniform(0, 1))
        turns[name] += 1
        fault_of |= dict.fromkeys([*before, *during], name)
        jobs.wait([*before, *during], limit_s=180)
        sys.stderr.write(f"   round {number + 1}/{ROUNDS}: {name}\n")
    tally = jobs.tally()
    _print(turns, fault_of, tally, rig.proxy.cuts)
    assert not any(tally.values()), tally
    assert len(FAULTS) > ROUNDS or rig.proxy.cuts, "no cut fell into a connection: the test proved nothing"
