"""From the command line over SSH to real Slurm and back: outcomes, charges, and what `sacct` says of the same jobs."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.people import PROGRAM, Shell, slurm_rows
from clusters.region import Region
from clusters.slurm.cluster import SlurmCluster

from cli.exits import Exit

pytestmark = pytest.mark.cluster
WEIGHT = 2000


@pytest.fixture(scope="module")
def region(slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    with Region.running(tmp_path_factory.mktemp("trip"), slurm_cluster) as made:
        yield made


@pytest.fixture
def ines(region: Region) -> Shell:
    return Shell(region, "ines")


def settled(shell: Shell, job_id: str, limit_s: float = 30) -> Any:
    until = time.monotonic() + limit_s
    while (job := shell.json("show", job_id))["settled_at"] is None:
        assert time.monotonic() < until, job
        time.sleep(0.2)
    return job


def test_submit_and_follow_to_the_end(ines: Shell, tmp_path: Path) -> None:
    script = tmp_path / "train.sbatch"
    script.write_text("#!/bin/sh\n#SBATCH --gres=gpu:2\n#SBATCH -t 5\necho first; sleep 2; echo $1 $WORD; id -un\n")
    done = ines.type("submit", "--follow", "--env", "WORD=déjà|vu $(id)", str(script), "argument one")
    assert done.returncode == Exit.OK, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["first", "argument one déjà|vu $(id)"]
    assert lines[2] in ines.region.cluster.pool
    job = settled(ines, ines.json("jobs", "--limit", "1")[0]["id"])
    assert [event["state"] for event in job["events"]] == ["held", "dispatching", "queued", "running", "succeeded"]
    assert (job["gpus"], job["time_limit_s"]) == (2, 300)


@pytest.mark.parametrize(
    ("command", "exit_code", "state"),
    [("exit 7", Exit.JOB_FAILED, "failed"), ("kill -9 $$", Exit.JOB_FAILED, "failed"), ("true", Exit.OK, "succeeded")],
)
def test_follow_exits_with_the_jobs_own_outcome(ines: Shell, command: str, exit_code: Exit, state: str) -> None:
    done = ines.type("submit", "--follow", "--time", "5m", "--", "sh", "-c", command)
    assert done.returncode == exit_code, done.stderr
    job = ines.json("jobs", "--limit", "1")[0]
    assert job["state"] == state
    if command == "exit 7":
        assert job["exit_code"] == 7


def test_wait_and_cancel(ines: Shell) -> None:
    waiting = ines.begin("submit", "--wait", "--time", "5m", "--name", "cancelled", "--", "sleep", "300")
    job_id = _named(ines, "cancelled")["id"]
    _until_state(ines, job_id, "running")
    time.sleep(2)  # Slurm counts whole seconds: one cancelled within its first has used nothing
    assert ines.type("cancel", job_id).returncode == Exit.OK
    assert waiting.wait(timeout=30) == Exit.JOB_CANCELLED
    job = settled(ines, job_id)
    assert job["state"] == "cancelled"
    assert 0 < job["charged_credits"] < job["held_credits"]
    assert ines.type("cancel", job_id).returncode == Exit.OK, "an ended job is answered with its state"


def _named(shell: Shell, name: str) -> Any:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for job in shell.json("jobs", "--limit", "20"):
            if job["name"] == name:
                return job
        time.sleep(0.2)
    raise AssertionError(f"no job {name}")


def _until_state(shell: Shell, job_id: str, *states: str, limit_s: float = 30) -> None:
    until = time.monotonic() + limit_s
    while (now := shell.json("show", job_id))["state"] not in states:
        assert time.monotonic() < until, now
        time.sleep(0.2)


def test_charge_quota_report_ledger_and_sacct_say_the_same(region: Region, ines: Shell) -> None:
    marc = Shell(region, "marc")
    ids = [ines.submit("--gpus", str(gpus), "--time", "5m", "--", "sleep", str(gpus)) for gpus in (1, 2, 4)]
    jobs = {id_: settled(ines, id_, 60) for id_ in ids}
    rows = slurm_rows(region, [f"idf-{id_}" for id_ in ids])
    for id_, job in jobs.items():
        (row,) = rows[f"idf-{id_}"]
        assert f"gres/gpu={job['gpus']}" in row["AllocTRES"].split(",")
        assert job["charged_credits"] == job["gpus"] * int(row["ElapsedRaw"]) * WEIGHT
    quota = ines.json("quota")["awards"][0]
    everything = [settled(ines, job["id"]) for job in ines.json("jobs", "--limit", "100")]
    total = sum(job["charged_credits"] for job in everything)
    assert (quota["consumed_credits"], quota["held_credits"]) == (total, 0)
    assert quota["available_credits"] + total == quota["awarded_credits"]
    for by in ("project", "programme", "site"):
        report = marc.json("report", "gpu", "--by", by)
        assert report["agrees"]
        assert (report["charged_credits"], report["ledger_credits"]) == (total, total)
    assert marc.type("report", "gpu", "--csv").returncode == Exit.OK


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["--project", "nothing", "--", "true"], Exit.NOT_FOUND, "no project nothing"),
        (["--gpus", "9", "--", "true"], Exit.REFUSED, "at most 8"),
        (["--gpus", "8", "--time", "24h", "--", "true"], Exit.REFUSED, "h available"),
        (["--gpus", "2", "--nodes", "4", "--", "true"], Exit.USAGE, "gpus must not be below nodes"),
        (["/nowhere/train.sh"], Exit.USAGE, "/nowhere/train.sh"),
        (["/bin/true"], Exit.USAGE, "text"),
        (["--name", "two\nlines", "--", "true"], Exit.USAGE, "control characters"),
        (["--name", "n" * 300, "--", "true"], Exit.USAGE, "200"),
    ],
)
def test_refusals_are_one_or_two_lines_with_an_exit_code(
    ines: Shell, words: list[str], exit_code: Exit, said: str
) -> None:
    done = ines.type("submit", *words)
    assert done.returncode == exit_code, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("line", ["#SBATCH --dependency=afterok:1", "#SBATCH -d 1", "#SBATCH hetjob"])
def test_lines_that_would_change_the_job_are_refused_by_name(ines: Shell, tmp_path: Path, line: str) -> None:
    script = tmp_path / "array.sbatch"
    script.write_text(f"#!/bin/sh\n{line}\ntrue\n")
    done = ines.type("submit", str(script))
    assert done.returncode in (Exit.REFUSED, Exit.USAGE)
    assert line.split()[1].partition("=")[0].lstrip("-") in done.stderr


def test_such_lines_sent_straight_to_the_api_make_one_job(region: Region, ines: Shell) -> None:
    import httpx

    script = "#!/bin/sh\n#SBATCH --array=0-3\n#SBATCH --gpus=8\n#PBS -l x\necho x >> ~/straight\n"
    headers = {"Authorization": f"Bearer {region.token('ines')}", "Idempotency-Key": "straight"}
    body = {"project": "vision", "script": script, "time_limit_s": 300}
    job_id = httpx.post(f"{region.url}/v1/jobs", json=body, headers=headers).raise_for_status().json()["id"]
    job = settled(ines, job_id)
    assert (job["state"], len(job["usage"]), job["usage"][0]["gpus"]) == ("succeeded", 1, 1)
    assert len(slurm_rows(region, [f"idf-{job_id}"])[f"idf-{job_id}"]) == 1
    user = slurm_rows(region, [f"idf-{job_id}"])[f"idf-{job_id}"][0]["User"]
    assert region.cluster.run(["sh", "-c", "wc -l < ~/straight"], user=user).stdout.strip() == b"1"


def test_escapes_and_markup_in_names_and_logs_are_shown_harmless(ines: Shell) -> None:
    text = r"printf '\033[2J\033]0;owned\007[red]x[/red]\rover\n\302\233 31m\377\n'"
    done = ines.type("submit", "--follow", "--time", "5m", "--name", "[bold]a|b 'c' $(d) é", "--", "sh", "-c", text)
    assert done.returncode == 0, done.stderr
    for output in (done.stdout, ines.type("jobs").stdout, ines.type("logs", _newest(ines)).stdout):
        assert not set(output) & {"\x1b", "\x07", "\x9b", "\r"}
    assert "[red]x[/red]" in done.stdout
    shown = ines.type("show", _newest(ines)).stdout
    assert "[bold]a|b 'c' $(d) é" in shown
    assert "\x1b" not in shown


def _newest(shell: Shell) -> str:
    return str(shell.json("jobs", "--limit", "1")[0]["id"])


def test_a_folder_is_sent_and_the_job_starts_in_it(ines: Shell, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("snapshot\n")
    (tmp_path / "secret.key").write_text("no\n")
    (tmp_path / ".idfignore").write_text("*.key\n")
    done = ines.type("submit", "--dir", str(tmp_path), "--follow", "--time", "5m", "--", "sh", "-c", "cat data.txt; ls")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("snapshot\n")
    assert "secret.key" not in done.stdout
    assert len(ines.json("show", _newest(ines))["snapshot"]) == 64


@pytest.mark.parametrize("kind", ["link", "large", "link by a link"])
def test_a_folder_that_is_refused_is_refused_quickly(ines: Shell, tmp_path: Path, kind: str) -> None:
    if kind == "large":
        with (tmp_path / "sparse").open("wb") as file:
            os.truncate(file.fileno(), 2 * 1024**3)
    elif kind == "link":
        (tmp_path / "etc").symlink_to("/etc")
    else:
        (tmp_path / "up").symlink_to("..")
        (tmp_path / "etc").symlink_to("up/../../../../../../etc")
    began = time.monotonic()
    done = ines.type("submit", "--dir", str(tmp_path), "--", "true")
    assert done.returncode in (Exit.REFUSED, Exit.USAGE), done.stderr
    assert time.monotonic() - began < 10
    assert ("holds more than 100 MiB" if kind == "large" else "leads out of the folder") in done.stderr


def test_a_dry_run_submits_nothing(ines: Shell) -> None:
    before = ines.json("jobs")
    assert ines.json("submit", "--dry-run", "--gpus", "2", "--", "true")["gpus"] == 2
    assert ines.json("jobs") == before


def test_no_time_limit_is_said(ines: Shell) -> None:
    done = ines.type("submit", "--", "true")
    assert "default of 30 min applies" in done.stderr
    settled(ines, _newest(ines))


def test_a_token_revoked_in_the_middle_of_follow(region: Region, ines: Shell, tmp_path: Path) -> None:
    made = ines.json("token", "issue", "ines", "--save-to", str(tmp_path / "second.token"))
    environment = region.client_environment("ines") | {"IDF_COMPUTE_TOKEN_FILE": str(tmp_path / "second.token")}
    following = subprocess.Popen(
        [PROGRAM, "submit", "--follow", "--time", "5m", "--name", "revoked", "--", "sh", "-c", "echo on; sleep 8"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    job_id = _named(ines, "revoked")["id"]
    _until_state(ines, job_id, "running")
    assert ines.type("token", "revoke", made["id"]).returncode == 0
    _, said = following.communicate(timeout=30)
    assert following.returncode == Exit.FORBIDDEN, said
    assert "revoked" in said
    assert settled(ines, job_id)["state"] == "succeeded", "the job does not need the token to run"


def test_the_broker_is_down(region: Region, ines: Shell) -> None:
    region.stop()
    try:
        for words in (("jobs",), ("quota",), ("submit", "--", "true"), ("show", "job-x"), ("report", "gpu")):
            done = ines.type(*words)
            assert done.returncode == Exit.UNREACHABLE, words
            assert len(done.stderr.strip().splitlines()) <= 2, done.stderr
            assert "Traceback" not in done.stderr
    finally:
        region.start()


def test_json_is_json_everywhere(ines: Shell) -> None:
    for words in (("jobs",), ("quota",), ("site", "list"), ("project", "list"), ("report", "gpu"), ("token", "list")):
        done = ines.type(*words, "--json")
        assert done.returncode == 0, (words, done.stderr)
        json.loads(done.stdout)
