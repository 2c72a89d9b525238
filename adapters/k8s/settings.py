"""What is known of a Kubernetes pool, and how long and how large anything asked of it may become."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adapters.errors import Rejected

GPU_RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Nodes that are alike: how a pod asks for their GPUs and reaches them, and how large they are."""

    resource: str = GPU_RESOURCE
    """The resource's name: whole GPUs, or slices such as `nvidia.com/mig-1g.10gb`. Unused of nodes without GPU."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the nodes are labelled with, such as `nvidia.com/gpu.product`."""
    tolerations: tuple[Mapping[str, str], ...] = ()
    time_sliced: bool = False
    """Several pods take turns on one GPU: data about people never goes there."""
    gpus_per_node: int | None = None
    """None where whole nodes are not given away."""
    cpus_per_node: int | None = None
    """That a pod can ask for: less than the machine has, for the node's own daemons need some."""


@dataclass(frozen=True, slots=True)
class Kueue:
    """The queue of a pool that has Kueue: jobs are sent suspended, and it lets them go when there is room."""

    cluster_queue: str
    api: str = "v1beta1"
    """The version of its API."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Volumes that pods work on instead of their node's own disk."""

    storage_class: str
    gib: int


@dataclass(frozen=True, slots=True)
class K8sSettings:
    """One pool."""

    cluster: str
    """The pool's name in the region: part of every attempt's identity."""
    kubeconfig: Path
    """How the broker reaches the API server: address, its authority's certificate, and our credentials."""
    image: str
    """What a job runs in where it names nothing else."""
    classes: Mapping[str, NodeClass] = field(default_factory=dict)
    """By GPU type; the empty name is for jobs without GPU."""
    context: str | None = None
    cpu_millis_default: int = 1000
    """Thousandths of a CPU per pod, where a job names none."""
    memory_mib_per_cpu: int = 256
    """Where a job names no memory."""
    kill_grace_s: int = 30
    array_size_max: int = 1001
    """Every task's number lies below it."""
    scratch: Scratch | None = None
    """None: jobs work on their node's own disk."""
    kueue: Kueue | None = None
    """None where the scheduler alone decides who waits."""
    nodes_grow: bool = False
    """The pool makes nodes when they are wanted: what it has now is no measure of what a job may ask for."""
    egress: tuple[str, ...] = ()
    """Networks (CIDR) that jobs may reach besides each other; the metadata address is never among them."""
    quota: Mapping[str, str] = field(default_factory=lambda: {"count/jobs.batch": "20000", "pods": "20000"})
    """The backstop in each project's namespace, as a ResourceQuota words it."""
    parallel: int = 8
    """How many requests of a batch are under way at one time."""
    submit_s_max: int = 60
    """After that no further Job of a batch is sent."""
    answer_s_max: float = 30.0
    stale_s_max: float = 90.0
    """A stream that is silent for longer is begun anew; the API server sends a bookmark every minute."""
    log_bytes_max: int = 1 << 20
    log_wait_s_max: float = 30.0
    snapshot_bytes_max: int = 8 << 20
    """A snapshot is kept in etcd, in pieces: larger ones belong into an object store."""
    keep_s: int = 7 * 86400
    """How long an ended Job and its log stay once it is metered."""

    def node_class(self, gpu_type: str) -> NodeClass:
        """The nodes of a GPU type.

        Raises:
            Rejected: the pool has none.
        """
        if gpu_type in self.classes:
            return self.classes[gpu_type]
        if not gpu_type:
            return NodeClass()
        has = ", ".join(sorted(name for name in self.classes if name)) or "no GPU"
        raise Rejected(f"Requested node configuration is not available: no GPU of type {gpu_type!r} here; it has {has}")
