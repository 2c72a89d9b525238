"""How the broker's settings describe the throwaway pool."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from clusters.kubernetes.layout import CLASS_LABEL, GPUS, REAL_CLASS, SIMULATED_CLASS, TAINT

from adapters.k8s import NodeClass

if TYPE_CHECKING:
    from clusters.kubernetes.pool import KubernetesPool

SIMULATED = NodeClass(
    labels={CLASS_LABEL: SIMULATED_CLASS},
    tolerations=({"key": TAINT, "operator": "Exists"},),
    gpus_per_node=4,
    cpus_per_node=32,
)


def classes(pool: "KubernetesPool") -> Mapping[str, NodeClass]:
    """Jobs on `a100` really run, on the real node; those on `v100`, and those without GPU, only seem to."""
    real = NodeClass(labels={CLASS_LABEL: REAL_CLASS}, gpus_per_node=GPUS, cpus_per_node=2)
    return {"": SIMULATED, "v100": SIMULATED, **({"a100": real} if pool.node else {})}
