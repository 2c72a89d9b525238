"""What a job becomes: a Job, and a Secret that carries what the user sent. No network, no shell line.

Kubernetes replaces `$(NAME)` in commands and arguments, and in values given in the pod itself: arguments are
escaped, and values come from the Secret, where nothing is replaced.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_network
from typing import Any

from adapters.arrays import Array, ArrayWrong, array_words, parse_array
from adapters.errors import Rejected
from adapters.k8s.settings import K8sSettings, NodeClass
from adapters.port import After, JobSpec

Json = dict[str, Any]

PREFIX = "idf-compute"
MANAGED = {"app.kubernetes.io/managed-by": PREFIX}
SELECTOR = f"app.kubernetes.io/managed-by={PREFIX}"
JOB, GPU_TYPE = f"{PREFIX}/job", f"{PREFIX}/gpu-type"
BATCH, TOMBSTONE, CANCELLED, DEADLINE, BEGIN, AFTER, ARRAY, REASON = (
    f"{PREFIX}/{word}" for word in ("batch", "tombstone", "cancelled", "deadline", "begin", "after", "array", "reason")
)
FINALIZER = f"{PREFIX}/metering"
"""Holds an ended pod back until the broker has booked what it used."""
SERVICE = "idf-jobs"
"""One headless service in a project's namespace gives the pods of jobs over several nodes their names."""
ACCOUNT = "idf-job"
"""The service account of all jobs: no right, no token."""
QUEUE_NAME, WORKLOAD_OF = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/job-uid"
"""Kueue's labels: on a Job which queue it waits in, on a Workload which Job it stands for."""
QUEUE = "idf"
"""The LocalQueue of every project's namespace."""
INDEX = "batch.kubernetes.io/job-completion-index"

METADATA = "169.254.169.254/32"
"""Where clouds tell a machine its secrets."""

SECRET_BYTES_MAX = 900 << 10
"""A Secret holds 1 MiB; the rest is for names."""
SNAPSHOT_PIECE_BYTES = 700 << 10

_JOB_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", re.ASCII)
_NAMESPACE = re.compile(r"idf-[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_UNPACK = "set -e; cd /work; cat /idf/snapshot/* | tar -xzf -"
OUTPUTS = "/idf/outputs"
_INTERPRETER = "/bin/sh"
"""Of a script that names none."""


@dataclass(slots=True)
class Payload:
    """The Secrets of one batch in one namespace: as many as its jobs' scripts and values need."""

    name: str
    parts: list[dict[str, bytes]] = field(default_factory=lambda: [{}])
    _sizes: list[int] = field(default_factory=lambda: [0])

    def put(self, job: str, items: Mapping[str, bytes]) -> tuple[str, dict[str, str]]:
        """Place one job's items together; return the Secret's name and the key of each item.

        Raises:
            Rejected: they are too large for one Secret.
        """
        size = sum(map(len, items.values()))
        if size > SECRET_BYTES_MAX:
            raise Rejected(
                f"script, arguments and environment have {size} bytes: at most {SECRET_BYTES_MAX} here; "
                "send the rest with a snapshot or read it from the data store"
            )
        if self._sizes[-1] + size > SECRET_BYTES_MAX:
            self.parts.append({})
            self._sizes.append(0)
        self._sizes[-1] += size
        keys = {item: f"{job}.{item}" for item in items}
        self.parts[-1] |= {keys[item]: data for item, data in items.items()}
        return self._part_name(len(self.parts) - 1), keys

    def secrets(self, namespace: str) -> list[Json]:
        """The Secrets to create, the one whose name is the batch's lock first."""
        return [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": self._part_name(number), "namespace": namespace, "labels": MANAGED},
                "immutable": True,
                "data": {key: base64.b64encode(data).decode() for key, data in part.items()},
            }
            for number, part in enumerate(self.parts)
        ]

    def _part_name(self, number: int) -> str:
        return f"{self.name}-{number}" if number else self.name


def batch_name(batch: str) -> str:
    """The name of the Secret whose making is the batch's beginning: who finds it there comes too late."""
    return f"idf-batch-{hashlib.sha256(batch.encode()).hexdigest()[:32]}"


def require_namespace(account: str) -> str:
    """A project's account is its namespace.

    Raises:
        Rejected: it is none of ours.
    """
    if not _NAMESPACE.fullmatch(account):
        raise Rejected(f"not an account of this site: {account!r}; a project's namespace begins with idf-")
    return account


def job(spec: JobSpec, settings: K8sSettings, payload: Payload, batch: str) -> Json:
    """Return the Job for a spec; what the user sent is put into `payload`.

    Raises:
        Rejected: it cannot be asked of Kubernetes, or not carried exactly.
    """
    _require(
        _JOB_NAME.fullmatch(spec.name), f"a job's name here is lower-case letters, digits and dashes: {spec.name!r}"
    )
    _require(spec.script or spec.arguments, "there is neither a script nor a command to run")
    nodes = _positive(spec.nodes, "nodes")
    ids = {f"{PREFIX}/{what}": _label(id_) for what, id_ in spec.ids.items()}
    labels = {**MANAGED, **ids, JOB: spec.name, **({GPU_TYPE: _label(spec.gpu_type)} if spec.gpus else {})}
    _require_known_to_pools(spec)
    array = _array(spec, settings)
    if array is not None:
        labels[ARRAY] = "true"
    template = {
        "metadata": {"labels": labels, "finalizers": [FINALIZER]},
        "spec": _pod(spec, settings, payload, array),
    }
    body: Json = {
        "podReplacementPolicy": "Failed",
        "template": template,
        **_counts(spec, nodes, array, queued=settings.kueue is not None),
    }
    waits = bool(spec.begin or spec.after)
    if waits or settings.kueue is not None:
        body["suspend"] = True
    if nodes > 1:
        template["spec"]["subdomain"] = SERVICE
    annotations = {BATCH: batch, **_wishes(spec, array)}
    queue = {QUEUE_NAME: QUEUE} if settings.kueue is not None and not waits else {}  # else once it may begin
    metadata = {
        "name": spec.name, "namespace": spec.account, "labels": {**labels, **queue}, "annotations": annotations,
    }  # fmt: skip
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": body}


_SIGNALLED = (137, 143)
"""SIGKILL and SIGTERM: how a pod ends that was taken away, counted where a queue may do that."""


def _counts(spec: JobSpec, nodes: int, array: Array | None, *, queued: bool) -> Json:
    """How many pods, how many at once, and which ends are counted against the runs that a job or a task may have.

    The site's fault is counted; the user's own ends the job, or that task of an array, at once. A queue evicts by a
    signal, and the pod stays for our metering: were that the user's own, the Job would have failed.
    """
    disrupted = {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget"}]}
    failed = {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0, *(_SIGNALLED if queued else ())]}}
    if array is None:
        mode = {"completionMode": "Indexed"} if nodes > 1 else {}
        return {
            "backoffLimit": spec.requeues, "completions": nodes, "parallelism": nodes, **mode,
            "podFailurePolicy": {"rules": [disrupted, failed]},
        }  # fmt: skip
    return {
        "backoffLimitPerIndex": spec.requeues, "completions": len(array.tasks), "parallelism": array.at_once,
        "completionMode": "Indexed", "podFailurePolicy": {"rules": [disrupted, {**failed, "action": "FailIndex"}]},
    }  # fmt: skip


def _wishes(spec: JobSpec, array: Array | None) -> dict[str, str]:
    """What Kubernetes knows nothing of, for whoever observes the job."""
    wishes = {
        DEADLINE: spec.deadline.isoformat() if spec.deadline else "",
        BEGIN: spec.begin.isoformat() if spec.begin else "",
        AFTER: after_words(spec.after),
        ARRAY: array_words(array.tasks) if array else "",
    }
    return {name: value for name, value in wishes.items() if value}


def after_words(after: tuple[After, ...]) -> str:
    """Write what a job waits for as an annotation."""
    return ",".join(f"{each.kind}:{each.site_job_id}" for each in after)


def _array(spec: JobSpec, settings: K8sSettings) -> Array | None:
    if spec.array is None:
        return None
    try:
        array = parse_array(spec.array)
    except ArrayWrong as error:
        raise Rejected(f"{error.detail}; {error.remedy}") from error
    _require(
        array.tasks[-1] < settings.array_size_max,
        f"tasks are numbered below {settings.array_size_max} here, not {array.tasks[-1]}",
    )
    _require(spec.nodes == 1, "the tasks of an array have one node each in this pool: submit a job for each instead")
    return array


def _require_known_to_pools(spec: JobSpec) -> None:
    _require(
        spec.signal is None,
        "this pool sends no signal before the time limit: catch SIGTERM, which comes the kill grace before its end",
    )
    _require(not spec.modules, "this pool has no environment modules: choose an image that holds what is needed")


def _image(spec: JobSpec, settings: K8sSettings) -> str:
    if spec.container is None:
        return settings.image
    image = spec.container.removeprefix("docker://")
    good = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}@sha256:[0-9a-f]{64}", image, re.ASCII)
    _require(good, f"an image of this pool is a reference with its digest, not {spec.container!r}")
    return image


def tombstone(name: str, namespace: str, batch: str, settings: K8sSettings) -> Json:
    """A Job that never runs and takes a name, so that what a batch may still send under it finds it taken."""
    container = {
        "name": "job",
        "image": settings.image,
        "command": ["/bin/false"],
        "securityContext": _CONFINED,
    }
    pod = {
        "restartPolicy": "Never", "automountServiceAccountToken": False, "serviceAccountName": ACCOUNT,
        "securityContext": _AS_NOBODY, "containers": [container],
    }  # fmt: skip
    metadata = {"name": name, "namespace": namespace, "labels": MANAGED, "annotations": {TOMBSTONE: batch}}
    spec = {"suspend": True, "backoffLimit": 0, "template": {"metadata": {"labels": MANAGED}, "spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


_CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_AS_NOBODY = {
    "runAsNonRoot": True,
    "runAsUser": 65534,
    "runAsGroup": 65534,
    "fsGroup": 65534,
    "seccompProfile": {"type": "RuntimeDefault"},
}


_SCRATCH = {"work": "/work", "outputs": OUTPUTS}
"""Where a job may write: gone with its pod."""
_AS_TASK = (
    _INTERPRETER, "-c",
    "n=$JOB_COMPLETION_INDEX; while read -r SLURM_ARRAY_TASK_ID && [ $n -gt 0 ]; do n=$((n-1)); done "
    '< /idf/payload/tasks; export SLURM_ARRAY_TASK_ID; exec "$@"', "task",
)  # fmt: skip
"""Kubernetes numbers from 0 without gaps: this finds a task's own number, then becomes the user's program."""


def _pod(spec: JobSpec, settings: K8sSettings, payload: Payload, array: Array | None) -> Json:
    nodes = settings.node_class(spec.gpu_type if spec.gpus else "")
    items = {f"e{number}": _bytes(value) for number, value in enumerate(spec.environment.values())}
    if spec.script:
        items["script"] = spec.script
    if array is not None:
        items["tasks"] = "".join(f"{task}\n" for task in array.tasks).encode()
    secret, keys = payload.put(spec.name, items) if items else ("", {})
    container: Json = {
        "name": "job",
        "image": _image(spec, settings),
        "command": [*(_AS_TASK if array is not None else ()), *_command(spec)],
        "env": _environment(spec, secret, keys, array),
        "resources": _resources(spec, settings, nodes),
        "securityContext": _CONFINED,
        "workingDir": "/work",
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in _SCRATCH.items()],
    }
    pod: Json = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": _minutes(spec.time_limit_s),
        "terminationGracePeriodSeconds": settings.kill_grace_s,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Else the script is process 1, which no signal ends that it does not handle: cancelling would take the grace.
        "shareProcessNamespace": True,
        "serviceAccountName": ACCOUNT,
        "securityContext": _AS_NOBODY,
        "nodeSelector": dict(nodes.labels),
        "tolerations": [dict(toleration) for toleration in nodes.tolerations],
        "containers": [container],
        "volumes": [{"name": "work", **_work(settings)}, {"name": "outputs", "emptyDir": {}}],
    }
    files = [{"key": keys[name], "path": name, "mode": 0o555} for name in ("script", "tasks") if name in keys]
    if files:
        pod["volumes"].append({"name": "payload", "secret": {"secretName": secret, "items": files}})
        container["volumeMounts"].append({"name": "payload", "mountPath": "/idf/payload", "readOnly": True})
    if spec.snapshot:
        _unpack_first(pod, spec.snapshot, settings)
    apart = _apart(spec)
    if apart:
        pod["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}}
    return pod


def _work(settings: K8sSettings) -> Json:
    """Where a job works: on its node's own disk, or on a volume that is made for each pod and goes with it."""
    if settings.scratch is None:
        return {"emptyDir": {}}
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": settings.scratch.storage_class,
        "resources": {"requests": {"storage": f"{settings.scratch.gib}Gi"}},
    }
    return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def _apart(spec: JobSpec) -> list[Json]:
    """A node for each pod of a job over several; and nothing of ours beside a job that wants its nodes alone."""
    terms: list[Json] = []
    if spec.nodes > 1:
        terms.append({"labelSelector": {"matchLabels": {JOB: spec.name}}, "topologyKey": "kubernetes.io/hostname"})
    if spec.exclusive:
        terms.append(
            {
                "labelSelector": {"matchLabels": MANAGED},
                "namespaceSelector": {},
                "topologyKey": "kubernetes.io/hostname",
            }
        )
    return terms


def _command(spec: JobSpec) -> list[str]:
    words = [_carried(word, "an argument") for word in spec.arguments]
    if not spec.script:
        return words
    script = "/idf/payload/script"
    return [*([] if spec.script.startswith(b"#!") else [_INTERPRETER]), script, *words]


def _carried(word: str, what: str) -> str:
    """The word such that it arrives as it was: `$` begins a reference, and `$$` is one `$`."""
    _bytes(word, what)
    return word.replace("$", "$$")


def _bytes(word: str, what: str = "an argument or a value") -> bytes:
    _require("\0" not in word, f"{what} holds a NUL character")
    try:
        return word.encode()
    except UnicodeEncodeError as error:
        raise Rejected(f"{what} holds a half of a character that UTF-8 has no bytes for") from error


def _environment(spec: JobSpec, secret: str, keys: Mapping[str, str], array: Array | None) -> list[Json]:
    for name in spec.environment:
        _require(_VARIABLE.fullmatch(name), f"not a name that a variable can have: {name!r}")
    given: list[Json] = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": keys[f"e{number}"]}}}
        for number, name in enumerate(spec.environment)
    ]
    ours = {"IDF_OUTPUTS": OUTPUTS}
    if spec.nodes > 1:
        ours |= {"IDF_NODES": str(spec.nodes), "IDF_FIRST_NODE": f"{spec.name}-0.{SERVICE}"}
    if array is not None:
        ours |= {"SLURM_ARRAY_JOB_ID": spec.name}  # Slurm's is a number; here it tells arrays apart as well
        ours |= {"SLURM_ARRAY_TASK_COUNT": str(len(array.tasks))}
        ours |= {"SLURM_ARRAY_TASK_MIN": str(array.tasks[0]), "SLURM_ARRAY_TASK_MAX": str(array.tasks[-1])}
    own = [{"name": name, "value": value} for name, value in ours.items() if name not in spec.environment]
    return [*own, *given]


def _resources(spec: JobSpec, settings: K8sSettings, nodes: NodeClass) -> Json:
    """What each pod asks for. GPUs and memory are limits too; idle CPUs may be used beyond what was asked."""
    gpus = _each(spec.gpus, spec.nodes, "GPUs")
    cpus = _cpus(spec, gpus)
    if spec.exclusive:
        whole = nodes.gpus_per_node if spec.gpus else 0
        if whole is None or nodes.cpus_per_node is None:
            raise Rejected("this pool does not give whole nodes away: ask for GPUs and CPUs instead of --exclusive")
        gpus, cpus = max(gpus, whole), max(cpus or 0, nodes.cpus_per_node)
    millis = settings.cpu_millis_default if cpus is None else cpus * 1000
    memory = f"{spec.memory_mib or -(-millis * settings.memory_mib_per_cpu // 1000)}Mi"
    _positive(spec.memory_mib or 1, "memory_mib")
    limits = {"memory": memory} | ({nodes.resource: str(gpus)} if gpus else {})
    return {"requests": {**limits, "cpu": f"{millis}m"}, "limits": limits}


def _cpus(spec: JobSpec, gpus: int) -> int | None:
    """What the job names for each pod; None where it names nothing."""
    if spec.gpus and spec.cpus_per_gpu is not None:
        return _positive(spec.cpus_per_gpu, "cpus_per_gpu") * gpus
    if spec.cpus is not None:
        return _each(_positive(spec.cpus, "cpus"), spec.nodes, "CPUs")
    return None


def _each(total: int, nodes: int, what: str) -> int:
    each, rest = divmod(total, nodes)
    _require(not rest and (each or not total), f"{total} {what} cannot be shared evenly by {nodes} nodes")
    return each


def _unpack_first(pod: Json, digest: str, settings: K8sSettings) -> None:
    _require(_DIGEST.fullmatch(digest), "a snapshot is named by its SHA-256 in hexadecimal")
    mounts = [
        {"name": "work", "mountPath": "/work"},
        {"name": "snapshot", "mountPath": "/idf/snapshot", "readOnly": True},
    ]
    pod["initContainers"] = [
        {
            "name": "snapshot",
            "image": settings.image,
            "command": ["/bin/sh", "-c", _UNPACK],
            "volumeMounts": mounts,
            "securityContext": _CONFINED,
            "resources": pod["containers"][0]["resources"],
        }
    ]
    count = range(pieces(settings.snapshot_bytes_max))
    sources = [{"secret": {"name": snapshot_name(digest, number), "optional": number > 0}} for number in count]
    pod["volumes"].append({"name": "snapshot", "projected": {"sources": sources}})


def pieces(size: int) -> int:
    """How many Secrets a snapshot of that size becomes."""
    return max(1, -(-size // SNAPSHOT_PIECE_BYTES))


def snapshot_name(digest: str, number: int) -> str:
    """The Secret that holds one piece of a snapshot."""
    return f"idf-snapshot-{digest[:40]}-{number}"


def snapshot_pieces(namespace: str, digest: str, data: bytes) -> Iterable[Json]:
    """The Secrets of a snapshot, the first one last: where that one is, all are."""
    for number in reversed(range(pieces(len(data)))):
        piece = data[number * SNAPSHOT_PIECE_BYTES : (number + 1) * SNAPSHOT_PIECE_BYTES]
        yield {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": snapshot_name(digest, number), "namespace": namespace, "labels": MANAGED},
            "immutable": True,
            "data": {f"{number:04}": base64.b64encode(piece).decode()},
        }


def namespace_objects(name: str, settings: K8sSettings) -> Sequence[tuple[str, Json]]:
    """What a project's namespace is made of, in order: where each is created, and what it is."""
    core, metadata = f"/api/v1/namespaces/{name}", {"namespace": name, "labels": MANAGED}
    space = {"metadata": {"name": name, "labels": MANAGED | _RESTRICTED}}
    account = {"metadata": {**metadata, "name": ACCOUNT}, "automountServiceAccountToken": False}
    quota = {"metadata": {**metadata, "name": "idf-backstop"}, "spec": {"hard": dict(settings.quota)}}
    service = {
        "metadata": {**metadata, "name": SERVICE},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": MANAGED},
    }
    policy = {"metadata": {**metadata, "name": "idf-default-deny"}, "spec": _network(settings)}
    policies = f"/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies"
    queues = []
    if settings.kueue is not None:
        version = f"kueue.x-k8s.io/{settings.kueue.api}"
        local = {
            "apiVersion": version, "kind": "LocalQueue", "metadata": {**metadata, "name": QUEUE},
            "spec": {"clusterQueue": settings.kueue.cluster_queue},
        }  # fmt: skip
        queues = [(f"/apis/{version}/namespaces/{name}/localqueues", local)]
    return (
        ("/api/v1/namespaces", space),
        (policies, policy),
        (f"{core}/serviceaccounts", account),
        (f"{core}/resourcequotas", quota),
        (f"{core}/services", service),
        *queues,
    )


_RESTRICTED = {
    f"pod-security.kubernetes.io/{mode}{suffix}": value
    for mode in ("enforce", "warn")
    for suffix, value in (("", "restricted"), ("-version", "latest"))
}


def _network(settings: K8sSettings) -> Json:
    """Nothing comes in and nothing goes out but among the project's own pods, and to what the site allows."""
    own: Json = {"podSelector": {}}
    out: list[Json] = [{"to": [own]}]
    for network in settings.egress:
        block: Json = {"cidr": network}
        if ip_network(network).version == 4 and IPv4Network(METADATA).subnet_of(IPv4Network(network)):
            block["except"] = [METADATA]
        out.append({"to": [{"ipBlock": block}]})
    return {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": [own]}], "egress": out}


def _minutes(seconds: int) -> int:
    _require(seconds > 0 and seconds % 60 == 0, f"a time limit is whole minutes, not {seconds} s")
    return seconds


def _positive(number: int, what: str) -> int:
    _require(0 < number <= 1 << 31, f"{what} must be a positive whole number, not {number}")
    return number


def _label(word: str) -> str:
    good = re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", word, re.ASCII)
    _require(good, f"not a word of a site: {word!r}")
    return word


def _require(condition: object, reason: str) -> None:
    if not condition:
        raise Rejected(reason)
