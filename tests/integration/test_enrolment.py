"""Enrolment on a real cluster: what a site's root installs, what an audit proves, and the life of an account."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from clusters.slurm import startup
from clusters.slurm.accounts import PYTHON, installer
from clusters.slurm.cluster import SlurmCluster
from integration.slurm_jobs import fresh, known, spec, wait_for

from adapters.errors import Rejected, Unreachable
from adapters.port import Accepted, AttemptState, Known
from adapters.slurm import SlurmSettings, SlurmSsh, SlurmUpkeep, SshSettings
from adapters.slurm.commands import Reply, frame
from adapters.upkeep import Audit, Expected

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
ADVICE = {"use-not-counted", "processes-escape", "gpus-not-constrained", "isolation-partly-tried"}
"""What a test cluster could do better: it has no cgroups, no priorities and no real GPU to open."""
LEFT_BEHIND = r"""
mkdir -p ~/.config deep/er && echo secret > ~/.config/kept && echo secret > deep/er/kept && chmod 000 deep/er deep
for place in /tmp /var/tmp /dev/shm; do mkdir $place/left && echo secret | tee $place/left/kept >$place/kept; done
ln -s /etc/passwd /tmp/link-to-passwd
ipcmk --shmem 4096 --mode 0666
setsid --fork sleep 987
echo ready; sleep 500
"""
FIND = r"""
ls -A ~ /tmp /var/tmp /dev/shm | grep -v -e : -e '^$' -e '^.idf$'
awk -v uid="$(id -u)" '$8 == uid' /proc/sysvipc/shm
ps -u "$(id -u)" -o args= | grep 'sleep 987' | grep -v grep
echo looked
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster of its own: these tests change who may do what there."""
    base = tmp_path_factory.mktemp("e")
    made = SlurmCluster.start("enrolled", base)
    if made.isolation == "shared":
        made.stop()
        pytest.skip(f"this cluster has one account for all: {made.reason}")
    yield made
    startup.remove(made.folder)


def settings_of(cluster: SlurmCluster) -> SlurmSettings:
    ssh = SshSettings(
        host=cluster.host, port=cluster.ssh_port, user=cluster.login,
        identity_file=cluster.identity_file, known_host=cluster.known_host,
    )  # fmt: skip
    return SlurmSettings(cluster=cluster.name, ssh=ssh)


@pytest.fixture
def upkeep(cluster: SlurmCluster) -> Iterator[SlurmUpkeep]:
    made = SlurmUpkeep(settings_of(cluster), proof_s_max=90)
    yield made
    made.close()


@pytest.fixture
def site(cluster: SlurmCluster) -> Iterator[SlurmSsh]:
    made = SlurmSsh(settings_of(cluster))
    yield made
    made.close()


def expected(cluster: SlurmCluster, **changes: object) -> Expected:
    known_of_it = Expected(True, cluster.pool, cluster.pool, ["a100"], None, 86_400)
    return replace(known_of_it, **changes)  # type: ignore[arg-type]


def root(cluster: SlurmCluster, *argv: str) -> str:
    done = cluster.run(argv, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def said(cluster: SlurmCluster, user: str, *argv: str) -> str:
    done = cluster.run(argv, user=user)
    return (done.stdout + done.stderr).decode(errors="replace")


def problems(audit: Audit) -> set[str]:
    return {finding.code for finding in audit.problems}


# ── audits ──


def test_a_site_as_the_script_makes_it_is_proven_and_left_as_it_was(cluster: SlurmCluster, upkeep: SlurmUpkeep) -> None:
    audit = upkeep.audit(expected(cluster))
    assert (audit.proven, audit.cluster) == (True, "enrolled")
    assert "22.05" in audit.scheduler
    assert {finding.code for finding in audit.findings} == ADVICE
    for account in cluster.pool[:2]:
        assert root(cluster, "ls", "-A", f"/srv/home/{account}") == ""
        assert "Invalid account" in said(cluster, account, "sbatch", "--wrap=true")


@contextmanager
def open_home(cluster: SlurmCluster) -> Iterator[None]:
    root(cluster, "chmod", "755", f"/srv/home/{cluster.pool[0]}")
    yield  # the wipe after the proof closes it


@contextmanager
def sudo_between(cluster: SlurmCluster) -> Iterator[None]:
    rule = f"{cluster.pool[1]} ALL=({cluster.pool[0]}) NOPASSWD: ALL"
    root(cluster, "sh", "-c", f"umask 0337; echo '{rule}' > /etc/sudoers.d/hole")
    yield
    root(cluster, "rm", "/etc/sudoers.d/hole")


@contextmanager
def one_tmp(cluster: SlurmCluster) -> Iterator[None]:
    file = cluster.folder / "etc/namespace.conf"
    kept = file.read_text()
    file.write_text("".join(f"{line}\n" for line in kept.splitlines() if not line.startswith(("/tmp", "/dev/shm"))))
    yield
    file.write_text(kept)


@contextmanager
def processes_for_all(cluster: SlurmCluster) -> Iterator[None]:
    root(cluster, "mount", "-o", "remount,hidepid=0", "/proc")
    yield
    root(cluster, "mount", "-o", "remount,hidepid=2", "/proc")


@contextmanager
def queue_for_all(cluster: SlurmCluster) -> Iterator[None]:
    file = cluster.folder / "etc/slurm.conf"
    kept = file.read_text()
    file.write_text(kept.replace("PrivateData=jobs,", "PrivateData="))
    root(cluster, "scontrol", "reconfigure")
    yield
    file.write_text(kept)
    root(cluster, "scontrol", "reconfigure")


@contextmanager
def gpu_for_all(cluster: SlurmCluster) -> Iterator[None]:
    """Lay a device where drivers do, in the cluster's own view of an empty folder."""
    folder = Path("/dev/dri")
    if folder.exists():
        pytest.skip("this machine has a GPU of its own")
    folder.mkdir()
    try:
        root(cluster, "mount", "-t", "tmpfs", "-o", "mode=755", "none", str(folder))
        root(cluster, "mknod", "-m", "666", str(folder / "renderD128"), "c", "1", "3")
        yield
        root(cluster, "umount", str(folder))
    finally:
        folder.rmdir()


@contextmanager
def operator_of_slurm(cluster: SlurmCluster) -> Iterator[None]:
    """Let the second account operate Slurm, once it is known there."""
    real = SlurmUpkeep._cross

    def cross(upkeep: SlurmUpkeep, pair: tuple[str, str], known_of_it: Expected) -> object:
        root(cluster, "sacctmgr", "-i", "modify", "user", "where", f"name={pair[1]}", "set", "adminlevel=operator")
        return real(upkeep, pair, known_of_it)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlurmUpkeep, "_cross", cross)
        yield


HOLES: dict[str, tuple[Callable[[SlurmCluster], object], set[str]]] = {
    "a home that others may enter": (open_home, {"list the other's home", "read a file in the other's home"}),
    "a rule of sudo": (sudo_between, {"act as the other through sudo"}),
    "one /tmp and /dev/shm for all": (
        one_tmp, {"read the other's file in /tmp", "read the other's file in /dev/shm"},
    ),
    "a /proc that hides nothing": (processes_for_all, {"see the other's processes"}),
    "a queue that hides nothing": (
        queue_for_all, {"see the other's job in the queue", "see the details of the other's job"},
    ),
    "an account that operates Slurm": (
        operator_of_slurm,
        {
            "see the other's job in the queue", "see the details of the other's job",
            "see the other's job in accounting", "ask Slurm for the other's script", "change the other's job",
            "end the other's job",
        },
    ),
    "a GPU that anyone may open": (gpu_for_all, {"open a GPU that its job was not given"}),
}  # fmt: skip


@pytest.mark.parametrize("hole", HOLES)
def test_a_site_with_a_single_hole_is_not_isolated(cluster: SlurmCluster, upkeep: SlurmUpkeep, hole: str) -> None:
    opened, crossings = HOLES[hole]
    with opened(cluster):  # type: ignore[attr-defined]
        audit = upkeep.audit(expected(cluster))
    assert audit.proven is False
    broken = [finding for finding in audit.problems if finding.code == "isolation-broken"]
    for crossing in crossings:
        assert any(finding.sentence.endswith(f"could {crossing}") for finding in broken), (crossing, broken)
    assert len(broken) == len(crossings), broken


def test_a_proof_that_does_not_come_to_its_end_is_none(cluster: SlurmCluster) -> None:
    impatient = SlurmUpkeep(settings_of(cluster), proof_s_max=3)
    root(cluster, "scontrol", "update", "PartitionName=gpu", "State=DOWN")
    try:
        audit = impatient.audit(expected(cluster))
    finally:
        root(cluster, "scontrol", "update", "PartitionName=gpu", "State=UP")
        impatient.close()
    assert audit.proven is None
    assert problems(audit) == {"isolation-not-proven", "partition-down"}
    assert root(cluster, "squeue", "--noheader") == "", "nothing of it is left in the queue"


def test_what_is_wrong_with_the_site_is_found(cluster: SlurmCluster, upkeep: SlurmUpkeep) -> None:
    wrong = expected(
        cluster, free=(), pool=[*cluster.pool, "idf099"], gpu_types=["h100"], time_limit_s_max=10**6,
    )  # fmt: skip
    root(cluster, "mv", "/srv/site/idf-wipe", "/srv/site/aside")
    root(cluster, "chmod", "750", "/srv/home/idf006")
    try:
        audit = upkeep.audit(wrong)
    finally:
        root(cluster, "mv", "/srv/site/aside", "/srv/site/idf-wipe")
        root(cluster, "chmod", "700", "/srv/home/idf006")
    assert problems(audit) == {
        "account-unknown", "home-open", "cannot-wipe", "gpu-type-missing", "time-limit-too-long",
        "isolation-not-proven",
    }  # fmt: skip


# ── the life of an account ──


def send(site: SlurmSsh, account: str, script: str, **changes: object) -> Known:
    job = spec(account, script, **changes)
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted), answer
    return known(job, answer.site_job_id)


def log(site: SlurmSsh, job: Known, until: bytes) -> bytes:
    def read() -> bytes | None:
        data = site.read_log(job.account, job.name, 0, 10_000, 1).data
        return data if until in data else None

    found: bytes = wait_for(read, 60)
    return found


def state(site: SlurmSsh, job: Known) -> AttemptState | None:
    """None for a moment after its end, until accounting has it."""
    seen = site.observe([job])
    assert not seen.absent
    attempts = seen.attempts.get(job.name)
    return attempts[-1].state if attempts else None


def test_an_account_is_wiped_before_the_next_project_gets_it(
    cluster: SlurmCluster, upkeep: SlurmUpkeep, site: SlurmSsh
) -> None:
    account = cluster.pool[2]
    upkeep.open_account(account, "idf-prj-one")
    first = send(site, account, LEFT_BEHIND)
    log(site, first, b"ready")
    with pytest.raises(Unreachable, match="still open"):
        upkeep.wipe(account)
    assert state(site, first) is AttemptState.RUNNING, "a wipe that was refused has touched nothing"
    timed = f"echo '* * * * * true' | tee cron/crontabs/{account} >at/a1 && chown {account} at/a1"
    spool = "mount -t tmpfs none /var/spool && cd /var/spool && mkdir -p cron/crontabs at"
    root(cluster, "sh", "-c", f"{spool} && {timed}")

    upkeep.close_account(account)
    assert wait_for(lambda: state(site, first) is AttemptState.CANCELLED)
    refused = spec(account)
    assert isinstance(site.submit(fresh("batch"), [refused])[refused.name], Rejected), "its access is gone"
    upkeep.wipe(account)
    upkeep.wipe(account)
    assert root(cluster, "ls", "-A", f"/srv/home/{account}") == ""
    assert root(cluster, "find", "/var/spool", "-type", "f") == "", "no job of a later time is left"
    root(cluster, "umount", "/var/spool")
    assert root(cluster, "stat", "-c", "%U %a", f"/srv/home/{account}").split() == [account, "700"]
    assert root(cluster, "test", "-s", "/etc/passwd") == "", "no link led it elsewhere"

    upkeep.open_account(account, "idf-prj-two")
    second = send(site, account, FIND)
    assert log(site, second, b"looked") == b"looked\n", "the next project finds nothing"
    assert state(site, first) is AttemptState.CANCELLED, "accounting still tells of the one before"
    upkeep.close_account(account)
    upkeep.wipe(account)


def test_an_account_runs_on_the_books_of_one_group_and_the_broker_sees_it(
    cluster: SlurmCluster, upkeep: SlurmUpkeep, site: SlurmSsh
) -> None:
    account = cluster.pool[2]
    upkeep.open_account(account, "idf-prj-old")
    upkeep.open_account(account, "idf-prj-new")
    upkeep.open_account(account, "idf-prj-new")
    show = ("sacctmgr", "-nP", "show", "associations", f"user={account}", "format=account")
    assert root(cluster, *show).split() == ["idf-prj-new"]
    job = send(site, account, "sleep 2\n")
    assert wait_for(lambda: site.observe([job]).attempts.get(job.name))
    wait_for(lambda: state(site, job) is AttemptState.SUCCEEDED)
    seen = said(cluster, cluster.login, "sacct", "-nPXa", "-j", job.site_job_id, "-o", "user,account")
    assert seen.strip() == f"{account}|idf-prj-new"
    upkeep.close_account(account)


def test_the_second_line_holds_a_job_that_is_beyond_it(
    cluster: SlurmCluster, upkeep: SlurmUpkeep, site: SlurmSsh
) -> None:
    account = cluster.pool[2]
    upkeep.open_account(account, "idf-prj-limited")
    assert upkeep.limit_groups({"idf-prj-limited": 5, "idf-prj-unknown": 5}).keys() == {"idf-prj-unknown"}
    beyond = send(site, account, "true\n", gpus=2, time_limit_s=300)
    within = send(site, account, "true\n", gpus=1, time_limit_s=300)
    wait_for(lambda: state(site, within) is AttemptState.SUCCEEDED)
    waits = site.observe([beyond]).attempts[beyond.name][-1]
    assert (waits.state, waits.reason) == (AttemptState.QUEUED, "AssocGrpGRESMinutes")
    assert upkeep.limit_groups({"idf-prj-limited": 10}) == {}
    wait_for(lambda: state(site, beyond) is AttemptState.SUCCEEDED)
    upkeep.close_account(account)
    upkeep.open_account(account, "idf-prj-limited")
    again = send(site, account, "true\n")
    wait_for(lambda: state(site, again) is AttemptState.SUCCEEDED)
    upkeep.close_account(account)


def test_accounts_of_others_and_groups_of_others_are_refused(cluster: SlurmCluster, upkeep: SlurmUpkeep) -> None:
    for account in ("root", cluster.login, "idf099"):
        with pytest.raises(Unreachable, match="no account of this site"):
            upkeep.open_account(account, "idf-prj-one")
        with pytest.raises(Unreachable, match="no account of this site"):
            upkeep.wipe(account)
    for group in ("root", "idf", "idf-prj one", "idf-x' or 1"):
        with pytest.raises(Unreachable, match="not a word"):
            upkeep.open_account(cluster.pool[0], group)


def test_a_change_that_comes_too_late_is_not_made(cluster: SlurmCluster) -> None:
    request = {"do": "upkeep", "what": "close", "account": cluster.accounts[0]}
    for not_after in (time.time() - 1, time.time() + 86_400):
        late = frame({**request, "not_after": not_after})
        answer = cluster.run([cluster.gateway], user=cluster.login, input=late)
        with pytest.raises(Unreachable, match="too late"):
            Reply.read(answer.stdout)
    assert "Submitted" in said(cluster, cluster.accounts[0], "sbatch", "--output=/dev/null", "--wrap=true")


# ── what a site's root installs ──


def test_the_login_account_may_wipe_the_pool_and_nothing_else(cluster: SlurmCluster) -> None:
    for words in (["root"], [cluster.login], ["idf099"], ["idf001", "root"], []):
        done = cluster.run(["sudo", "-n", "/srv/site/idf-wipe", *words], user=cluster.login)
        assert done.returncode != 0
        assert b"password is required" in done.stderr


def allowed(cluster: SlurmCluster) -> list[str]:
    """What sudo lets the login account run, less the wipes."""
    lines = said(cluster, cluster.login, "sudo", "-n", "-l").splitlines()
    return [line.strip() for line in lines if "NOPASSWD" in line and "idf-wipe" not in line]


def test_tokens_and_pyslurm_are_let_in_only_where_they_are_asked_for(cluster: SlurmCluster) -> None:
    account = "(%idf-projects) NOPASSWD: /srv/site/idf-gateway account"
    token, pyslurm = "(root) NOPASSWD: /srv/site/idf-gateway token", f"{PYTHON} -I /srv/site/idf-pyslurm account"
    assert allowed(cluster) == [account, token, f"(%idf-projects) NOPASSWD: {pyslurm}"]
    words = installer("/srv/installer/broker.pub", cluster.slurm_conf)
    plain = cluster.run(words[: words.index("--token-user")])
    assert plain.returncode == 0, plain.stderr
    assert allowed(cluster) == [account]
    startup.install(cluster.run, cluster.slurm_conf)
    assert len(allowed(cluster)) == 3


@pytest.mark.parametrize("account", ["root", "nobody", "idf-broker", "", "-h", "../x", "no-such-account"])
def test_a_wipe_of_anything_but_a_project_account_is_refused(cluster: SlurmCluster, account: str) -> None:
    done = cluster.run(["/srv/site/idf-wipe", account])
    assert done.returncode != 0
    assert done.stderr.startswith((b"idf-wipe: ", b"id: "))


def test_a_second_run_of_the_script_changes_nothing(cluster: SlurmCluster) -> None:
    assert startup.install(cluster.run, cluster.slurm_conf) == "this machine is as it should be\n"
    assert startup.install(cluster.run, cluster.slurm_conf, "--check") == "this machine is as it should be\n"


def test_the_script_says_what_is_missing_and_makes_it_again(cluster: SlurmCluster) -> None:
    root(cluster, "chmod", "755", "/srv/home/idf006")
    root(cluster, "sh", "-c", "echo >> /etc/sudoers.d/idf-compute; echo '{}' > /srv/site/idf-gateway.json")
    check = cluster.run([*installer("/srv/installer/broker.pub", cluster.slurm_conf), "--check"])
    assert check.returncode == 1
    assert check.stdout.decode().splitlines() == [
        "missing: the account idf006 (47006) with its home",
        "missing: its settings",
        "missing: the sudo rules of idf-broker",
    ]
    assert root(cluster, "stat", "-c", "%a", "/srv/home/idf006") == "755\n", "nothing was changed"
    made = startup.install(cluster.run, cluster.slurm_conf)
    assert [line.split(":")[0] for line in made.splitlines()] == ["making"] * 3 + ["this machine is as it should be"]
    settings = json.loads(root(cluster, "cat", "/srv/site/idf-gateway.json"))
    assert settings["accounts"] == ["idf001", "idf002", "idf003", *cluster.pool]
    assert startup.install(cluster.run, cluster.slurm_conf, "--check") == "this machine is as it should be\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--accounts", "1"], "two are needed"),
        (["--accounts", "x"], "are numbers"),
        (["--uid", "0"], "below are the system's own"),
        (["--key", "/nowhere"], "public key"),
        (["--frobnicate", "1"], "no option --frobnicate"),
        (["--key"], "needs a value"),
        (["--token-user", "no-such-account"], "there is no account"),
        (["--token-user", "ALL) NOPASSWD: ALL"], "name of an account"),
        (["--pyslurm", "/nowhere/python"], "there is no program"),
        (["--homes", "/home, /"], "a path may hold"),
    ],
)
def test_the_script_refuses_what_it_does_not_understand(cluster: SlurmCluster, words: list[str], sentence: str) -> None:
    done = cluster.run([*installer("/srv/installer/broker.pub", cluster.slurm_conf), *words])
    assert done.returncode == 2
    assert sentence in done.stderr.decode()


def test_the_script_wants_a_path_that_only_root_can_change(cluster: SlurmCluster, tmp_path: Path) -> None:
    root(cluster, "mkdir", "-m", "777", "/srv/open")
    words = installer("/srv/installer/broker.pub", cluster.slurm_conf)
    words[words.index("--into") + 1] = "/srv/open/site"
    done = cluster.run(words)
    assert done.returncode == 2
    assert "writable to nobody else" in done.stderr.decode()
    root(cluster, "rm", "-r", "/srv/open")


# ── a site with one account for all ──


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    made = SlurmCluster.start("shared", tmp_path_factory.mktemp("s"), isolation="shared")
    yield made
    startup.remove(made.folder)


def test_a_shared_site_is_audited_by_a_job_that_writes_to_its_log(shared: SlurmCluster) -> None:
    upkeep = SlurmUpkeep(settings_of(shared), proof_s_max=20)
    known_of_it = Expected(False, shared.accounts, shared.accounts, ["a100"], None, 86_400)
    try:
        audit = upkeep.audit(known_of_it)
        assert (audit.proven, problems(audit)) == (None, set())
        assert "account-shared" in {finding.code for finding in audit.findings}
        root(shared, "scontrol", "update", "PartitionName=gpu", "State=DOWN")
        impatient = SlurmUpkeep(settings_of(shared), proof_s_max=3)
        assert problems(impatient.audit(known_of_it)) == {"log-not-read", "partition-down"}
        impatient.close()
        assert root(shared, "squeue", "--noheader") == "", "its job does not stay in the queue"
    finally:
        upkeep.close()
