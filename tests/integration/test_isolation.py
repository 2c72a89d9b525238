"""Two projects at one site cannot read, enter, see or end each other's jobs, nor alter what the broker reads."""

from collections.abc import Callable, Iterator

import pytest
from clusters.slurm.cluster import SlurmCluster
from integration.slurm_jobs import fresh, known, spec, wait_for

from adapters.port import Accepted, AttemptState, Known
from adapters.slurm import SlurmSsh

pytestmark = pytest.mark.cluster
PROFILES = (".bashrc", ".bash_profile", ".profile", ".pam_environment", ".ssh/rc", ".ssh/environment")


@pytest.fixture
def victim(slurm_cluster: SlurmCluster, slurm_site: Callable[..., SlurmSsh]) -> Iterator[Known]:
    """A job of the first project that has written to its home and its log, and still runs."""
    if slurm_cluster.isolation == "shared":
        pytest.skip(f"this cluster has one account for all: {slurm_cluster.reason}")
    site = slurm_site()
    job = spec(slurm_cluster.accounts[0], "echo secret; echo secret > ~/kept; sleep 50\n", environment={"K": "secret"})
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted)
    wait_for(lambda: site.read_log(job.account, job.name, 0, 100, 1).data)
    yield known(job, answer.site_job_id)
    site.cancel([known(job, answer.site_job_id)])


def test_another_project_cannot_touch_a_job(slurm_cluster: SlurmCluster, victim: Known) -> None:
    stranger, home, job = slurm_cluster.accounts[1], f"/srv/home/{victim.account}", victim.site_job_id
    attempts = {
        "read its home": ["cat", f"{home}/kept"],
        "list its home": ["ls", home],
        "read its log": ["cat", f"{home}/.idf/logs/{victim.name}.log"],
        "read its script": ["cat", f"{home}/.idf/jobs/{victim.name}/script"],
        "enter its allocation": ["timeout", "10", "srun", "--overlap", f"--jobid={job}", "cat", f"{home}/kept"],
        "end it": ["scancel", job],
        "change it": ["scontrol", "update", f"JobId={job}", "TimeLimit=1"],
        "ask for its script": ["sh", "-c", f"scontrol write batch_script {job} - | grep ."],
        "act as it": ["sudo", "-n", "-u", victim.account, "id"],
        "use the gateway as it": ["sudo", "-n", "-u", victim.account, "/srv/site/idf-gateway", "account"],
    }
    for what, argv in attempts.items():
        done = slurm_cluster.run(argv, user=stranger)
        assert done.returncode != 0, f"could {what}: {done.stdout!r}"
        assert b"secret" not in done.stdout
    assert slurm_cluster.run(["cat", f"{home}/kept"], user=victim.account).stdout == b"secret\n"


@pytest.mark.parametrize("argv", [["squeue", "--all"], ["sacct", "--allusers", "--starttime=now-1day"]])
def test_another_project_cannot_see_a_job(slurm_cluster: SlurmCluster, victim: Known, argv: list[str]) -> None:
    argv = [*argv, "--format=" + ("%A" if argv[0] == "squeue" else "JobID")]
    theirs = slurm_cluster.run(argv, user=slurm_cluster.accounts[1]).stdout.decode().split()
    assert victim.site_job_id not in theirs
    wait_for(lambda: victim.site_job_id in slurm_cluster.run(argv, user=victim.account).stdout.decode().split())


def test_a_profile_does_not_alter_what_the_broker_reads(
    slurm_cluster: SlurmCluster, slurm_site: Callable[..., SlurmSsh], victim: Known
) -> None:
    """On a shared account a line in ~/.bashrc made the broker read forged rows."""
    forger = slurm_cluster.accounts[1]
    script = f'mkdir -p "$HOME/.ssh" "$HOME/bin" && cd && for f in {" ".join(PROFILES)} bin/sbatch bin/squeue; do' + (
        ' printf "#!/bin/sh\\necho 666\\nexport PATH=$HOME/bin SBATCH_PARTITION=none\\n" > "$f"; chmod +x "$f"; done'
    )
    assert slurm_cluster.run(["sh", "-c", script], user=forger).returncode == 0
    try:
        site = slurm_site()
        job = spec(forger, "true\n")
        answer = site.submit(fresh("batch"), [job])[job.name]
        assert isinstance(answer, Accepted)
        assert answer.site_job_id != "666"
        seen = site.observe([victim, known(job, answer.site_job_id)])
        assert seen.attempts[victim.name][-1].state is AttemptState.RUNNING
        assert job.name in seen.attempts or not seen.absent
        assert not [warning for warning in seen.warnings if "cannot be read" in warning]
    finally:
        slurm_cluster.run(["sh", "-c", f"cd && rm -rf bin .ssh {' '.join(PROFILES)}"], user=forger)


def test_the_login_account_is_no_shell(slurm_cluster: SlurmCluster) -> None:
    import paramiko

    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        slurm_cluster.host,
        slurm_cluster.ssh_port,
        slurm_cluster.login,
        key_filename=str(slurm_cluster.identity_file),
        allow_agent=False,
        look_for_keys=False,
    )
    stdin, stdout, _ = client.exec_command("id; cat /etc/passwd")
    stdin.close()
    said = stdout.read()
    client.close()
    if slurm_cluster.isolation == "accounts":
        assert b"root:" not in said
        assert b"refused" in said


def test_a_request_that_is_not_whole_does_nothing(slurm_cluster: SlurmCluster) -> None:
    """A cut connection can deliver a beginning."""
    from adapters.slurm.commands import Submit, frame

    job = spec(slurm_cluster.accounts[0])
    request = frame(Submit(fresh("batch"), [job], parallel=8, timeout_s=5, sbatch_s=5).request)
    for part in (request[:-1], request[: len(request) // 2], request[:20], b""):
        done = slurm_cluster.run([slurm_cluster.gateway], user=slurm_cluster.login, input=part)
        assert b"not whole" in done.stdout
    queue = slurm_cluster.run(["squeue", "--noheader", f"--name={job.name}", "--states=all"])
    assert queue.stdout == b""
