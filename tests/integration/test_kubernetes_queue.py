"""A pool with a queue: jobs wait suspended, start when admitted, and an eviction is the end of an attempt."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from integration.slurm_jobs import fresh, known, spec, wait_for
from integration.test_kubernetes_jobs import has_run

from adapters.port import Accepted, After, AfterKind, Attempt, AttemptState, JobSpec, Known

if TYPE_CHECKING:
    from clusters.kubernetes.job_queue import Queue
    from clusters.kubernetes.pool import KubernetesPool

    from adapters.k8s import K8sPool

pytestmark = pytest.mark.kubernetes
ACCOUNT, CLUSTER_QUEUE = "idf-queue", "gpus"


@pytest.fixture
def queue(kubernetes_pool: "KubernetesPool") -> "Iterator[Queue]":
    from clusters.kubernetes.job_queue import Queue

    made = Queue(kubernetes_pool.client(), CLUSTER_QUEUE)
    yield made
    made.close()
    assert made.problem is None


@pytest.fixture
def site(k8s_site: "Callable[..., K8sPool]", queue: "Queue") -> "K8sPool":
    from adapters.k8s import Kueue

    return k8s_site(kueue=Kueue(CLUSTER_QUEUE))


def send(site: "K8sPool", job: JobSpec) -> Known:
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted), answer
    return known(job, answer.site_job_id)


def simulated(**changes: object) -> JobSpec:
    return spec(ACCOUNT, "true\n", gpus=1, gpu_type="v100", **changes)  # type: ignore[arg-type]


def attempts(site: "K8sPool", job: Known) -> tuple[Attempt, ...]:
    return site.observe([job]).attempts.get(job.name, ())


def states(site: "K8sPool", job: Known) -> list[AttemptState]:
    return [attempt.state for attempt in attempts(site, job)]


def test_a_job_waits_in_the_queue_until_it_is_admitted(site: "K8sPool", queue: "Queue") -> None:
    job = send(site, simulated())
    wait_for(lambda: states(site, job) == [AttemptState.QUEUED])
    [waiting] = attempts(site, job)
    assert (waiting.reason, waiting.started_at, waiting.elapsed_s) == (
        "waits to be admitted by the pool's queue", None, 0,
    )  # fmt: skip
    said = wait_for(lambda: [each for each in site.site_events(ACCOUNT, job.name) if each.reason == "Pending"])
    assert said[0].message == "the quota of nvidia.com/gpu is used up"
    queue.admit(job.site_job_id)
    wait_for(lambda: states(site, job) == [AttemptState.SUCCEEDED], limit_s=60)


def test_a_job_that_is_suspended_again_is_a_new_attempt(
    site: "K8sPool", queue: "Queue", real_node: "KubernetesPool"
) -> None:
    job = send(site, spec(ACCOUNT, "sleep 8\n", gpus=1))
    queue.admit(job.site_job_id)
    wait_for(lambda: has_run(site, job), limit_s=60)
    queue.evict(job.site_job_id)
    wait_for(lambda: states(site, job) == [AttemptState.PREEMPTED, AttemptState.QUEUED], limit_s=60)
    first, second = attempts(site, job)
    assert first.started_at is not None
    assert first.ended_at is not None
    assert first.elapsed_s > 0
    assert (second.started_at, second.elapsed_s) == (None, 0)
    queue.admit(job.site_job_id)
    wait_for(lambda: states(site, job) == [AttemptState.PREEMPTED, AttemptState.SUCCEEDED], limit_s=60)
    again, last = attempts(site, job)
    assert again == first, "an attempt that ended is told the same for ever"
    assert last.started_at is not None
    assert last.started_at >= first.ended_at
    assert first.source_key != last.source_key


def test_a_cancelled_job_is_not_let_go_again(site: "K8sPool", queue: "Queue", real_node: "KubernetesPool") -> None:
    waits, runs = send(site, simulated()), send(site, spec(ACCOUNT, "sleep 50\n", gpus=1))
    queue.admit(runs.site_job_id)
    wait_for(lambda: states(site, runs) == [AttemptState.RUNNING], limit_s=60)
    assert all(isinstance(answer, Accepted) for answer in site.cancel([waits, runs]).values())
    queue.admit(waits.site_job_id)
    for job in (waits, runs):
        wait_for(lambda job=job: states(site, job) == [AttemptState.CANCELLED], limit_s=60)
    assert attempts(site, waits)[0].started_at is None


def test_a_job_queues_when_its_time_has_come(site: "K8sPool", queue: "Queue") -> None:
    job = send(site, simulated(begin=datetime.now(UTC) + timedelta(seconds=3)))
    queue.admit(job.site_job_id)
    assert states(site, job) in ([], [AttemptState.QUEUED])
    wait_for(lambda: states(site, job) == [AttemptState.SUCCEEDED], limit_s=60)
    assert attempts(site, job)[0].started_at is not None


def test_a_job_after_another_queues_when_that_one_ended(site: "K8sPool", queue: "Queue") -> None:
    first = send(site, simulated())
    second = send(site, simulated(after=(After(AfterKind.OK, first.site_job_id),)))
    queue.admit(second.site_job_id)
    wait_for(lambda: states(site, second) == [AttemptState.QUEUED])
    queue.admit(first.site_job_id)
    wait_for(lambda: states(site, second) == [AttemptState.SUCCEEDED], limit_s=60)


def test_enrolment_looks_at_the_queue(k8s_site: "Callable[..., K8sPool]", site: "K8sPool") -> None:
    from adapters.k8s import Kueue

    assert not [problem for problem in site.check().problems if "ueue" in problem]
    [problem] = [each for each in k8s_site(kueue=Kueue("other")).check().problems if "ueue" in each]
    assert problem.startswith("there is no ClusterQueue other by Kueue's API v1beta1")
