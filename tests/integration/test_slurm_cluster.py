"""The throwaway cluster keeps what it promises: two projects apart, nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clusters.slurm import control, startup
from clusters.slurm.cluster import SlurmCluster
from clusters.slurm.fixtures import slurm_cluster  # noqa: F401
from clusters.slurm.layout import ClusterError

pytestmark = pytest.mark.cluster
SCRIPT = Path(control.__file__).with_name("cluster.py")


def until(condition: Callable[[], bool], timeout_s: float = 15) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def said(cluster: SlurmCluster, user: str, *argv: str) -> str:
    done = cluster.run(argv, user=user)
    return (done.stdout + done.stderr).decode(errors="replace")


def submit(cluster: SlurmCluster, user: str, command: str) -> str:
    argv = ("sbatch", "--parsable", "--gpus=a100:2", "--time=5", "--output=log", f"--wrap={command}")
    done = cluster.run(argv, user=user)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def ssh(cluster: SlurmCluster, login: str = "", word: str = "anything") -> list[str]:
    known = cluster.folder / "client" / "known_hosts"
    known.write_text(f"[{cluster.host}]:{cluster.ssh_port} {cluster.known_host}\n")
    return [
        "ssh", "-F", "none", "-i", str(cluster.identity_file), "-o", "IdentitiesOnly=yes",
        "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes",
        "-p", str(cluster.ssh_port), f"{login or cluster.login}@{cluster.host}", word,
    ]  # fmt: skip


@pytest.fixture
def projects(slurm_cluster: SlurmCluster) -> SlurmCluster:  # noqa: F811
    if slurm_cluster.isolation != "accounts":
        pytest.skip(slurm_cluster.reason)
    return slurm_cluster


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for further clusters: whatever a test leaves in it is ended."""
    folder = tmp_path_factory.mktemp("c")
    yield folder
    for path in folder.iterdir():
        startup.remove(path)


def test_nodes_are_idle_and_the_description_is_read_back(slurm_cluster: SlurmCluster) -> None:  # noqa: F811
    assert "node1 idle" in said(slurm_cluster, "root", "sinfo", "-N", "-h", "-o", "%N %t")
    loaded = SlurmCluster.load(slurm_cluster.folder)
    assert loaded == slurm_cluster
    assert loaded.running
    assert slurm_cluster.identity_file.stat().st_mode & 0o777 == 0o600


def test_a_job_is_accounted_with_its_typed_gpus(slurm_cluster: SlurmCluster) -> None:  # noqa: F811
    user = slurm_cluster.accounts[0]
    job = submit(slurm_cluster, user, "true")
    show = ("sacct", "-nPX", "-j", job, "-o", "user,account,state,alloctres")
    assert until(lambda: "COMPLETED" in said(slurm_cluster, user, *show))
    row = said(slurm_cluster, user, *show).strip().split("|")
    assert row[:2] == [user, user]
    assert {"gres/gpu=2", "gres/gpu:a100=2"} <= set(row[3].split(","))


def test_a_project_neither_sees_nor_touches_the_job_of_another(projects: SlurmCluster) -> None:
    job = submit(projects, "idf001", "echo secret; touch started; sleep 60")
    assert until(lambda: "started" in said(projects, "idf001", "ls"))
    squeue = ("squeue", "-h", "-j", job, "-o", "%i %u")
    other = "idf002"
    assert "idf001" not in said(projects, other, *squeue)
    assert "idf001" not in said(projects, other, "scontrol", "show", "job", job)
    assert "Access/permission denied" in said(projects, other, "scancel", job)
    assert "uid=" not in said(projects, other, "srun", "--overlap", f"--jobid={job}", "id")
    assert "Permission denied" in said(projects, other, "cat", "/srv/home/idf001/log")
    assert "sleep" not in said(projects, other, "ps", "-e", "-o", "args")
    assert "idf001" in said(projects, projects.login, *squeue), "the coordinator sees what is below it"
    assert until(lambda: "idf001" in said(projects, projects.login, "sacct", "-nPXa", "-j", job, "-o", "user"))
    assert said(projects, other, "sacct", "-nPXa", "-j", job) == ""
    assert projects.run(["scancel", job], user=projects.login).returncode == 0


def test_a_job_must_name_an_account_of_its_own(projects: SlurmCluster) -> None:
    assert "Invalid account" in said(projects, "idf001", "sbatch", "--account=idf002", "--wrap=true")


def test_secrets_are_out_of_reach(projects: SlurmCluster) -> None:
    for name in (
        "etc/munge.key",
        "etc/jwt.key",
        "etc/slurmdbd.conf",
        "etc/database.sql",
        "client/id_ed25519",
    ):
        assert "Permission denied" in said(projects, "idf001", "cat", f"/srv/{name}"), name
    for user in ("idf001", projects.login):
        assert "denied" in said(projects, user, "scontrol", "token", "username=idf002")


def test_private_places_of_the_cluster_are_not_those_of_the_machine(projects: SlurmCluster) -> None:
    projects.run(["touch", "/tmp/idf-cluster-was-here", "/dev/shm/idf-cluster-was-here"], user="idf001")
    assert not Path("/tmp/idf-cluster-was-here").exists()
    assert not Path("/dev/shm/idf-cluster-was-here").exists()
    assert "idf-broker" not in Path("/etc/passwd").read_text()


def test_jobs_of_two_projects_share_no_temporary_place(projects: SlurmCluster) -> None:
    places = ("/tmp", "/var/tmp", "/dev/shm")
    submit(
        projects,
        "idf001",
        "for place in /tmp /var/tmp /dev/shm; do touch $place/left-behind; done; touch left",
    )
    assert until(lambda: "left\n" in said(projects, "idf001", "ls"))
    show = ("srun", "--time=1", "ls", *places)
    assert said(projects, "idf001", *show).count("left-behind") == len(places)
    assert "left-behind" not in said(projects, "idf002", *show)


def test_the_gateway_runs_as_project_accounts_and_nobody_else(projects: SlurmCluster) -> None:
    def as_account(name: str, *arguments: str) -> int:
        sudo = ("sudo", "-n", "-u", name, projects.gateway, *arguments)
        return projects.run(sudo, user=projects.login).returncode

    refused = 1
    listed = said(projects, projects.login, "sudo", "-n", "-l")
    assert "(%idf-projects) NOPASSWD: /srv/site/idf-gateway account" in listed
    for name, arguments in (
        ("root", ("account",)),
        ("nobody", ("account",)),
        ("idf001", ()),
        ("idf001", ("x",)),
    ):
        assert as_account(name, *arguments) == refused
    shell = ("sudo", "-n", "-u", "idf001", "/bin/sh", "-c", "true")
    assert projects.run(shell, user=projects.login).returncode == refused


def test_sshd_takes_the_login_account_only(slurm_cluster: SlurmCluster) -> None:  # noqa: F811
    with socket.create_connection((slurm_cluster.host, slurm_cluster.ssh_port), 5) as connection:
        assert connection.recv(64).startswith(b"SSH-2.0-")
    for login in set(slurm_cluster.accounts) - {slurm_cluster.login} | {"nobody"}:
        done = subprocess.run(ssh(slurm_cluster, login), capture_output=True, text=True, check=False, input="")
        assert "Permission denied (publickey)" in done.stderr


def test_what_was_started_goes_on_when_its_connection_is_cut(projects: SlurmCluster) -> None:
    gateway = projects.folder / "site/idf-gateway"
    kept = gateway.read_bytes()
    gateway.write_text("#!/bin/sh\necho begun\nsleep 1\necho ended >/tmp/ended\n")
    try:
        with subprocess.Popen(ssh(projects), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
            assert client.stdout
            assert client.stdout.readline() == b"begun\n"
            assert projects.cut_connections() >= 1
            assert client.wait(10) == 255
        assert until(lambda: said(projects, projects.login, "cat", "/tmp/ended") == "ended\n")
        assert "sshd" in projects.daemons()
    finally:
        gateway.write_bytes(kept)


def test_a_daemon_can_be_killed_and_started_again(slurm_cluster: SlurmCluster) -> None:  # noqa: F811
    for end in (slurm_cluster.stop_daemon, slurm_cluster.kill_daemon):
        end("slurmctld")
        assert "slurmctld" not in slurm_cluster.daemons()
        slurm_cluster.start_daemon("slurmctld")
        slurm_cluster.wait_ready()
    with pytest.raises(ClusterError, match="no daemon"):
        slurm_cluster.kill_daemon("slurmd")


def test_a_command_that_takes_too_long_is_ended(slurm_cluster: SlurmCluster) -> None:  # noqa: F811
    with pytest.raises(subprocess.TimeoutExpired):
        slurm_cluster.run(["sleep", "4321"], timeout=0.3)
    assert until(lambda: "4321" not in said(slurm_cluster, "root", "ps", "-e", "-o", "args"), 3)


def test_two_clusters_run_side_by_side_and_leave_nothing(base: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda name: SlurmCluster.start(name, base), ("one", "two"))
    for cluster in (one, two):
        done = cluster.run(["scontrol", "show", "config"], user=cluster.accounts[0])
        assert f"ClusterName             = {cluster.name}" in done.stdout.decode()
        submit(cluster, cluster.accounts[0], "sleep 60")
    everything = control.members(one.folder)
    one.stop()
    assert control.members(one.folder) == []
    assert not [pid for pid in everything if Path(f"/proc/{pid}/exe").exists()]
    assert two.run(["sinfo"]).returncode == 0
    two.stop()
    assert not [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(base) in line]


def test_a_killed_supervisor_takes_everything_along(base: Path) -> None:
    cluster = SlurmCluster.start("killed", base)
    submit(cluster, cluster.accounts[0], "sleep 60")
    everything = control.members(cluster.folder)
    assert len(everything) > 8
    os.kill(cluster.supervisor_pid, signal.SIGKILL)
    cluster.stop()
    assert not [pid for pid in everything if Path(f"/proc/{pid}/exe").exists()]
    assert not cluster.running


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_start_is_recovered(base: Path, number: signal.Signals) -> None:
    start = [sys.executable, str(SCRIPT), "start", "again", "--base", str(base)]
    with subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as interrupted:
        assert until((base / "again/log/slurmdbd.log").exists, 30)
        interrupted.send_signal(number)
    if number == signal.SIGINT:
        assert control.members(base / "again") == []
    cluster = SlurmCluster.start("again", base)
    assert cluster.run(["sinfo"]).returncode == 0


def test_a_daemon_that_does_not_come_up_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup.Configuration, "gres_conf", lambda self: "Nonsense=1\n")
    with pytest.raises(ClusterError, match=r"slurmctld|node1|not ready"):
        SlurmCluster.start("broken", base)
    assert control.members(base / "broken") == []


def test_a_foreign_folder_is_not_touched(base: Path) -> None:
    (base / "mine").mkdir()
    (base / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ClusterError, match="not touched"):
        SlurmCluster.start("mine", base)
    (base / "mine" / "thesis.txt").unlink()
