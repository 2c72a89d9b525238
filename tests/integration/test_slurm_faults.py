"""What the adapter says while something at the site is down, and that nothing is lost or doubled by it."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from clusters.slurm.cluster import SlurmCluster
from integration.slurm_jobs import fresh, known, recently, sent, spec, wait_for

from adapters.port import Absent, Accepted, AttemptState, JobSpec, Known, Sent, Uncertain, Unreachable
from adapters.slurm import SlurmSsh
from adapters.slurm.scheduler import SlurmSettings

pytestmark = pytest.mark.cluster
Make = Callable[..., SlurmSsh]


@contextmanager
def without(cluster: SlurmCluster, daemon: str) -> Iterator[None]:
    cluster.stop_daemon(daemon)
    try:
        yield
    finally:
        cluster.start_daemon(daemon)


def accepted(site: SlurmSsh, job: JobSpec) -> Known:
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted), answer
    return known(job, answer.site_job_id)


def test_without_the_controller_nothing_is_sent_and_nothing_learnt(
    slurm_cluster: SlurmCluster, slurm_site: Make
) -> None:
    site, batch = slurm_site(), fresh("batch")
    running = accepted(site, spec(slurm_cluster.accounts[0], "sleep 600\n", time_limit_s=1200))
    jobs = [spec(slurm_cluster.accounts[0]) for _ in range(20)]
    with without(slurm_cluster, "slurmctld"):
        answers = site.submit(batch, jobs)
        assert {type(answer) for answer in answers.values()} == {Unreachable}
        with pytest.raises(Unreachable, match="queue"):
            site.observe([running])
        assert isinstance(site.cancel([running])[running.name], Unreachable)
        assert isinstance(site.adopt([sent(jobs[0], batch)])[jobs[0].name], Unreachable)
        assert site.check().problems
    wait_for(lambda: slurm_cluster.run(["squeue"]).returncode == 0)
    slurm_cluster.wait_ready()
    assert wait_for(lambda: site.adopt([sent(jobs[0], batch)]))[jobs[0].name] == Absent()
    wait_for(lambda: site.observe([running]).attempts[running.name][-1].state is AttemptState.RUNNING)
    site.cancel([running])


def test_an_id_that_a_killed_controller_gives_twice(
    slurm_cluster: SlurmCluster, slurm_site: Make, slurm_rest_site: Make
) -> None:
    """It has not saved its state since the first job came: that one is known to accounting alone, and waits there."""
    site, account = slurm_site(), slurm_cluster.accounts[0]
    state = slurm_cluster.folder / "state" / "slurmctld"
    kept = slurm_cluster.folder / "state_before"
    with without(slurm_cluster, "slurmctld"):
        shutil.copytree(state, kept)
    slurm_cluster.wait_ready()
    first = accepted(site, spec(account, begin=datetime.now(UTC) + timedelta(hours=1)))
    sacct = ["sacct", "--noheader", "--allocations", "--format=JobName%100", f"--jobs={first.site_job_id}"]
    wait_for(lambda: first.name.encode() in slurm_cluster.run(sacct).stdout)
    slurm_cluster.kill_daemon("slurmctld")
    shutil.rmtree(state)
    kept.rename(state)
    slurm_cluster.start_daemon("slurmctld")
    slurm_cluster.wait_ready()
    second = accepted(site, spec(account, "sleep 5\n"))
    assert second.site_job_id == first.site_job_id
    both = [
        replace(first, namesakes=frozenset({second.name})),
        replace(second, namesakes=frozenset({first.name})),
    ]
    for one in (site, slurm_rest_site()):
        seen = wait_for(lambda one=one: (s := one.observe(both)).runaways and s)  # type: ignore[misc]
        assert seen.runaways == {first.name}
        assert [attempt.name for attempt in seen.attempts[second.name]] == [second.name]
        assert not seen.absent
    end = wait_for(lambda: (a := site.observe(both).attempts[second.name]) and a[-1].state.ended and a, limit_s=60)
    assert [attempt.state for attempt in end] == [AttemptState.SUCCEEDED]
    assert not any(attempt.state.ended for attempt in site.observe(both).attempts[first.name])


def test_without_the_accounting_database_an_end_is_not_told(slurm_cluster: SlurmCluster, slurm_site: Make) -> None:
    site = slurm_site()
    account = slurm_cluster.accounts[0]
    with without(slurm_cluster, "slurmdbd"):
        running, short = accepted(site, spec(account, "sleep 40\n")), accepted(site, spec(account))
        wait_for(lambda: short.name not in (seen := site.observe([running, short])).attempts and seen)
        seen = site.observe([running, short])
        assert running.name in seen.attempts
        assert not seen.absent
        assert any("accounting" in warning for warning in seen.warnings)
        nobody = spec(account)
        assert isinstance(site.adopt([sent(nobody, fresh("batch"))])[nobody.name], Unreachable)
    wait_for(lambda: site.observe([short]).attempts.get(short.name), limit_s=60)
    assert site.observe([short]).attempts[short.name][-1].state is AttemptState.SUCCEEDED
    site.cancel([running])


def test_without_sshd_everything_is_unreachable_and_comes_back(slurm_cluster: SlurmCluster, slurm_site: Make) -> None:
    site, job = slurm_site(), spec(slurm_cluster.accounts[0])
    site.check()
    with without(slurm_cluster, "sshd"):
        slurm_cluster.cut_connections()
        assert isinstance(site.submit(fresh("batch"), [job])[job.name], Unreachable | Uncertain)
        assert isinstance(site.submit(fresh("batch"), [job])[job.name], Unreachable)
        with pytest.raises(Unreachable):
            site.observe([known(job, "1")])
        with pytest.raises(Unreachable):
            site.read_log(job.account, job.name, 0, 1, 0)
    assert isinstance(site.submit(fresh("batch"), [job])[job.name], Accepted)


def test_another_host_key_is_never_spoken_to(slurm_cluster: SlurmCluster, slurm_site: Make) -> None:
    good: SlurmSettings = slurm_site()._settings
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB7eXpYXhXqh5rpmHNgQkLXN6BbXRkWPfkvJ3oP5kkSW"
    site, job = SlurmSsh(replace(good, ssh=replace(good.ssh, known_host=other))), spec(slurm_cluster.accounts[0])
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Unreachable)
    assert "host key" in answer.reason.lower()
    with pytest.raises(Unreachable, match="pinned"):
        SlurmSsh(replace(good, ssh=replace(good.ssh, known_host="nonsense"))).check()


def test_an_answer_without_end_is_not_read(slurm_site: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    site = slurm_site()
    site.check()
    monkeypatch.setattr("adapters.slurm.ssh.ANSWER_BYTES_MAX", 1000)
    with pytest.raises(Unreachable, match="larger"):
        site.check()


def test_a_controller_that_sleeps_leaves_it_uncertain_until_it_is_clear(
    slurm_cluster: SlurmCluster, slurm_site: Make
) -> None:
    """The request lies in its socket: it takes the job when it wakes, long after sbatch was killed."""
    site = slurm_site(sbatch_s_max=3, submit_s_max=5)
    job, batch = spec(slurm_cluster.accounts[0]), fresh("batch")
    pid = str(slurm_cluster.daemons()["slurmctld"])
    slurm_cluster.run(["kill", "-STOP", pid])
    try:
        assert isinstance(site.submit(batch, [job])[job.name], Uncertain)
        began = time.monotonic()
        with pytest.raises(Unreachable):
            slurm_site(answer_s_max=2).observe([known(job, "1")])
        assert time.monotonic() - began < 4, "every call is bounded in time"
    finally:
        slurm_cluster.run(["kill", "-CONT", pid])
    answer = wait_for(lambda: isinstance(a := site.adopt([sent(job, batch)])[job.name], Accepted) and a, limit_s=60)
    assert isinstance(answer, Accepted)


def test_a_runner_killed_in_the_middle(slurm_cluster: SlurmCluster, slurm_site: Make) -> None:
    """Its last sbatch may still be at work, so what it began stays uncertain until munge's time is over."""
    site, batch = slurm_site(settle_s=4), fresh("batch")
    jobs = [spec(slurm_cluster.accounts[0], gpus=0) for _ in range(200)]
    killer = threading.Timer(0.5, _kill_runners, (slurm_cluster,))
    killer.start()
    answers = site.submit(batch, jobs)
    killer.join()
    unclear = [job for job in jobs if isinstance(answers[job.name], Uncertain)]
    assert unclear, "killed too late"
    first = site.adopt([sent(job, batch) for job in unclear])
    assert {type(answer) for answer in first.values()} <= {Accepted, Absent, Uncertain, Unreachable}
    time.sleep(4)
    last = wait_for(lambda: _clear(site, [sent(job, batch) for job in unclear]))
    for job in unclear:
        count = slurm_cluster.run(["squeue", "--noheader", "--states=all", f"--name={job.name}"]).stdout.count(b"\n")
        assert count == isinstance(last[job.name], Accepted)


def _clear(site: SlurmSsh, jobs: list[Sent]) -> dict[str, object] | None:
    answers = dict(site.adopt(jobs))
    return answers if {type(answer) for answer in answers.values()} <= {Accepted, Absent} else None


def _kill_runners(cluster: SlurmCluster) -> None:
    """Kill the gateway where it runs as a project account; where there is one account, wherever it runs."""
    face = "[i]df-gateway account" if cluster.isolation == "accounts" else "[i]df-gateway"
    find = f"ps -eo pid=,user=,args= | grep '{face}' | grep -v sudo | awk '{{print $1}}'"
    for pid in cluster.run(["sh", "-c", find]).stdout.decode().split():
        cluster.run(["kill", "-KILL", pid])


def test_a_line_is_told_soon_after_it_was_written(slurm_cluster: SlurmCluster, slurm_site: Make) -> None:
    site = slurm_site()
    job = accepted(site, spec(slurm_cluster.accounts[0], "sleep 2; date +%s.%N; sleep 20\n"))
    data = b""
    while not data:
        data = site.read_log(job.account, job.name, 0, 100, 10).data
    assert time.time() - float(data) < 1.0
    site.cancel([job])


def test_waiting_readers_do_not_hold_up_the_broker(slurm_cluster: SlurmCluster, slurm_site: Make) -> None:
    site, account = slurm_site(), slurm_cluster.accounts[0]
    site.check()
    readers = [threading.Thread(target=site.read_log, args=(account, fresh(), 0, 10, 3)) for _ in range(12)]
    for reader in readers:
        reader.start()
    began = time.monotonic()
    site.adopt([Sent("idf-none", account, fresh("batch"), recently())])
    assert time.monotonic() - began < 6
    for reader in readers:
        reader.join()
