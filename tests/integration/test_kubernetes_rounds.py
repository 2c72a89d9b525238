"""Rounds of faults on a real pool: no job doubled, none lost, none charged otherwise than its pod's own times say.

`make torture-k8s ROUNDS=200` runs them and prints the table; `make test` runs ten.
"""

import json
import os
import random
import sys
import threading
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
from clusters.people import Shell
from integration.slurm_jobs import wait_for
from integration.test_fault_rounds import HOUR_S, _make_older, _print, clock
from kubernetes.client.exceptions import ApiException

from broker.accounts import namespace_of

if TYPE_CHECKING:
    from clusters.kubernetes.pool import KubernetesPool

pytestmark = [pytest.mark.kubernetes, pytest.mark.torture]
ROUNDS = int(os.environ.get("IDF_TORTURE_ROUNDS", "10"))
JOBS_A_ROUND = 4
WEIGHT = 2000
JOB = "idf-compute/job"
QUOTA = "idf-backstop"
GONE_S = 70
"""The pool's garbage collector takes the pods of a node that is gone for some 40 s, when it looks every 20 s."""
COMPACT = """
import json, sys, urllib.request as web
def ask(what, body):
    return json.load(web.urlopen(f"http://127.0.0.1:2379/v3/kv/{what}", json.dumps(body).encode(), 10))
ask("compaction", {"revision": ask("range", {"key": "AA=="})["header"]["revision"], "physical": True})
"""


@dataclass
class Rig:
    """A region whose pool is reached through a proxy that cuts."""

    region: PoolRegion
    proxy: CuttingProxy
    space: str
    """The namespace of the project whose jobs these are; other tests left theirs at this pool."""

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
    try:
        region.start()
        region.enrol("10000h")
        _make_older(region)
        (project,) = (row for row in Shell(region, "ines").json("project", "list") if row["name"] == "vision")
        yield Rig(region, proxy, namespace_of(project["id"]))
    finally:
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


@contextmanager
def streams_cut(rig: Rig, _: int) -> Iterator[None]:
    """Everything that is open breaks off, the two streams among it, and again while jobs come in."""
    rig.proxy.cut_all()
    yield
    for _ in range(1 + random.randrange(3)):
        time.sleep(random.uniform(0, 1))
        rig.proxy.cut_all()


@contextmanager
def history_forgotten(rig: Rig, turn: int) -> Iterator[None]:
    """etcd compacts all it has, and an API server that knows nothing of before answers 410 to whoever resumes."""
    (rig.pool.kill_daemon if turn % 2 else rig.pool.stop_daemon)("kube-apiserver")
    done = rig.pool.inside([sys.executable, "-c", COMPACT])
    assert done.returncode == 0, done.stderr
    rig.pool.start_daemon("kube-apiserver")
    yield
    rig.pool.wait(rig.pool.answers, "the API server did not come back", "kube-apiserver")


@contextmanager
def clock_off(rig: Rig, turn: int) -> Iterator[None]:
    """The broker's clock is an hour ahead, or behind; the pool's is right."""
    rig.region.stop()
    with clock(rig.region, f"{'+' if turn % 2 else '-'}{HOUR_S}"):
        rig.region.start()
        yield
        time.sleep(random.uniform(0, 4))
        rig.region.kill()
    rig.region.start()


@contextmanager
def pods_evicted(rig: Rig, _: int) -> Iterator[None]:
    yield
    for pod in _running(rig):
        name = pod.metadata.name
        with _may_be_gone():
            rig.pool.core().create_namespaced_pod_eviction(name, rig.space, {"metadata": {"name": name}})


@contextmanager
def jobs_deleted(rig: Rig, _: int) -> Iterator[None]:
    yield
    batch = kubernetes.client.BatchV1Api(rig.pool.client())
    for pod in _running(rig):
        with _may_be_gone():
            batch.delete_namespaced_job(pod.metadata.labels[JOB], rig.space, propagation_policy="Background")


def _running(rig: Rig) -> list[Any]:
    """Pods that run; waits for the first, for a while."""
    found: list[Any] = []
    for _ in range(50):
        pods = rig.pool.core().list_namespaced_pod(rig.space, label_selector=JOB, field_selector="status.phase=Running")
        found = [pod for pod in pods.items if pod.metadata.deletion_timestamp is None]
        if found:
            break
        time.sleep(0.1)
    return found


@contextmanager
def _may_be_gone() -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        if error.status != 404:
            raise


@contextmanager
def quota_full(rig: Rig, _: int) -> Iterator[None]:
    """The pool's admin takes the project's backstop away: admission refuses every further Job."""
    _set_quota(rig, "0")
    yield
    time.sleep(2)
    _set_quota(rig, "20000")


def _set_quota(rig: Rig, jobs_max: str) -> None:
    core, hard = rig.pool.core(), "count/jobs.batch"
    core.patch_namespaced_resource_quota(QUOTA, rig.space, {"spec": {"hard": {hard: jobs_max}}})

    def counts() -> bool:
        quota = core.read_namespaced_resource_quota(QUOTA, rig.space)
        return bool(quota.spec.hard[hard] == (quota.status.hard or {}).get(hard))

    wait_for(counts)


@contextmanager
def node_deleted(rig: Rig, turn: int) -> Iterator[None]:
    """The node is taken out of the pool, for long enough to lose its pods or not, and comes back."""
    rig.pool.core().delete_node(rig.pool.node)
    yield
    time.sleep(GONE_S if turn % 2 else random.uniform(0, 3))
    rig.pool.kill_daemon("kubelet")
    rig.pool.start_daemon("kubelet")
    rig.pool.wait(rig.pool.node_is_ready, "the node did not come back", "kubelet")


FAULTS: dict[str, Fault] = {
    "broker killed": broker_killed,
    "request cut off": cut(TO_SITE, 12_000),
    "answer cut off": cut(FROM_SITE, 20_000),
    "streams cut": streams_cut,
    "history forgotten": history_forgotten,
    "kubelet restarted": restarted("kubelet"),
    "pods evicted": pods_evicted,
    "Jobs deleted": jobs_deleted,
    "quota full": quota_full,
    "clock off by an hour": clock_off,
    "node deleted": node_deleted,
    "API server restarted": restarted("kube-apiserver"),
    "etcd restarted": restarted("kube-apiserver", "etcd"),
    "controllers restarted": restarted("kube-controller-manager", "kube-scheduler"),
}
ENDS = {
    "kubelet restarted": {"node_failed"},
    "pods evicted": {"preempted"},
    "Jobs deleted": {"cancelled"},
    "quota full": {"failed"},
    "node deleted": {"node_failed", "cancelled"},
}
"""How else than well a job may end by a fault."""


class Record:
    """Every pod of ours that the pool ever had, as it was last, also of those that are gone."""

    def __init__(self, pool: "KubernetesPool") -> None:
        self._every, self._stop = pool.core().list_pod_for_all_namespaces, threading.Event()
        self._lock = threading.Lock()
        self._pods: dict[str, dict[str, Any]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def of(self, name: str) -> list[Any]:
        with self._lock:
            return list(self._pods.get(name, {}).values())

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        since = None
        while not self._stop.is_set():
            try:
                since = self._follow(since or self._list())
            except ApiException as error:
                since = None if error.status == 410 else since
                self._stop.wait(0.05)
            except Exception:  # noqa: BLE001  the API server is away
                self._stop.wait(0.05)

    def _list(self) -> str:
        listed = self._every(label_selector=JOB, _request_timeout=5)
        for pod in listed.items:
            self._take(pod)
        return str(listed.metadata.resource_version)

    def _follow(self, since: str) -> str:
        """Take what changes for a while, from a version on, so that no change falls between two looks."""
        watch = kubernetes.watch.Watch()
        stream = watch.stream(
            self._every, label_selector=JOB, resource_version=since, timeout_seconds=5, _request_timeout=10
        )
        for event in stream:
            self._take(event["object"])
        return str(watch.resource_version)

    def _take(self, pod: Any) -> None:
        with self._lock:
            self._pods.setdefault(pod.metadata.labels[JOB], {})[pod.metadata.uid] = pod


class Jobs:
    """Jobs that say once that they ran."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self.ids = rig, []
        self.record = Record(rig.pool)
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

    def tally(self, ids: list[str], fault: str) -> dict[str, list[str]]:
        """Name the jobs of a round that ran twice or never, or were charged otherwise than their pod says.

        At once, for a node that is gone takes the logs of all its pods with it.
        """
        batch = kubernetes.client.BatchV1Api(self._rig.pool.client())
        named = Counter(job.metadata.name for job in batch.list_job_for_all_namespaces().items)
        found: dict[str, list[str]] = {"doubled": [], "lost": [], "mischarged": []}
        for id_ in ids:
            job, pods = self.job(id_), self.record.of(f"idf-{id_}")
            log = "".join(map(self._log, pods))
            if named[f"idf-{id_}"] > 1 or len(pods) > 1 or log.count("ran") > 1:
                found["doubled"].append(id_)
            elif self._is_lost(job, fault, log, there=bool(named[f"idf-{id_}"])):
                found["lost"].append(id_)
            elif [(usage["elapsed_s"], usage["charged_credits"]) for usage in job["usage"]] != list(map(_due, pods)):
                found["mischarged"].append(id_)
        return found

    def doubled(self) -> list[str]:
        """Name the jobs that had a second pod, at any time until now."""
        return [id_ for id_ in self.ids if len(self.record.of(f"idf-{id_}")) > 1]

    def _is_lost(self, job: Any, fault: str, log: str, *, there: bool) -> bool:
        """Whether a job ended otherwise than it may; what takes a Job or a pod away takes its log too."""
        whole = job["state"] == "succeeded" and log == "ran\n" and there
        cut_short = fault in ENDS and job["state"] in {"succeeded", *ENDS[fault]} and log in ("", "ran\n")
        if not whole and not cut_short:
            sys.stderr.write(f"   {fault}: {job['state']}, {job['reason']}, log {log!r}, Job {there}\n")
        return not whole and not cut_short

    def _log(self, pod: Any) -> str:
        """A pod's log, empty where it went with its pod, or where its container never began (400 says which way)."""
        try:
            return str(self._rig.pool.core().read_namespaced_pod_log(pod.metadata.name, pod.metadata.namespace))
        except ApiException as error:
            if error.status not in (400, 404):
                raise
            return ""


def _due(pod: Any) -> tuple[int, int]:
    """The seconds and the credits that a pod comes to by its own times, or by those of whoever took it away."""
    state = (pod.status.container_statuses or [None])[0]
    ended = state.state.terminated if state else None
    lost = next((c for c in pod.status.conditions or () if c.type == "DisruptionTarget"), None)
    end = ended.finished_at if ended else lost.last_transition_time if lost else None
    start = pod.status.start_time
    elapsed_s = int((end - start).total_seconds()) if start and end else 0
    return elapsed_s, elapsed_s * WEIGHT


@pytest.mark.timeout(600 + 60 * ROUNDS)
def test_nothing_is_doubled_lost_or_mischarged(rig: Rig) -> None:
    jobs, turns, fault_of = Jobs(rig), Counter[str](), dict[str, str]()
    tally: dict[str, list[str]] = {"doubled": [], "lost": [], "mischarged": []}
    for number in range(ROUNDS):
        name = list(FAULTS)[number % len(FAULTS)]
        before = jobs.submit(1, seconds=random.uniform(0, 3) + 2 * (name in ENDS))
        time.sleep(random.uniform(0, 1.5))
        with FAULTS[name](rig, turns[name]):
            during = jobs.submit(JOBS_A_ROUND - 1, seconds=random.uniform(0, 1))
            time.sleep(random.uniform(0, 1))
        turns[name] += 1
        fault_of |= dict.fromkeys([*before, *during], name)
        jobs.wait([*before, *during], limit_s=180 + GONE_S)
        for what, ids in jobs.tally([*before, *during], name).items():
            tally[what] += ids
        sys.stderr.write(f"   round {number + 1}/{ROUNDS}: {name}\n")
    jobs.record.close()
    tally["doubled"] = sorted({*tally["doubled"], *jobs.doubled()})
    _print(turns, fault_of, tally, rig.proxy.cuts)
    assert not any(tally.values()), tally
    assert len(FAULTS) > ROUNDS or rig.proxy.cuts, "no cut fell into a connection: the test proved nothing"
