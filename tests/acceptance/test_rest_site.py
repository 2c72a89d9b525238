"""A site that takes jobs through slurmrestd, from the command line to the charge."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.people import Shell, slurm_rows
from clusters.region import Region
from clusters.slurm.cluster import SlurmCluster

from cli.exits import Exit

pytestmark = pytest.mark.cluster
WEIGHT = 2000


@pytest.fixture(scope="module")
def region(slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    if not slurm_cluster.slurmrestd:
        pytest.skip(f"this cluster has no slurmrestd: {slurm_cluster.slurmrestd_reason}")
    with Region.running(tmp_path_factory.mktemp("rest"), slurm_cluster, transport="rest") as made:
        yield made


def settled(shell: Shell, job_id: str) -> Any:
    until = time.monotonic() + 30
    while (job := shell.json("show", job_id))["settled_at"] is None:
        assert time.monotonic() < until, job
        time.sleep(0.2)
    return job


def test_a_job_is_sent_followed_observed_and_charged(region: Region, tmp_path: Path) -> None:
    ines = Shell(region, "ines")
    (tmp_path / "data.txt").write_text("snapshot\n")
    words = ("--gpus", "2", "--time", "5m", "--dir", str(tmp_path), "--env", "WORD=déjà")
    done = ines.type("submit", "--follow", *words, "--", "sh", "-c", "cat data.txt; echo $WORD; sleep 2; exit 7")
    assert done.returncode == Exit.JOB_FAILED, done.stderr
    assert done.stdout.splitlines()[:2] == ["snapshot", "déjà"]
    job = settled(ines, ines.json("jobs", "--limit", "1")[0]["id"])
    assert (job["state"], job["exit_code"]) == ("failed", 7)
    (row,) = slurm_rows(region, [f"idf-{job['id']}"])[f"idf-{job['id']}"]
    assert job["charged_credits"] == 2 * int(row["ElapsedRaw"]) * WEIGHT > 0
    log = (region.cluster.folder / "log" / "slurmrestd.log").read_text()
    assert "/job/submit" in log, "it went through slurmrestd"


def test_what_everybody_may_know_of_it(region: Region) -> None:
    site = Shell(region, "ines").json("site", "list")[0]
    assert site["transport"] == "rest"
    assert "rest_url" not in site


def test_no_token_is_written_down(region: Region) -> None:
    for file in (*region.folder.rglob("*"), *(region.cluster.folder / "log").iterdir()):
        if file.is_file():
            assert b"eyJ" not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--transport", "rest"], "rest_url"),
        (["--rest-url", "https://slurm.example.org:6820"], "transport"),
        (["--transport", "rest", "--rest-url", "http://192.0.2.1:6820"], "https"),
        (["--transport", "rest", "--rest-url", "https://slurm.example.org/x?y"], "rest_url"),
        (["--transport", "carrier-pigeon"], "transport"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(region: Region, tmp_path: Path, words: list[str], said: str) -> None:
    file = tmp_path / "other.toml"
    lines = (region.folder / "site.toml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("transport =", "rest_url =", "name ="))]
    file.write_text('name = "other"\n' + "\n".join(kept) + "\n")
    done = Shell(region, "olga").type("site", "enrol", str(file), *words)
    assert done.returncode in (Exit.USAGE, Exit.REFUSED), done.stdout
    assert said in done.stderr
