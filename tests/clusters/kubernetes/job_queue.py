"""A queue in the pool that speaks Kueue's protocol, where Kueue itself cannot be had: it admits and evicts on command.

As Kueue does, it makes a Workload for each suspended Job that names a queue, lets an admitted Job go, suspends it
again when it is evicted or its Workload is inactive, and lets an admitted one go again whoever else suspended it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import kubernetes
from kubernetes.client.exceptions import ApiException

GROUP, VERSION, LABEL = "kueue.x-k8s.io", "v1beta1", "kueue.x-k8s.io/queue-name"
KINDS = {"localqueues": "LocalQueue", "workloads": "Workload", "clusterqueues": "ClusterQueue"}
LOOK_S = 0.1
NO_ROOM = "the quota of nvidia.com/gpu is used up"


class Queue:
    """The queue and its controller, which runs in a thread."""

    def __init__(self, client: kubernetes.client.ApiClient, cluster_queue: str) -> None:
        self.cluster_queue = cluster_queue
        self._objects = kubernetes.client.CustomObjectsApi(client)
        self._jobs, self._core = kubernetes.client.BatchV1Api(client), kubernetes.client.CoreV1Api(client)
        self._admitted: set[str] = set()
        self._stop = threading.Event()
        self.problem: Exception | None = None
        _install(client)
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "ClusterQueue", "metadata": {"name": cluster_queue}}
        with _there_already():
            self._objects.create_cluster_custom_object(GROUP, VERSION, "clusterqueues", body)
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)
        self._thread.start()

    def admit(self, job_uid: str) -> None:
        """There is room for a Job, from now on."""
        self._admitted.add(job_uid)

    def evict(self, job_uid: str) -> None:
        """The room is another's now."""
        self._admitted.discard(job_uid)

    def close(self) -> None:
        """End the controller."""
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                for job in self._jobs.list_job_for_all_namespaces(label_selector=LABEL).items:
                    self._see_to(job)
            except ApiException as error:  # a Job changed meanwhile, or went: the next look sees it
                if error.status not in (404, 409):
                    self.problem = error

    def _see_to(self, job: Any) -> None:
        if job.status.completion_time or any(c.type == "Failed" for c in job.status.conditions or ()):
            return
        active = self._workload(job).get("spec", {}).get("active", True)
        runs = active and job.metadata.uid in self._admitted
        if bool(job.spec.suspend) == runs:
            metadata = {"resourceVersion": job.metadata.resource_version}
            change = {"metadata": metadata, "spec": {"suspend": not runs}}
            self._jobs.patch_namespaced_job(job.metadata.name, job.metadata.namespace, change)

    def _workload(self, job: Any) -> Any:
        """The Workload that stands for a Job, made where there is none."""
        name, space = f"job-{job.metadata.name}", job.metadata.namespace
        try:
            return self._objects.get_namespaced_custom_object(GROUP, VERSION, space, "workloads", name)
        except ApiException as error:
            if error.status != 404:
                raise
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.metadata.name, "uid": job.metadata.uid}
        metadata = {"name": name, "labels": {f"{GROUP}/job-uid": job.metadata.uid}, "ownerReferences": [owner]}
        queue = job.metadata.labels[LABEL]
        self._objects.get_namespaced_custom_object(GROUP, VERSION, space, "localqueues", queue)
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Workload", "metadata": metadata,
                "spec": {"active": True, "queueName": queue}}  # fmt: skip
        made = self._objects.create_namespaced_custom_object(GROUP, VERSION, space, "workloads", body)
        self._say(made, "Pending", NO_ROOM)
        return made

    def _say(self, workload: Any, reason: str, message: str) -> None:
        metadata = workload["metadata"]
        about = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Workload", "name": metadata["name"],
                 "namespace": metadata["namespace"], "uid": metadata["uid"]}  # fmt: skip
        now = datetime.now(UTC).isoformat(timespec="seconds")
        event = {"metadata": {"generateName": "said-"}, "involvedObject": about, "reason": reason, "message": message,
                 "type": "Warning", "lastTimestamp": now, "count": 1}  # fmt: skip
        self._core.create_namespaced_event(metadata["namespace"], event)


def _install(client: kubernetes.client.ApiClient) -> None:
    """Make Kueue's kinds known, without their schemas, and wait until they are served."""
    api = kubernetes.client.ApiextensionsV1Api(client)
    for plural, kind in KINDS.items():
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        body = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": f"{plural}.{GROUP}",
                "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
            },
            "spec": {
                "group": GROUP,
                "scope": "Cluster" if plural == "clusterqueues" else "Namespaced",
                "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
                "versions": [{"name": VERSION, "served": True, "storage": True, "schema": schema}],
            },
        }
        with _there_already():
            api.create_custom_resource_definition(body)
    for plural in KINDS:
        _wait_until_served(client, plural)


def _wait_until_served(client: kubernetes.client.ApiClient, plural: str) -> None:
    objects, pause = kubernetes.client.CustomObjectsApi(client), threading.Event()
    for _ in range(200):
        try:
            objects.list_cluster_custom_object(GROUP, VERSION, plural)
        except ApiException:
            pause.wait(0.1)
        else:
            return
    raise TimeoutError(f"{plural} are not served")


@contextmanager
def _there_already() -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        if error.status != 409:
            raise
