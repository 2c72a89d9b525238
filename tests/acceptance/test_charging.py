"""A charging rule on a real Slurm: what is held, what AllocTRES says, what the ledger settles; sums made by hand."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.people import Shell, slurm_rows
from clusters.region import Region
from clusters.slurm.cluster import SlurmCluster
from clusters.slurm.configuration import CPUS_PER_NODE, GPU_DEVICES, MEMORY_MIB_PER_NODE
from sqlalchemy import create_engine, text

pytestmark = pytest.mark.cluster
WEIGHT, CPU_WEIGHT = 2000, 50
SHARE_CPUS, SHARE_GIB = 8, 16
"""A GPU's, four of which make a node of the test cluster whole."""
LIMIT_S, GRACE_S = 300, 60


@pytest.fixture(scope="module")
def region(slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    with Region.running(tmp_path_factory.mktemp("charging"), slurm_cluster) as made:
        shares = ("--cpus-per-gpu", str(SHARE_CPUS), "--memory-per-gpu", f"{SHARE_GIB}G", "--gpus-per-node", "4")
        made.cli("olga", "rule", "add", slurm_cluster.name, "--from", "2026-01-01", *shares, "--cpu-weight", "0.05")
        days = ("--from", "2026-01-01", "--to", "2099-12-31", "--order", "BC-2026-18")
        made.cli("marc", "contract", "add", slurm_cluster.name, "cpu", "1000h", *days)
        yield made


@pytest.fixture
def ines(region: Region) -> Shell:
    return Shell(region, "ines")


def settled(shell: Shell, job_id: str) -> Any:
    until = time.monotonic() + 60
    while (job := shell.json("show", job_id))["settled_at"] is None:
        assert time.monotonic() < until, job
        time.sleep(0.3)
    return job


def transfers(region: Region, job_id: str) -> dict[str, int]:
    engine = create_engine(f"sqlite:///{region.folder}/broker/broker.sqlite3")
    with engine.connect() as connection:
        wanted = text("SELECT kind, amount FROM ledger_transfer WHERE reference_id = :job")
        found = {row.kind: row.amount for row in connection.execute(wanted, {"job": job_id})}
    engine.dispose()
    return found


@pytest.mark.parametrize(
    ("options", "rate", "tres"),
    [
        (("--gpus", "1"), WEIGHT, {"gres/gpu": 1, "cpu": 8, "mem": "16G", "node": 1}),
        (("--gpus", "2", "--cpus-per-gpu", "12"), 3 * WEIGHT, {"gres/gpu": 2, "cpu": 24, "mem": "32G", "node": 1}),
        (("--gpus", "1", "--mem", "40G"), 5 * WEIGHT // 2, {"gres/gpu": 1, "cpu": 8, "mem": "40G", "node": 1}),
        (
            ("--gpus", "2", "--nodes", "2", "--mem", "24G"),
            3 * WEIGHT,
            {"gres/gpu": 2, "cpu": 16, "mem": "48G", "node": 2},
        ),
        (("--gpus", "1", "--exclusive"), 4 * WEIGHT, {"gres/gpu": 4, "cpu": 32, "mem": "64G", "node": 1}),
        (("--gpus", "0", "--cpus", "6"), 6 * CPU_WEIGHT, {"cpu": 6, "mem": "12G", "node": 1}),
        (
            ("--gpus", "0", "--cpus", "4", "--nodes", "2", "--mem", "8G"),
            8 * CPU_WEIGHT,
            {"cpu": 4, "mem": "16G", "node": 2},
        ),
    ],
)
def test_hold_and_charge_follow_the_rule(
    region: Region, ines: Shell, options: tuple[str, ...], rate: int, tres: dict[str, Any]
) -> None:
    assert (CPUS_PER_NODE, len(GPU_DEVICES), MEMORY_MIB_PER_NODE) == (4 * SHARE_CPUS, 4, 4 * SHARE_GIB * 1024)
    words = (*options, "--time", "5m", "--", "sleep", "3")
    plan = ines.json("submit", "--dry-run", *words)
    assert (plan["rate_credits_per_s"], plan["held_credits"]) == (rate, rate * (LIMIT_S + GRACE_S)), plan["sum"]
    job = settled(ines, ines.submit(*words))
    assert job["state"] == "succeeded", job
    (row,) = slurm_rows(region, [f"idf-{job['id']}"])[f"idf-{job['id']}"]
    given = dict(pair.split("=") for pair in row["AllocTRES"].split(","))
    assert {name: given.get(name) for name in tres} == {name: str(value) for name, value in tres.items()}
    assert ("gres/gpu" in given) == ("gres/gpu" in tres)
    charge = rate * int(row["ElapsedRaw"])
    moved = transfers(region, job["id"])
    assert moved["hold"] == moved["contract-hold"] == rate * (LIMIT_S + GRACE_S)
    assert moved["settle"] == moved["contract-settle"] == charge == job["charged_credits"] > 0
    assert moved["release"] == moved["hold"] - charge


def test_a_script_asks_for_whole_nodes_and_none_of_their_gpus_is_free(
    region: Region, ines: Shell, tmp_path: Path
) -> None:
    script = tmp_path / "whole.sbatch"
    script.write_text("#!/bin/sh\n#SBATCH --exclusive\n#SBATCH --gres=gpu:4\n#SBATCH -t 5\nsleep 2\n")
    answer = ines.type("submit", "--json", str(script))  # what stands after a script goes to it
    job = settled(ines, json.loads(answer.stdout)["id"])
    (row,) = slurm_rows(region, [f"idf-{job['id']}"])[f"idf-{job['id']}"]
    assert job["charged_credits"] == 4 * WEIGHT * int(row["ElapsedRaw"])


def test_a_job_without_gpu_has_a_price_or_is_refused(region: Region, ines: Shell) -> None:
    refused = ines.type("submit", "--gpus", "0", "--cpus", "4", "--exclusive", "--", "true")
    assert refused.returncode == 3
    assert "cannot have whole nodes that hold GPUs" in refused.stderr
