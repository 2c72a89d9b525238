"""What jobs, batches and namespaces become. No server is asked."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from integration.slurm_jobs import spec

from adapters.k8s import K8sSettings, Kueue, NodeClass, Scratch, manifests
from adapters.k8s.manifests import SECRET_BYTES_MAX, Payload
from adapters.port import After, AfterKind, Rejected

SETTINGS = K8sSettings(
    "pool", Path("/nowhere"), "image@sha256:" + "0" * 64,
    classes={"a100": NodeClass(labels={"gpu": "a100"}, gpus_per_node=4, cpus_per_node=16)},
)  # fmt: skip


def made(**changes: Any) -> Any:
    script = changes.pop("script", b"true\n")
    return manifests.job(spec("idf-p", script, **changes), SETTINGS, Payload("b"), "batch")


def test_nothing_that_a_user_typed_stands_in_the_job_but_escaped_arguments() -> None:
    secret = "typed-by-a-user"
    body = json.dumps(made(script=f"echo {secret}".encode(), environment={"A": secret}))
    assert secret not in body
    assert "$$(A)" in json.dumps(made(arguments=("$(A)",)))


def test_a_pod_ends_at_its_limit_and_is_not_run_again() -> None:
    body = made(time_limit_s=1800)["spec"]
    assert body["backoffLimit"] == 0
    assert body["template"]["spec"]["activeDeadlineSeconds"] == 1800
    assert "activeDeadlineSeconds" not in body, "on the Job it would count the time in the queue"
    assert body["podFailurePolicy"]["rules"][0]["onPodConditions"] == [{"type": "DisruptionTarget"}]


def test_whole_nodes_are_all_their_gpus_and_cpus_and_nothing_beside() -> None:
    pod = made(exclusive=True)["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] == "4"
    assert pod["containers"][0]["resources"]["requests"]["cpu"] == "16000m"
    (term,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["namespaceSelector"] == {}


def test_whole_nodes_of_unknown_size_are_refused() -> None:
    unsized = replace(SETTINGS, classes={"a100": NodeClass()})
    with pytest.raises(Rejected, match="whole nodes"):
        manifests.job(spec("idf-p", exclusive=True), unsized, Payload("b"), "batch")


def test_a_batch_is_as_many_secrets_as_it_needs() -> None:
    payload = Payload("b")
    for number in range(3):
        manifests.job(
            spec("idf-p", b"#" * (SECRET_BYTES_MAX // 2 - 10), name=f"idf-{number}"), SETTINGS, payload, "batch"
        )
    secrets = payload.secrets("idf-p")
    assert [secret["metadata"]["name"] for secret in secrets] == ["b", "b-1"]
    assert [len(secret["data"]) for secret in secrets] == [2, 1]
    assert all(secret["immutable"] for secret in secrets)


@pytest.mark.parametrize(
    "account", ["nobody", "kube-system", "idf", "idf-", "idf001", "idf-A", "idf_x", "", "x-idf-p", "idf-p\n"]
)
def test_other_namespaces_are_none_of_ours(account: str) -> None:
    with pytest.raises(Rejected):
        manifests.require_namespace(account)


def test_jobs_reach_each_other_and_what_the_site_names_but_never_the_metadata() -> None:
    objects = dict(manifests.namespace_objects("idf-p", replace(SETTINGS, egress=("0.0.0.0/0",))))
    policy = objects["/apis/networking.k8s.io/v1/namespaces/idf-p/networkpolicies"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"from": [{"podSelector": {}}]}]
    (block,) = [rule["to"][0]["ipBlock"] for rule in policy["egress"] if "ipBlock" in rule["to"][0]]
    assert block["except"] == ["169.254.169.254/32"]


def test_every_network_that_holds_the_metadata_address_leaves_it_out() -> None:
    objects = dict(manifests.namespace_objects("idf-p", replace(SETTINGS, egress=("169.0.0.0/8", "10.0.0.0/8"))))
    policy = objects["/apis/networking.k8s.io/v1/namespaces/idf-p/networkpolicies"]["spec"]
    blocks = [rule["to"][0]["ipBlock"] for rule in policy["egress"] if "ipBlock" in rule["to"][0]]
    assert [block.get("except") for block in blocks] == [["169.254.169.254/32"], None]


def test_in_a_pool_with_a_queue_a_job_is_sent_suspended_with_its_label() -> None:
    queued = replace(SETTINGS, kueue=Kueue("gpus"))
    sent = manifests.job(spec("idf-x"), queued, Payload("b"), "b")
    assert (sent["spec"]["suspend"], sent["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]) == (True, "idf")
    assert "kueue.x-k8s.io/queue-name" not in sent["spec"]["template"]["metadata"]["labels"]
    later = manifests.job(spec("idf-x", after=(After(AfterKind.OK, "u"),)), queued, Payload("b"), "b")
    assert later["spec"]["suspend"]
    assert "kueue.x-k8s.io/queue-name" not in later["metadata"]["labels"], "it queues once it may begin"
    assert "suspend" not in made()["spec"]


def test_each_namespace_has_a_queue_that_leads_to_the_pools() -> None:
    path, local = manifests.namespace_objects("idf-x", replace(SETTINGS, kueue=Kueue("gpus", "v1beta2")))[-1]
    assert path == "/apis/kueue.x-k8s.io/v1beta2/namespaces/idf-x/localqueues"
    assert (local["metadata"]["name"], local["spec"]) == ("idf", {"clusterQueue": "gpus"})
    assert "LocalQueue" not in [body.get("kind") for _, body in manifests.namespace_objects("idf-x", SETTINGS)]


def test_a_job_works_on_a_volume_of_its_own_where_the_pool_has_some() -> None:
    body = manifests.job(spec("idf-x"), replace(SETTINGS, scratch=Scratch("fast", 50)), Payload("b"), "b")
    work, outputs, *_ = body["spec"]["template"]["spec"]["volumes"]
    claim = work["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("fast", "50Gi")
    assert outputs == {"name": "outputs", "emptyDir": {}}
    assert made()["spec"]["template"]["spec"]["volumes"][0] == {"name": "work", "emptyDir": {}}


def test_the_tasks_of_an_array_know_which_array_they_are_of() -> None:
    body = made(name="idf-j", array="3,5")
    variables = {each["name"]: each.get("value") for each in body["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables["SLURM_ARRAY_JOB_ID"] == "idf-j"
    assert (variables["SLURM_ARRAY_TASK_MIN"], variables["SLURM_ARRAY_TASK_MAX"]) == ("3", "5")


def test_a_signal_that_evicts_is_not_the_users_own_failure() -> None:
    def fails(settings: K8sSettings) -> Any:
        body = manifests.job(spec("idf-x"), settings, Payload("b"), "b")
        return body["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]

    assert fails(SETTINGS) == [0]
    assert fails(replace(SETTINGS, kueue=Kueue("gpus"))) == [0, 137, 143]
