"""Whatever is killed or away, and whenever: every job runs exactly once and is charged exactly once."""

import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from clusters import serve_that_stops
from clusters.people import Shell, slurm_rows
from clusters.region import Region
from clusters.slurm.cluster import SlurmCluster

pytestmark = [pytest.mark.cluster, pytest.mark.torture]
ROUNDS = min(50, int(os.environ.get("IDF_TORTURE_ROUNDS", "10")))
WEIGHT = 2000


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


class Jobs:
    """Jobs that write a line each into their account's home, so that a second run would show."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._file = f"ran-{uuid4().hex[:8]}"
        self.ids: list[str] = []
        headers = {"Authorization": f"Bearer {region.token('ines')}"}
        self._client = httpx.Client(base_url=f"{region.url}/v1", headers=headers, timeout=30)

    def submit(self, number: int, *, seconds: float = 0) -> list[str]:
        script = f'#!/bin/sh\necho "$SLURM_JOB_NAME" >> ~/{self._file}\nsleep {seconds}\n'
        body = {"project": "vision", "script": script, "time_limit_s": 300}
        return [self._submit(body) for _ in range(number)]

    def _submit(self, body: Any) -> str:
        headers = {"Idempotency-Key": str(uuid4())}
        answer = self._client.post("/jobs", json=body, headers=headers).raise_for_status()
        self.ids.append(answer.json()["id"])
        return self.ids[-1]

    def wait(self, ids: Sequence[str] | None = None, *, limit_s: float = 90) -> None:
        """Wait until all are settled."""
        until = time.monotonic() + limit_s
        for id_ in self.ids if ids is None else ids:
            while (job := self.job(id_))["settled_at"] is None:
                assert time.monotonic() < until, job
                time.sleep(0.2)

    def job(self, id_: str) -> Any:
        return self._client.get(f"/jobs/{id_}").raise_for_status().json()

    def check(self) -> None:
        """Each ran once, Slurm knows one job by its name, one charge stands, and it is right."""
        rows = slurm_rows(self._region, [f"idf-{id_}" for id_ in self.ids])
        users = {row["User"] for found in rows.values() for row in found}
        ran = b"".join(self._region.cluster.run(["cat", self._file], user=user).stdout for user in users)
        assert sorted(ran.decode().split()) == sorted(f"idf-{id_}" for id_ in self.ids)
        for id_ in self.ids:
            job = self.job(id_)
            assert job["state"] == "succeeded", job
            (row,) = rows[f"idf-{id_}"]
            (usage,) = job["usage"]
            assert usage["elapsed_s"] == int(row["ElapsedRaw"])
            assert job["charged_credits"] == usage["charged_credits"] == int(row["ElapsedRaw"]) * WEIGHT


@pytest.mark.parametrize("point", ["before", "after"])
def test_the_broker_is_killed_around_sbatch(region: Region, tmp_path: Path, point: str) -> None:
    armed, stopped = tmp_path / "armed", tmp_path / "stopped"
    jobs = Jobs(region)
    for _ in range(max(1, ROUNDS // 2)):
        region.start(sys.executable, serve_that_stops.__file__, point, str(tmp_path))
        jobs.wait()
        armed.touch()
        sent = jobs.submit(3)
        _until(stopped.exists)
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
    _until(lambda: all(jobs.job(id_)["state"] == "running" for id_ in running))
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
    _until(lambda: any(job["state"] == "running" for job in ines.json("jobs", "--limit", "1")))
    region.kill()
    time.sleep(1)
    region.start()
    out, err = following.communicate(timeout=60)
    assert (following.returncode, out) == (0, "one\ntwo\n"), err


def _until(true: Any, limit_s: float = 30) -> None:
    until = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until, f"not within {limit_s} s"
        time.sleep(0.05)
