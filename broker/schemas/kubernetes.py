"""What an operator says of a Kubernetes pool beside what every site has."""

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from broker.schemas.base import GPUS_MAX, Schema

_NAME = r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)"
_SUBDOMAIN = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
LabelName = Annotated[str, StringConstraints(pattern=rf"^({_SUBDOMAIN}/)?{_NAME}$")]
LabelValue = Annotated[str, StringConstraints(pattern=rf"^{_NAME}?$")]
METADATA = ip_network("169.254.0.0/16")
"""Where clouds tell a machine its secrets (RFC 3927: link-local)."""


class TolerationIn(Schema):
    """A taint of the nodes that jobs there may stand."""

    key: LabelName
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"] | None = None

    @model_validator(mode="after")
    def _has_a_value_where_it_is_compared(self) -> "TolerationIn":
        if (self.operator == "Equal") != (self.value is not None):
            raise ValueError("a toleration has a value with the operator Equal, and none with Exists")
        return self


class NodesIn(Schema):
    """Nodes that are alike."""

    resource: str = Field(default="nvidia.com/gpu", pattern=rf"^{_SUBDOMAIN}/{_NAME}$")
    """What their GPUs are called: `nvidia.com/gpu`, or slices such as `nvidia.com/mig-1g.10gb`."""
    labels: dict[LabelName, LabelValue] = Field(
        default={}, examples=[{"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}]
    )
    tolerations: list[TolerationIn] = Field(default=[], max_length=16)
    time_sliced: bool = False
    """Several pods take turns on one GPU, whose memory nothing keeps apart: never for data about people."""
    gpus_per_node: int | None = Field(default=None, ge=1, le=GPUS_MAX)
    cpus_per_node: int | None = Field(default=None, ge=1, le=4096)
    """That a pod can ask for. Both are needed where jobs may have whole nodes."""


class KueueIn(Schema):
    """How a pool admits jobs, where it has Kueue."""

    cluster_queue: str = Field(pattern=rf"^{_SUBDOMAIN}$")
    """What the projects' jobs wait in; each namespace gets a LocalQueue that leads to it."""
    api: Literal["v1beta1", "v1beta2"] = "v1beta1"
    """The version of Kueue's API that the pool serves."""


class ScratchIn(Schema):
    """A volume for each pod to work on, made when it starts and removed with it."""

    storage_class: str = Field(pattern=rf"^{_SUBDOMAIN}$")
    gib: int = Field(ge=1, le=1 << 20)


class KubernetesIn(Schema):
    """How a pool is reached and what it is made of. The kubeconfig lies on the broker's machine."""

    kubeconfig: str = Field(pattern=r"^/[^\x00]{1,4095}$")
    context: str | None = Field(default=None, min_length=1, max_length=253)
    image: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}@sha256:[0-9a-f]{64}$")
    """What jobs run in, by its digest; the pool's admission policy lists it too."""
    nodes: dict[str, NodesIn] = Field(min_length=1, max_length=32)
    """By the site's own name of a GPU type, as `gpu_types` maps classes to it."""
    nodes_without_gpu: NodesIn | None = None
    nodes_grow: bool = False
    """The pool makes nodes when they are wanted: what it has now is no measure of what a job may ask for."""
    scratch: ScratchIn | None = None
    """Without it jobs work on their node's own disk."""
    kueue: KueueIn | None = None
    egress: list[str] = Field(default=[], max_length=64, examples=[["10.20.0.0/16"]])
    """Networks that jobs may reach; the metadata address is never among them."""
    keep_days: int = Field(default=7, ge=0, le=90)
    """How long a job's log stays at the site once it is booked."""

    def nodes_for(self, gpu_type: str | None) -> NodesIn | None:
        """Return the nodes of a GPU type, or those named for jobs without GPU; None: such jobs take any."""
        return self.nodes_without_gpu if gpu_type is None else self.nodes[gpu_type]

    @field_validator("egress")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        for text in value:
            network = ip_network(text)
            if network.version == METADATA.version and network.subnet_of(METADATA):  # type: ignore[arg-type]
                raise ValueError(f"{text} holds the metadata address, which no job may reach: leave it out")
        return value
