"""The one process that all daemons of a cluster descend from; when it ends, so does everything.

Run as `supervisor.py FOLDER`. It reads FOLDER/plan.json, listens on FOLDER/run/control and does as it is
told: it starts nothing by itself and restarts nothing.

With accounts of its own it is process 1 of a pid namespace, which the kernel ends as a whole. Without, it
is a pair of processes, a guard and a worker: each ends all descendants when it sees the other one gone, so
that no single SIGKILL leaves anything behind.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from clusters.slurm import namespace, processes

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STOP_S = 10


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


class Supervisor:
    """Starts, stops and reaps the daemons of one plan."""

    def __init__(self, folder: Path, plan: dict) -> None:
        self._log = folder / "log"
        self._daemons = plan["daemons"]
        self._pids: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def serve(self, listener: socket.socket) -> None:
        """Answer one request after another until told to halt."""
        listener.settimeout(0.2)
        while True:
            self._reap()
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(5)
                try:
                    request = json.loads(connection.makefile("r").readline())
                    answer = self._answer(request["verb"], request.get("daemon", ""))
                    connection.sendall(json.dumps(answer).encode() + b"\n")
                except (OSError, ValueError, KeyError):
                    continue
            if request["verb"] == "halt":
                return

    def _answer(self, verb: str, daemon: str) -> dict:
        match verb:
            case "start":
                self._start(daemon)
            case "stop":
                self._end(daemon, signal.SIGTERM)
            case "kill":
                self._end(daemon, signal.SIGKILL)
            case "cut":
                return {"cut": self._cut_connections()}
        self._reap()
        return {"running": self._pids, "ended": self._ended}

    def _start(self, daemon: str) -> None:
        if daemon in self._pids:
            return
        command = self._daemons[daemon]
        log = os.open(self._log / f"{daemon}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open("/dev/null", os.O_RDONLY)
        actions = [(os.POSIX_SPAWN_DUP2, source, target) for source, target in ((null, 0), (log, 1), (log, 2))]
        argv = command["argv"]
        # A plain user's own PATH lacks /usr/sbin, where most daemons lie.
        program = shutil.which(argv[0], path=command["env"]["PATH"]) or argv[0]
        self._pids[daemon] = os.posix_spawn(program, argv, command["env"], file_actions=actions, setsid=True)
        self._ended.pop(daemon, None)
        os.close(log)
        os.close(null)

    def _end(self, daemon: str, number: int) -> None:
        """Signal one daemon and wait for its end; what descends from it goes on, as on a real machine."""
        pid = self._pids.get(daemon)
        if pid is None:
            return
        os.kill(pid, number)
        deadline = time.monotonic() + STOP_S
        while daemon in self._pids:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
            self._reap()

    def _cut_connections(self) -> int:
        """Kill the sshd processes that hold connections; what they started at this end goes on."""
        listener = self._pids.get("sshd")
        below = processes.descendants(os.getpid())
        sessions = [pid for pid in below if processes.name(pid) == "sshd" and pid != listener]
        for pid in sessions:
            _kill(pid)
        return len(sessions)

    def _reap(self) -> None:
        """Collect the ended: daemons, and orphans that came to us as the nearest reaper."""
        while True:
            pid, status = _collect()
            if pid == 0:
                return
            for daemon in [name for name, known in self._pids.items() if known == pid]:
                del self._pids[daemon]
                self._ended[daemon] = os.waitstatus_to_exitcode(status)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def kill_descendants() -> None:
    """End all that descends from this process; new ones may appear while others die, hence the rounds.

    The dead are collected here: not every machine's process 1 (a container's, say) does it for orphans.
    """
    for _ in range(500):
        while _collect()[0]:
            pass
        below = processes.descendants(os.getpid())
        if not below:
            return
        for pid in below:
            _kill(pid)
        time.sleep(0.02)


def _collect() -> tuple[int, int]:
    """Collect one dead child: its id, or 0 when there is none, and its status."""
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return 0, 0


def _leave(*_: object) -> None:
    """End, once: a second signal must not break off the ending of the descendants."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def guard() -> None:
    """Split in two: the parent waits here, the child returns and works."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    worker = os.fork()
    if worker == 0:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        os.waitpid(worker, 0)
    finally:
        kill_descendants()
    os._exit(0)


def main(folder: Path) -> None:
    """Run one cluster's daemons until told to halt."""
    plan = json.loads((folder / "plan.json").read_text())
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(folder / "run")
    if plan["isolation"] == "accounts":
        listener.bind("control")
        namespace.enter(folder)
        folder = namespace.INSIDE
    else:
        guard()
        listener.bind("control")
    listener.listen(16)
    os.chdir("/")
    signal.signal(signal.SIGTERM, _leave)
    try:
        Supervisor(folder, plan).serve(listener)
    finally:
        kill_descendants()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
