"""What goes wrong in a pool: nothing is sent twice, nothing is lost, and each attempt is told once with its time."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from integration.slurm_jobs import fresh, known, sent, spec, wait_for
from integration.test_kubernetes_jobs import ended, send

from adapters.k8s import manifests
from adapters.k8s.client import Api, Gone
from adapters.port import Absent, Accepted, Attempt, AttemptState, Known, Rejected, Uncertain, Unreachable

if TYPE_CHECKING:
    from clusters.kubernetes.pool import KubernetesPool

    from adapters.k8s import K8sPool

pytestmark = pytest.mark.kubernetes
ACCOUNT = "idf-faults"
SIMULATED = {"gpu_type": "v100"}


@pytest.fixture
def site(k8s_site: "Callable[..., K8sPool]", kubernetes_pool: "KubernetesPool") -> "K8sPool":
    return k8s_site()


def newest(site: "K8sPool", job: Known) -> Attempt | None:
    told = site.observe([job]).attempts.get(job.name, ())
    return told[-1] if told else None


def running(site: "K8sPool", job: Known) -> Attempt:
    def attempt() -> Attempt | None:
        seen = newest(site, job)
        return seen if seen and seen.state is AttemptState.RUNNING else None

    found: Attempt = wait_for(attempt, limit_s=60)
    return found


def jobs_named(pool: "KubernetesPool", name: str) -> int:
    import kubernetes

    items = kubernetes.client.BatchV1Api(pool.client()).list_namespaced_job(ACCOUNT).items
    return sum(item.metadata.name == name for item in items)


def restart_api(pool: "KubernetesPool", *, crash: bool = True) -> None:
    (pool.kill_daemon if crash else pool.stop_daemon)("kube-apiserver")
    pool.start_daemon("kube-apiserver")
    pool.wait(pool.answers, "the API server did not come back", "kube-apiserver")


def test_a_request_that_arrives_after_adoption_finds_its_name_taken(
    site: "K8sPool", k8s_site: "Callable[..., K8sPool]", kubernetes_pool: "KubernetesPool"
) -> None:
    """The batch was begun, its Job was not sent yet when the broker stalled; it wakes after the adoption."""
    job, batch = spec(ACCOUNT, **SIMULATED), fresh("batch")
    stalled = k8s_site()
    asleep, awake = threading.Event(), threading.Event()
    send_now = stalled._send

    def slow(*arguments: Any) -> Any:
        asleep.set()
        awake.wait(30)
        return send_now(*arguments)

    stalled._send = slow  # type: ignore[method-assign]
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(stalled.submit(batch, [job])[job.name]))
    thread.start()
    asleep.wait(30)
    assert site.adopt([sent(job, batch)]) == {job.name: Absent()}
    awake.set()
    thread.join()
    assert isinstance(answers[0], Uncertain)
    assert site.adopt([sent(job, batch)]) == {job.name: Absent()}
    assert isinstance(site.submit(fresh("batch"), [job])[job.name], Accepted)
    assert jobs_named(kubernetes_pool, job.name) == 1


def test_a_batch_that_slept_over_its_adoption_takes_no_older_tombstone(
    site: "K8sPool", k8s_site: "Callable[..., K8sPool]"
) -> None:
    """It has read an older batch's tombstone and is about to replace it when its own batch is adopted."""
    job, batch = spec(ACCOUNT, **SIMULATED), fresh("batch")
    assert site.adopt([sent(job, fresh("batch"))]) == {job.name: Absent()}
    stalled = k8s_site()
    api = stalled.api()
    delete = api.delete

    def after_adoption(*arguments: Any) -> None:
        assert site.adopt([sent(job, batch)]) == {job.name: Absent()}
        delete(*arguments)

    api.delete = after_adoption  # type: ignore[method-assign]
    assert isinstance(stalled.submit(batch, [job])[job.name], Uncertain)
    assert site.adopt([sent(job, batch)]) == {job.name: Absent()}


def test_a_job_is_sent_again_over_its_tombstone(site: "K8sPool", kubernetes_pool: "KubernetesPool") -> None:
    job, batch = spec(ACCOUNT, **SIMULATED), fresh("batch")
    assert site.adopt([sent(job, batch)]) == {job.name: Absent()}
    known_job = send(site, job)
    assert ended(site, known_job).state is AttemptState.SUCCEEDED
    assert isinstance(site.submit(fresh("batch"), [job])[job.name], Uncertain)
    assert site.adopt([sent(job, fresh("batch"))]) == {job.name: Accepted(known_job.site_job_id)}
    assert jobs_named(kubernetes_pool, job.name) == 1


def test_an_api_server_that_crashed_is_asked_again(site: "K8sPool", kubernetes_pool: "KubernetesPool") -> None:
    job = send(site, spec(ACCOUNT, **SIMULATED))
    ended(site, job)
    kubernetes_pool.kill_daemon("kube-apiserver")
    try:
        other = spec(ACCOUNT, **SIMULATED)
        answer = site.submit(fresh("batch"), [other])[other.name]
        assert isinstance(answer, (Unreachable, Uncertain))
        assert isinstance(site.cancel([job])[job.name], (Unreachable, Uncertain))
        quick = replace(site._settings, answer_s_max=1.0)
        site._settings = quick
        with pytest.raises(Unreachable):
            wait_for(lambda: site.observe([job]) and None, limit_s=20)
    finally:
        kubernetes_pool.start_daemon("kube-apiserver")
        kubernetes_pool.wait(kubernetes_pool.answers, "the API server did not come back", "kube-apiserver")
    site._settings = replace(site._settings, answer_s_max=30.0)
    assert newest(site, job).state is AttemptState.SUCCEEDED  # type: ignore[union-attr]
    assert site.adopt([sent(other, fresh("batch"))]) == {other.name: Absent()}
    assert ended(site, send(site, other)).state is AttemptState.SUCCEEDED


def test_a_stream_that_is_too_old_is_begun_anew(site: "K8sPool") -> None:
    before = send(site, spec(ACCOUNT, **SIMULATED))
    ended(site, before)
    watch = site._watch()
    for stream in watch._streams:
        stream._version = "1"
        stream._live.clear()
        assert stream._answer is not None
        stream._answer.shutdown()
    after = send(site, spec(ACCOUNT, **SIMULATED))
    assert ended(site, after).state is AttemptState.SUCCEEDED
    assert newest(site, before).state is AttemptState.SUCCEEDED  # type: ignore[union-attr]


def test_a_version_that_etcd_forgot_is_gone(kubernetes_pool: "KubernetesPool") -> None:
    api = Api(kubernetes_pool.kubeconfig("broker"), None, connections=1, timeout_s=10)
    with pytest.raises(Gone):
        next(_events(api))
    api.close()


def _events(api: Api) -> Iterator[Any]:
    """A watch cache answers an old version with an event of the code 410, etcd itself with that status."""
    with api.open("/api/v1/pods", (5, 5), watch="true", resourceVersion="1", timeoutSeconds=2) as answer:
        for line in answer:
            event = json.loads(line)
            if event["type"] == "ERROR" and event["object"]["code"] == 410:
                raise Gone("too old")
            yield event


def test_a_job_deleted_behind_our_back_is_still_metered(site: "K8sPool", kubernetes_pool: "KubernetesPool") -> None:
    import kubernetes

    job = send(site, spec(ACCOUNT, "sleep 50\n", **_where(kubernetes_pool)))
    running(site, job)
    batch = kubernetes.client.BatchV1Api(kubernetes_pool.client())
    batch.delete_namespaced_job(job.name, ACCOUNT, propagation_policy="Background")
    last = ended(site, job)
    assert last.state is AttemptState.CANCELLED
    assert last.elapsed_s >= 0
    assert last.started_at is not None
    assert len(site.observe([job]).attempts[job.name]) == 1
    assert isinstance(site.forget([job])[job.name], Accepted)
    wait_for(lambda: site.observe([job]).absent == {job.name}, limit_s=60)


def test_another_broker_sees_what_the_first_left_unmetered(
    site: "K8sPool", k8s_site: "Callable[..., K8sPool]", kubernetes_pool: "KubernetesPool"
) -> None:
    job = send(site, spec(ACCOUNT, **SIMULATED))
    first = ended(site, job)
    site.close()
    second = k8s_site()
    assert ended(second, job) == first
    assert isinstance(second.forget([job])[job.name], Accepted)
    assert isinstance(second.forget([job])[job.name], Accepted)
    pods = kubernetes_pool.core().list_namespaced_pod(ACCOUNT, label_selector=f"idf-compute/job={job.name}").items
    assert pods
    assert all(manifests.FINALIZER not in (pod.metadata.finalizers or ()) for pod in pods)


def test_an_evicted_pod_is_metered_once_and_not_run_again(site: "K8sPool", kubernetes_pool: "KubernetesPool") -> None:
    job = send(site, spec(ACCOUNT, "sleep 50\n", **_where(kubernetes_pool)))
    running(site, job)
    core = kubernetes_pool.core()
    pod = core.list_namespaced_pod(ACCOUNT, label_selector=f"idf-compute/job={job.name}").items[0]
    eviction = {"metadata": {"name": pod.metadata.name, "namespace": ACCOUNT}}
    core.create_namespaced_pod_eviction(pod.metadata.name, ACCOUNT, eviction)
    last = ended(site, job)
    assert last.state is AttemptState.PREEMPTED
    assert len(site.observe([job]).attempts[job.name]) == 1


def test_an_evicted_pod_of_a_job_that_may_run_twice_is_followed_by_another(
    site: "K8sPool", real_node: "KubernetesPool"
) -> None:
    job = send(site, spec(ACCOUNT, "sleep 6\n", requeues=1))
    running(site, job)
    core = real_node.core()
    pod = core.list_namespaced_pod(ACCOUNT, label_selector=f"idf-compute/job={job.name}").items[0]
    eviction = {"metadata": {"name": pod.metadata.name, "namespace": ACCOUNT}}
    core.create_namespaced_pod_eviction(pod.metadata.name, ACCOUNT, eviction)
    wait_for(lambda: len(site.observe([job]).attempts.get(job.name, ())) == 2, limit_s=60)
    assert ended(site, job).state is AttemptState.SUCCEEDED
    first, second = site.observe([job]).attempts[job.name]
    assert (first.state, second.elapsed_s >= 6) == (AttemptState.PREEMPTED, True)
    assert first.source_key != second.source_key


def test_a_user_s_own_failure_is_not_run_again(site: "K8sPool", real_node: "KubernetesPool") -> None:
    job = send(site, spec(ACCOUNT, "exit 4\n", requeues=2))
    last = ended(site, job)
    assert (last.state, last.exit_code) == (AttemptState.FAILED, 4)
    assert len(site.observe([job]).attempts[job.name]) == 1


def test_a_node_that_is_deleted_loses_its_job_once(site: "K8sPool", kubernetes_pool: "KubernetesPool") -> None:
    gone = kubernetes_pool.simulate(1, first=90, gpus=7)[0]
    try:
        job = send(site, spec(ACCOUNT, gpus=7, **SIMULATED))
        wait_for(lambda: (seen := newest(site, job)) and seen.nodes == (gone,))
    finally:
        kubernetes_pool.core().delete_node(gone)
    last = ended_within(site, job, 150)
    assert last.state in (AttemptState.NODE_FAILED, AttemptState.SUCCEEDED)
    assert len(site.observe([job]).attempts[job.name]) == 1


def ended_within(site: "K8sPool", job: Known, limit_s: float) -> Attempt:
    found: Attempt = wait_for(
        lambda: seen if (seen := newest(site, job)) and seen.state.ended else None, limit_s=limit_s
    )
    return found


def test_a_kubelet_that_was_away_loses_nothing(site: "K8sPool", real_node: "KubernetesPool") -> None:
    job = send(site, spec(ACCOUNT, "sleep 4; exit 5\n"))
    running(site, job)
    real_node.kill_daemon("kubelet")
    real_node.start_daemon("kubelet")
    real_node.wait(real_node.node_is_ready, "its GPUs did not come back", "kubelet")
    last = ended_within(site, job, 90)
    assert (last.state, last.exit_code) == (AttemptState.FAILED, 5)
    assert 4 <= last.elapsed_s <= 8
    assert len(site.observe([job]).attempts[job.name]) == 1


def test_what_the_quota_refuses_is_rejected_with_its_reason(
    k8s_site: "Callable[..., K8sPool]", kubernetes_pool: "KubernetesPool"
) -> None:
    site = k8s_site(quota={"count/jobs.batch": "1"})
    one, other = (spec("idf-small", **SIMULATED) for _ in range(2))

    def refused() -> Rejected | None:
        answers = [site.submit(fresh("batch"), [replace(job, name=fresh())]) for job in (one, other)]
        found = [answer for some in answers for answer in some.values() if isinstance(answer, Rejected)]
        return found[0] if found else None

    assert "exceeded quota" in wait_for(refused).reason


def test_a_namespace_of_somebody_else_is_left_alone(site: "K8sPool", kubernetes_pool: "KubernetesPool") -> None:
    name = fresh("idf-theirs")
    kubernetes_pool.core().create_namespace({"metadata": {"name": name}})
    job = spec(name, **SIMULATED)
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Rejected)
    assert "somebody else" in answer.reason
    kubernetes_pool.core().delete_namespace(name)


def test_an_id_of_an_earlier_job_of_that_name_is_absent(site: "K8sPool") -> None:
    job = spec(ACCOUNT, **SIMULATED)
    there = send(site, job)
    other = known(job, "00000000-0000-4000-8000-000000000000")
    assert site.observe([other]).absent == {other.name}
    assert isinstance(site.cancel([other])[other.name], Accepted)
    assert ended(site, there).state is AttemptState.SUCCEEDED, "cancelling another's id leaves it alone"


def _where(pool: "KubernetesPool") -> dict[str, str]:
    return {} if pool.node else dict(SIMULATED)
