"""A real array from the command line to its settlement: one task fails, two are cancelled, charged as `sacct` says."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.people import Shell, slurm_rows
from clusters.region import Region
from clusters.slurm.cluster import SlurmCluster
from sqlalchemy import create_engine, text

from cli.exits import Exit

pytestmark = pytest.mark.cluster
WEIGHT = 2000
LIMIT_S, GRACE_S = 300, 60
PART = WEIGHT * (LIMIT_S + GRACE_S)
SCRIPT = """\
#!/bin/sh
#SBATCH --array=0-7%4
#SBATCH --gres=gpu:1
#SBATCH -t 5
echo "task $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT"
case $SLURM_ARRAY_TASK_ID in
1) sleep 1; exit 3 ;;
2|7) sleep 200 ;;
*) sleep $((2 + SLURM_ARRAY_TASK_ID % 3)) ;;
esac
"""


@pytest.fixture(scope="module")
def region(slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    with Region.running(tmp_path_factory.mktemp("arrays"), slurm_cluster) as made:
        yield made


@pytest.fixture
def ines(region: Region) -> Shell:
    return Shell(region, "ines")


def until(ines: Shell, job_id: str, is_so: Callable[[Any], object], limit_s: float = 60) -> Any:
    """Wait until a job is as it should be; return it."""
    end = time.monotonic() + limit_s
    while not is_so(job := ines.json("show", job_id)):
        assert time.monotonic() < end, job
        time.sleep(0.3)
    return job


def settled(job: Any) -> bool:
    return job["settled_at"] is not None


def states(ines: Shell, job_id: str) -> dict[int, str]:
    return {task["task"]: task["state"] for task in ines.json("show", job_id, "--tasks")}


def transfers(region: Region, job_id: str) -> list[tuple[str, int]]:
    engine = create_engine(f"sqlite:///{region.folder}/broker/broker.sqlite3")
    with engine.connect() as connection:
        wanted = text("SELECT kind, amount FROM ledger_transfer WHERE reference_id = :job")
        found = [(row.kind, row.amount) for row in connection.execute(wanted, {"job": job_id})]
    engine.dispose()
    return found


def test_an_array_is_charged_task_by_task_as_sacct_says(region: Region, ines: Shell, tmp_path: Path) -> None:
    script = tmp_path / "sweep.sbatch"
    script.write_text(SCRIPT)
    plan = ines.type("submit", "--dry-run", str(script))
    assert "would run 8 tasks (0-7%4) of 1 x a100-80" in plan.stdout, plan.stderr
    job_id = json.loads(ines.type("submit", "--json", str(script)).stdout)["id"]
    until(ines, job_id, lambda _: states(ines, job_id)[2] == "running")
    assert ines.type("cancel", f"{job_id}_7").returncode == Exit.OK
    time.sleep(2)  # Slurm counts whole seconds: one cancelled within its first has used nothing
    assert ines.type("cancel", f"{job_id}_2").returncode == Exit.OK
    job = until(ines, job_id, settled)
    assert (job["state"], job["exit_code"], job["held_credits"]) == ("failed", 3, 8 * PART)
    assert job["reason"] == "5 succeeded, 2 cancelled, 1 failed"
    assert states(ines, job_id) == {
        0: "succeeded", 1: "failed", 2: "cancelled", 3: "succeeded",
        4: "succeeded", 5: "succeeded", 6: "succeeded", 7: "cancelled",
    }  # fmt: skip
    rows = {row["JobID"]: row for row in slurm_rows(region, [f"idf-{job_id}"])[f"idf-{job_id}"]}
    charged = {task["task"]: task["charged_credits"] for task in ines.json("show", job_id, "--tasks")}
    expected = {number: _charge_of(rows, f"{job['site_job_id']}_{number}") for number in range(8)}
    assert charged == expected
    assert job["charged_credits"] == sum(expected.values()) > 0
    moved = transfers(region, job_id)
    for prefix in ("", "contract-"):
        sums = {kind: sum(amount for name, amount in moved if name == prefix + kind) for kind in ("settle", "release")}
        assert sums == {"settle": job["charged_credits"], "release": 8 * PART - job["charged_credits"]}
    assert [name for name, _ in moved].count("release") == 8, "each task gives back its own rest"
    log = ines.type("logs", f"{job_id}_5")
    assert log.stdout == "task 5 of 8\n"
    assert ines.type("logs", job_id).returncode != Exit.OK
    assert "8 tasks (0-7%4): 5 succeeded, 1 failed, 2 cancelled" in ines.type("show", job_id).stdout


def _charge_of(rows: dict[str, Any], name: str) -> int:
    """Recount a task from sacct; one that was cancelled while it waited has no row there."""
    return WEIGHT * int(rows[name]["ElapsedRaw"]) if name in rows else 0


def test_cancelling_an_array_that_waits_gives_everything_back(region: Region, ines: Shell) -> None:
    filler = ines.submit("--gpus", "8", "--nodes", "2", "--time", "5m", "--", "sleep", "200")
    until(ines, filler, lambda job: job["state"] == "running")
    job_id = ines.submit("--array", "1,3,9-99:10", "--time", "5m", "--", "true")
    until(ines, job_id, lambda job: job["state"] == "queued" and job["reason"])
    assert ines.type("cancel", job_id).returncode == Exit.OK
    job = until(ines, job_id, settled)
    assert (job["state"], job["charged_credits"], job["started_at"]) == ("cancelled", 0, None)
    assert set(states(ines, job_id).values()) == {"cancelled"}
    assert sum(amount for kind, amount in transfers(region, job_id) if kind == "release") == 12 * PART
    ines.type("cancel", filler)
    until(ines, filler, settled)


def test_a_thousand_tasks_wait_and_are_cancelled(region: Region, ines: Shell) -> None:
    """Observed by the same one command, written in bounded writes, and gone within a minute."""
    refused = ines.type("submit", "--array", "1-1001", "--time", "1m", "--", "true")
    assert refused.returncode == Exit.REFUSED
    filler = ines.submit("--gpus", "8", "--nodes", "2", "--time", "5m", "--", "sleep", "200")
    until(ines, filler, lambda job: job["state"] == "running")
    job_id = ines.submit("--array", "0-999%1", "--time", "1m", "--", "true")
    until(ines, job_id, lambda job: job["state"] == "queued")
    ines.type("cancel", job_id)
    job = until(ines, job_id, settled)
    assert (job["state"], job["charged_credits"], job["tasks_by_state"]) == ("cancelled", 0, {"cancelled": 1000})
    ines.type("cancel", filler)
    until(ines, filler, settled)
