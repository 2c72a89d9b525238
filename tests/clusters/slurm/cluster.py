"""A throwaway Slurm cluster on this machine, for the demo, the tests and the benches.

Everything lies in one folder. `start` writes `cluster.json` there, which says how to reach it; after `stop`
no process and no mount is left, and the folder may be removed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from clusters.slurm import accounts, control, daemons, namespace, processes, startup
from clusters.slurm.configuration import GPU_DEVICES, GPU_TYPE
from clusters.slurm.layout import NODES, ClusterError

MAX_JOBS = 20_000
READY_S = 30


@dataclass(frozen=True, kw_only=True)
class SlurmCluster:
    """A running cluster, as `cluster.json` describes it."""

    name: str
    folder: Path
    isolation: str
    """`accounts`: a Unix account for each project; `shared`: one account for all."""
    reason: str
    """Why it is shared; empty otherwise."""
    host: str
    ssh_port: int
    login: str
    identity_file: Path
    known_host: str
    """The host key: type and key."""
    accounts: tuple[str, ...]
    """The project accounts that may run jobs from the start."""
    pool: tuple[str, ...]
    """Those that a broker is told of; no job runs as them before it opens them."""
    slurm_conf: str
    """As the daemons and the jobs see it."""
    gateway: str
    """As the daemons and the jobs see it."""
    version: str
    ports: Mapping[str, int]
    supervisor_pid: int = 0
    init_pid: int = 0
    """Process 1 of the cluster's namespaces, or the supervisor's worker where there are none."""
    slurmrestd: str = ""
    """Its address; empty where it does not run."""
    slurmrestd_reason: str = ""
    nodes: tuple[str, ...] = NODES
    gpus: Mapping[str, int] = field(default_factory=lambda: {GPU_TYPE: len(GPU_DEVICES)})
    """By type, on each node."""

    @classmethod
    def start(cls, name: str, base: Path, max_jobs: int = MAX_JOBS, isolation: str = "auto") -> "SlurmCluster":
        """Start a new cluster in `base/name`; one that was left there is stopped and removed first.

        Raises:
            ClusterError: a program is missing, or a daemon did not come up; everything is stopped again.
        """
        startup.require_programs()
        folder = base.resolve() / name
        startup.remove(folder)
        reason = startup.shared_because(isolation)
        try:
            known = startup.lay(name, folder, reason, max_jobs)
            supervisor = control.spawn(folder, known["isolation"])
            cluster = cls(**known, supervisor_pid=supervisor, init_pid=control.init_of(supervisor))
            return cluster._bring_up()
        except BaseException:
            control.stop(folder)
            raise

    def _bring_up(self) -> "SlurmCluster":
        startup.bring_up(
            self.folder,
            self.ports,
            lambda: self.isolation == "accounts" and startup.install(self.run, self.slurm_conf, "--node"),
            lambda: startup.associate(self.run, self.name, self.slurm_conf, self.login, self.isolation),
        )
        reason = startup.start_rest(self.folder, self.ports)
        address = "" if reason else f"http://127.0.0.1:{self.ports['slurmrestd']}"
        described = {**asdict(self), "slurmrestd": address, "slurmrestd_reason": reason}
        cluster = SlurmCluster(**described)
        cluster.wait_ready()
        (self.folder / "cluster.json").write_text(json.dumps(described, indent=2, default=str) + "\n")
        return cluster

    @classmethod
    def load(cls, folder: Path) -> "SlurmCluster":
        """Read the description of a cluster that was started before.

        Raises:
            ClusterError: none is described there.
        """
        try:
            described: dict[str, Any] = json.loads((folder / "cluster.json").read_text())
        except (OSError, ValueError) as error:
            raise ClusterError(f"no cluster is described in {folder}: {error}") from error
        described |= {key: Path(described[key]) for key in ("folder", "identity_file")}
        described |= {key: tuple(described[key]) for key in ("accounts", "pool", "nodes")}
        return cls(**described)

    def stop(self) -> None:
        """End every process of the cluster; its folder stays for whoever wants to read the logs."""
        control.stop(self.folder)

    @property
    def running(self) -> bool:
        """Whether its supervisor lives."""
        return self.supervisor_pid in control.supervisors(self.folder)

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        input: bytes = b"",  # noqa: A002
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command inside the cluster with SLURM_CONF set, as `root` or as one of its accounts.

        Where the cluster has a single account, everything runs as that one.

        Raises:
            ClusterError: there is no such account.
            subprocess.TimeoutExpired: it took longer; its process group was killed.
        """
        account = self._account(user)
        environment = {
            "PATH": daemons.PATH,
            "HOME": str(account.home),
            "USER": account.name,
            "LOGNAME": account.name,
            "LANG": "C.UTF-8",
            "SLURM_CONF": self.slurm_conf,
            **(env or {}),
        }
        values = (f"{key}={value}" for key, value in environment.items())
        command = ["env", "-i", f"--chdir={account.home}", *values, *argv]
        if self.isolation == "accounts":
            command = namespace.command_inside(self.init_pid, account.uid, command)
        return _run_bounded(command, input, timeout)

    def _account(self, user: str) -> accounts.Account:
        if self.isolation != "accounts":
            one = replace(accounts.current(), home=self.folder / "home")
            known = {self.login: one, "root": one}
        else:
            known = {account.name: account for account in accounts.of_cluster()}
            known["root"] = accounts.Account("root", 0, Path("/"))
        if user not in known:
            raise ClusterError(f"{user} does not exist on {self.name}: it has {', '.join(known)}")
        return known[user]

    def start_daemon(self, daemon: str) -> None:
        """Start one daemon and wait until it listens.

        Raises:
            ClusterError: it ended, or does not listen after 30 s.
        """
        control.start_daemons(self.folder, (_known(daemon),), self.ports)

    def stop_daemon(self, daemon: str) -> None:
        """End one daemon in good order (SIGTERM) and wait for its end. Jobs and connections go on."""
        control.tell(self.folder, "stop", _known(daemon))

    def kill_daemon(self, daemon: str) -> None:
        """End one daemon by SIGKILL, as a crash does. Jobs and connections go on."""
        control.tell(self.folder, "kill", _known(daemon))

    def daemons(self) -> dict[str, int]:
        """The running daemons and their process ids as the cluster sees them."""
        return dict(control.tell(self.folder, "status")["running"])

    def cut_connections(self) -> int:
        """Cut every SSH connection without a goodbye; return how many sshd processes were killed.

        What they had started at the far end goes on: its pipes are closed, nothing else tells it.
        """
        return int(control.tell(self.folder, "cut")["cut"])

    def wait_ready(self, timeout: float = READY_S) -> None:
        """Wait until every node takes jobs.

        Raises:
            ClusterError: one does not, and what the controller says instead.
        """
        said = b""

        def ready() -> bool:
            nonlocal said
            done = self.run(["sinfo", "--noheader", "--Node", "--format=%N %t"])
            said = done.stdout + done.stderr
            states = dict(line.split() for line in done.stdout.decode().splitlines())
            return all(states.get(node) in ("idle", "mix", "alloc") for node in self.nodes)

        if not processes.wait_until(ready, timeout, 0.1):
            log = control.tail(self.folder, "slurmctld")
            raise ClusterError(f"the nodes are not ready: {said.decode(errors='replace')}\n{log}")


def _known(daemon: str) -> str:
    names = (*startup.FIRST, "slurmdbd", *startup.SLURM, "slurmrestd")
    if daemon not in names:
        raise ClusterError(f"no daemon is called {daemon}: there are {', '.join(names)}")
    return daemon


def _run_bounded(command: list[str], given: bytes, timeout: float) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process group of its own, and end the whole group when it takes too long."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as process:
        try:
            out, err = process.communicate(given, timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def main(arguments: Sequence[str]) -> int:
    """Start, stop, show or remove a cluster from the command line."""
    parser = argparse.ArgumentParser(prog="cluster.py", description="A throwaway Slurm cluster here.")
    parser.add_argument("verb", choices=["start", "stop", "status", "wipe"])
    parser.add_argument("name")
    parser.add_argument("--base", type=Path, required=True, help="the folder that holds the cluster's folder")
    parser.add_argument("--max-jobs", type=int, default=MAX_JOBS)
    parser.add_argument("--isolation", choices=["accounts", "shared", "auto"], default="auto")
    options = parser.parse_args(arguments)
    folder = options.base.resolve() / options.name
    try:
        if options.verb == "stop":
            control.stop(folder)
        elif options.verb == "wipe":
            startup.remove(folder)
        elif options.verb == "start":
            started = SlurmCluster.start(options.name, options.base, options.max_jobs, options.isolation)
            print(started.folder / "cluster.json")
        else:
            cluster = SlurmCluster.load(folder)
            print(json.dumps({**asdict(cluster), "running": cluster.running}, indent=2, default=str))
            return 0 if cluster.running else 3
    except ClusterError as error:
        print(f"cluster {options.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
