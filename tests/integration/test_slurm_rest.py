"""slurmrestd beside SSH: the same is asked of Slurm, and the same is observed."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clusters.slurm.cluster import SlurmCluster
from integration.slurm_jobs import fresh, known, sent, spec, wait_for

from adapters.port import Accepted, Attempt, AttemptState, JobSpec, Known, Uncertain
from adapters.slurm import SlurmRest, SlurmSsh

pytestmark = pytest.mark.cluster
OverSsh = Callable[..., SlurmSsh]
OverRest = Callable[..., SlurmRest]


def accepted(site: SlurmSsh, job: JobSpec) -> Known:
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted), answer
    return known(job, answer.site_job_id)


@pytest.fixture
def closed_queue(slurm_cluster: SlurmCluster) -> Iterator[None]:
    """A partition where jobs are taken and wait."""
    slurm_cluster.run(["scontrol", "update", "PartitionName=gpu", "State=DOWN"]).check_returncode()
    yield
    slurm_cluster.run(["scontrol", "update", "PartitionName=gpu", "State=UP"]).check_returncode()


# ── the same as over SSH ────────────────────────────────────────────────────────────────────────────────

SHAPES: dict[str, dict[str, Any]] = {
    "one GPU": {},
    "GPUs on two nodes": {"gpus": 4, "nodes": 2, "cpus_per_gpu": 2, "memory_mib": 700},
    "GPUs that do not divide": {"gpus": 3, "nodes": 2},
    "no GPU": {"gpus": 0, "gpu_type": "", "cpus": 6, "nodes": 2, "memory_mib": 300},
    "a node alone": {"exclusive": True, "memory_mib": 300},
    "a deadline": {"deadline": datetime.now(UTC).replace(microsecond=0) + timedelta(days=20), "time_limit_s": 7200},
    "a partition": {"partition": "gpu"},
}
OF_EACH_JOB = re.compile(
    r"^(JobId|JobName|Priority|SubmitTime|EligibleTime|AccrueTime|LastSchedEval|StartTime|EndTime|RunTime"
    r"|PreemptEligibleTime|AllocNode:Sid|NodeList|BatchHost|StdErr|StdOut|Reason|SchedNodeList)$"
)


@pytest.mark.usefixtures("closed_queue")
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_is_asked_of_slurm(
    slurm_cluster: SlurmCluster, slurm_site: OverSsh, slurm_rest_site: OverRest, shape: str
) -> None:
    asked = []
    for site in (slurm_site(), slurm_rest_site()):
        job = accepted(site, spec(slurm_cluster.accounts[0], "true\n", **SHAPES[shape]))
        shown = slurm_cluster.run(["scontrol", "show", "--oneliner", "job", job.site_job_id]).stdout.decode()
        words = (word.partition("=")[::2] for word in shown.split())
        asked.append({key: value for key, value in words if not OF_EACH_JOB.match(key)})
        script = slurm_cluster.run(["scontrol", "write", "batch_script", job.site_job_id, "-"]).stdout
        asked[-1]["script"] = script.decode().replace(job.name, "")
        site.cancel([job])
    by_ssh, by_rest = asked
    assert by_ssh == by_rest


@pytest.mark.usefixtures("closed_queue")
def test_a_second_copy_waits_for_the_first(slurm_cluster: SlurmCluster, slurm_rest_site: OverRest) -> None:
    site, job = slurm_rest_site(), spec(slurm_cluster.accounts[0])
    first, second = accepted(site, job), accepted(site, job)
    shown = slurm_cluster.run(["scontrol", "show", "job", second.site_job_id]).stdout.decode()
    assert "Dependency=singleton(unfulfilled)" in shown
    answer = site.adopt([sent(job, fresh("batch"))])[job.name]
    assert isinstance(answer, Uncertain), "two candidates"
    site.cancel([first, second])


@pytest.mark.parametrize("shape", ["one GPU", "GPUs on two nodes", "GPUs that do not divide", "no GPU"])
def test_a_job_finds_the_environment_that_sbatch_gives(
    slurm_cluster: SlurmCluster, slurm_site: OverSsh, slurm_rest_site: OverRest, shape: str
) -> None:
    seen = []
    for site in (slurm_site(), slurm_rest_site()):
        script = "umask; pwd; env | sed s/=.*// | sort -u\n"
        job = accepted(site, spec(slurm_cluster.accounts[0], script, environment={"MINE": "1"}, **SHAPES[shape]))
        wait_for(lambda: ended(site, job))  # noqa: B023
        seen.append(site.read_log(job.account, job.name, 0, 10_000, 5).data.decode().split())
    by_ssh, by_rest = (set(words) for words in seen)
    if SHAPES[shape].get("nodes"):
        by_rest -= {"SLURM_NTASKS", "SLURM_NPROCS"}  # one task a node is asked for by number; srun takes as many anyway
    assert not by_rest - by_ssh
    assert by_ssh - by_rest <= {"SLURM_PRIO_PROCESS", "SLURM_SUBMIT_HOST"} | {
        word for word in by_ssh if word.startswith("SLURM_RLIMIT")
    }
    assert seen[0][:2] == seen[1][:2]


def ended(site: SlurmSsh, job: Known) -> Attempt | None:
    attempts = site.observe([job]).attempts.get(job.name, ())
    return attempts[-1] if attempts and attempts[-1].state.ended else None


def plain(attempt: Attempt) -> Attempt:
    """sacct says who cancelled by number, slurmrestd by name; of a run that was requeued 22.05 knows no exit code."""
    again = attempt.state is AttemptState.PREEMPTED
    native = attempt.native_state.split(" by ")[0]
    elapsed_s = attempt.elapsed_s if attempt.state.ended else 0
    return replace(attempt, native_state=native, exit_code=None if again else attempt.exit_code, elapsed_s=elapsed_s)


def test_both_observe_the_same(slurm_cluster: SlurmCluster, slurm_site: OverSsh, slurm_rest_site: OverRest) -> None:
    ssh, rest = slurm_site(), slurm_rest_site()
    account = slurm_cluster.accounts[0]
    jobs = {
        word: accepted(rest, spec(account, script, **more))
        for word, (script, more) in {
            "succeeded": ("sleep 2\n", {}),
            "failed": ("exit 3\n", {}),
            "large code": ("exit 130\n", {}),
            "signalled": ("kill -SEGV $$\n", {}),
            "two nodes": ("sleep 3\n", {"gpus": 2, "nodes": 2}),
            "running": ("sleep 600\n", {"time_limit_s": 1200, "gpus": 0, "gpu_type": ""}),
            "requeued": ("sleep 600\n", {"time_limit_s": 1200, "gpus": 0, "gpu_type": ""}),
            "suspended": ("sleep 600\n", {"time_limit_s": 1200, "gpus": 0, "gpu_type": ""}),
            "cancelled": ("sleep 600\n", {"time_limit_s": 1200}),
        }.items()
    }
    waiting = accepted(rest, spec(account, "true\n", gpus=8, nodes=2, exclusive=True, memory_mib=100))
    everything = [*jobs.values(), waiting]
    for word in ("running", "requeued", "suspended", "cancelled"):
        wait_for(lambda: _state(rest, jobs[word]) is AttemptState.RUNNING)  # noqa: B023
    time.sleep(2)
    slurm_cluster.run(["scontrol", "suspend", jobs["suspended"].site_job_id]).check_returncode()
    slurm_cluster.run(["scontrol", "update", f"JobId={jobs['requeued'].site_job_id}", "Requeue=1"]).check_returncode()
    slurm_cluster.run(["scontrol", "requeue", jobs["requeued"].site_job_id]).check_returncode()
    rest.cancel([jobs["cancelled"]])
    over = ("succeeded", "failed", "large code", "signalled", "two nodes", "cancelled")
    for word in over:
        wait_for(lambda: ended(rest, jobs[word]) and ended(ssh, jobs[word]))  # noqa: B023
    wait_for(lambda: len(rest.observe([jobs["requeued"]]).attempts.get(jobs["requeued"].name, ())) == 2)
    wait_for(lambda: _same(ssh, rest, everything), limit_s=20)
    seen = rest.observe(everything)
    states = {word: seen.attempts[job.name][-1].state.value for word, job in jobs.items()}
    assert [states[word] for word in over] == ["succeeded", "failed", "failed", "failed", "succeeded", "cancelled"]
    assert [seen.attempts[jobs[word].name][-1].exit_code for word in over[:4]] == [0, 3, 2, 0]
    assert seen.attempts[jobs["requeued"].name][0].state is AttemptState.PREEMPTED
    assert not seen.warnings
    rest.cancel(everything)


def _state(site: SlurmSsh, job: Known) -> AttemptState | None:
    attempts = site.observe([job]).attempts.get(job.name, ())
    return attempts[-1].state if attempts else None


def _same(ssh: SlurmSsh, rest: SlurmSsh, jobs: list[Known]) -> bool:
    """What still runs has run at the second question as long as at the first and at the third, or between."""
    one, other, third = ssh.observe(jobs), rest.observe(jobs), ssh.observe(jobs)
    times = [[a.elapsed_s for job in jobs for a in seen.attempts.get(job.name, ())] for seen in (one, other, third)]
    if not all(first <= second <= last for first, second, last in zip(*times, strict=True)):
        return False
    left, right = ({job: [plain(a) for a in some] for job, some in seen.attempts.items()} for seen in (one, other))
    return left == right and one.absent == other.absent


def test_another_transport_adopts_what_one_has_sent(
    slurm_cluster: SlurmCluster, slurm_site: OverSsh, slurm_rest_site: OverRest
) -> None:
    ssh, rest = slurm_site(), slurm_rest_site()
    for sender, adopter in ((ssh, rest), (rest, ssh)):
        batch, job = fresh("batch"), spec(slurm_cluster.accounts[0])
        answer = sender.submit(batch, [job])[job.name]
        assert isinstance(answer, Accepted)
        assert adopter.adopt([sent(job, batch)])[job.name] == answer
        assert not isinstance(sender.submit(batch, [spec(slurm_cluster.accounts[0])]), Accepted)


@pytest.mark.usefixtures("closed_queue")
def test_a_job_cancelled_before_it_could_start_is_adopted(
    slurm_cluster: SlurmCluster, slurm_rest_site: OverRest
) -> None:
    """`sacct --starttime` does not show such a job: it would look lost, and be sent a second time."""
    site, batch, job = slurm_rest_site(), fresh("batch"), spec(slurm_cluster.accounts[0])
    answer = site.submit(batch, [job])[job.name]
    assert isinstance(answer, Accepted)
    site.cancel([known(job, answer.site_job_id)])
    wait_for(lambda: ended(site, known(job, answer.site_job_id)))
    assert site.adopt([sent(job, batch)])[job.name] == answer
