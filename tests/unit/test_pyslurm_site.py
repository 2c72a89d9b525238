"""A site by pyslurm, as far as it needs no Slurm: a child that ends, dies or hangs as libslurm can, and its words.

What stands in for pyslurm here only fails, or says that a job was taken; the real one is asked by
tests/contract/test_scheduler.py wherever it is installed.
"""

import io
import json
import os
import pwd
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.errors import Rejected, Uncertain, Unreachable
from adapters.port import UNLIMITED_S, Absent, Accepted, After, AfterKind, JobSpec, Known, Sent
from adapters.slurm import pyslurm_child as child
from adapters.slurm.commands import frame
from adapters.slurm.pyslurm_site import ChildProcesses, PyslurmSettings, SlurmPyslurm
from adapters.slurm.rows import queue_rows
from adapters.slurm.wrapper import batch_script, sbatch_flags

FOLDER = Path(child.__file__).parent
START = """
import pwd, runpy, sys
mine, sys.path[:0] = pwd.getpwuid, [{stand_in!r}]
pwd.getpwuid = lambda uid: pwd.struct_passwd((*mine(uid)[:5], {home!r}, "/bin/sh"))
runpy.run_path({program!r}, run_name="__main__")
"""
STAND_IN = """
import os, signal, time
{imported}
class RPCError(Exception):
    errno = 2000
class JobSubmitDescription:
    def __init__(self, **fields):
        self.name = fields["name"]
    def submit(self):
        {submitted}
"""
ME = pwd.getpwuid(os.getuid()).pw_name
NOW = datetime(2026, 11, 23, tzinfo=UTC)


class Place:
    """A site of one account in a folder, with what stands in for pyslurm there."""

    def __init__(self, folder: Path, imported: str = "", submitted: str = "return 7") -> None:
        self.home = folder / "home"
        for made in (self.home, folder / "bin", folder / "stand-in"):
            made.mkdir()
        for name, source in (("idf-gateway", "gateway.py"), ("idf-pyslurm", "pyslurm_child.py")):
            (folder / name).write_bytes((FOLDER / source).read_bytes())
        settings = {"isolation": "shared", "slurm_conf": "/none", "path": f"{folder}/bin:/usr/bin:/bin", "accounts": []}
        (folder / "idf-gateway.json").write_text(json.dumps(settings))
        (folder / "stand-in/pyslurm.py").write_text(STAND_IN.format(imported=imported, submitted=submitted))
        start = START.format(
            stand_in=str(folder / "stand-in"), home=str(self.home), program=str(folder / "idf-pyslurm")
        )
        self.command = (sys.executable, "-I", "-c", start)
        for name in ("squeue", "sacct"):
            self.tool(name, "exit 0")
        self.tool("sdiag", "echo 'DBD Agent queue size: 0'")

    def tool(self, name: str, body: str) -> None:
        path = self.home.parent / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def site(self, **bounds: Any) -> SlurmPyslurm:
        return SlurmPyslurm(PyslurmSettings(cluster="c", command=self.command, **bounds))

    def journal(self) -> list[str]:
        return [line for file in (self.home / ".idf/batches").glob("*") for line in file.read_text().splitlines()]


Make = Callable[..., Place]


@pytest.fixture
def place(tmp_path: Path) -> Make:
    return lambda *args, **kwargs: Place(tmp_path, *args, **kwargs)


def spec(name: str = "idf-1", **changes: Any) -> JobSpec:
    fields: dict[str, Any] = {"gpus": 1, "gpu_type": "a100", "time_limit_s": 60, "script": b"true\n"}
    return JobSpec(name=name, account=ME, **{**fields, **changes})


def test_a_job_is_taken_and_journalled(place: Make) -> None:
    here = place()
    assert here.site().submit("b", [spec()]) == {"idf-1": Accepted("7")}
    begun, sent, answered = here.journal()
    assert (begun, sent) == ("begun", "> idf-1")
    assert json.loads(answered[2:])["out"] == "7\n"


@pytest.mark.parametrize(
    "imported",
    [
        "os.write(2, b'fatal: Could not establish a configuration source\\n'); os._exit(1)",
        "raise ImportError('libslurmfull.so: cannot open shared object file')",
    ],
)
def test_a_binding_that_cannot_be_loaded_has_begun_nothing(place: Make, imported: str) -> None:
    """libslurm's way is the first: it ends the interpreter."""
    here = place(imported)
    answer = here.site().submit("b", [spec()])["idf-1"]
    assert isinstance(answer, Unreachable), answer
    assert "configuration source" in answer.reason or "shared object" in answer.reason
    assert here.journal() == []
    with pytest.raises(Unreachable):
        here.site().observe([Known("idf-1", ME, "7", NOW)])


def test_a_crash_in_a_call_is_uncertain_and_the_next_job_is_sent(place: Make) -> None:
    here = place(submitted="os.kill(os.getpid(), signal.SIGSEGV) if self.name == 'idf-1' else None; return 8")
    answers = here.site(parallel=1).submit("b", [spec(), spec("idf-2")])
    assert isinstance(answers["idf-1"], Uncertain)
    assert "signal 11" in answers["idf-1"].reason
    assert answers["idf-2"] == Accepted("8")


def test_a_call_that_hangs_is_ended_and_uncertain(place: Make) -> None:
    here = place(submitted="signal.pthread_sigmask(signal.SIG_BLOCK, []); time.sleep(60)")
    began = time.monotonic()
    answer = here.site(sbatch_s_max=1).submit("b", [spec()])["idf-1"]
    assert isinstance(answer, Uncertain)
    assert time.monotonic() - began < 10


def test_a_fork_that_ends_by_exit_is_no_refusal(place: Make) -> None:
    """libslurm's fatal() in the middle of a call: nobody knows whether the request was sent."""
    here = place(submitted="os.write(2, b'fatal: something\\n'); os._exit(1)")
    assert isinstance(here.site().submit("b", [spec()])["idf-1"], Uncertain)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Invalid qos specification", Rejected),
        ("Unable to contact slurm controller (connect failure)", Unreachable),
        ("Socket timed out on send/recv operation", Uncertain),
    ],
)
def test_what_slurm_answers_is_read_as_from_sbatch(place: Make, text: str, verdict: type[object]) -> None:
    here = place(submitted=f"raise RPCError({text!r})")
    answer = here.site().submit("b", [spec()])["idf-1"]
    assert type(answer) is verdict
    assert text in answer.reason  # type: ignore[union-attr]


def test_a_batch_runs_once_and_its_journal_answers_adoption(place: Make) -> None:
    here = place()
    here.tool("sacct", "exit 0")
    site = here.site()
    assert site.submit("b", [spec()]) == {"idf-1": Accepted("7")}
    assert isinstance(site.submit("b", [spec("idf-2")])["idf-2"], Uncertain)


def test_a_batch_that_was_closed_never_begins(place: Make) -> None:
    here = place(imported="Jobs = slurmctld = None")
    site = here.site()
    answer = site.adopt([Sent("idf-1", ME, "b", NOW)])["idf-1"]
    assert not isinstance(answer, Absent | Accepted), "the queue did not answer, so nothing is proven"
    assert [line.split()[0] for line in here.journal()] == ["closed"]
    assert isinstance(site.submit("b", [spec()])["idf-1"], Unreachable)


def test_the_whole_child_killed_in_the_middle_is_uncertain(place: Make) -> None:
    here = place(submitted="os.kill(os.getppid(), signal.SIGKILL); time.sleep(5); return 9")
    assert isinstance(here.site().submit("b", [spec()])["idf-1"], Uncertain)


def test_a_call_that_its_killed_child_left_behind_keeps_the_lock(place: Make) -> None:
    here = place("Jobs = slurmctld = None", "os.kill(os.getppid(), signal.SIGKILL); time.sleep(3); return 9")
    site = here.site(adopt_wait_s=0.2)
    assert isinstance(site.submit("b", [spec()])["idf-1"], Uncertain)
    answer = site.adopt([Sent("idf-1", ME, "b", NOW)])["idf-1"]
    assert answer == Uncertain("the batch is still being sent at the site")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("import os; os._exit(0)", None),
        ("import os; os.kill(os.getpid(), 9)", Uncertain),
        ("import time; time.sleep(60)", Uncertain),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", Uncertain),
    ],
)
def test_a_child_that_gives_no_answer(body: str, error: type[Exception] | None, monkeypatch: Any) -> None:
    monkeypatch.setattr("adapters.slurm.pyslurm_site.ANSWER_BYTES_MAX", 1 << 20)
    ways = ChildProcesses((sys.executable, "-I", "-c", body))
    began = time.monotonic()
    if error is None:
        assert ways.ask(b"", 5).output == b""
    else:
        with pytest.raises(error):
            ways.ask(b"", 2)
    assert time.monotonic() - began < 5


def test_a_child_that_cannot_be_started_was_handed_nothing() -> None:
    with pytest.raises(Unreachable, match="could not be started"):
        ChildProcesses(("/nowhere/idf-pyslurm",)).ask(frame({}), 5)


def test_no_more_processes_than_the_bound(tmp_path: Path) -> None:
    ways = ChildProcesses((sys.executable, "-I", "-c", "import time; time.sleep(1)"), processes_max=0 + 1)
    assert ways._free.acquire(blocking=False)
    with pytest.raises(Unreachable, match="busy"):
        ways.ask(b"", 0.2)


def test_a_site_without_its_binding_says_so_at_enrolment(place: Make) -> None:
    here = place("raise ImportError('no pyslurm')")
    for name in ("sinfo", "scontrol", "sacctmgr"):
        here.tool(name, "echo ClusterName = c")
    assert any("pyslurm cannot ask this site" in problem for problem in here.site().check().problems)


def test_every_flag_of_ours_has_its_field() -> None:
    wanted = spec(
        gpus=4, nodes=2, cpus_per_gpu=3, memory_mib=600, exclusive=True, partition="gpu",
        deadline=datetime(2027, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    script = batch_script(wanted)
    assert child.described([*sbatch_flags(wanted), "--chdir=/home/a", "--output=/home/a/.idf/logs/%x.log"], script) == {
        "script": script, "name": "idf-1", "nodes": "2", "ntasks": 2, "time_limit": 1, "gres_per_node": "gpu:a100:2",
        "cpus_per_gpu": 3, "resource_sharing": "exclusive",
        "memory_per_node": "600M", "partitions": ["gpu"], "deadline": 1798761600, "dependencies": "singleton",
        "is_requeueable": False, "log_files_open_mode": "append",
        "working_directory": "/home/a", "standard_output": "/home/a/.idf/logs/%x.log",
    }  # fmt: skip


def test_nothing_that_a_job_can_ask_for_lacks_its_field() -> None:
    asked = spec(
        after=(After(AfterKind.OK, "3"),), begin=datetime(2027, 1, 1, tzinfo=UTC), signal="USR1", signal_s=60,
        requeues=2, array="0-3%2", time_limit_s=600,
    )  # fmt: skip
    fields = child.described(sbatch_flags(asked), "")
    assert (fields["dependencies"], fields["kill_on_invalid_dependency"]) == ("singleton,afterok:3", True)
    assert (fields["begin_time"], fields["signal"], fields["array"]) == (1798761600, "B:USR1@60", "0-3%2")
    assert fields["is_requeueable"] is True


def test_every_flag_that_the_gateway_lets_pass_has_its_field() -> None:
    names = re.findall(r"[a-z]+(?:-[a-z]+)*", child.gateway.FLAG.pattern.split("=[")[0])
    assert {"time", "gpus-per-node", "no-requeue"} < set(names) <= set(child.FLAGS)


def test_a_flag_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="unrecognized option '--uid'"):
        child.described(["--uid=0"], "#!/bin/sh\n")
    with pytest.raises(ValueError, match="invalid literal"):
        child.described(["--time=soon"], "#!/bin/sh\n")


def a_job(**changes: Any) -> SimpleNamespace:
    amount = {kind: SimpleNamespace(count=n) for kind, n in (("cpu", 2), ("mem", 512), ("node", 1), ("billing", 2))}
    gres = {"gpu": SimpleNamespace(count=2), "gpu:a100": SimpleNamespace(count=2)}
    fields = {
        "id": 12, "array_id": None, "array_task_id": None, "array_tasks_waiting": None, "state": "RUNNING",
        "requeue_count": 0, "submit_time": 1795403458, "start_time": 1795403459, "end_time": 1795404059,
        "run_time": 106, "time_limit": 10,
        "allocated_tres": SimpleNamespace(**amount, gres=gres), "state_reason": "None",
        "allocated_nodes": "node[1-2]", "working_directory": "/home/a|b", "name": "idf|x\ny",
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


def test_a_row_of_the_queue_reads_as_one_of_squeue() -> None:
    line = "|".join(["12", *child.fields_of(a_job(), "idf001")])
    rows, odd = queue_rows(line, child.gateway.QUEUE_FIELDS.split(","))
    assert not odd
    (row,) = rows
    assert (row.job, row.user, row.native_state, row.elapsed_s, row.time_limit_s) == (
        "12",
        "idf001",
        "RUNNING",
        106,
        600,
    )
    assert (row.tres.gpus, row.tres.gpu_types, row.tres.cpus, row.tres.memory_mib) == (2, {"a100": 2}, 2, 512)
    assert (row.nodes, row.work_folder, row.name) == (("node1", "node2"), "/home/a\\x7cb", "idf|x\\ny")


def test_the_numbers_of_those_that_have_not_ended() -> None:
    """What the gateway asks before it sends a job after others; an array has one number, whatever its tasks."""
    me = os.getuid()
    told = {1: a_job(id=1, user_id=me), 2: a_job(id=2, user_id=me, state="COMPLETED"), 4: a_job(id=4, user_id=me + 1)}
    told[3] = a_job(id=3, user_id=me, array_id=7, array_task_id=1)
    pyslurm = SimpleNamespace(Jobs=SimpleNamespace(load=lambda: told), RPCError=OSError)
    printed = io.StringIO()
    words = ["--noheader", f"--user={pwd.getpwuid(me).pw_name}", "--format=%F"]
    assert child.squeue(pyslurm, words, printed) == 0
    assert printed.getvalue().split() == ["1", "7"]


def test_a_job_that_waits_has_no_times_yet() -> None:
    nothing = dict.fromkeys(("start_time", "end_time", "allocated_tres", "allocated_nodes", "time_limit"))
    waits = a_job(state="PENDING", run_time=0, **nothing)
    rows, odd = queue_rows("|".join(["12", *child.fields_of(waits, "idf001")]), child.gateway.QUEUE_FIELDS.split(","))
    assert not odd
    assert (rows[0].started_at, rows[0].tres.gpus) == (None, None)
    assert rows[0].time_limit_s == UNLIMITED_S, "a limit is always asked for: pyslurm's None is one that was taken away"


@pytest.mark.parametrize(
    ("changes", "ids"),
    [
        ({}, ["12"]),
        ({"array_id": 10, "array_task_id": 3}, ["10_3"]),
        ({"array_id": 10}, ["10_0"]),
        ({"array_id": 9, "array_tasks_waiting": "1-2,7,10-20:5"}, ["9_1", "9_2", "9_7", "9_10", "9_15", "9_20"]),
    ],
)
def test_the_ids_of_an_array(changes: dict[str, Any], ids: list[str]) -> None:
    assert list(child.ids_of(a_job(**changes))) == ids
