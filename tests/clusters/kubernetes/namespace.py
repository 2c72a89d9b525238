"""The pool's own view of the machine: its processes, its network and its folders."""

import os
import shutil
import subprocess
from pathlib import Path

UNSHARE = ("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc")
CGROUPS = Path("/sys/fs/cgroup")


def refusal() -> str:
    """Say why this process cannot have namespaces and a network of its own; empty when it can."""
    if os.geteuid() != 0:
        return "a real node needs root: it mounts, makes cgroups and containers"
    trial = "mount -t tmpfs none /run && ip link add name idf-a type veth peer name idf-b && ip link set lo up"
    done = subprocess.run([*UNSHARE, "sh", "-c", trial], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"this machine refuses new namespaces: {done.stderr.strip() or 'unshare failed'}"
    if not (CGROUPS / "memory").is_dir() and not (CGROUPS / "cgroup.controllers").is_file():
        return "no cgroups are mounted at /sys/fs/cgroup"
    return ""


def enter(folder: Path) -> None:
    """Make the view, as process 1 of fresh namespaces: places that kubelet and containerd would share."""
    _mount("-t", "tmpfs", "-o", "mode=0755", "none", "/run")
    own = folder / "state/lib"
    for name in ("kubelet", "cni", "containerd"):
        (own / name).mkdir(parents=True, exist_ok=True)
    _mount("--bind", str(own), "/var/lib")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def make_cgroup(name: str) -> None:
    """Make the group that all of the node's containers will lie in."""
    for root in _cgroup_roots():
        (root / name).mkdir(exist_ok=True)
        if root.name == "cpuset":  # empty until told, and nothing can be put in until then
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (root / name / setting).write_text((root / setting).read_text())
        if (root / "cgroup.subtree_control").exists() and root == CGROUPS:
            controllers = (root / name / "cgroup.controllers").read_text().split()
            (root / name / "cgroup.subtree_control").write_text(" ".join(f"+{word}" for word in controllers))


def remove_cgroup(name: str) -> None:
    """Remove the group and what lies below it; its processes are gone by now."""
    for root in _cgroup_roots():
        below = sorted((root / name).rglob("*"), key=lambda path: len(path.parts), reverse=True)
        for group in [path for path in below if path.is_dir()] + [root / name]:
            try:
                group.rmdir()
            except OSError:
                continue


def join(init: int, link: str, host: str, inside: str) -> None:
    """Lay a cable between the machine and the pool's network; it is gone when the pool is.

    `init` is a process in that network; `host` and `inside` are the addresses of its ends, in one /30.
    """
    within = ("nsenter", f"--net=/proc/{init}/ns/net", "ip")
    for command in (
        ("ip", "link", "add", "name", link, "type", "veth", "peer", "name", "eth0", "netns", str(init)),
        ("ip", "address", "add", f"{host}/30", "dev", link),
        ("ip", "link", "set", link, "up"),
        (*within, "address", "add", f"{inside}/30", "dev", "eth0"),
        (*within, "link", "set", "eth0", "up"),
        (*within, "route", "add", "default", "via", host),
    ):
        subprocess.run(command, check=True, capture_output=True)


def cni_plugins() -> Path | None:
    """The folder of the CNI plugins, where Debian or others put it."""
    places = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
    return next((place for place in places if (place / "bridge").exists() and (place / "host-local").exists()), None)


def missing(programs: tuple[str, ...]) -> list[str]:
    """Those of the programs that this machine does not have."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    lacking = [name for name in programs if shutil.which(name, path=path) is None]
    return lacking if cni_plugins() else [*lacking, "CNI plugins"]


def _cgroup_roots() -> list[Path]:
    if (CGROUPS / "cgroup.controllers").is_file():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if (path / "cgroup.procs").exists()]


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, stdin=subprocess.DEVNULL)
