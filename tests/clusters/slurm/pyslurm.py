"""A test cluster's site by pyslurm, where there is a pyslurm that matches the cluster's Slurm."""

import subprocess
from typing import Any

from clusters.slurm import daemons, namespace
from clusters.slurm.accounts import PYTHON, of_cluster
from clusters.slurm.cluster import SlurmCluster

from adapters.slurm.pyslurm_site import PyslurmSettings, SlurmPyslurm

RELEASE = "import importlib.metadata as m; print(m.version('pyslurm'))"


def missing(cluster: SlurmCluster) -> str:
    """Say why pyslurm cannot be tried on the cluster; empty when it can. It is asked for, never imported."""
    done = subprocess.run([PYTHON, "-I", "-c", RELEASE], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"{PYTHON} has no pyslurm: see tests/README.md for how to try it"
    ours, theirs = ([int(word) for word in said.split(".")[:2]] for said in (done.stdout.strip(), cluster.version))
    if ours != theirs:
        return f"pyslurm {done.stdout.strip()} does not match Slurm {cluster.version}"
    return ""


def command(cluster: SlurmCluster) -> tuple[str, ...]:
    """What starts the child inside the cluster, as its login account."""
    child = (PYTHON, "-I", cluster.gateway.replace("idf-gateway", "idf-pyslurm"))
    if cluster.isolation != "accounts":
        return child
    login = next(account for account in of_cluster() if account.name == cluster.login)
    words = ["env", "-i", f"PATH={daemons.PATH}", *child]
    return tuple(namespace.command_inside(cluster.init_pid, login.uid, words))


def site(cluster: SlurmCluster, **bounds: Any) -> SlurmPyslurm:
    """A scheduler for the cluster, with bounds changed as asked."""
    return SlurmPyslurm(PyslurmSettings(cluster=cluster.name, command=command(cluster), **bounds))
