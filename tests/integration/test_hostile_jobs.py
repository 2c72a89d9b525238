"""What people type reaches the job as they typed it, and nothing but the job."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import hostile
import pytest
from clusters.slurm.cluster import SlurmCluster
from integration.slurm_jobs import fresh, known, sent, spec, wait_for

from adapters.port import Accepted, Attempt, AttemptState, JobSpec, Known, Rejected, Uncertain
from adapters.slurm import SlurmSsh

pytestmark = pytest.mark.cluster
WORDS = (
    "it's", 'a "quoted" word', "two\nlines", "$(touch /tmp/idf-injected)", "`id`", "a|b", "é世界\u202e", "*", "",
    "-rf", "\\", "~", "${HOME}", ";", "&& false", "\x1b[31m", "x" * 300,
)  # fmt: skip
DIRECTIVES = """\
#!/bin/bash
#SBATCH --array=0-3
#SBATCH --job-name=stolen
#SBATCH --gpus=8
#SBATCH hetjob
#SBATCH --nodes=2
#PBS -t 0-3
#BSUB -J stolen[1-4]
.
EOF
echo ran >> "$HOME/$1"
"""


@pytest.fixture
def site(slurm_site: Callable[..., SlurmSsh]) -> SlurmSsh:
    return slurm_site()


@pytest.fixture
def account(slurm_cluster: SlurmCluster) -> str:
    return slurm_cluster.accounts[0]


def run(site: SlurmSsh, job: JobSpec) -> tuple[Known, Attempt]:
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted), answer
    return known(job, answer.site_job_id), ended(site, known(job, answer.site_job_id))


def ended(site: SlurmSsh, job: Known) -> Attempt:
    def newest() -> Attempt | None:
        attempts = site.observe([job]).attempts.get(job.name, ())
        return attempts[-1] if attempts and attempts[-1].state.ended else None

    attempt: Attempt = wait_for(newest, limit_s=60)
    return attempt


def log_of(site: SlurmSsh, job: Known) -> bytes:
    return site.read_log(job.account, job.name, 0, 1 << 20, 0).data


def test_directives_in_a_script_direct_nothing(slurm_cluster: SlurmCluster, site: SlurmSsh, account: str) -> None:
    mark = fresh("mark")
    job, attempt = run(site, spec(account, DIRECTIVES, arguments=(mark,)))
    assert (attempt.state, attempt.gpus, len(attempt.nodes)) == (AttemptState.SUCCEEDED, 1, 1)
    assert slurm_cluster.run(["sh", "-c", f"cat ~/{mark}"], user=account).stdout == b"ran\n"
    rows = slurm_cluster.run(["squeue", "--noheader", "--array", "--states=all", f"--name={job.name}", "--format=%i"])
    assert rows.stdout.decode().split() == [job.site_job_id]


def test_arguments_and_environment_arrive_as_they_were_typed(site: SlurmSsh, account: str) -> None:
    script = "#!/usr/bin/python3\nimport os, sys, json\nprint(json.dumps([sys.argv[1:], os.environ['IDF_VALUE']]))\n"
    for value in ("\n".join(WORDS), ""):
        job, attempt = run(site, spec(account, script, arguments=WORDS, environment={"IDF_VALUE": value}, gpus=0))
        assert attempt.state is AttemptState.SUCCEEDED, log_of(site, job)
        assert json.loads(log_of(site, job)) == [list(WORDS), value]
    assert not Path("/tmp/idf-injected").exists()


def test_a_command_without_a_script(site: SlurmSsh, account: str) -> None:
    job, _ = run(site, spec(account, b"", arguments=("printf", "%s|", "a b", "$(id)"), gpus=0))
    assert log_of(site, job) == b"a b|$(id)|"


def test_a_script_of_any_bytes(site: SlurmSsh, account: str) -> None:
    job, _ = run(site, spec(account, b"printf '\xff\xfe\\n'\ncat <<'.'\n.\n#SBATCH --hold\n", gpus=0))
    assert log_of(site, job).startswith(b"\xff\xfe\n")


@pytest.mark.parametrize("name", ["x y", "../x", "", "a" * 65, "x\ny", "$(id)", "é", "-x", "x|y"])
def test_a_name_that_is_not_ours_is_refused(site: SlurmSsh, account: str, name: str) -> None:
    job = JobSpec(name=name, account=account, gpus=1, gpu_type="a100", time_limit_s=60, script=b"true")
    assert isinstance(site.submit(fresh("batch"), [job])[name], Rejected)


@pytest.mark.parametrize("variable", ["a b", "a=b", "a[$(id)]", "1a", "", "UID", "é"])
def test_a_variable_that_cannot_be_is_refused(site: SlurmSsh, account: str, variable: str) -> None:
    job = spec(account, environment={variable: "x"})
    assert isinstance(site.submit(fresh("batch"), [job])[job.name], Rejected)


@pytest.mark.parametrize("make", ["ln -s /etc/passwd", "mkfifo", "mkdir", "ln -s $HOME/.idf"])
def test_a_log_that_is_no_regular_file_is_refused(
    slurm_cluster: SlurmCluster, site: SlurmSsh, account: str, make: str
) -> None:
    name = fresh()
    slurm_cluster.run(["sh", "-c", f"mkdir -p ~/.idf/logs && {make} ~/.idf/logs/{name}.log"], user=account)
    with pytest.raises(Rejected):
        site.read_log(account, name, 0, 100, 0)


def test_of_two_copies_one_does_nothing(slurm_cluster: SlurmCluster, site: SlurmSsh, account: str) -> None:
    """Should a second copy ever arrive: singleton makes it wait, the claim makes it end at once."""
    mark = fresh("mark")
    job = spec(account, f'echo "$SLURM_JOB_ID" >> ~/{mark}; sleep 1\n', gpus=0)
    batches = [fresh("batch"), fresh("batch")]
    ids = []
    for batch in batches:
        answer = site.submit(batch, [job])[job.name]
        assert isinstance(answer, Accepted)
        ids.append(answer.site_job_id)
    for copy in ids:
        assert ended(site, known(job, copy)).state is AttemptState.SUCCEEDED
    lines = slurm_cluster.run(["sh", "-c", f"cat ~/{mark}"], user=account).stdout.decode().split()
    assert len(lines) == 1
    assert log_of(site, known(job, ids[0])) == b""
    assert isinstance(site.adopt([sent(job, batches[0])])[job.name], Uncertain)


def test_a_requeue_goes_on_and_is_a_second_attempt(slurm_cluster: SlurmCluster, site: SlurmSsh, account: str) -> None:
    job = spec(account, "echo run; sleep 30\n")
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted)
    mine = known(job, answer.site_job_id)
    wait_for(lambda: log_of(site, mine) == b"run\n")
    slurm_cluster.run(["scontrol", "update", f"JobId={answer.site_job_id}", "Requeue=1"])
    assert slurm_cluster.run(["scontrol", "requeue", answer.site_job_id]).returncode == 0
    wait_for(lambda: _runs_again(slurm_cluster, site, mine), limit_s=60, every_s=1)
    attempts = wait_for(lambda: (a := site.observe([mine]).attempts[mine.name]) and len(a) == 2 and a)
    assert [attempt.state.ended for attempt in attempts] == [True, False]
    assert attempts[0].source_key != attempts[1].source_key
    site.cancel([mine])
    last = ended(site, mine)
    assert last.source_key == attempts[1].source_key


def _runs_again(cluster: SlurmCluster, site: SlurmSsh, job: Known) -> bool:
    """Slurm lets a requeued job wait for two minutes, counted from the end of its cleaning up."""
    cluster.run(["scontrol", "update", f"JobId={job.site_job_id}", "StartTime=now"])
    return log_of(site, job).count(b"run\n") == 2


def test_a_job_starts_in_its_snapshot(site: SlurmSsh, account: str, tmp_path: Path) -> None:
    archive = tmp_path / "folder.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        data = fresh().encode()
        member = tarfile.TarInfo("lib/data.txt")
        member.size, member.mode, member.uid = len(data), 0o644, 0
        tar.addfile(member, io.BytesIO(data))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    site.put_snapshot(account, digest, archive)
    job, attempt = run(site, spec(account, "cat lib/data.txt\n", snapshot=digest, gpus=0))
    assert (attempt.state, log_of(site, job)) == (AttemptState.SUCCEEDED, data)


def test_a_missing_snapshot_fails_the_job_with_a_sentence(site: SlurmSsh, account: str) -> None:
    job, attempt = run(site, spec(account, "echo ran\n", snapshot="0" * 64, gpus=0))
    assert attempt.state is AttemptState.FAILED
    assert log_of(site, job) == b"idf-compute: the snapshot is missing or damaged\n"


def test_the_environment_of_the_gateway_stays_there(site: SlurmSsh, account: str) -> None:
    names = "TZ|SLURM_TIME_FORMAT|SLURM_BITSTR_LEN|SUDO_|SSH_|LC_ALL"
    job, _ = run(site, spec(account, f"env | grep -E '^({names})'\n", gpus=0))
    assert log_of(site, job) == b""


def test_none_of_the_hostile_scripts_gets_more_than_one_gpu_of_one_plain_job(
    slurm_cluster: SlurmCluster, site: SlurmSsh, account: str
) -> None:
    jobs = {name: spec(account, script) for name, script in hostile.SCRIPTS.items()}
    answers = site.submit(fresh("batch"), list(jobs.values()))
    for name, job in jobs.items():
        answer = answers[job.name]
        assert isinstance(answer, Accepted), (name, answer)
        mine = known(job, answer.site_job_id)
        attempt = ended(site, mine)
        assert (attempt.gpus, attempt.cpus, attempt.node_count, attempt.time_limit_s) == (1, 1, 1, 60), name
        assert log_of(site, mine).splitlines().count(b"ran") == 1, (name, log_of(site, mine))
    rows = slurm_cluster.run(["squeue", "--noheader", "--array", "--states=all", "--format=%j"]).stdout.decode().split()
    assert "stolen" not in rows
    assert all(rows.count(job.name) == 1 for job in jobs.values())
