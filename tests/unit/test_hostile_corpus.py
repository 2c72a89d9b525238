"""Nothing that people type changes what is asked of a scheduler: it is carried as data, or refused."""

import re
import subprocess
from pathlib import Path
from typing import Any

import hostile
import pytest
from pydantic import ValidationError
from unit.test_gateway import GATEWAY

from adapters.errors import Rejected
from adapters.port import After, AfterKind, JobSpec
from adapters.slurm.outputs import ReadOutput, fault_of
from adapters.slurm.wrapper import batch_script, sbatch_flags
from broker.schemas import JobIn
from cli.outputs import _fault

DATA = re.compile(r"[A-Za-z0-9+/]{1,76}={0,2}")
FLAG = re.compile(r"--[a-z-]+(=[A-Za-z0-9:._,@-]+)?")


def spec(**changes: Any) -> JobSpec:
    fields = {"name": "idf-1", "account": "a", "gpus": 1, "gpu_type": "a100", "time_limit_s": 600, "script": b"true\n"}
    return JobSpec(**{**fields, **changes})


def ours(job: JobSpec) -> list[str]:
    """The lines of its batch script that are no data."""
    return [line for line in batch_script(job).splitlines() if not DATA.fullmatch(line)]


def directs_nothing(job: JobSpec, plain: JobSpec) -> None:
    assert sbatch_flags(job) == sbatch_flags(plain)
    assert ours(job) == ours(plain)
    assert [line for line in batch_script(job).splitlines() if line.startswith("#")] == ours(plain)[:2]
    assert batch_script(job).isascii()


def test_the_corpus_is_large() -> None:
    groups = [value for name, value in vars(hostile).items() if name.isupper()]
    assert sum(map(len, groups)) >= 60


@pytest.mark.parametrize("name", hostile.SCRIPTS)
def test_a_script_directs_nothing(name: str) -> None:
    script = hostile.SCRIPTS[name]
    directs_nothing(spec(script=script), spec(script=b"#!/bin/sh\n" if script.startswith(b"#!") else b"true"))


@pytest.mark.parametrize("word", hostile.WORDS)
def test_an_argument_or_a_value_arrives_as_it_is_and_directs_nothing(word: str, tmp_path: Path) -> None:
    script = b'printf \'%s\\0\' "$@" "$IDF_VALUE"\n'
    job = spec(script=script, arguments=(word, word), environment={"IDF_VALUE": word})
    directs_nothing(job, spec(script=script, arguments=("a",), environment={"IDF_VALUE": "b"}))
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "7", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["/bin/bash"], input=batch_script(job).encode(), capture_output=True, env=env, check=True)
    assert done.stdout.decode().split("\0") == [word, word, word, ""]
    assert not Path("/tmp/idf-injected").exists()


@pytest.mark.parametrize("name", hostile.NAMES)
def test_a_name_is_a_word_or_refused(name: str) -> None:
    with pytest.raises(Rejected):
        batch_script(spec(name=name))
    for changes in ({"gpu_type": name}, {"partition": name}):
        with pytest.raises(Rejected):
            sbatch_flags(spec(**changes))


@pytest.mark.parametrize("name", hostile.VARIABLES)
def test_a_variable_is_a_word_or_refused(name: str) -> None:
    with pytest.raises(Rejected):
        batch_script(spec(environment={name: "x"}))


@pytest.mark.parametrize("name", hostile.MODULES)
def test_a_module_is_a_name_or_refused_on_both_sides(name: str) -> None:
    with pytest.raises(Rejected):
        batch_script(spec(modules=(name,)))
    with pytest.raises(ValidationError):
        JobIn(script="true", modules=[name])


@pytest.mark.parametrize("image", hostile.IMAGES)
def test_an_image_is_a_path_or_a_digest_or_refused_on_both_sides(image: str) -> None:
    with pytest.raises(Rejected):
        batch_script(spec(container=image))
    with pytest.raises(ValidationError):
        JobIn(script="true", container=image)


@pytest.mark.parametrize(
    "image", ["a.sif", "/images/torch-2.5.sif", "docker://r.example:5000/a/b:1@sha256:" + "0" * 64]
)
def test_good_images_and_modules_are_data(image: str) -> None:
    job = spec(container=image, modules=("cuda/12.4", "python"))
    directs_nothing(job, spec(container="b.sif", modules=("x",)))
    assert JobIn(script="true", container=image, modules=["cuda/12.4"]).container == image


@pytest.mark.parametrize("job", hostile.SITE_JOBS)
def test_a_dependency_names_a_job_or_is_refused(job: str) -> None:
    with pytest.raises(Rejected):
        sbatch_flags(spec(after=(After(AfterKind.OK, job),)))


@pytest.mark.parametrize("signal", hostile.SIGNALS)
def test_a_signal_is_one_of_a_few_or_refused(signal: str) -> None:
    with pytest.raises(Rejected):
        sbatch_flags(spec(signal=signal, signal_s=60))


@pytest.mark.parametrize("path", hostile.PATHS)
def test_a_path_of_an_output_stays_in_its_folder_on_both_sides(path: str) -> None:
    assert fault_of(path)
    assert _fault(path)
    with pytest.raises(Rejected):
        ReadOutput("idf001", "idf-1", path, 0, 10)


def test_the_gateway_lets_no_other_flag_pass() -> None:
    """Its pattern takes what we make, and nothing that the corpus would make of it."""
    pattern = GATEWAY.read_text().split("FLAG = re.compile(", 1)[1].split("re.ASCII", 1)[0]
    flag = re.compile(eval(f"({pattern})")[0], re.ASCII)
    made = sbatch_flags(
        spec(after=(After(AfterKind.OK, "7"), After(AfterKind.ANY, "8_1")), signal="USR1", signal_s=60, requeues=1)
    )
    assert all(flag.fullmatch(each) and FLAG.fullmatch(each) for each in made)
    words = [*hostile.NAMES, *hostile.WORDS, *set(hostile.SITE_JOBS) - {"1,afterany:2"}]  # that one is well-formed
    bad = [f"--dependency=singleton,afterok:{word}" for word in words] + [f"--signal=B:{word}@60" for word in words]
    bad += [f"--begin={word}" for word in words] + [
        "--array=0-3;id",
        "--array=@list",
        "--gpus-per-task=1",
        "--signal=R:USR1@60",
        "--wrap=id",
    ]
    assert [each for each in bad if flag.fullmatch(each)] == []
