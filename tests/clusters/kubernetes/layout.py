"""Where everything of one pool lies, and where it listens."""

import random
import socket
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("", "etc", "pki", "run", "log", "state", "state/lib", "etc/cni", "logs-of-pods")
RESOURCE = "nvidia.com/gpu"
GPUS = 8
"""Of the real node, and of each simulated one."""
REAL = "real-1"
CLASS_LABEL = "nvidia.com/gpu.product"
REAL_CLASS, SIMULATED_CLASS = "NVIDIA-A100-SXM4-80GB", "NVIDIA-V100-SXM2-32GB"
TAINT = "kwok.x-k8s.io/node"


@dataclass(frozen=True)
class Places:
    """Addresses and ports: in a network of its own they are fixed, else free ones of this machine."""

    folder: Path
    binaries: Path
    host: str
    """Where the API server and kubelet listen."""
    gateway: str
    """This machine's end of the cable; empty where the pool is on this machine's own network."""
    link: str
    cgroup: str
    ports: dict[str, int]
    simulated_run_s: float

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{self.host}:{self.ports['kube-apiserver']}"

    @classmethod
    def choose(cls, folder: Path, binaries: Path, *, node: bool, simulated_run_s: float) -> "Places":
        """Choose where a new pool listens."""
        number = random.randrange(1 << 14)
        names = ("etcd", "etcd-peers", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
        if node:
            net = f"10.213.{number >> 6 & 255}.{(number & 63) * 4}"
            first = int(net.rpartition(".")[2])
            host, gateway = (f"{net.rpartition('.')[0]}.{first + end}" for end in (2, 1))
            ports = dict(zip(names, (2379, 2380, 6443, 10257, 10259), strict=True))
        else:
            host, gateway, ports = "127.0.0.1", "", dict(zip(names, _free(len(names)), strict=True))
        name = f"idf-{number}"
        return cls(folder, binaries, host, gateway, name, name, ports, simulated_run_s)


def _free(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.add(port)
    return list(found)
