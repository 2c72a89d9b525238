"""The order in which a cluster comes up, and what is told to Slurm's accounting on the way."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clusters.slurm import accounts, control, daemons, namespace, site
from clusters.slurm.configuration import PARENT, Configuration
from clusters.slurm.layout import INSIDE, NODES, ClusterError, Layout, Ports

FIRST = ("munged", "mariadbd", "sshd")
SLURM = ("slurmctld", *NODES)

Run = Callable[[Sequence[str]], subprocess.CompletedProcess[bytes]]


def require_programs() -> None:
    """Refuse early, and say how to get what is missing."""
    missing = [name for name in daemons.PROGRAMS if shutil.which(name, path=daemons.PATH) is None]
    if missing:
        raise ClusterError(f"missing: {', '.join(missing)}; run tests/clusters/install-packages.sh slurm")


def shared_because(isolation: str) -> str:
    """Say why projects must share an account; empty when each gets its own.

    Raises:
        ClusterError: separate accounts were demanded and cannot be had.
    """
    if isolation == "shared":
        return "asked to be shared"
    refusal = namespace.refusal()
    if refusal and isolation == "accounts":
        raise ClusterError(refusal)
    return refusal


def lay(name: str, folder: Path, reason: str, max_jobs: int) -> dict[str, Any]:
    """Write the folder of a new cluster; return what is known of it before anything runs."""
    isolation = "shared" if reason else "accounts"
    layout = Layout(folder, folder if reason else INSIDE)
    layout.check()
    ports = Ports.choose()
    user = accounts.current().name
    login, projects = (user, (user,)) if reason else (accounts.LOGIN, accounts.PROJECTS)
    configuration = Configuration(
        name=name,
        root=layout.root,
        user=user,
        login=login,
        ports=ports,
        max_jobs=max_jobs,
        jwt=daemons.jwt_available(),
        database_password=secrets.token_hex(16),
    )
    host_key = site.lay(layout, configuration, isolation, projects)
    plan = {"isolation": isolation, "daemons": daemons.as_plan(daemons.of_cluster(layout, ports, user))}
    layout.write("plan.json", json.dumps(plan, indent=2))
    return {
        "name": name,
        "folder": folder,
        "isolation": isolation,
        "reason": reason,
        "host": "127.0.0.1",
        "ssh_port": ports.sshd,
        "login": login,
        "identity_file": folder / "client/id_ed25519",
        "known_host": host_key,
        "accounts": projects,
        "pool": projects if reason else accounts.POOL[len(projects) :],
        "slurm_conf": str(layout.root / "etc/slurm.conf"),
        "gateway": str(layout.root / "site/idf-gateway"),
        "version": _version(),
        "ports": asdict(ports),
    }


def bring_up(
    folder: Path, ports: Mapping[str, int], make_accounts: Callable[[], object], associate: Callable[[], None]
) -> None:
    """Start the daemons, each when what it needs is there.

    slurmctld ends when slurmdbd was not up at its first start, and refuses jobs of users it learns of too
    late: so the associations come before it. slurmdbd in turn takes a user whose Unix account it does not find
    for nobody: so the accounts come before that.
    """
    control.start_daemons(folder, FIRST, ports)
    make_accounts()
    control.start_daemons(folder, ("slurmdbd",), ports)
    associate()
    control.start_daemons(folder, SLURM, ports)


def start_rest(folder: Path, ports: Mapping[str, int]) -> str:
    """Start slurmrestd, which refuses some accounts; return why it does not run, or nothing."""
    if not daemons.jwt_available():
        return "Slurm's JWT plugin is not installed"
    try:
        control.start_daemons(folder, ("slurmrestd",), ports)
    except ClusterError as error:
        control.tell(folder, "kill", "slurmrestd")
        return str(error)
    return ""


def associate(run: Run, cluster: str, slurm_conf: str, login: str, isolation: str) -> None:
    """Make the Slurm accounts: from a file, which root may load, else one by one for a single account.

    The file takes a second and a half, the same by single commands six. The coordinator comes last and by a
    command, the installer's: one named in the file, slurmdbd 22.05 showed no job of the accounts below until its
    next start.

    Raises:
        ClusterError: Slurm's accounting refused them; a load may be refused with the status 0.
    """
    commands = [["load", str(Path(slurm_conf).with_name("associations.cfg"))]]
    if isolation == "shared":
        commands = [
            ["add", "cluster", cluster],
            ["add", "account", PARENT],
            ["add", "account", login, f"parent={PARENT}"],
            ["add", "user", login, f"account={login}", f"defaultaccount={login}"],
            ["add", "coordinator", f"account={PARENT}", f"names={login}"],
        ]
    for command in commands:
        done = run(["sacctmgr", "--immediate", *command])
        said = (done.stdout + done.stderr).decode(errors="replace")
        # Of a lone root, Slurm knows the account and the association from the start.
        fine = done.returncode == 0 or "Nothing new added" in said or "already exist" in said.lower()
        if not fine or (command[0] == "load" and "Done adding cluster" not in said):
            raise ClusterError(f"sacctmgr {' '.join(command)}: {said.strip()[-600:]}")
    if isolation == "accounts":
        install(run, slurm_conf)


def install(run: Run, slurm_conf: str, *more: str) -> str:
    """Do what a site's root does, once slurmdbd answers: accounts, gateway, sudo, the coordinator.

    Raises:
        ClusterError: the script failed; with its words.
    """
    done = run([*accounts.installer(f"{INSIDE}/installer/broker.pub", slurm_conf), *more])
    said = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode != 0:
        raise ClusterError(f"install-gateway.sh: {said.strip()[-600:]}")
    return said


def remove(folder: Path) -> None:
    """Stop what runs in the folder and remove it.

    Raises:
        ClusterError: it is no cluster's folder.
    """
    control.stop(folder)
    if not folder.exists():
        return
    if not (folder / "plan.json").exists() and not (folder / "etc/ssh").exists() and any(folder.iterdir()):
        raise ClusterError(f"{folder} holds something else than a cluster: not touched")
    shutil.rmtree(folder)


def _version() -> str:
    """Ask slurmctld: the commands answer only where they find a configuration."""
    environment = dict(os.environ, PATH=daemons.PATH)
    done = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split()[-1]
