"""What enrolment looks at in a pool: release, nodes, permissions, clock."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from adapters.errors import SiteError, Unreachable
from adapters.k8s.client import Api, Json, NotFound
from adapters.k8s.seen import quantity
from adapters.k8s.settings import K8sSettings
from adapters.port import SiteFacts

OLDEST = (1, 31)
"""`podFailurePolicy` and Jobs' `podReplacementPolicy` are stable from here on."""
SKEW_MAX = timedelta(seconds=5)
PERMISSIONS = (
    ("", "namespaces", "", ("create", "get")),
    ("", "secrets", "", ("create", "delete")),
    ("", "serviceaccounts", "", ("create",)),
    ("", "services", "", ("create",)),
    ("", "resourcequotas", "", ("create",)),
    ("networking.k8s.io", "networkpolicies", "", ("create",)),
    ("batch", "jobs", "", ("create", "get", "list", "watch", "patch", "delete")),
    ("", "pods", "", ("get", "list", "watch", "patch", "delete")),
    ("", "pods", "log", ("get",)),
    ("", "nodes", "", ("list",)),
    ("", "events", "", ("list",)),
)
"""Group, resource, subresource and verbs: no more than adapters/k8s/deploy/broker-role.yaml grants."""
OF_SCRATCH = (("storage.k8s.io", "storageclasses", "", ("get",)),)
"""Where jobs work on volumes."""
OF_KUEUE = (
    ("kueue.x-k8s.io", "localqueues", "", ("create",)),
    ("kueue.x-k8s.io", "workloads", "", ("list", "patch")),
    ("kueue.x-k8s.io", "clusterqueues", "", ("get",)),
)
"""Where the pool has Kueue: no more than adapters/k8s/deploy/broker-kueue.yaml grants."""
TOO_MUCH = (("", "pods", "exec", "create"), ("", "secrets", "", "list"), ("", "nodes", "", "patch"))
"""What a broker must not be able to do."""


def check(api: Api, settings: K8sSettings) -> SiteFacts:
    """Look at the pool; each problem is a sentence.

    Raises:
        Unreachable: the API server did not answer.
    """
    version, date = api.dated("/version")
    problems = [
        *_release(version),
        *_skew(date),
        *_nodes(api, settings),
        *_permissions(api, settings),
        *_storage(api, settings),
        *_queue(api, settings),
    ]
    return SiteFacts(
        f"kubernetes {str(version.get('gitVersion', '?')).lstrip('v')}",
        settings.cluster,
        tuple(problems),
        settings.array_size_max,
    )


def _release(version: Json) -> Iterator[str]:
    numbers = tuple(int("".join(filter(str.isdigit, str(version.get(key, "0")))) or 0) for key in ("major", "minor"))
    if numbers < OLDEST:
        yield f"Kubernetes {numbers[0]}.{numbers[1]} is too old: {OLDEST[0]}.{OLDEST[1]} or later is needed"


def _skew(date: str | None) -> Iterator[str]:
    try:
        skew = abs(datetime.now(UTC) - parsedate_to_datetime(date or ""))
    except ValueError:
        yield "the API server does not tell its time: its clock cannot be compared"
        return
    if skew > SKEW_MAX:
        yield f"the API server's clock is {int(skew.total_seconds())} s from ours: run NTP on both"


def _nodes(api: Api, settings: K8sSettings) -> Iterator[str]:
    """Each class must have a node that offers what its jobs will ask for."""
    try:
        nodes = [node for page in api.pages("/api/v1/nodes") for node in page.get("items") or ()]
    except Unreachable as error:
        yield f"the nodes cannot be listed: {error.reason}"
        return
    for name, wanted in sorted(settings.classes.items()):
        alike = [node for node in nodes if wanted.labels.items() <= (node["metadata"].get("labels") or {}).items()]
        labels = ",".join(f"{key}={value}" for key, value in sorted(wanted.labels.items()))
        if not alike:
            yield f"no node has the labels of {name or 'jobs without GPU'}: {labels or 'none'}"
        elif name and not any(_offers(node, wanted.resource) for node in alike):
            yield f"no node with {labels} offers {wanted.resource}: is the vendor's device plugin running there?"
        elif name and not wanted.time_sliced and any(_shared(node) for node in alike):
            yield (
                f"nodes with {labels} share a GPU by time slicing, which keeps projects' memory apart by nothing: "
                "say time_sliced = true of them, and only data about nobody goes there"
            )


def _offers(node: Json, resource: str) -> bool:
    return quantity((node.get("status", {}).get("allocatable") or {}).get(resource, "0")) > 0


def _shared(node: Json) -> bool:
    labels = node["metadata"].get("labels") or {}
    replicas = str(labels.get("nvidia.com/gpu.replicas", "1"))
    return replicas.isdigit() and int(replicas) > 1


def _permissions(api: Api, settings: K8sSettings) -> Iterator[str]:
    for group, resource, subresource, verbs in _needed(settings):
        lacking = [verb for verb in verbs if not _may(api, group, resource, subresource, verb)]
        if lacking:
            what = f"{resource}/{subresource}" if subresource else resource
            file = "broker-kueue" if group.startswith("kueue") else "broker-role"
            yield f"the broker may not {', '.join(lacking)} {what}: apply adapters/k8s/deploy/{file}.yaml"
    for group, resource, subresource, verb in TOO_MUCH:
        if _may(api, group, resource, subresource, verb):
            what = f"{resource}/{subresource}" if subresource else resource
            yield f"the broker may {verb} {what}, which it never needs: take that away"


def _needed(settings: K8sSettings) -> tuple[tuple[str, str, str, tuple[str, ...]], ...]:
    return (*PERMISSIONS, *(OF_SCRATCH if settings.scratch else ()), *(OF_KUEUE if settings.kueue else ()))


def _storage(api: Api, settings: K8sSettings) -> Iterator[str]:
    """A volume must be made where its pod runs, and go with it: what a project wrote stays nowhere."""
    if settings.scratch is None:
        return
    name = settings.scratch.storage_class
    try:
        found = api.get(f"/apis/storage.k8s.io/v1/storageclasses/{name}")
    except NotFound:
        yield f"there is no storage class {name}: name another under [kubernetes.scratch], or leave that out"
    except SiteError as error:
        yield f"the storage class {name} cannot be read: {error.reason}"
    else:
        if found.get("reclaimPolicy", "Delete") != "Delete":
            yield f"the storage class {name} keeps what projects wrote (reclaimPolicy {found['reclaimPolicy']}): Delete"
        if found.get("volumeBindingMode") != "WaitForFirstConsumer":
            yield f"the storage class {name} places volumes before their pods: volumeBindingMode: WaitForFirstConsumer"


def _queue(api: Api, settings: K8sSettings) -> Iterator[str]:
    """The queue that jobs are to wait in must take some."""
    if settings.kueue is None:
        return
    name = settings.kueue.cluster_queue
    try:
        queue = api.get(f"/apis/kueue.x-k8s.io/{settings.kueue.api}/clusterqueues/{name}")
    except NotFound:
        yield f"there is no ClusterQueue {name} by Kueue's API {settings.kueue.api}: is Kueue there?"
    except SiteError as error:
        yield f"the ClusterQueue {name} cannot be read: {error.reason}"
    else:
        conditions = (queue.get("status") or {}).get("conditions") or ()
        said = next((each for each in conditions if each.get("type") == "Active"), None)
        if said is not None and said.get("status") != "True":
            yield f"the ClusterQueue {name} admits nothing: {str(said.get('message', 'it does not say why'))[:300]}"


def _may(api: Api, group: str, resource: str, subresource: str, verb: str) -> bool:
    asked = {"group": group, "resource": resource, "subresource": subresource, "verb": verb}
    try:
        answer = api.post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {"resourceAttributes": asked}}
        )
    except SiteError:
        return False
    return bool(answer.get("status", {}).get("allowed"))
