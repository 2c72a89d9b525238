"""The first test of the adapter: cut the connection in the middle of a batch, and find every job exactly once."""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest
from clusters.slurm.cluster import SlurmCluster
from integration.slurm_jobs import fresh, sent, spec, wait_for

from adapters.port import Absent, Accepted, Answer, JobSpec, Uncertain, Unreachable
from adapters.slurm import SlurmSsh

pytestmark = [pytest.mark.cluster, pytest.mark.torture]
ROUNDS = min(50, int(os.environ.get("IDF_TORTURE_ROUNDS", "10")))
JOBS = 24

Make = Callable[..., SlurmSsh]


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_every_job_exactly_once_after_a_cut(slurm_cluster: SlurmCluster, slurm_site: Make) -> None:
    site = slurm_site()
    accounts = slurm_cluster.accounts
    _warm_up(site, accounts[0])
    duration_s = _time_a_batch(site, accounts)
    kinds: Counter[str] = Counter()
    jobs: list[JobSpec] = []
    for _ in range(ROUNDS):
        batch = [_appending(accounts[n % len(accounts)]) for n in range(JOBS)]
        jobs += batch
        _send_until_accepted(slurm_cluster, site, batch, kinds, random.uniform(0, duration_s * 1.1))
    print("answers after a cut:", dict(kinds))
    assert kinds["Uncertain"], "no cut fell into a batch: the test proved nothing"
    _each_once_in_slurm(slurm_cluster, jobs)
    _each_ran_once(slurm_cluster, jobs)


def _appending(account: str) -> JobSpec:
    """A job that leaves one line each time that it runs."""
    return spec(account, 'mkdir -p "$HOME/ran" && echo "$SLURM_JOB_ID" >> "$HOME/ran/$SLURM_JOB_NAME"\n', gpus=0)


def _warm_up(site: SlurmSsh, account: str) -> None:
    site.read_log(account, "idf-none", 0, 10, 0)
    site.check()


def _time_a_batch(site: SlurmSsh, accounts: Sequence[str]) -> float:
    began = time.monotonic()
    site.submit(fresh("batch"), [spec(accounts[n % len(accounts)], gpus=0) for n in range(JOBS)])
    return time.monotonic() - began


def _send_until_accepted(
    cluster: SlurmCluster, site: SlurmSsh, batch: Sequence[JobSpec], kinds: Counter[str], after_s: float
) -> None:
    """What the broker does: send, adopt what is uncertain, send again only what is proven absent."""
    to_send, sending, cut = (
        list(batch),
        fresh("batch"),
        threading.Thread(target=_cut, args=(cluster, site, after_s)),
    )
    cut.start()
    for _ in range(50):
        answers: Mapping[str, Answer] = site.submit(sending, to_send)
        kinds.update(type(answer).__name__ for answer in answers.values())
        absent = [job for job in to_send if isinstance(answers[job.name], Unreachable)]
        unclear = [job for job in to_send if isinstance(answers[job.name], Uncertain)]
        assert all(isinstance(answers[job.name], Accepted) for job in to_send if job not in absent + unclear)
        absent += _adopt(site, unclear, sending, kinds)
        if not absent:
            break
        to_send, sending = absent, fresh("batch")
        time.sleep(0.1)
    else:
        raise AssertionError("jobs that can never be sent")
    cut.join()


def _cut(cluster: SlurmCluster, site: SlurmSsh, after_s: float) -> None:
    """At the far end as a network does, or at ours as a killed broker does."""
    time.sleep(after_s)
    if random.random() < 0.6:
        cluster.cut_connections()
    else:
        site.close()


def _adopt(site: SlurmSsh, jobs: Sequence[JobSpec], batch: str, kinds: Counter[str]) -> list[JobSpec]:
    """Ask until each is accepted or absent; return the absent ones."""
    absent: list[JobSpec] = []
    waiting = list(jobs)
    for _ in range(100):
        if not waiting:
            return absent
        answers = site.adopt([sent(job, batch) for job in waiting])
        kinds.update("adopted: " + type(answer).__name__ for answer in answers.values())
        absent += [job for job in waiting if isinstance(answers[job.name], Absent)]
        waiting = [job for job in waiting if isinstance(answers[job.name], Uncertain | Unreachable)]
    raise AssertionError(f"never became clear: {waiting}")


def _each_once_in_slurm(cluster: SlurmCluster, jobs: Sequence[JobSpec]) -> None:
    names = {job.name for job in jobs}
    accounting = ["sacct", "--allusers", "--noheader", "--parsable2", "--allocations", "--duplicates",
                  "--starttime=now-1day", "--format=JobID,JobName"]  # fmt: skip

    def rows() -> Counter[str]:
        lines = cluster.run(accounting).stdout.decode().splitlines()
        return Counter(name for name in (line.split("|", 1)[1] for line in lines) if name in names)

    wait_for(lambda: len(rows()) == len(names))
    assert set(rows().values()) == {1}


def _each_ran_once(cluster: SlurmCluster, jobs: Sequence[JobSpec]) -> None:
    for account in {job.account for job in jobs}:
        names = [job.name for job in jobs if job.account == account]
        count = 'cd "$HOME/ran" && for name; do wc -l "$name" 2>/dev/null; done'

        def counts() -> list[str]:
            done = cluster.run(["sh", "-c", count, "sh", *names], user=account)  # noqa: B023
            return done.stdout.decode().split()

        wait_for(lambda: len(counts()) == 2 * len(names), limit_s=120, every_s=1)  # noqa: B023
        assert set(counts()[::2]) == {"1"}
