"""A simulated pool of 200 nodes of eight GPUs: jobs sent by the broker against bare Jobs by the same client, and
5,000 jobs from their hold to their charge.

While submissions are measured the pool's controllers rest, so that submissions are measured and not jobs. The bare
side makes Jobs of the same form by the official client's own call, over as many connections at a time.
"""

import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import kubernetes
from clusters.kubernetes.pool import KubernetesPool
from clusters.kubernetes.region import PoolRegion
from harness import Figure, at_least, at_most, in_turn, progress
from site_of_bench import SCRIPT, BenchSite
from sqlalchemy import func, select

from adapters.k8s import K8sPool, manifests
from adapters.port import JobSpec
from broker.bootstrap import bootstrap
from broker.dispatch import dispatch
from broker.let_go import let_go
from broker.moves import jobs
from broker.reconcile import reconcile
from broker.settings import Settings
from storage.tables import utcnow

JOBS = 500
ROUNDS = 5
THROUGH = 5000
NODES = 200
MEMORY_MIB_MAX = 300
THROUGH_S_MAX = 1200
BARE = "idf-bare"
CONTROLLERS = ("kube-controller-manager", "kube-scheduler", "kwok")
_numbers = count(1)


def measure() -> list[Figure]:
    with pool_site() as (pool, site):
        memory_mib = through(site)
        for name in CONTROLLERS:
            pool.stop_daemon(name)
        rates = in_turn(ROUNDS, lambda: ours(pool, site), lambda: raw(pool, site))
    return [
        at_least("dispatch_k8s", "jobs/s", *rates, bar=0.8),
        at_most("dispatch_k8s_memory", "MiB", [memory_mib], MEMORY_MIB_MAX),
    ]


def through(site: BenchSite) -> float:
    """Bring 5,000 jobs from their hold to their charge; return this process's peak of memory, in MiB."""
    site.hold_jobs(THROUGH)
    desk = site.desk()
    began = time.monotonic()
    sent = settled = 0
    while settled < THROUGH:
        if time.monotonic() - began > THROUGH_S_MAX:
            raise RuntimeError(f"{settled} of {THROUGH} jobs are settled after {THROUGH_S_MAX} s")
        sent += dispatch(desk) if sent < THROUGH else 0
        reconcile(desk)
        let_go(desk)
        settled = _settled(site)
    took_s = time.monotonic() - began
    _require_each_once(site)
    progress(f"{THROUGH} jobs from hold to charge in {took_s:.0f} s, {THROUGH / took_s:.0f} a second")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _settled(site: BenchSite) -> int:
    with site.services.database.read() as session:
        return int(session.scalar(select(func.count()).where(jobs.c.settled_at.is_not(None))) or 0)


def _require_each_once(site: BenchSite) -> None:
    """Each job succeeded, was sent once, and was charged for what it ran: neither nothing nor its whole hold."""
    with site.services.database.read() as session:
        rows = session.execute(
            select(jobs.c.state, jobs.c.site_job_id, jobs.c.charged_credits, jobs.c.held_credits)
        ).all()
    odd = [row for row in rows if row.state != "succeeded" or not 0 < row.charged_credits < row.held_credits]
    if odd or len({row.site_job_id for row in rows}) != len(rows):
        raise RuntimeError(f"{len(odd)} of {len(rows)} jobs went wrong, such as {odd[:1]}")


def ours(pool: KubernetesPool, site: BenchSite) -> float:
    site.hold_jobs(JOBS)
    desk = site.desk()
    began = time.perf_counter()
    sent = 0
    while sent < JOBS:
        sent += dispatch(desk)
    rate = JOBS / (time.perf_counter() - began)
    empty(pool)
    return rate


def raw(pool: KubernetesPool, site: BenchSite) -> float:
    scheduler = site.desk().scheduler
    assert isinstance(scheduler, K8sPool)
    settings = scheduler._settings
    bodies = [manifests.job(_spec(), settings, manifests.Payload("bare"), "bare") for _ in range(JOBS)]
    batch = kubernetes.client.BatchV1Api(pool.client("broker"))
    with ThreadPoolExecutor(settings.parallel) as threads:
        began = time.perf_counter()
        made = list(threads.map(lambda body: batch.create_namespaced_job(BARE, body), bodies))
        rate = len(made) / (time.perf_counter() - began)
    empty(pool)
    return rate


def _spec() -> JobSpec:
    name = f"idf-job-bare{next(_numbers):012}"
    return JobSpec(name, BARE, 1, "a100", 600, script=SCRIPT.encode(), deadline=utcnow().replace(year=2099))


def empty(pool: KubernetesPool) -> None:
    """Delete all Jobs, so that each side begins alike."""
    core, batch = pool.core(), kubernetes.client.BatchV1Api(pool.client())
    for space in core.list_namespace().items:
        if space.metadata.name.startswith("idf-"):
            batch.delete_collection_namespaced_job(space.metadata.name, propagation_policy="Background")


@contextmanager
def pool_site() -> Iterator[tuple[KubernetesPool, Any]]:
    """Start a pool and enrol it; everything is ended and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="idf-bench-"))
    pool = KubernetesPool.start("bench", folder, node=False, simulated_run_s=5)
    try:
        pool.simulate(NODES)
        region = PoolRegion.make(folder / "region", pool, IDF_BROKER_EMBEDDED_WORKER="false")
        region.start()
        try:
            region.enrol("9000h")
        finally:
            region.stop()
        services = bootstrap(Settings(data_dir=region.folder / "broker", allow_loopback_sites=True))
        site = BenchSite(pool, region, services)
        for path, body in manifests.namespace_objects(BARE, site.desk().scheduler._settings):
            pool.client().call_api("POST", f"{pool.server}{path}", {"Content-Type": "application/json"}, body)
        yield pool, site
        services.close()
    finally:
        pool.stop()
        shutil.rmtree(folder, ignore_errors=True)
