"""The #SBATCH lines of a script: sbatch's own grammar, and what becomes of each option."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import request
from cli.exits import Exit, Failure
from cli.sbatch import parse
from cli.sbatch_options import OPTIONS, Fate, Takes
from cli.sbatch_words import found_in, split

SITES = [
    {
        "name": "jz",
        "gpu_types": {"a100-80": "a100", "v100-32": "v100"},
        "constraints": {"v100-32g": "v100-32"},
    },
    {"name": "ovh", "gpu_types": {"a100-40": "a100"}, "constraints": {"v100-32g": "v100-32"}},
]


def script(*lines: str) -> str:
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {line}" for line in lines), "srun hostname", "#SBATCH --mem=9G", ""])


def fields(*lines: str, **given: object) -> dict[str, object]:
    return request.merged(parse(script(*lines)), dict(given), SITES)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["-J train"], {"name": "train"}),
        (["-Jtrain"], {"name": "train"}),
        (["--job-name=train"], {"name": "train"}),
        (['--job-name "my job" # a remark'], {"name": "my job"}),
        (["--job-name='a#b'"], {"name": "a#b"}),
        (["--job-name=a#b"], {"name": "a"}),
        (["--job=x"], {"name": "x"}),
        (["-J", "late"], {"name": "late"}),
        (["-J one", "-J two"], {"name": "two"}),
        (["-t 90"], {"time_limit_s": 5400}),
        (["--time=1-12"], {"time_limit_s": 129600}),
        (["-N2 --gpus-per-node=4"], {"nodes": 2, "gpus": 8}),
        (["--nodes=2-2 -G 2"], {"nodes": 2, "gpus": 2}),
        (["-G4"], {"gpus": 4}),
        (["--gpus=v100:4"], {"gpus": 4, "gpu_class": "v100-32"}),
        (["--gpus-per-node=v100:4", "-N 2"], {"gpus": 8, "nodes": 2, "gpu_class": "v100-32"}),
        (["--gres=gpu"], {"gpus": 1}),
        (["--gres=gpu:2"], {"gpus": 2}),
        (["--gres=gpu:v100"], {"gpus": 1, "gpu_class": "v100-32"}),
        (["--gres=gpu:v100:2 --nodes 3"], {"gpus": 6, "nodes": 3, "gpu_class": "v100-32"}),
        (["--gres=gpu:a100-80:2"], {"gpus": 2, "gpu_class": "a100-80"}),
        (["--gpus=8 --gres=gpu:4 -N2"], {"gpus": 8, "nodes": 2}),
        (["--gpus-per-task=4 -N2 --ntasks-per-node=1"], {"gpus": 8, "nodes": 2}),
        (["--exclusive -N2 --gres=gpu:4"], {"gpus": 8, "nodes": 2, "exclusive": True}),
        (["--gpus=0"], {"gpus": 0}),
        (["--gres=gpu:0 -c 8"], {"gpus": 0, "cpus": 8}),
        (["-G 0 -N2 -n2 --cpus-per-task=4 --mem-per-cpu=2G"], {"gpus": 0, "nodes": 2, "cpus": 8, "memory_mib": 8192}),
        (["-G 0 --mem-per-cpu=2G"], {"gpus": 0, "memory_mib": 2048}),
        (["-C v100-32g"], {"gpu_class": "v100-32", "gpus": 1}),
        (["-C v100-32g --gres=gpu:v100:1"], {"gpu_class": "v100-32"}),
        (["--cpus-per-gpu=10"], {"cpus_per_gpu": 10}),
        (["--gres=gpu:4 -c 40"], {"cpus_per_gpu": 10}),
        (["--gres=gpu:4 -c 40 -N2"], {"cpus_per_gpu": 10, "gpus": 8}),
        (["--mem=4G"], {"memory_mib": 4096}),
        (["--array=0-15%4"], {"array": "0-15%4"}),
        (["-a 1,3,5-9:2"], {"array": "1,3,5-9:2"}),
        (["--mem 512"], {"memory_mib": 512}),
        (["--mem-per-gpu=8G -G 4 -N 2"], {"memory_mib": 16384}),
        (["--mem-per-cpu=2G --gres=gpu:2 -c 8"], {"memory_mib": 16384, "cpus_per_gpu": 4}),
        (["--export=NONE", "--no-requeue", "-n1"], {"gpus": 1, "requeue": False}),
        (["--no-requeue", "--requeue"], {"requeue": True}),
        (["--signal=B:USR1@120"], {"signal": "USR1", "signal_s": 120}),
        (["--signal=SIGTERM@90"], {"signal": "TERM", "signal_s": 90}),
        (["--signal=12"], {"signal": "USR2", "signal_s": 60}),
        (["--begin=2099-12-31T08:00:00"], {"begin_at": "2099-12-31T08:00:00+00:00"}),
        (["-A idf@v100 -p gpu_p13 --qos=qos_gpu-dev -o log.%j -e err --hint=nomultithread"], {"gpus": 1}),
    ],
)
def test_options_that_have_an_equivalent_are_taken_over(lines: list[str], expected: dict[str, object]) -> None:
    found = fields(*lines)
    assert {name: found.get(name) for name in expected} == expected
    assert "memory_mib" in expected or "memory_mib" not in found, "a line after the first command was read"


REFUSED = [
    "--dependency=afterok:1",
    "-d singleton",
    "--begin=soon",
    "--begin=now+1eon",
    "--requeue=1",
    "--het-group=0",
    "--pack-group=0",
    "packjob",
    "--exclusive=user",
    "--wrap=hostname",
    "--chdir=/tmp",
    "-D /tmp",
    "--export=A=1,B=2",
    "--export=ALL,A=1",
    "--nodelist=n1",
    "-w n1",
    "-x n2",
    "--hold",
    "--signal=KILL@60",
    "--signal=R:USR1@60",
    "--signal=USR1@soon",
    "--ntasks=4",
    "-G 0 --cpus-per-gpu=4",
    "-G 0 --mem-per-gpu=4G",
    "-G 0 --exclusive --mem-per-cpu=4G",
    "-G 0 --ntasks=4",
    "-n 4",
    "--ntasks-per-node=4",
    "--nodes=2-4",
    "--gpus=v100:1,a100:1",
    "--gres=gpu:1,nvme:1",
    "--gres=shard:2",
    "--gpus=a100:1",
    "--gpus=h200:1",
    "-C fast",
    "-C v100-32g&big",
    "--mem=0",
    "--mem-per-cpu=2G",
    "--clusters=other",
    "--licenses=matlab",
    "-s",
    "--reservation=r",
    "--time-min=10",
    "--frobnicate",
    "--frobnicate=1",
    "-Z",
    "hetjob",
    "--unknown # x",
    "word",
    "--time=0",
    "--time=soon",
    "--time=UNLIMITED",
    "--gpus=many",
    "--gpus=-1",
    "--no-requeue=5",
    "--mem",
    "--n=3",
    '--job-name="open',
    "-c 3 --gres=gpu:2",
    "-C v100-32g --gres=gpu:a100-80:1",
    "--gpus=2 --gres=gpu:4",
]


@pytest.mark.parametrize("line", REFUSED)
def test_what_would_change_the_meaning_is_refused_by_name(line: str) -> None:
    with pytest.raises(Failure) as refused:
        fields(line)
    assert refused.value.exit_code is Exit.REFUSED
    assert refused.value.remedy
    option = line.split("=", maxsplit=1)[0].split(maxsplit=1)[0]
    if option.startswith("--") and option[2:] in OPTIONS and OPTIONS[option[2:]].fate is Fate.REFUSE:
        assert option in refused.value.sentence


@pytest.mark.parametrize("name", [o.name for o in OPTIONS.values() if o.fate is Fate.REFUSE])
def test_each_refused_option_says_what_to_do_instead(name: str) -> None:
    value = "" if OPTIONS[name].takes is not Takes.VALUE else "=1"
    with pytest.raises(Failure, match=f"--{name}") as refused:
        parse(script(f"--{name}{value}"))
    assert refused.value.remedy


@pytest.mark.parametrize("name", [o.name for o in OPTIONS.values() if o.fate is Fate.DROP])
def test_each_dropped_option_is_named_with_its_reason(name: str) -> None:
    value = "" if OPTIONS[name].takes is not Takes.VALUE else "=1"
    lines = request.remarks(parse(script(f"--{name}{value}")), {}, Path("train.sbatch"))
    assert f"--{name} ({OPTIONS[name].remark})" in lines[0]


@pytest.mark.parametrize("line", ["#PBS -l nodes=2", "#BSUB -n 4", "#SBATCH --time=1:00 hetjob", "#SBATCH packjob"])
def test_other_directives_and_heterogeneous_jobs_are_refused(line: str) -> None:
    with pytest.raises(Failure, match="line 2"):
        parse(f"#!/bin/bash\n{line}\nhostname\n")


@pytest.mark.parametrize("line", ["##SBATCH --array=1", "# SBATCH --array=1", " #SBATCH --array=1", "#sbatch -a 1"])
def test_comments_are_no_directives(line: str) -> None:
    assert parse(f"#!/bin/bash\n\n{line}\nhostname\n").taken == ()


def test_options_of_the_command_line_win_and_it_is_said() -> None:
    directives = parse(script("--time=2:00:00 --gres=gpu:4 -J a -A x"))
    given = {"time_limit_s": 600, "gpus": 2}
    assert request.merged(directives, given, []) == {"name": "a", "time_limit_s": 600, "gpus": 2}
    taken, won, left = request.remarks(directives, given, Path("t.sh"))
    assert taken == "taken over from t.sh: --job-name=a"
    assert won == "your options win over --time=2:00:00 --gres=gpu:4"
    assert left.startswith("left out: --account (")


def test_a_type_that_two_sites_know_is_settled_by_naming_the_site() -> None:
    assert fields("--gpus=a100:1", site="ovh")["gpu_class"] == "a100-40"


WORDS = st.text(alphabet=" \tab=-'\"\\#", max_size=24)


@given(WORDS)
def test_splitting_never_fails_but_by_a_refusal(rest: str) -> None:
    try:
        words = split(rest)
    except Failure:
        return
    assert all(words)


@given(st.text(max_size=200), st.text(alphabet="-=:,aN01gpu \t'\"#\n\r\0é", max_size=80))
def test_any_script_is_read_or_refused_in_one_sentence(head: str, line: str) -> None:
    try:
        request.merged(parse(f"{head}\n#SBATCH {line}\n"), {}, SITES)
    except Failure as failure:
        code = failure.exit_code
    else:
        code = Exit.REFUSED
    assert code is Exit.REFUSED


CONFIGURATION = "ClusterName=x\nSlurmctldHost=localhost\nNodeName=localhost\nPartitionName=d Nodes=ALL Default=YES\n"


def _words_of_sbatch(folder: Path, line: str) -> list[str]:
    """Let sbatch itself split a line: its debug output names each word before it looks at its meaning."""
    (folder / "slurm.conf").write_text(CONFIGURATION)
    (folder / "job.sh").write_text(f"#!/bin/sh\n#SBATCH {line}\nhostname\n")
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": "/usr/bin:/bin"}
    command = ["sbatch", "-vvvv", "--test-only", str(folder / "job.sh")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    mark = 'Found in script, argument "'
    return [found.split(mark, 1)[1][:-1] for found in ran.stderr.splitlines() if mark in found]


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="needs sbatch as the oracle")
@settings(max_examples=40, deadline=None)
@given(WORDS)
def test_words_are_those_that_sbatch_itself_finds(tmp_path_factory: pytest.TempPathFactory, rest: str) -> None:
    line = f"--bad-one-ends-it {rest}".rstrip()  # what a blank at the end means differs between releases
    try:
        ours = split(line)
    except Failure:
        return
    assert ours == _words_of_sbatch(tmp_path_factory.mktemp("sbatch"), line)


def test_short_options_without_value_may_be_joined() -> None:
    assert [str(found) for found in found_in(script("-vQJx"))] == ["--verbose", "--quiet", "--job-name=x"]


def test_a_job_typed_without_gpu_takes_over_no_kind_of_gpu(tmp_path: Path) -> None:
    asked = parse(script("-C v100-32g", "-c 4", "--mem-per-gpu=9G"))
    typed: dict[str, object] = {"gpus": 0, "cpus": 6, "memory_mib": 512}
    assert request.merged(asked, typed, SITES) == typed
    assert not request.needs_sites(asked, typed)
    assert request.remarks(asked, typed, tmp_path / "s") == [
        "your options win over --constraint=v100-32g --cpus-per-task=4 --mem-per-gpu=9G"
    ]
