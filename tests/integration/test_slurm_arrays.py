"""Arrays on a real Slurm where something went wrong: a second copy, a requeue, tasks taken out behind our back."""

from collections.abc import Callable

import pytest
from clusters.slurm.cluster import SlurmCluster
from integration.slurm_jobs import fresh, known, sent, spec, wait_for

from adapters.arrays import task_name
from adapters.port import Accepted, Attempt, AttemptState, JobSpec, Known, Uncertain
from adapters.slurm import SlurmSsh

pytestmark = pytest.mark.cluster


@pytest.fixture
def site(slurm_site: Callable[..., SlurmSsh]) -> SlurmSsh:
    return slurm_site()


@pytest.fixture
def account(slurm_cluster: SlurmCluster) -> str:
    return slurm_cluster.accounts[0]


def accepted(site: SlurmSsh, job: JobSpec, batch: str = "") -> Known:
    answer = site.submit(batch or fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted), answer
    return known(job, answer.site_job_id)


def of_task(site: SlurmSsh, job: Known, task: int) -> list[Attempt]:
    return [one for one in site.observe([job]).attempts.get(job.name, ()) if one.task == task]


def newest(site: SlurmSsh, job: Known, task: int) -> Attempt | None:
    attempts = of_task(site, job, task)
    return attempts[-1] if attempts else None


def has(site: SlurmSsh, job: Known, task: int, state: AttemptState) -> bool:
    attempt = newest(site, job, task)
    return attempt is not None and attempt.state is state


def test_of_two_copies_of_an_array_one_does_nothing(slurm_cluster: SlurmCluster, site: SlurmSsh, account: str) -> None:
    """Singleton makes the second copy wait for all tasks of the first; the claim then makes each of its own end."""
    mark = fresh("mark")
    script = f'echo "$SLURM_ARRAY_JOB_ID $SLURM_ARRAY_TASK_ID" >> ~/{mark}; sleep 4\n'
    job, batches = spec(account, script, gpus=0, array="0-3%2"), [fresh("batch"), fresh("batch")]
    first, second = (accepted(site, job, batch) for batch in batches)
    wait_for(lambda: all(has(site, first, task, AttemptState.RUNNING) for task in (0, 1)))
    # slurmctld says the reason when it looks at the job
    waiting = wait_for(lambda: (seen := newest(site, second, 0)) and seen.reason and seen)
    assert (waiting.state, waiting.reason) == (AttemptState.QUEUED, "Dependency")
    for copy in (first, second):
        for task in range(4):
            wait_for(lambda: has(site, copy, task, AttemptState.SUCCEEDED), limit_s=60)  # noqa: B023 - called at once
    lines = slurm_cluster.run(["sh", "-c", f"sort ~/{mark}"], user=account).stdout.decode().splitlines()
    assert lines == [f"{first.site_job_id} {task}" for task in range(4)]
    assert isinstance(site.adopt([sent(job, batches[0])])[job.name], Uncertain)


def test_a_requeued_task_goes_on_and_the_others_are_left_alone(
    slurm_cluster: SlurmCluster, site: SlurmSsh, account: str
) -> None:
    job = accepted(site, spec(account, "echo run; sleep 300\n", array="0-1", time_limit_s=600))
    log = task_name(job.name, 1)
    wait_for(lambda: site.read_log(account, log, 0, 100, 1).data == b"run\n")
    name = task_name(job.site_job_id, 1)
    slurm_cluster.run(["scontrol", "update", f"JobId={name}", "Requeue=1"])
    assert slurm_cluster.run(["scontrol", "requeue", name]).returncode == 0

    def runs_again() -> bool:
        """Slurm lets a requeued job wait for two minutes, counted from the end of its cleaning up."""
        slurm_cluster.run(["scontrol", "update", f"JobId={name}", "StartTime=now"])
        return site.read_log(account, log, 0, 10_000, 0).data.count(b"run\n") == 2

    wait_for(runs_again, limit_s=60, every_s=1)
    attempts = wait_for(lambda: len(found := of_task(site, job, 1)) == 2 and found)
    assert [attempt.state.ended for attempt in attempts] == [True, False]
    assert attempts[0].source_key != attempts[1].source_key
    assert len(of_task(site, job, 0)) == 1
    site.cancel([job])
    for task in (0, 1):
        ends = wait_for(lambda: (found := of_task(site, job, task)) and found[-1].state.ended and found)  # noqa: B023
        assert ends[-1].state is AttemptState.CANCELLED, ends
    assert len(of_task(site, job, 1)) == 2


def test_tasks_that_were_taken_out_before_they_began_are_absent(
    slurm_cluster: SlurmCluster, site: SlurmSsh, account: str
) -> None:
    """All that wait, one by one: 22.05 leaves a row of the array without any task."""
    job = accepted(site, spec(account, "sleep 5\n", array="0-3%1"))
    asked = Known(job.name, account, job.site_job_id, job.submitted_after, frozenset(range(4)))
    wait_for(lambda: has(site, job, 0, AttemptState.RUNNING))
    for task in (1, 2, 3):
        slurm_cluster.run(["scancel", task_name(job.site_job_id, task)], user=account)
    wait_for(lambda: has(site, asked, 0, AttemptState.SUCCEEDED), limit_s=60)
    seen = site.observe([asked])
    gone = {task for task in (1, 2, 3) if task_name(job.name, task) in seen.absent}
    told = {one.task for one in seen.attempts[job.name] if one.state is AttemptState.CANCELLED}
    assert gone | told == {1, 2, 3}, seen
    assert not seen.warnings


def test_a_thousand_tasks_are_one_command(site: SlurmSsh, account: str, slurm_cluster: SlurmCluster) -> None:
    fillers = [accepted(site, spec(account, "sleep 100\n", gpus=4, time_limit_s=120)) for _ in range(2)]
    jobs = [accepted(site, spec(account, array="0-999")) for _ in range(2)]
    asked = [Known(j.name, account, j.site_job_id, j.submitted_after, frozenset(range(1000))) for j in jobs]
    seen = site.observe(asked)
    assert [len(seen.attempts[job.name]) for job in jobs] == [1000, 1000]
    site.cancel([*jobs, *fillers])

    def all_ended() -> bool:
        found = site.observe(asked)
        attempts = [attempt for job in jobs for attempt in found.attempts.get(job.name, ())]
        return len(attempts) + len(found.absent) == 2000 and all(attempt.state.ended for attempt in attempts)

    wait_for(all_ended, limit_s=60)
