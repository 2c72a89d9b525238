"""The daemons of a pool: how each is started, in the foreground, and the files that they read."""

import json
import sys
from pathlib import Path
from typing import Any

from clusters.kubernetes import images, namespace
from clusters.kubernetes.certificates import Authority
from clusters.kubernetes.layout import CLASS_LABEL, GPUS, REAL, REAL_CLASS, RESOURCE, Places

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SERVICES = "10.96.0.0/16"
PODS = "10.97.0.0/16"
CONTROL = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
NODE = ("containerd", "kubelet", "device-plugin")
USERS = {
    "admin": ("idf-admin", ("system:masters",)),
    "controller-manager": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "kwok": ("idf-kwok", ("system:masters",)),
    "kubelet": (f"system:node:{REAL}", ("system:nodes",)),
    "kubelet-client": ("idf-apiserver", ("system:masters",)),
    "broker": ("idf-broker", ("idf-brokers",)),
    "stranger": ("stranger", ()),
}
"""Who holds a certificate of the pool: file, user and groups. What the broker may do is set by roles alone."""


def lay(places: Places, *, node: bool) -> dict[str, Any]:
    """Write what the daemons read; return the plan of the supervisor."""
    authority = Authority(places.folder / "pki")
    authority.issue("server", "kube-apiserver", addresses=("127.0.0.1", "10.96.0.1", places.host))
    authority.issue("kubelet-server", REAL, addresses=(places.host,))
    for file, (user, groups) in USERS.items():
        authority.issue(file, user, groups)
        authority.kubeconfig(file, places.server)
    stages = Path(__file__).with_name("stages.yaml").read_text()
    run_ms = str(int(places.simulated_run_s * 1000))
    (places.folder / "etc/stages.yaml").write_text(stages.replace("RUN_MS", run_ms))
    commands = _control(places)
    if node:
        _lay_node(places)
        commands |= _node(places)
    environment = {"PATH": f"{places.binaries}:{PATH}", "HOME": "/", "LANG": "C.UTF-8"}
    return {"node": node, "daemons": {name: {"argv": argv, "env": environment} for name, argv in commands.items()}}


def _control(places: Places) -> dict[str, list[str]]:
    program, pki, ports = lambda name: str(places.binaries / name), places.folder / "pki", places.ports
    etcd, peers = (f"http://127.0.0.1:{ports[name]}" for name in ("etcd", "etcd-peers"))
    return {
        "etcd": [
            program("etcd"), f"--data-dir={places.folder}/state/etcd", f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peers}", f"--initial-cluster=default={peers}",
            f"--initial-advertise-peer-urls={peers}", "--unsafe-no-fsync", "--log-level=warn",
        ],
        "kube-apiserver": [
            program("kube-apiserver"), f"--etcd-servers={etcd}", f"--bind-address={places.host}",
            f"--secure-port={ports['kube-apiserver']}", "--endpoint-reconciler-type=none",
            f"--advertise-address={places.host}", f"--service-cluster-ip-range={SERVICES}",
            f"--tls-cert-file={pki}/server.crt", f"--tls-private-key-file={pki}/server.key",
            f"--client-ca-file={pki}/ca.crt", "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction", "--service-account-issuer=https://idf.test",
            f"--service-account-key-file={pki}/service-accounts.key",
            f"--service-account-signing-key-file={pki}/service-accounts.key",
            f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key", "--profiling=false",
            "--kubelet-preferred-address-types=InternalIP",
            "--default-unreachable-toleration-seconds=5", "--default-not-ready-toleration-seconds=5",
        ],
        "kube-controller-manager": [
            program("kube-controller-manager"), f"--kubeconfig={pki}/controller-manager.kubeconfig",
            "--bind-address=127.0.0.1", f"--secure-port={ports['kube-controller-manager']}", "--leader-elect=false",
            f"--service-account-private-key-file={pki}/service-accounts.key", f"--root-ca-file={pki}/ca.crt",
            "--use-service-account-credentials", "--kube-api-qps=400", "--kube-api-burst=800",
            "--node-monitor-grace-period=12s",
            "--concurrent-job-syncs=20", "--profiling=false",
        ],
        "kube-scheduler": [
            program("kube-scheduler"), f"--kubeconfig={pki}/scheduler.kubeconfig", "--bind-address=127.0.0.1",
            f"--secure-port={ports['kube-scheduler']}", "--leader-elect=false", "--kube-api-qps=400",
            "--kube-api-burst=800", "--profiling=false",
        ],
        "kwok": [
            program("kwok"), f"--kubeconfig={pki}/kwok.kubeconfig", f"--config={places.folder}/etc/stages.yaml",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake", "--node-lease-duration-seconds=40",
        ],
    }  # fmt: skip


def _node(places: Places) -> dict[str, list[str]]:
    etc, pki = places.folder / "etc", places.folder / "pki"
    return {
        "containerd": [str(places.binaries / "containerd"), f"--config={etc}/containerd.toml"],
        "kubelet": [
            str(places.binaries / "kubelet"), f"--config={etc}/kubelet.json",
            f"--kubeconfig={pki}/kubelet.kubeconfig", f"--hostname-override={REAL}", f"--node-ip={places.host}",
            f"--node-labels={CLASS_LABEL}={REAL_CLASS},nvidia.com/mig.strategy=none",
        ],
        "device-plugin": [
            sys.executable, str(Path(__file__).with_name("device_plugin.py")),
            "/var/lib/kubelet/device-plugins", RESOURCE, str(GPUS),
        ],
    }  # fmt: skip


def _lay_node(places: Places) -> None:
    etc = places.folder / "etc"
    (etc / "kubelet.json").write_text(json.dumps(_kubelet(places), indent=1))
    (etc / "containerd.toml").write_text(_containerd(places))
    (etc / "cni/10-pods.conflist").write_text(json.dumps(_network(places), indent=1))


def _kubelet(places: Places) -> dict[str, Any]:
    pki = places.folder / "pki"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": places.host,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": f"{pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet-server.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{places.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "podLogsDir": f"{places.folder}/logs-of-pods",
        "nodeStatusUpdateFrequency": "2s",
        "evictionHard": {"memory.available": "1%", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "resolvConf": "",
        "enforceNodeAllocatable": ["none"],
        "localStorageCapacityIsolation": False,
        "maxPods": 200,
    }


def _containerd(places: Places) -> str:
    """Restrict what the machine refuses (CAP_SYS_RESOURCE is often missing), and take pauses from our image."""
    return f"""\
version = 3
root = "{places.folder}/state/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{images.PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
enable_unprivileged_ports = false
enable_unprivileged_icmp = false
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{namespace.cni_plugins()}"]
conf_dir = "{places.folder}/etc/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "/usr/sbin/runc"
SystemdCgroup = false
"""


def _network(places: Places) -> dict[str, Any]:
    """A bridge within the pool's own network: pods reach each other and nothing else."""
    local = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "dataDir": f"{places.folder}/state/addresses"}
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "ipMasq": False, "ipam": local}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}
