"""Kubernetes GPU pools, by the official client."""

from adapters.k8s.scheduler import K8sPool
from adapters.k8s.settings import K8sSettings, Kueue, NodeClass, Scratch
from adapters.k8s.upkeep import K8sUpkeep

__all__ = ["K8sPool", "K8sSettings", "K8sUpkeep", "Kueue", "NodeClass", "Scratch"]
