"""Whatever is killed or away, and whenever: every job runs exactly once and is charged exactly once."""

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import serve_that_stops
from clusters.people import Shell
from clusters.region import Region
from clusters.slurm.cluster import SlurmCluster
from integration.region_jobs import Jobs, until

pytestmark = [pytest.mark.cluster, pytest.mark.torture]
ROUNDS = min(50, int(os.environ.get("IDF_TORTURE_ROUNDS", "10")))


@pytest.fixture(scope="module")
def faulty(slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """A region whose broker is not running yet, for tests that start and kill it themselves."""
    made = Region.make(tmp_path_factory.mktemp("faults"), slurm_cluster)
    made.start()
    made.enrol("1000h")
    made.stop()
    yield made
    made.stop()


@pytest.fixture
def region(faulty: Region) -> Iterator[Region]:
    yield faulty
    faulty.stop()
    assert "in order" in faulty.admin("doctor"), "quotas.invariants.broken finds nothing"


@pytest.mark.parametrize("point", ["before", "after"])
def test_the_broker_is_killed_around_sbatch(region: Region, tmp_path: Path, point: str) -> None:
    armed, stopped = tmp_path / "armed", tmp_path / "stopped"
    jobs = Jobs(region)
    for _ in range(max(1, ROUNDS // 2)):
        region.start(sys.executable, serve_that_stops.__file__, point, str(tmp_path))
        jobs.wait()
        armed.touch()
        sent = jobs.submit(3)
        until(stopped.exists)
        assert {jobs.job(id_)["state"] for id_ in sent} <= {"held", "dispatching"}
        region.kill()
        armed.unlink()
        stopped.unlink()
    region.start()
    jobs.wait()
    jobs.check()


def test_the_broker_is_killed_at_any_moment(region: Region) -> None:
    jobs = Jobs(region)
    for _ in range(ROUNDS):
        region.start()
        jobs.submit(4)
        time.sleep(random.uniform(0, 1))
        region.kill()
    region.start()
    jobs.wait()
    jobs.check()


@pytest.mark.parametrize("daemon", ["sshd", "slurmctld", "slurmdbd"])
def test_a_daemon_is_away_for_a_while(region: Region, daemon: str) -> None:
    region.start()
    jobs = Jobs(region)
    running = jobs.submit(2, seconds=8)
    until(lambda: all(jobs.job(id_)["state"] == "running" for id_ in running))
    region.cluster.stop_daemon(daemon)
    if daemon == "sshd":
        region.cluster.cut_connections()
    try:
        waiting = jobs.submit(2)
        time.sleep(6)
        if daemon != "slurmdbd":
            assert {jobs.job(id_)["state"] for id_ in waiting} <= {"held", "dispatching"}
        assert all(jobs.job(id_)["settled_at"] is None for id_ in running), "nothing is concluded from silence"
    finally:
        region.cluster.start_daemon(daemon)
        region.cluster.wait_ready()
    jobs.wait()
    jobs.check()


def test_the_command_line_outlives_a_broker_that_is_started_again(region: Region) -> None:
    region.start()
    ines = Shell(region, "ines")
    following = ines.begin("submit", "--follow", "--time", "5m", "--", "sh", "-c", "echo one; sleep 6; echo two")
    until(lambda: any(job["state"] == "running" for job in ines.json("jobs", "--limit", "1")))
    region.kill()
    time.sleep(1)
    region.start()
    out, err = following.communicate(timeout=60)
    assert (following.returncode, out) == (0, "one\ntwo\n"), err
