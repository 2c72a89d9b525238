"""What a broker's credentials cannot do in a pool, whoever holds them, and what enrolment says of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import kubernetes
import pytest
from integration.slurm_jobs import fresh, known, spec
from kubernetes.client.exceptions import ApiException

from adapters.k8s import K8sPool, NodeClass, Scratch, manifests
from adapters.k8s.manifests import Payload
from adapters.port import Accepted

if TYPE_CHECKING:
    from clusters.kubernetes.pool import KubernetesPool

pytestmark = pytest.mark.kubernetes
ACCOUNT = "idf-admission"


@pytest.fixture
def site(k8s_site: "Callable[..., K8sPool]") -> K8sPool:
    made = k8s_site()
    made.require_space(ACCOUNT)
    return made


@pytest.fixture
def broker(kubernetes_pool: "KubernetesPool") -> kubernetes.client.ApiClient:
    return kubernetes_pool.client("broker")


def job(site: K8sPool) -> dict[str, Any]:
    return manifests.job(spec(ACCOUNT, gpu_type="v100"), site._settings, Payload("x"), "batch")


CONTAINER = ("spec", "template", "spec", "containers", 0)
POD = CONTAINER[:3]
FORBIDDEN: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "an image that is not listed": ((*CONTAINER, "image"), "other/image@sha256:" + "0" * 64, "idf-images"),
    "an image by its tag": ((*CONTAINER, "image"), "idf.test/busybox:1", "idf-images"),
    "another service account": ((*POD, "serviceAccountName"), "default", "idf-job"),
    "a token": ((*POD, "automountServiceAccountToken"), True, "token"),
    "the node's network": ((*POD, "hostNetwork"), True, "namespace"),
    "the node's memory": ((*POD, "hostIPC"), True, "namespace"),
    "a node by name": ((*POD, "nodeName"), "real-1", "scheduler"),
    "the node's files": ((*POD, "volumes", 0), {"name": "work", "hostPath": {"path": "/"}}, "scratch"),
    "privileges": ((*CONTAINER, "securityContext"), {"privileged": True}, "privilege"),
    "no context": ((*CONTAINER, "securityContext"), {}, "privilege"),
}


@pytest.mark.parametrize("case", FORBIDDEN, ids=lambda name: name.replace(" ", "-"))
def test_a_job_that_asks_for_more_is_denied(site: K8sPool, broker: kubernetes.client.ApiClient, case: str) -> None:
    path, value, words = FORBIDDEN[case]
    body = job(site)
    place: Any = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ApiException, match=words) as denied:
        kubernetes.client.BatchV1Api(broker).create_namespaced_job(ACCOUNT, body)
    assert denied.value.status in (403, 422)


def test_a_broker_stays_in_namespaces_of_its_own(
    site: K8sPool, broker: kubernetes.client.ApiClient, kubernetes_pool: "KubernetesPool"
) -> None:
    core = kubernetes.client.CoreV1Api(broker)
    secret = {"metadata": {"name": fresh()}}
    for place in ("default", "kube-system", "idf-compute-admission"):
        with pytest.raises(ApiException, match="namespaces of its projects"):
            core.create_namespaced_secret(place, secret)
    theirs = fresh("theirs")
    kubernetes_pool.core().create_namespace({"metadata": {"name": theirs}})
    with pytest.raises(ApiException, match="begin with idf-"):
        core.create_namespace({"metadata": {"name": fresh("other")}})
    with pytest.raises(ApiException, match="restricted"):
        core.create_namespace({"metadata": {"name": fresh("idf-lax")}})
    with pytest.raises(ApiException, match="begin with idf-"):
        core.delete_namespace(theirs)


EGRESS: dict[str, tuple[dict[str, Any], str]] = {
    "everything": ({"egress": [{}]}, "secrets"),
    "the metadata address": ({"egress": [{"to": [{"ipBlock": {"cidr": "169.254.0.0/16"}}]}]}, "secrets"),
    "all but another address": (
        {"egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]}]}, "secrets",
    ),
    "one direction": ({"policyTypes": ["Ingress"]}, "both directions"),
}  # fmt: skip


@pytest.mark.parametrize("case", EGRESS, ids=lambda name: name.replace(" ", "-"))
def test_a_broker_opens_no_way_to_the_metadata_address(
    site: K8sPool, broker: kubernetes.client.ApiClient, case: str
) -> None:
    changes, words = EGRESS[case]
    policies = kubernetes.client.NetworkingV1Api(broker)
    body = {"metadata": {"name": fresh()}, "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], **changes}}
    with pytest.raises(ApiException, match=words):
        policies.create_namespaced_network_policy(ACCOUNT, body)


def test_a_broker_opens_what_the_site_allows(
    k8s_site: Callable[..., K8sPool], kubernetes_pool: "KubernetesPool"
) -> None:
    account = fresh("idf-egress")
    k8s_site(egress=("0.0.0.0/0", "2001:db8::/32")).require_space(account)
    policies = kubernetes.client.NetworkingV1Api(kubernetes_pool.client())
    (made,) = policies.list_namespaced_network_policy(account).items
    blocks = [rule.to[0].ip_block for rule in made.spec.egress if rule.to[0].ip_block]
    assert [(block.cidr, block._except) for block in blocks] == [
        ("0.0.0.0/0", ["169.254.169.254/32"]), ("2001:db8::/32", None),
    ]  # fmt: skip


@pytest.mark.parametrize("act", ["list_namespaced_secret", "list_namespaced_config_map"])
def test_a_broker_reads_no_secret(site: K8sPool, broker: kubernetes.client.ApiClient, act: str) -> None:
    with pytest.raises(ApiException) as denied:
        getattr(kubernetes.client.CoreV1Api(broker), act)(ACCOUNT)
    assert denied.value.status == 403


def test_enrolment_finds_a_fit_pool_fit(site: K8sPool) -> None:
    facts = site.check()
    assert facts.scheduler.startswith("kubernetes 1.36")
    assert facts.problems == ()


def test_enrolment_says_what_is_missing(k8s_site: Callable[..., K8sPool]) -> None:
    lacking = {
        "h100": NodeClass(labels={"nvidia.com/gpu.product": "H100"}),
        "mig": NodeClass(resource="nvidia.com/mig-1g"),
    }
    problems = "\n".join(k8s_site(classes=lacking).check().problems)
    assert "no node has the labels of h100" in problems
    assert "offers nvidia.com/mig-1g" in problems


def test_enrolment_looks_at_the_storage_class(
    k8s_site: Callable[..., K8sPool], kubernetes_pool: "KubernetesPool"
) -> None:
    storage = kubernetes.client.StorageV1Api(kubernetes_pool.client())
    for name, binding, reclaim in (
        ("good", "WaitForFirstConsumer", "Delete"), ("keeps", "WaitForFirstConsumer", "Retain"),
        ("early", "Immediate", "Delete"),
    ):  # fmt: skip
        body = {"metadata": {"name": name}, "provisioner": "example.org/none"}
        storage.create_storage_class({**body, "volumeBindingMode": binding, "reclaimPolicy": reclaim})

    def said(name: str) -> list[str]:
        problems = k8s_site(scratch=Scratch(name, 1)).check().problems
        return [problem for problem in problems if "storage" in problem]

    assert said("good") == []
    assert "keeps what projects wrote" in said("keeps")[0]
    assert "before their pods" in said("early")[0]
    assert "there is no storage class none" in said("none")[0]


def test_enrolment_wants_to_be_told_of_time_slicing(
    k8s_site: Callable[..., K8sPool], kubernetes_pool: "KubernetesPool"
) -> None:
    core = kubernetes_pool.core()
    core.create_node({"metadata": {"name": "sliced", "labels": {"gpu": "sliced", "nvidia.com/gpu.replicas": "4"}}})
    core.patch_node_status("sliced", {"status": {"allocatable": {"nvidia.com/gpu": "4", "cpu": "1", "memory": "1Gi"}}})
    try:
        for told in (False, True):
            class_ = NodeClass(labels={"gpu": "sliced"}, time_sliced=told)
            problems = "\n".join(k8s_site(classes={"sliced": class_}).check().problems)
            assert ("share a GPU by time slicing" in problems) is not told
    finally:
        core.delete_node("sliced")


def test_a_job_with_a_volume_of_its_own_is_let_in(
    k8s_site: Callable[..., K8sPool], kubernetes_pool: "KubernetesPool"
) -> None:
    site = k8s_site(scratch=Scratch("nowhere", 1))
    job = spec(ACCOUNT, gpus=1, gpu_type="v100")
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted), answer
    site.cancel([known(job, answer.site_job_id)])


def test_enrolment_says_what_a_stranger_may_not(site: K8sPool, kubernetes_pool: "KubernetesPool") -> None:
    problems = "\n".join(_as(kubernetes_pool, "stranger", site).check().problems)
    assert "the broker may not create, get, list, watch, patch, delete jobs: apply" in problems
    assert "the nodes cannot be listed" in problems


def test_enrolment_says_what_a_broker_has_too_much(site: K8sPool, kubernetes_pool: "KubernetesPool") -> None:
    problems = "\n".join(_as(kubernetes_pool, "admin", site).check().problems)
    assert "may create pods/exec, which it never needs" in problems


def _as(pool: "KubernetesPool", user: str, site: K8sPool) -> K8sPool:
    return K8sPool(replace(site._settings, kubeconfig=pool.kubeconfig(user)))
