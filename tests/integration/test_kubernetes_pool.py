"""The throwaway pool itself: what it offers, and that it leaves nothing behind."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clusters.kubernetes import binaries
from clusters.slurm.layout import ClusterError
from integration.slurm_jobs import fresh, wait_for

if TYPE_CHECKING:
    from clusters.kubernetes.pool import KubernetesPool

pytestmark = pytest.mark.kubernetes


def _run(pool: "KubernetesPool", script: str) -> str:
    name = fresh("plain")
    container = {"name": "c", "image": pool.image, "command": ["/bin/sh", "-c", script]}
    container["resources"] = {"limits": {"nvidia.com/gpu": "2"}}
    spec = {"restartPolicy": "Never", "containers": [container], "automountServiceAccountToken": False}
    pool.core().create_namespaced_pod("default", {"metadata": {"name": name}, "spec": spec})
    return name


def test_a_pod_really_runs_on_the_real_node(real_node: "KubernetesPool") -> None:
    core = real_node.core()
    name = _run(real_node, "echo it ran; exit 3")

    def ended():
        status = core.read_namespaced_pod(name, "default").status
        return status if status.phase in ("Failed", "Succeeded") else None

    status = wait_for(ended, limit_s=60)
    assert status.container_statuses[0].state.terminated.exit_code == 3
    assert core.read_namespaced_pod_log(name, "default") == "it ran\n"
    core.delete_namespaced_pod(name, "default")


def test_a_simulated_node_takes_what_tolerates_it(kubernetes_pool: "KubernetesPool") -> None:
    nodes = kubernetes_pool.core().list_node().items
    simulated = [node for node in nodes if node.metadata.name.startswith("simulated-")]
    assert len(simulated) == 2
    assert all(node.spec.taints for node in simulated)


def test_kubelet_comes_back_with_its_gpus(real_node: "KubernetesPool") -> None:
    real_node.stop_daemon("kubelet")
    real_node.start_daemon("kubelet")
    real_node.wait(real_node.node_is_ready, "its GPUs did not come back", "kubelet")


def test_nothing_is_left_of_a_pool_that_ended(tmp_path: Path) -> None:
    from clusters.kubernetes.pool import KubernetesPool
    from clusters.slurm import control

    pool = KubernetesPool.start("short", tmp_path)
    before = control.members(pool.folder)
    assert pool.answers()
    pool.stop()
    assert before
    assert not control.members(pool.folder)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{pool.cgroup}"))
    assert pool.cgroup not in os.listdir("/sys/class/net")  # noqa: PTH208
    assert not pool.answers()


def test_assets_that_lack_a_program_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(ClusterError, match="lacks etcd, kube-apiserver"):
        binaries.folder()


def test_assets_are_taken_where_they_are_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    built = binaries.folder()
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        (tmp_path / name).symlink_to(built / name)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("joined")))
    joined = binaries.folder()
    assert (joined / "etcd").readlink() == tmp_path / "etcd"
    assert (joined / "kubelet").exists()
    assert (joined / "kwok").exists()
