"""Whatever people type, the batch script carries it to the job unchanged and directs nothing by it."""

import os
import re
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.errors import Rejected
from adapters.port import JobSpec
from adapters.slurm.wrapper import batch_script, sbatch_flags

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    [
        "#SBATCH --array=0-9",
        "#SBATCH hetjob",
        "\n#SBATCH -n 9\n",
        "$(id)",
        "`id`",
        "'",
        '"',
        "\\",
        "|",
        ".",
        "\n.\n",
        "-n",
        "",
    ]
)
VARIABLES = st.from_regex(r"IDF_[A-Za-z0-9_]{0,20}", fullmatch=True).filter(lambda name: name != "IDF_OUTPUTS")
SHOW = """\
for word; do printf '%s\\0' "$word"; done
env -0 | LC_ALL=C sort -z | grep -z '^IDF_' | grep -zv '^IDF_OUTPUTS=' || true
"""


def spec(**changes: object) -> JobSpec:
    fields: dict[str, object] = {"name": "idf-1", "account": "a", "gpus": 1, "gpu_type": "a100", "time_limit_s": 60}
    return JobSpec(**{**fields, **changes})  # type: ignore[arg-type]


def run(
    script: str, home: Path, job: str = "7", task: str = "", restarts: int = 0
) -> subprocess.CompletedProcess[bytes]:
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "SLURM_JOB_ID": job, "LC_ALL": "C.UTF-8"}
    env |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_JOB_ID": f"{job}1", "SLURM_ARRAY_TASK_ID": task} if task else {}
    env |= {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
    return subprocess.run(["/bin/bash"], input=script.encode(), capture_output=True, env=env, check=False, timeout=20)


@given(st.lists(WORDS, max_size=6), st.dictionaries(VARIABLES, WORDS, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_arguments_and_environment_survive(arguments: list[str], environment: dict[str, str]) -> None:
    script = batch_script(spec(script=SHOW.encode(), arguments=tuple(arguments), environment=environment))
    with tempfile.TemporaryDirectory() as home:
        done = run(script, Path(home))
    assert done.returncode == 0, done.stderr
    pairs = sorted(f"{name}={value}".encode() for name, value in environment.items())
    assert done.stdout.split(b"\0")[:-1] == [*(word.encode() for word in arguments), *pairs]


@given(st.binary(max_size=3000), st.lists(WORDS, min_size=1, max_size=4), st.dictionaries(VARIABLES, WORDS, max_size=2))
@settings(max_examples=200, deadline=None)
def test_no_line_of_theirs_can_direct_slurm(payload: bytes, arguments: list[str], environment: dict[str, str]) -> None:
    script = batch_script(spec(script=payload, arguments=tuple(arguments), environment=environment))
    assert script.isascii()
    assert [line for line in script.splitlines() if line.startswith("#")] == script.splitlines()[:2]
    same = batch_script(spec(script=b"x" if payload else b"", arguments=("y",)))
    ours = [line for line in script.splitlines() if not re.fullmatch(r"[A-Za-z0-9+/]+=*", line)]
    assert len(ours) == len([line for line in same.splitlines() if not re.fullmatch(r"[A-Za-z0-9+/]+=*", line)])


@given(st.binary(min_size=1, max_size=2000))
@settings(max_examples=25, deadline=None)
def test_a_payload_arrives_byte_by_byte(payload: bytes) -> None:
    shown = b"#!/bin/cat\n" + payload
    with tempfile.TemporaryDirectory() as home:
        done = run(batch_script(spec(script=shown)), Path(home))
    assert done.stdout == shown


@given(st.text(max_size=30))
def test_names_and_variables_are_words_or_refused(word: str) -> None:
    for job in (spec(name=word, script=b"x"), spec(environment={word: ""}, script=b"x")):
        try:
            script = batch_script(job)
        except Rejected:
            continue
        assert re.fullmatch(r"[A-Za-z0-9._-]+", word)
        assert script.isascii()


@given(st.text(max_size=20))
def test_flags_are_words_or_refused(word: str) -> None:
    for job in (spec(gpu_type=word), spec(partition=word)):
        try:
            flags = sbatch_flags(job)
        except Rejected:
            continue
        assert all(re.fullmatch(r"--[a-z-]+(=[A-Za-z0-9:._-]+)?", flag) for flag in flags)


def test_of_two_jobs_the_second_does_nothing_and_a_requeue_goes_on(tmp_path: Path) -> None:
    script = batch_script(spec(script=b"echo ran"))
    assert run(script, tmp_path).stdout == b"ran\n"
    other = run(script, tmp_path, job="8")
    assert (other.returncode, other.stdout, other.stderr) == (0, b"", b"")
    assert run(script, tmp_path, restarts=1).stdout == b"ran\n"


def test_a_run_that_the_site_starts_a_second_time_does_nothing(tmp_path: Path) -> None:
    """As a slurmctld does that was killed and comes back with an older state: no requeue, the same run once more."""
    script = batch_script(spec(script=b"echo ran"))
    for restarts in (0, 1):
        assert run(script, tmp_path, restarts=restarts).stdout == b"ran\n"
        again = run(script, tmp_path, restarts=restarts)
        assert (again.returncode, again.stdout) == (1, b"")
        assert b"a second time" in again.stderr


def test_each_task_of_an_array_has_a_folder_and_a_claim_of_its_own(tmp_path: Path) -> None:
    script = batch_script(spec(script=b'#!/bin/sh\necho "$SLURM_ARRAY_TASK_ID $0"', array="0-2"))
    folder = tmp_path / ".idf/jobs/idf-1"
    for task in ("0", "2"):
        assert run(script, tmp_path, task=task).stdout.decode() == f"{task} {folder}/{task}/script\n"
        assert (folder / task / "claim").readlink() == Path(f"7_{task}")
    assert (folder / "claim").readlink() == Path("7_")
    assert sorted(file.name for file in folder.iterdir()) == ["0", "2", "claim"]
    assert run(script, tmp_path, task="2", restarts=1).stdout, "after a requeue it goes on"


def test_of_two_copies_of_an_array_no_task_of_the_second_does_anything(tmp_path: Path) -> None:
    script = batch_script(spec(script=b"echo ran", array="0-1"))
    assert run(script, tmp_path, task="0").stdout == b"ran\n"
    other = run(script, tmp_path, job="8", task="1")
    assert (other.returncode, other.stdout, other.stderr) == (0, b"", b""), "though the first has not begun that task"
    assert run(script, tmp_path, task="1").stdout == b"ran\n", "the first one's is none the worse for it"


def test_a_task_without_its_number_does_nothing(tmp_path: Path) -> None:
    done = run(batch_script(spec(script=b"echo ran", array="0-1")), tmp_path)
    assert done.returncode != 0
    assert done.stdout == b""


@given(st.text(max_size=20))
def test_an_array_is_its_numbers_or_refused(word: str) -> None:
    try:
        flags = sbatch_flags(spec(array=word))
    except Rejected:
        return
    assert re.fullmatch(r"--array=[0-9,:%-]+", flags[-1])


def test_no_room_is_said_and_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / ".idf").write_text("a file where a folder should be")
    done = run(batch_script(spec(script=b"echo ran")), tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"idf-compute: no room" in done.stderr


@pytest.mark.parametrize("size", [3 << 20])
def test_a_script_that_slurm_would_refuse_is_refused_here(size: int) -> None:
    with pytest.raises(Rejected, match="too large"):
        batch_script(spec(script=b"x" * size))


def test_what_is_asked_of_slurm() -> None:
    flags = sbatch_flags(
        spec(gpus=8, nodes=2, cpus_per_gpu=4, memory_mib=512, partition="gpu", time_limit_s=7200,
             deadline=datetime(2026, 3, 1, 23, 0, tzinfo=UTC))
    )  # fmt: skip
    assert flags == [
        "--ignore-pbs", "--no-requeue", "--export=ALL", "--open-mode=append", "--dependency=singleton",
        "--job-name=idf-1", "--nodes=2", "--time=120", "--gpus-per-node=a100:4", "--cpus-per-gpu=4", "--mem=512M",
        "--partition=gpu", "--deadline=2026-03-01T23:00:00",
    ]  # fmt: skip
    assert "--gpus=a100:3" in sbatch_flags(spec(gpus=3, nodes=2))


def test_what_is_asked_of_slurm_for_an_array() -> None:
    assert sbatch_flags(spec(array="3,1,5-9:2%4"))[-1] == "--array=1-9:2%4"
    assert "--dependency=singleton" in sbatch_flags(spec(array="0-3")), "tasks of one array run together none the less"


def test_what_is_asked_of_slurm_without_gpu_and_with_whole_nodes() -> None:
    without = sbatch_flags(spec(gpus=0, gpu_type="", cpus=8, nodes=2))
    assert without[5:] == ["--job-name=idf-1", "--nodes=2", "--time=1", "--cpus-per-task=4"]
    assert not any("gpu" in flag for flag in sbatch_flags(spec(gpus=0, gpu_type="")))
    assert sbatch_flags(spec(exclusive=True, memory_mib=512))[-2:] == ["--exclusive", "--mem=512M"]
    for cpus, nodes in ((3, 2), (1, 2), (0, 1)):
        with pytest.raises(Rejected):
            sbatch_flags(spec(gpus=0, gpu_type="", cpus=cpus, nodes=nodes))


@pytest.mark.parametrize(
    "wrong",
    [{"time_limit_s": 61}, {"time_limit_s": 0}, {"gpus": -1}, {"nodes": 0}, {"memory_mib": 0}, {"cpus_per_gpu": -2}],
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(Rejected):
        sbatch_flags(spec(**wrong))
