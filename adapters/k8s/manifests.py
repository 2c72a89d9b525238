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

from adapters.errors import Rejected
from adapters.k8s.settings import K8sSettings, NodeClass
from adapters.port import JobSpec

Json = dict[str, Any]

PREFIX = "idf-compute"
MANAGED = {"app.kubernetes.io/managed-by": PREFIX}
SELECTOR = f"app.kubernetes.io/managed-by={PREFIX}"
JOB, GPU_TYPE = f"{PREFIX}/job", f"{PREFIX}/gpu-type"
BATCH, TOMBSTONE, CANCELLED, DEADLINE = (f"{PREFIX}/{word}" for word in ("batch", "tombstone", "cancelled", "deadline"))
FINALIZER = f"{PREFIX}/metering"
"""Holds an ended pod back until the broker has booked what it used."""
SERVICE = "idf-jobs"
"""One headless service in a project's namespace gives the pods of jobs over several nodes their names."""
ACCOUNT = "idf-job"
"""The service account of all jobs: no right, no token."""
INDEX = "batch.kubernetes.io/job-completion-index"

METADATA = "169.254.169.254/32"
"""Where clouds tell a machine its secrets."""

SECRET_BYTES_MAX = 900 << 10
"""A Secret holds 1 MiB; the rest is for names."""
SNAPSHOT_PIECE_BYTES = 700 << 10

_JOB_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", re.ASCII)
_NAMESPACE = re.compile(r"idf-?[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_UNPACK = "set -e; cd /work; cat /idf/snapshot/* | tar -xzf -"
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
        raise Rejected(f"not an account of this site: {account!r}; a project's namespace begins with idf")
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
    labels = {**MANAGED, JOB: spec.name, **({GPU_TYPE: _label(spec.gpu_type)} if spec.gpus else {})}
    annotations = {BATCH: batch} | ({DEADLINE: spec.deadline.isoformat()} if spec.deadline else {})
    template = {
        "metadata": {"labels": labels, "finalizers": [FINALIZER]},
        "spec": _pod(spec, settings, payload),
    }
    body: Json = {
        "backoffLimit": 0,
        "completions": nodes,
        "parallelism": nodes,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _RULES},
        "template": template,
    }
    if nodes > 1:
        body["completionMode"] = "Indexed"
        template["spec"]["subdomain"] = SERVICE
    metadata = {"name": spec.name, "namespace": spec.account, "labels": labels, "annotations": annotations}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": body}


_RULES = [
    {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget"}]},
    {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}},
]
"""The site's fault is counted against the runs that a job may have; the user's own ends it at once."""


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


def _pod(spec: JobSpec, settings: K8sSettings, payload: Payload) -> Json:
    nodes = settings.node_class(spec.gpu_type if spec.gpus else "")
    items = {f"e{number}": _bytes(value) for number, value in enumerate(spec.environment.values())}
    if spec.script:
        items["script"] = spec.script
    secret, keys = payload.put(spec.name, items) if items else ("", {})
    container: Json = {
        "name": "job",
        "image": settings.image,
        "command": _command(spec),
        "env": _environment(spec, secret, keys),
        "resources": _resources(spec, settings, nodes),
        "securityContext": _CONFINED,
        "workingDir": "/work",
        "volumeMounts": [{"name": "work", "mountPath": "/work"}],
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
        "volumes": [{"name": "work", "emptyDir": {}}],
    }
    if spec.script:
        item = {"key": keys["script"], "path": "script", "mode": 0o555}
        pod["volumes"].append({"name": "payload", "secret": {"secretName": secret, "items": [item]}})
        container["volumeMounts"].append({"name": "payload", "mountPath": "/idf/payload", "readOnly": True})
    if spec.snapshot:
        _unpack_first(pod, spec.snapshot, settings)
    apart = _apart(spec)
    if apart:
        pod["affinity"] = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}}
    return pod


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


def _environment(spec: JobSpec, secret: str, keys: Mapping[str, str]) -> list[Json]:
    for name in spec.environment:
        _require(_VARIABLE.fullmatch(name), f"not a name that a variable can have: {name!r}")
    given: list[Json] = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": keys[f"e{number}"]}}}
        for number, name in enumerate(spec.environment)
    ]
    ours = {"IDF_NODES": str(spec.nodes), "IDF_FIRST_NODE": f"{spec.name}-0.{SERVICE}"} if spec.nodes > 1 else {}
    own = [{"name": name, "value": value} for name, value in ours.items() if name not in spec.environment]
    return [*own, *given]


def _resources(spec: JobSpec, settings: K8sSettings, nodes: NodeClass) -> Json:
    """What each pod asks for. GPUs and memory are limits too; idle CPUs may be used beyond what was asked."""
    gpus = _each(spec.gpus, spec.nodes, "GPUs")
    cpus = _cpus(spec, settings, gpus)
    if spec.exclusive:
        whole = nodes.gpus_per_node if spec.gpus else 0
        if whole is None or nodes.cpus_per_node is None:
            raise Rejected("this pool does not give whole nodes away: ask for GPUs and CPUs instead of --exclusive")
        gpus, cpus = max(gpus, whole), max(cpus, nodes.cpus_per_node)
    memory = f"{spec.memory_mib or cpus * settings.memory_mib_per_cpu}Mi"
    _positive(spec.memory_mib or 1, "memory_mib")
    limits = {"memory": memory} | ({nodes.resource: str(gpus)} if gpus else {})
    return {"requests": {**limits, "cpu": str(cpus)}, "limits": limits}


def _cpus(spec: JobSpec, settings: K8sSettings, gpus: int) -> int:
    if spec.gpus and spec.cpus_per_gpu is not None:
        return _positive(spec.cpus_per_gpu, "cpus_per_gpu") * gpus
    if spec.cpus is not None:
        return _each(_positive(spec.cpus, "cpus"), spec.nodes, "CPUs")
    return settings.cpus_default


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
    return (
        ("/api/v1/namespaces", space),
        (policies, policy),
        (f"{core}/serviceaccounts", account),
        (f"{core}/resourcequotas", quota),
        (f"{core}/services", service),
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
