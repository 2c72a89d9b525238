"""A pool as pytest fixtures; `tests/conftest.py` imports them by name."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from clusters.kubernetes.pool import KubernetesPool

    from adapters.k8s import K8sPool


@pytest.fixture(scope="session")
def kubernetes_pool() -> "Iterator[KubernetesPool]":
    """A throwaway pool; IDF_TEST_POOL names the folder of one that runs already, to spare the start."""
    from clusters.kubernetes import binaries
    from clusters.kubernetes.pool import KubernetesPool

    if running := os.environ.get("IDF_TEST_POOL"):
        yield KubernetesPool.load(Path(running))
        return
    if not binaries.built():
        pytest.skip("the pool's programs are not built here yet: `make pool-programs`, ten minutes the first time")
    with tempfile.TemporaryDirectory(prefix="idf-") as base:
        pool = KubernetesPool.start("tests", Path(base))
        pool.simulate(2, gpus=4, cpus=33)
        yield pool
        pool.stop()


@pytest.fixture(scope="session")
def real_node(kubernetes_pool: "KubernetesPool") -> "KubernetesPool":
    """The pool, where it has a real node."""
    if not kubernetes_pool.node:
        pytest.skip(f"no real node: {kubernetes_pool.reason}")
    return kubernetes_pool


@pytest.fixture
def k8s_site(kubernetes_pool: "KubernetesPool") -> "Iterator[Callable[..., K8sPool]]":
    """Make schedulers for the pool as its broker, with bounds changed as asked; all are closed at the test's end."""
    from clusters.kubernetes.site import classes

    from adapters.k8s import K8sPool, K8sSettings

    made: list[K8sPool] = []

    def make(**bounds: Any) -> K8sPool:
        given = {"classes": classes(kubernetes_pool), "cpu_millis_default": 250, **bounds}
        settings = K8sSettings("pool", kubernetes_pool.kubeconfig("broker"), kubernetes_pool.image, **given)
        made.append(K8sPool(settings))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()
