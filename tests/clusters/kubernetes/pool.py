"""A throwaway Kubernetes GPU pool on this machine, for the tests, the benches and people who want to play.

Everything lies in one folder. `start` writes `pool.json` there, which says how to reach it; after `stop` no
process, mount, network or cgroup is left, and the folder may be removed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import kubernetes
from clusters.kubernetes import binaries, daemons, images, namespace
from clusters.kubernetes.layout import (
    CLASS_LABEL,
    FOLDERS,
    GPUS,
    REAL,
    RESOURCE,
    SIMULATED_CLASS,
    TAINT,
    Places,
)
from clusters.slurm import control, processes
from clusters.slurm.layout import ClusterError
from kubernetes.client.exceptions import ApiException

START_S = 60
DEPLOY = Path(__file__).parents[3] / "adapters/k8s/deploy"
"""What a pool's admin applies for the broker."""
SIMULATED_RUN_S = 2.0


@dataclass(frozen=True, kw_only=True)
class KubernetesPool:
    """A running pool, as `pool.json` describes it."""

    name: str
    folder: Path
    server: str
    """The API server's address."""
    version: str
    node: str
    """The real node's name; empty where there is none."""
    reason: str
    """Why there is no real node; empty otherwise."""
    image: str
    """The image that jobs may run, on the real node; it holds a shell."""
    cgroup: str
    supervisor_pid: int = 0
    init_pid: int = 0

    @classmethod
    def start(
        cls, name: str, base: Path, *, simulated_run_s: float = SIMULATED_RUN_S, node: bool = True
    ) -> "KubernetesPool":
        """Start a new pool in `base/name`; one that was left there is stopped and removed first.

        Raises:
            ClusterError: its programs can be neither found nor built, or a daemon did not come up.
        """
        programs = binaries.folder()
        folder = base.resolve() / name
        remove(folder)
        reason = no_node_because() if node else "none was asked for"
        for part in FOLDERS:
            (folder / part).mkdir(parents=True, exist_ok=True)
        places = Places.choose(folder, programs, node=not reason, simulated_run_s=simulated_run_s)
        plan = daemons.lay(places, node=not reason)
        (folder / "plan.json").write_text(json.dumps({**plan, "cgroup": places.cgroup}))
        try:
            return cls._bring_up(name, places, reason)
        except BaseException:
            stop(folder)
            raise

    @classmethod
    def _bring_up(cls, name: str, places: Places, reason: str) -> "KubernetesPool":
        folder = places.folder
        if not reason:
            namespace.make_cgroup(places.cgroup)
        supervisor = _spawn(folder, node=not reason)
        init = control.init_of(supervisor)
        if not reason:
            namespace.join(init, places.link, places.gateway, places.host)
        pool = cls(
            name=name, folder=folder, server=places.server, version=binaries.version(),
            node="" if reason else REAL, reason=reason, image=_images(folder, reason), cgroup=places.cgroup,
            supervisor_pid=supervisor, init_pid=init,
        )  # fmt: skip
        pool.start_daemon("etcd", "kube-apiserver")
        pool.wait(pool.answers, "the API server does not answer", "kube-apiserver")
        pool.start_daemon("kube-controller-manager", "kube-scheduler", "kwok")
        pool.apply(*sorted(DEPLOY.glob("*.yaml")))
        pool._allow(pool.image)
        if pool.node:
            pool._bring_up_node()
        (folder / "pool.json").write_text(json.dumps(asdict(pool), indent=2, default=str) + "\n")
        return pool

    def _bring_up_node(self) -> None:
        self.start_daemon("containerd", "device-plugin")
        socket = Path(f"/proc/{self.init_pid}/root/run/containerd/containerd.sock")
        self.wait(socket.exists, "containerd does not listen", "containerd")
        archive = self.folder / "state/images.tar"
        self._ctr("import", str(archive))
        self._ctr("tag", images.JOBS, self.image)
        self.start_daemon("kubelet")
        self.wait(self.node_is_ready, "the real node does not offer its GPUs", "kubelet")

    def _ctr(self, *arguments: str) -> None:
        done = self.inside([str(self.binaries / "ctr"), "--namespace=k8s.io", "images", *arguments])
        if done.returncode != 0:
            raise ClusterError(f"the images could not be loaded: {done.stderr[-600:]}")

    def _allow(self, image: str) -> None:
        """List the image that jobs may run, as the pool's admin does."""
        listed = {"metadata": {"name": "idf-images"}, "data": {"images": image}}
        self.core().create_namespaced_config_map("idf-compute-admission", listed)

    @classmethod
    def load(cls, folder: Path) -> "KubernetesPool":
        """Read the description of a pool that was started before.

        Raises:
            ClusterError: none is described there.
        """
        try:
            described: dict[str, Any] = json.loads((folder / "pool.json").read_text())
        except (OSError, ValueError) as error:
            raise ClusterError(f"no pool is described in {folder}: {error}") from error
        return cls(**{**described, "folder": Path(described["folder"])})

    @property
    def binaries(self) -> Path:
        """Where the programs of this pool lie."""
        return Path(json.loads((self.folder / "plan.json").read_text())["daemons"]["etcd"]["argv"][0]).parent

    def kubeconfig(self, user: str = "admin") -> Path:
        """The file by which one of the pool's users reaches it: `admin`, `broker` or `stranger`."""
        return self.folder / f"pki/{user}.kubeconfig"

    def client(self, user: str = "admin") -> kubernetes.client.ApiClient:
        """A client of the pool as one of its users."""
        return kubernetes.config.new_client_from_config(str(self.kubeconfig(user)))

    def core(self) -> kubernetes.client.CoreV1Api:
        """The core API as the pool's admin."""
        return kubernetes.client.CoreV1Api(self.client())

    def answers(self) -> bool:
        """Whether the API server is ready."""
        try:
            kubernetes.client.CoreV1Api(self.client()).read_namespace("kube-system", _request_timeout=2)
        except Exception:  # noqa: BLE001  it is not there, in one of many ways
            return False
        return True

    def node_is_ready(self) -> bool:
        """Whether the real node takes pods and offers all its GPUs."""
        try:
            status = self.core().read_node(self.node, _request_timeout=5).status
        except ApiException:
            return False
        ready = any(c.type == "Ready" and c.status == "True" for c in status.conditions or ())
        return ready and (status.allocatable or {}).get(RESOURCE) == str(GPUS)

    def simulate(self, count: int, *, first: int = 0, gpus: int = GPUS, cpus: int = 64) -> list[str]:
        """Add nodes that only seem to run their pods; return their names. Pods must tolerate their taint."""
        core = self.core()
        names = [f"simulated-{number}" for number in range(first, first + count)]
        has = {"cpu": str(cpus), "memory": "512Gi", "pods": "200", RESOURCE: str(gpus)}
        for name in names:
            core.create_node(
                {
                    "metadata": {
                        "name": name,
                        "annotations": {"kwok.x-k8s.io/node": "fake"},
                        "labels": {CLASS_LABEL: SIMULATED_CLASS, "kubernetes.io/hostname": name},
                    },
                    "spec": {"taints": [{"key": TAINT, "value": "fake", "effect": "NoSchedule"}]},
                    "status": {"capacity": has, "allocatable": has},
                }
            )
        return names

    def inside(self, argv: Sequence[str], timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command within the pool's namespaces."""
        enter = ["nsenter", f"--target={self.init_pid}", "--mount", "--pid", "--net", "--root", "--"]
        command = [*(enter if self.node else []), *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)

    def apply(self, *files: Path) -> None:
        """Create what some YAML files hold, as the pool's admin; what is there already stays."""
        client = self.client()
        for file in files:
            kubernetes.utils.create_from_yaml(client, str(file))

    def start_daemon(self, *names: str) -> None:
        """Start daemons; what they need to be ready for is asked of the API server."""
        for name in names:
            control.tell(self.folder, "start", name)

    def stop_daemon(self, name: str) -> None:
        """End one daemon in good order and wait for its end. Containers go on when kubelet does not."""
        control.tell(self.folder, "stop", name)

    def kill_daemon(self, name: str) -> None:
        """End one daemon by SIGKILL, as a crash does."""
        control.tell(self.folder, "kill", name)

    def wait(self, ready: Any, otherwise: str, daemon: str, limit_s: float = START_S) -> None:
        """Wait for a condition.

        Raises:
            ClusterError: it did not come, or the daemon ended; with the last lines of its log.
        """

        def so() -> bool:
            ended = control.tell(self.folder, "status")["ended"]
            if daemon in ended:
                raise ClusterError(f"{daemon} ended with {ended[daemon]}:\n{control.tail(self.folder, daemon)}")
            return bool(ready())

        if not processes.wait_until(so, limit_s, 0.2):
            raise ClusterError(f"{otherwise} after {limit_s:.0f} s:\n{control.tail(self.folder, daemon)}")

    def stop(self) -> None:
        """End every process of the pool; its folder stays for whoever wants to read the logs."""
        stop(self.folder)


def no_node_because() -> str:
    """Say why a real node cannot run here; empty when it can."""
    if os.geteuid() != 0:
        return "a real node needs root: it mounts, makes cgroups and containers"
    lacking = namespace.missing(binaries.SYSTEM)
    if lacking:
        return f"missing: {', '.join(lacking)}; run tests/clusters/install-packages.sh kubernetes"
    return namespace.refusal()


def _images(folder: Path, reason: str) -> str:
    """Write the real node's images; return the one that jobs run, by its digest."""
    if reason:
        return images.by_digest("0" * 64)
    busybox = Path(str(shutil.which("busybox", path=daemons.PATH)))
    return images.by_digest(images.write(busybox, folder / "state/images.tar"))


def stop(folder: Path) -> None:
    """End everything that runs for the pool in `folder`, however it was left.

    Raises:
        ClusterError: something outlived it.
    """
    control.stop(folder)
    try:
        plan = json.loads((folder / "plan.json").read_text())
    except (OSError, ValueError):
        return
    if plan["node"]:
        namespace.remove_cgroup(plan["cgroup"])


def remove(folder: Path) -> None:
    """Stop what runs in the folder and remove it.

    Raises:
        ClusterError: it is no pool's folder.
    """
    stop(folder)
    if not folder.exists():
        return
    if not (folder / "plan.json").exists() and not (folder / "pki").exists() and any(folder.iterdir()):
        raise ClusterError(f"{folder} holds something else than a pool: not touched")
    shutil.rmtree(folder)


def _spawn(folder: Path, *, node: bool) -> int:
    """Start the supervisor in a session of its own, so that a key pressed here does not reach it."""
    supervisor = Path(__file__).with_name("supervisor.py")
    argv = [*(namespace.UNSHARE if node else ()), sys.executable, str(supervisor), str(folder)]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(folder / "log/supervisor.log"), os.O_WRONLY | os.O_CREAT, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    environment = {"PATH": daemons.PATH, "LANG": "C.UTF-8"}
    pid = os.posix_spawnp(argv[0], argv, environment, file_actions=actions, setsid=True)
    if not processes.wait_until(lambda: control.answers(folder), START_S):
        raise ClusterError(f"the supervisor did not start:\n{control.tail(folder, 'supervisor')}")
    return pid


def main(arguments: Sequence[str]) -> int:
    """Start or stop a pool from the command line."""
    parser = argparse.ArgumentParser(prog="pool.py", description="A throwaway Kubernetes GPU pool here.")
    parser.add_argument("verb", choices=["start", "stop", "wipe"])
    parser.add_argument("name")
    parser.add_argument("--base", type=Path, required=True, help="the folder that holds the pool's folder")
    parser.add_argument("--simulated", type=int, default=2, help="how many simulated nodes it has")
    options = parser.parse_args(arguments)
    folder = options.base.resolve() / options.name
    try:
        if options.verb == "start":
            pool = KubernetesPool.start(options.name, options.base)
            pool.simulate(options.simulated)
            what = f"{pool.node} with {GPUS} GPUs that do not exist" if pool.node else f"no real node ({pool.reason})"
            print(f"Kubernetes {pool.version}: {what}, and {options.simulated} simulated nodes")
            print(f"export KUBECONFIG={pool.kubeconfig()}")
        elif options.verb == "wipe":
            remove(folder)
        else:
            stop(folder)
    except ClusterError as error:
        print(f"pool {options.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
