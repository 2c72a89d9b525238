#!/usr/bin/python3 -I
"""idf-pyslurm: the gateway of a site whose broker runs on the cluster itself, with pyslurm in the commands' place.

It lies root-owned beside `idf-gateway` and its settings, and is that gateway, read from that file: the same
requests, journal, lock, bounds and answers. Only what the gateway would have sbatch, scancel, squeue or sdiag do
is done by a fork of this, which calls libslurm through pyslurm and writes what the command would have written. A
call that crashes or hangs ends its fork, and the journal tells of it as of an sbatch that was killed.

sacct stays a command: pyslurm 25.11 keeps one record for each job id and never asks for duplicates, so the
earlier runs of a requeued job would go unbilled. This is the only file that imports pyslurm.
"""

import calendar
import importlib
import importlib.machinery
import importlib.util
import json
import os
import pwd
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from adapters.slurm import gateway
else:
    HERE = Path(__file__).resolve().parent
    NAMES = ("idf-gateway", "gateway.py")  # at a site; in the source tree
    FOUND = next(HERE / name for name in NAMES if (HERE / name).exists())
    LOADER = importlib.machinery.SourceFileLoader("idf_gateway", str(FOUND))
    gateway = importlib.util.module_from_spec(importlib.util.spec_from_loader("idf_gateway", LOADER))
    LOADER.exec_module(gateway)

Json = dict[str, Any]
LOADING_S_MAX = 30
SLURM_ERRNO_MIN = 1000
"""slurm_errno.h: Slurm's own codes begin there; below are those of the C library."""


class Worker:
    """A fork that does one command after another, each with its own files; its end is seen as the command's."""

    def __init__(self, pyslurm: Any, others: "Iterable[Worker]") -> None:
        self.line, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for line in (self.line, *(other.line for other in others)):
                    line.close()  # who holds another's line keeps that one from seeing our parent's end
                _work(pyslurm, theirs)
            finally:
                os._exit(2)
        theirs.close()

    def begin(self, argv: list[str], limit_s: float, files: tuple[int, ...]) -> None:
        """Hand a command over, with its three files."""
        task = gateway.scratch(json.dumps([argv, limit_s]).encode())
        with suppress(OSError):  # it may have died: whoever waits for it learns how
            socket.send_fds(self.line, [b"!"], [task, *files])
        os.close(task)

    def code(self) -> int | None:
        """Wait for the command's exit status; None when the worker died instead."""
        try:
            said = self.line.recv(1)
        except OSError:
            said = b""
        return said[0] if said else None


def _work(pyslurm: Any, line: socket.socket) -> None:
    """Do what comes along the line until its other end is closed."""
    nothing = os.open(os.devnull, os.O_RDWR)
    while True:
        for number in range(3):
            os.dup2(nothing, number)
        data, files, _, _ = socket.recv_fds(line, 1, 4)
        if not data:
            return
        code = _act(pyslurm, *files)
        for fd in files:
            os.close(fd)
        line.send(bytes([code]))


def _act(pyslurm: Any, task: int, given: int, out: int, err: int) -> int:
    """Be one command. What pyslurm itself prints goes to standard error, never among the rows."""
    for source, target in ((given, 0), (err, 1), (err, 2)):
        os.dup2(source, target)
    with open(task, "rb", closefd=False) as file:
        argv, limit_s = json.load(file)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limit_s)  # it ends by itself even when its parent was killed
    try:
        with open(out, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as answer:
            return COMMANDS[argv[0]](pyslurm, argv[1:], answer)
    except Exception as error:  # noqa: BLE001 (its words are the command's, and prove nothing)
        complain(f"{type(error).__name__}: {error}")
        return 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class BoundSite(gateway.Site):
    """A gateway's site, some of whose commands are done by workers that call pyslurm.

    Workers are forked when first needed, so that they inherit the lock of the batch that they send.
    """

    def __init__(self) -> None:
        super().__init__()
        self.program = [sys.executable, "-I", str(Path(__file__).resolve())]
        self.pyslurm: Any = None
        self.idle: list[Worker] = []
        self.busy: dict[int, Worker] = {}

    def load(self) -> None:
        """Import pyslurm, which reads Slurm's configuration and ends this process if it cannot, or hangs."""
        if self.pyslurm is not None:
            return
        tick = signal.signal(signal.SIGALRM, signal.SIG_DFL)  # C does not come back for a handler of Python's
        signal.setitimer(signal.ITIMER_REAL, LOADING_S_MAX)
        try:
            self.pyslurm = importlib.import_module("pyslurm")
        except (ImportError, OSError) as error:
            raise gateway.Refused(f"pyslurm cannot be loaded: {error}") from error
        finally:
            signal.signal(signal.SIGALRM, tick)
            signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def start(self, argv: list[str], limit_s: float, *files: int) -> int:
        """Start a command: with a worker where pyslurm does it, else as the gateway does; return its process id."""
        # pyslurm knows the task of an array by no number, so that scancel does it, and gives no forecast.
        of_task = argv[0] == "scancel" and any("_" in word for word in argv)
        if argv[0] not in COMMANDS or of_task or "--test-only" in argv:
            return super().start(argv, limit_s, *files)
        self.load()
        worker = self.idle.pop() if self.idle else Worker(self.pyslurm, self.busy.values())
        worker.begin(argv, limit_s, files)
        self.busy[worker.pid] = worker
        self.ends[worker.pid] = time.monotonic() + limit_s
        return worker.pid

    def wait(self, pid: int = -1) -> tuple[int, int]:
        """Wait for a command, or any; return its process id and its exit status, negative for a signal."""
        if not self.busy or (pid != -1 and pid not in self.busy):
            return super().wait(pid)
        if pid == -1:
            ready = select.select([worker.line for worker in self.busy.values()], [], [])[0]
            pid = next(number for number, worker in self.busy.items() if worker.line in ready)
        worker = self.busy[pid]
        code = worker.code()
        del self.busy[pid]
        if code is None:
            worker.line.close()
            return super().wait(pid)
        self.ends.pop(pid)
        self.idle.append(worker)
        return pid, code


Command = Callable[[Any, list[str], TextIO], int]


def complain(sentence: str) -> None:
    """Write to standard error, as a command does."""
    os.write(2, f"{sentence}\n".encode(errors="backslashreplace"))


def options(words: Iterable[str]) -> dict[str, str]:
    """Return `--name=value` by name; the value of a bare `--name` is empty."""
    pairs = (word[2:].partition("=") for word in words if word.startswith("--"))
    return {name: value for name, _, value in pairs}


# ── sbatch ──────────────────────────────────────────────────────────────────────────────────────────────

Fields = dict[str, object]


def field(name: str, kind: Callable[[str], object] = str) -> Callable[[str], Fields]:
    """Return what makes a flag's value one field of a job description."""
    return lambda value: {name: kind(value)}


def moment(text: str) -> object:
    """Return a time in seconds since 1970: flags carry UTC, and libslurm's own reading depends on the time zone."""
    try:
        return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return text


FLAGS: dict[str, Callable[[str], Fields]] = {
    "account": field("account"),
    "array": field("array"),
    "begin": field("begin_time", moment),
    "chdir": field("working_directory"),
    "container": field("container"),
    "cpus-per-gpu": field("cpus_per_gpu", int),
    "cpus-per-task": field("cpus_per_task", int),
    "deadline": field("deadline", moment),
    "dependency": field("dependencies"),
    "exclusive": lambda _: {"resource_sharing": "exclusive"},
    "export": lambda _: {},  # always this child's own clean environment, see environment()
    "gpus": field("gpus", lambda value: f"gpu:{value}"),
    "gpus-per-node": field("gres_per_node", lambda value: f"gpu:{value}"),
    "ignore-pbs": lambda _: {},  # pyslurm reads no directive from a script unless told to
    "job-name": field("name"),
    "kill-on-invalid-dep": lambda value: {"kill_on_invalid_dependency": value == "yes"},
    "mem": field("memory_per_node"),
    "no-requeue": lambda _: {"is_requeueable": False},
    "nodelist": field("required_nodes", lambda value: value.split(",")),
    "nodes": field("nodes"),
    "ntasks": field("ntasks", int),
    "ntasks-per-node": field("ntasks_per_node", int),
    "open-mode": field("log_files_open_mode"),
    "output": field("standard_output"),
    "parsable": lambda _: {},
    "partition": field("partitions", lambda value: value.split(",")),
    "qos": field("qos"),
    "requeue": lambda _: {"is_requeueable": True},
    "signal": field("signal"),
    "time": field("time_limit", int),
}
"""sbatch's flags as fields of pyslurm.JobSubmitDescription; a flag that is not here is refused."""


def described(words: Iterable[str], script: str) -> Fields:
    """Return the fields of the job that sbatch would submit for these flags.

    Raises:
        ValueError: a flag is not known here, or its value is not of its kind.
    """
    fields: Fields = {"script": script}
    for name, value in options(words).items():
        if name not in FLAGS:
            raise ValueError(f"unrecognized option '--{name}'")
        fields |= FLAGS[name](value)
    fields.setdefault("ntasks", int(str(fields.get("nodes", 1)).split("-")[0]))  # one on each node
    return fields


def sbatch(pyslurm: Any, words: list[str], out: TextIO) -> int:
    """Submit the script on standard input and print the job's id, or say why not as sbatch says it."""
    with open(0, encoding="ascii", closefd=False) as given:
        script = given.read()
    try:
        fields = described(words, script) | {"user_id": os.getuid(), "group_id": os.getgid()}
        job_id = pyslurm.JobSubmitDescription(**fields, environment=environment()).submit()
    except pyslurm.RPCError as error:
        complain(f"sbatch: error: Batch job submission failed: {error}")
        return 1
    except (TypeError, ValueError, AttributeError) as error:
        complain(f"sbatch: error: {error}")
        return 1
    print(job_id, file=out)
    return 0


def environment() -> dict[str, str]:
    """Return the job's environment: this child's, and what sbatch adds for slurmstepd: umask, priority, limits.

    pyslurm's own `ALL` is empty here, since libslurm does not see that Python changed the environment.
    """
    names = ("CORE", "FSIZE", "NPROC", "NOFILE", "MEMLOCK", "STACK")
    limits = {f"SLURM_RLIMIT_{name}": resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in names}
    numbers = {name: str(limit % (1 << 64)) for name, limit in limits.items()}
    return {
        **os.environ,
        **numbers,
        "SLURM_UMASK": "0077",
        "SLURM_PRIO_PROCESS": "0",
        "SLURM_SUBMIT_DIR": str(Path.cwd()),
    }


# ── scancel ─────────────────────────────────────────────────────────────────────────────────────────────


def scancel(pyslurm: Any, words: list[str], _: TextIO) -> int:
    """End jobs; say of each that could not be ended what scancel says."""
    code = 0
    for job in words:
        try:
            pyslurm.Job(int(job)).cancel()
        except pyslurm.RPCError as error:
            if error.errno < SLURM_ERRNO_MIN and is_ending(pyslurm, job):
                continue
            complain(f"scancel: error: Kill job error on job id {job}: {error}")
            code = 1
    return code


def is_ending(pyslurm: Any, job: str) -> bool:
    """Say whether a job ends: pyslurm judges its call by an errno that a call without fault does not set."""
    try:
        state = str(pyslurm.Job.load(int(job)).state)
    except pyslurm.RPCError:
        return False
    return state in ("COMPLETING", *gateway.ENDED.split(","))


# ── squeue and sdiag ────────────────────────────────────────────────────────────────────────────────────


def squeue(pyslurm: Any, words: list[str], out: TextIO) -> int:
    """Print the queue's rows of some users, and of some names where they are given, in the gateway's fields.

    With `--format=%F` print no more than the numbers of the jobs that have not ended, as squeue does.
    """
    given = options(words)
    users = {pwd.getpwnam(name).pw_uid: name for name in given["user"].split(",")}
    names = set(given["name"].split(",")) if "name" in given else None
    os.environ["SLURM_BITSTR_LEN"] = "0"  # else the list of an array's waiting tasks is cut at 64 characters
    try:
        jobs = pyslurm.Jobs.load()
    except pyslurm.RPCError as error:
        complain(f"slurm_load_jobs error: {error}")
        return 1
    for job in jobs.values():
        if job.user_id not in users or not (names is None or job.name in names):
            continue
        if given.get("format") == "%F":
            if str(job.state) not in gateway.ENDED.split(","):
                print(job.array_id or job.id, file=out)
            continue
        row = fields_of(job, users[job.user_id])
        for job_id in ids_of(job):
            print("|".join([job_id, *row]), file=out)
    return 0


def fields_of(job: Any, user: str) -> list[str]:
    """Return a job's fields in the order of gateway.QUEUE_FIELDS, without the first, its id."""
    minutes = job.time_limit
    fields = [
        job.state, job.requeue_count, user, job.submit_time, job.start_time, job.end_time,
        f"{job.run_time // 60}:{job.run_time % 60:02}", f"{minutes}:00" if isinstance(minutes, int) else "UNLIMITED",
        resources(job.allocated_tres), job.state_reason, job.allocated_nodes, job.working_directory, job.name,
    ]  # fmt: skip
    words = ["" if word is None else str(word).replace("\n", "\\n") for word in fields]
    return [*(word.replace("|", "\\x7c") for word in words[:-1]), words[-1]]  # the mark may stand in the last


def resources(tres: Any) -> str:
    """Return trackable resources as Slurm writes them, `cpu=1,mem=256M,node=1,gres/gpu:a100=1`."""
    if tres is None:
        return ""
    kinds = ((kind, getattr(tres, kind, None)) for kind in ("cpu", "mem", "node", "billing"))
    plain = [f"{kind}={amount.count}{'M' if kind == 'mem' else ''}" for kind, amount in kinds if amount is not None]
    return ",".join([*plain, *(f"gres/{name}={amount.count}" for name, amount in tres.gres.items())])


def ids_of(job: Any) -> Iterator[str]:
    """Yield a job's id, that of an array's task, or those of the tasks that still wait together."""
    if job.array_id is None:
        yield str(job.id)
    elif job.array_tasks_waiting:
        for task in tasks_of(job.array_tasks_waiting):
            yield f"{job.array_id}_{task}"
    else:
        yield f"{job.array_id}_{job.array_task_id or 0}"  # pyslurm gives None for task 0


def tasks_of(text: str) -> Iterator[int]:
    """Yield the numbers of `1-3,7,10-20:5`."""
    for part in text.split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1, int(step or 1))


def sdiag(pyslurm: Any, _: list[str], out: TextIO) -> int:
    """Print how many records the controller still keeps for the accounting database."""
    try:
        left = pyslurm.slurmctld.diag().dbd_agent_queue_size
    except pyslurm.RPCError as error:
        complain(f"slurm_get_statistics: {error}")
        return 1
    print(f"DBD Agent queue size: {left}", file=out)
    return 0


COMMANDS: dict[str, Command] = {"sbatch": sbatch, "scancel": scancel, "squeue": squeue, "sdiag": sdiag}


# pyslurm is loaded before the first word of a change is journalled: where it cannot be, nothing began.


def submit(part: Json, site: gateway.Site) -> Iterator[Json]:
    """Send the jobs of a batch, as gateway.submit does."""
    cast("BoundSite", site).load()
    yield from gateway.submit(part, site)


def cancel(part: Json, site: gateway.Site) -> Iterator[Json]:
    """Cancel jobs, as gateway.cancel does."""
    cast("BoundSite", site).load()
    yield from gateway.cancel(part, site)


if __name__ == "__main__":
    gateway.AS_ACCOUNT.update(submit=submit, cancel=cancel)
    sys.exit(gateway.main(sys.argv[1:] == ["account"], BoundSite))
