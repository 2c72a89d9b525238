"""Rounds of faults on a real cluster: no job doubled, none lost, none charged otherwise than Slurm's own rows say.

`make torture ROUNDS=200` runs them and prints the table; `make test` runs ten.
"""

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from clusters.cutting_proxy import FROM_SITE, TO_SITE, CuttingProxy
from clusters.region import Region
from clusters.slurm.cluster import SlurmCluster
from integration.region_jobs import TIME_LIMIT_S, WEIGHT, Jobs, until
from sqlmodel import select

from broker.models import Membership
from broker.settings import Settings
from storage.database import Database

pytestmark = [pytest.mark.cluster, pytest.mark.torture]
ROUNDS = int(os.environ.get("IDF_TORTURE_ROUNDS", "10"))
JOBS_A_ROUND = 4
HOUR_S = 3600
LOST_AFTER_S = 20
SAVED_S = 6
"""slurmctld writes its state 5 s after a change (SAVE_MAX_WAIT)."""
AWAY_S = 60
"""How long slurmdbd is down, once in ten rounds of that fault; a few seconds otherwise."""
SQUEUE = {
    "squeue fails": "echo 'slurm_load_jobs error: Unexpected message received' >&2; exit 1",
    "squeue is cut off": '/usr/bin/squeue "$@" | head -c {size}',
}


@dataclass
class Rig:
    """A region whose site is reached through a proxy that cuts."""

    region: Region
    proxy: CuttingProxy

    @property
    def cluster(self) -> SlurmCluster:
        return self.region.cluster


Fault = Callable[[Rig, int], AbstractContextManager[None]]


@pytest.fixture
def rig(slurm_cluster: SlurmCluster, tmp_path: Path) -> Iterator[Rig]:
    proxy = CuttingProxy(slurm_cluster.host, slurm_cluster.ssh_port)
    region = Region.make(tmp_path / "region", slurm_cluster)
    region.ssh_port = proxy.port
    region.settings = {"IDF_BROKER_LOST_AFTER_S": str(LOST_AFTER_S)}
    try:
        region.start()
        region.enrol("10000h")
        _make_older(region)
        yield Rig(region, proxy)
    finally:
        region.stop()
        proxy.close()
    assert "in order" in region.admin("doctor"), "quotas.invariants.broken finds nothing"


def _make_older(region: Region) -> None:
    """Let people have joined two hours ago: by a clock that is an hour slow they would not be members yet."""
    database = Database(Settings(data_dir=region.folder / "broker").full_database_url())
    with database.write() as session:
        for membership in session.exec(select(Membership)).all():
            membership.start_at -= timedelta(seconds=2 * HOUR_S)
            session.add(membership)
    database.close()


@contextmanager
def clock(region: Region, off: str) -> Iterator[None]:
    """Whoever starts the broker meanwhile starts it with a clock that is off by so many seconds."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    before = region.settings
    region.settings = {
        **before, "LD_PRELOAD": str(library), "FAKETIME": off, "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    yield
    region.settings = before


@contextmanager
def broker_killed(rig: Rig, _: int) -> Iterator[None]:
    yield
    time.sleep(random.uniform(0, 0.5))
    rig.region.kill()
    rig.region.start()


@contextmanager
def clock_off(rig: Rig, turn: int) -> Iterator[None]:
    """The broker's clock is an hour ahead, or behind; the site's is right."""
    rig.region.stop()
    with clock(rig.region, f"{'+' if turn % 2 else '-'}{HOUR_S}"):
        rig.region.start()
        yield
        time.sleep(random.uniform(0, 4))
        rig.region.kill()
    rig.region.start()


def cut(direction: str, size_max: int) -> Fault:
    """The connection is cut after so many further bytes of a direction, once or more often."""

    @contextmanager
    def fault(rig: Rig, _: int) -> Iterator[None]:
        rig.proxy.cut_after(direction, random.randrange(size_max))
        yield
        for _ in range(random.randrange(3)):
            time.sleep(random.uniform(0, 0.5))
            rig.proxy.cut_after(direction, random.randrange(size_max))
        time.sleep(1)
        rig.proxy.let_pass()

    return fault


def restarted(daemon: str) -> Fault:
    """A daemon ends, in order or by SIGKILL, and comes back; slurmctld in order: a test of its own kills it."""

    @contextmanager
    def fault(rig: Rig, turn: int) -> Iterator[None]:
        kill = turn % 2 and daemon != "slurmctld"
        (rig.cluster.kill_daemon if kill else rig.cluster.stop_daemon)(daemon)
        if daemon == "sshd":
            rig.cluster.cut_connections()
        yield
        time.sleep(AWAY_S if daemon == "slurmdbd" and turn % 10 == 0 else random.uniform(0, 3))
        _bring_back(rig.cluster, daemon)

    return fault


def _bring_back(cluster: SlurmCluster, daemon: str) -> None:
    cluster.start_daemon(daemon)
    until(lambda: cluster.run(["scontrol", "ping"]).returncode == 0)
    # As an operator would: a node is drained when a job of its could not be told of while slurmctld was away.
    cluster.run(["scontrol", "update", f"NodeName={','.join(cluster.nodes)}", "State=RESUME"])
    cluster.wait_ready()


def odd_squeue(name: str) -> Fault:
    """The site's squeue answers an error, or stops in the middle of its answer and says that all was well."""

    @contextmanager
    def fault(rig: Rig, _: int) -> Iterator[None]:
        site = str(Path(rig.cluster.gateway).parent)
        body = SQUEUE[name].format(size=random.randrange(400))
        lay = 'mkdir -p "$1/odd" && cat > "$1/odd/squeue" && chmod 755 "$1/odd" "$1/odd/squeue"'
        lay += ' && sed -i "s|\\"path\\": \\"|&$1/odd:|" "$1/idf-gateway.json"'
        done = rig.cluster.run(["sh", "-c", lay, "sh", site], input=f"#!/bin/sh\n{body}\n".encode())
        assert done.returncode == 0, done.stderr
        try:
            yield
            time.sleep(random.uniform(1, 4))
        finally:
            rig.cluster.run(["sh", "-c", 'sed -i "s|$1/odd:||" "$1/idf-gateway.json"', "sh", site])

    return fault


FAULTS: dict[str, Fault] = {
    "broker killed": broker_killed,
    "request cut off": cut(TO_SITE, 20_000),
    "answer cut off": cut(FROM_SITE, 6_000),
    "slurmctld restarted": restarted("slurmctld"),
    "slurmdbd away": restarted("slurmdbd"),
    "sshd restarted": restarted("sshd"),
    "clock off by an hour": clock_off,
    "squeue fails": odd_squeue("squeue fails"),
    "squeue is cut off": odd_squeue("squeue is cut off"),
}


@pytest.mark.timeout(600 + 60 * ROUNDS)
def test_nothing_is_doubled_lost_or_mischarged(rig: Rig) -> None:
    jobs, turns, fault_of = Jobs(rig.region), Counter[str](), dict[str, str]()
    for number in range(ROUNDS):
        name = list(FAULTS)[number % len(FAULTS)]
        before = jobs.submit(1, seconds=random.uniform(0, 3))
        time.sleep(random.uniform(0, 1.5))
        with FAULTS[name](rig, turns[name]):
            during = jobs.submit(JOBS_A_ROUND - 1, seconds=random.uniform(0, 1))
            time.sleep(random.uniform(0, 1))
        turns[name] += 1
        fault_of |= dict.fromkeys([*before, *during], name)
        jobs.wait([*before, *during], limit_s=180)
        sys.stderr.write(f"   round {number + 1}/{ROUNDS}: {name}\n")
    tally = jobs.tally()
    _print(turns, fault_of, tally, rig.proxy.cuts)
    assert not any(tally.values()), tally
    assert ROUNDS < 50 or rig.proxy.cuts, "no cut fell into a connection: the test proved nothing"


@pytest.mark.timeout(1200 + 60 * ROUNDS)
def test_a_controller_that_is_killed_makes_nobody_pay_or_run_twice(rig: Rig) -> None:
    """It comes back as it was some seconds before: jobs are forgotten, begun again, ended under an id given twice.

    What is lost so is the site's; no run happens twice, all is settled, and no charge is above what accounting shows.
    """
    jobs = Jobs(rig.region)
    for _ in range(max(2, ROUNDS // 20)):
        time.sleep(SAVED_S)
        jobs.submit(2, seconds=random.uniform(0, 3))
        time.sleep(random.uniform(0, 3))
        rig.cluster.kill_daemon("slurmctld")
        jobs.submit(2, seconds=random.uniform(0, 1))
        time.sleep(random.uniform(0, 3))
        _bring_back(rig.cluster, "slurmctld")
    jobs.wait(limit_s=TIME_LIMIT_S + 120)  # Slurm itself may show one at work until its time is up
    rows, ran = jobs.seen()
    settled = [jobs.job(id_) for id_ in jobs.ids]
    for job in settled:
        name = f"idf-{job['id']}"
        assert ran[name] <= 1, job
        assert job["charged_credits"] <= sum(int(row["ElapsedRaw"]) for row in rows[name]) * WEIGHT, (job, rows[name])
    states = Counter(job["state"] for job in settled)
    sys.stderr.write(f"   slurmctld killed: {dict(states)}\n")
    assert states["succeeded"], "none ended well: the test proved nothing"


def _print(turns: Counter[str], fault_of: dict[str, str], tally: dict[str, list[str]], cuts: int) -> None:
    lines = [f"{'FAULT':22}{'ROUNDS':>8}{'JOBS':>8}" + "".join(f"{what.upper():>12}" for what in tally)]
    for name in turns:
        jobs = sum(each == name for each in fault_of.values())
        found = (sum(fault_of[id_] == name for id_ in ids) for ids in tally.values())
        lines.append(f"{name:22}{turns[name]:>8}{jobs:>8}" + "".join(f"{count:>12}" for count in found))
    totals = "".join(f"{len(ids):>12}" for ids in tally.values())
    lines.append(f"{'all':22}{sum(turns.values()):>8}{len(fault_of):>8}{totals}   ({cuts} connections cut)")
    sys.stderr.write("\n".join(["", *lines, ""]))
