"""How other processes find a cluster's supervisor, talk to it and end it."""

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clusters.slurm import namespace, processes
from clusters.slurm.daemons import SLURM
from clusters.slurm.layout import ClusterError

SUPERVISOR = Path(__file__).with_name("supervisor.py")
START_S = 30
STOP_S = 15


def spawn(folder: Path, isolation: str) -> int:
    """Start the supervisor in a session of its own, so that a key pressed here does not reach it."""
    prefix = namespace.UNSHARE if isolation == "accounts" else ()
    argv = [*prefix, sys.executable, str(SUPERVISOR), str(folder)]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(folder / "log/supervisor.log"), os.O_WRONLY | os.O_CREAT, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "IDF_TEST_SLURM": SLURM}
    pid = os.posix_spawnp(argv[0], argv, environment, file_actions=actions, setsid=True)
    if not processes.wait_until(lambda: answers(folder), START_S):
        raise ClusterError(f"the supervisor did not start:\n{tail(folder, 'supervisor')}")
    return pid


def supervisors(folder: Path) -> list[int]:
    """Find the supervisor's processes by their command line, which no interrupted start can have lost.

    The program's folder does not matter: another checkout may have started the cluster.
    """

    def fits(arguments: list[str]) -> bool:
        return arguments[-1:] == [str(folder)] and Path(*arguments[-2:-1]).name == SUPERVISOR.name

    return [pid for pid in processes.every() if fits(processes.command_line(pid)) and processes.alive(pid)]


def members(folder: Path) -> list[int]:
    """Every living process of the cluster in `folder`: supervisors, daemons, jobs, connections."""
    found: set[int] = set()
    for pid in supervisors(folder):
        found |= {pid, *processes.descendants(pid)}
        if processes.namespace(pid) != processes.namespace(os.getpid()):
            found |= set(processes.of_namespace(processes.namespace(pid)))
    return [pid for pid in found if processes.alive(pid)]


def init_of(supervisor: int) -> int:
    """The child that does the work: process 1 of the namespaces, or the guard's worker."""
    return min(pid for pid in processes.descendants(supervisor) if processes.parent(pid) == supervisor)


def answers(folder: Path) -> bool:
    """Whether a supervisor listens."""
    try:
        tell(folder, "status")
    except ClusterError:
        return False
    return True


def tell(folder: Path, verb: str, daemon: str = "") -> dict[str, Any]:
    """Ask the supervisor for something; return its answer.

    Raises:
        ClusterError: nobody answers.
    """
    here = os.open(folder / "run", os.O_PATH) if (folder / "run").is_dir() else -1
    if here < 0:
        raise ClusterError(f"no cluster lies in {folder}")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(START_S)
            # Through the descriptor, for the folder's own path may be too long for a socket's address.
            connection.connect(f"/proc/self/fd/{here}/control")
            connection.sendall(json.dumps({"verb": verb, "daemon": daemon}).encode() + b"\n")
            return dict(json.loads(connection.makefile("r").readline()))
    except (OSError, ValueError) as error:
        raise ClusterError(f"the supervisor of {folder.name} does not answer: {error}") from error
    finally:
        os.close(here)


def start_daemons(folder: Path, names: tuple[str, ...], ports: Mapping[str, int]) -> None:
    """Start daemons side by side and wait until each listens.

    Raises:
        ClusterError: one ended or stays silent; with the last lines of its log.
    """
    for name in names:
        tell(folder, "start", name)
    for name in names:
        if not processes.wait_until(lambda name=name: _up(folder, name, ports), START_S):
            raise ClusterError(f"{name} does not listen after {START_S} s:\n{tail(folder, name)}")


def _up(folder: Path, name: str, ports: Mapping[str, int]) -> bool:
    ended = tell(folder, "status")["ended"]
    if name in ended:
        raise ClusterError(f"{name} ended with status {ended[name]}:\n{tail(folder, name)}")
    if name == "munged":
        return (folder / "run/munge.sock").exists()
    return processes.listening(ports[name])


def stop(folder: Path) -> None:
    """End everything that runs for the cluster in `folder`, however it was left.

    Raises:
        ClusterError: something outlived it.
    """
    everything = members(folder)
    for pid in supervisors(folder):
        own = processes.namespace(pid) == processes.namespace(os.getpid())
        unshare = processes.name(pid) == "unshare"
        # The kernel ends a namespace with its first process. A guard or a worker must do it: ask them.
        _signal(pid, signal.SIGTERM if own and not unshare else signal.SIGKILL)
    for pid in everything:
        _reap(pid)
    if not processes.wait_until(lambda: not _left(folder, everything), STOP_S):
        raise ClusterError(f"processes of {folder.name} outlived it: {_left(folder, everything)}")


def _left(folder: Path, before: list[int]) -> list[int]:
    for pid in before:
        _reap(pid)
    return [*members(folder), *(pid for pid in before if processes.alive(pid))]


def _reap(pid: int) -> None:
    """Collect a supervisor that this very process had started."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def tail(folder: Path, daemon: str, lines: int = 12) -> str:
    """The last lines of a daemon's log."""
    try:
        return "\n".join((folder / "log" / f"{daemon}.log").read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
