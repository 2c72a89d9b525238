"""What slurmrestd's transport says while something is down, cut or asleep: nothing is lost, nothing sent twice."""

import json
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest
from clusters.slurm.cluster import SlurmCluster
from integration.slurm_jobs import fresh, known, sent, spec, wait_for

from adapters.port import Absent, Accepted, AttemptState, JobSpec, Known, Uncertain, Unreachable
from adapters.slurm import SlurmRest
from adapters.slurm.commands import TOKEN_MARGIN_S, frame

pytestmark = pytest.mark.cluster
Make = Callable[..., SlurmRest]
ROUNDS = min(20, int(os.environ.get("IDF_TORTURE_ROUNDS", "4")))
JOBS = 24


@contextmanager
def without(cluster: SlurmCluster, daemon: str) -> Iterator[None]:
    cluster.stop_daemon(daemon)
    try:
        yield
    finally:
        cluster.start_daemon(daemon)


@contextmanager
def asleep(cluster: SlurmCluster) -> Iterator[None]:
    """A controller that takes connections and does nothing with them."""
    pid = str(cluster.daemons()["slurmctld"])
    cluster.run(["kill", "-STOP", pid])
    try:
        yield
    finally:
        cluster.run(["kill", "-CONT", pid])


def accepted(site: SlurmRest, job: JobSpec) -> Known:
    answer = site.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted), answer
    return known(job, answer.site_job_id)


def copies(cluster: SlurmCluster, job: JobSpec) -> int:
    """How many jobs of this name the controller ever took."""
    return cluster.run(["squeue", "--noheader", "--states=all", f"--name={job.name}"]).stdout.count(b"\n")


def test_without_the_controller_nothing_is_sent_and_nothing_learnt(
    slurm_cluster: SlurmCluster, slurm_rest_site: Make
) -> None:
    site, jobs = slurm_rest_site(), [spec(slurm_cluster.accounts[0]) for _ in range(5)]
    running = accepted(site, spec(slurm_cluster.accounts[0], "sleep 600\n", time_limit_s=1200))
    with without(slurm_cluster, "slurmctld"):
        assert {type(answer) for answer in site.submit(fresh("batch"), jobs).values()} == {Unreachable}
        with pytest.raises(Unreachable):
            site.observe([running])
        assert isinstance(site.cancel([running])[running.name], Unreachable)
        assert isinstance(site.adopt([sent(jobs[0], fresh("batch"))])[jobs[0].name], Unreachable)
        assert site.check().problems
    wait_for(lambda: slurm_cluster.run(["squeue"]).returncode == 0)
    slurm_cluster.wait_ready()
    assert not site.check().problems
    site.cancel([running])


def test_without_slurmrestd_nothing_is_sent_and_it_comes_back(
    slurm_cluster: SlurmCluster, slurm_rest_site: Make
) -> None:
    site, job = slurm_rest_site(), spec(slurm_cluster.accounts[0])
    site.check()
    with without(slurm_cluster, "slurmrestd"):
        assert isinstance(site.submit(fresh("batch"), [job])[job.name], Unreachable)
        with pytest.raises(Unreachable, match="slurmrestd"):
            site.observe([known(job, "1")])
        assert any("slurmrestd" in problem for problem in site.check().problems)
    accepted(site, job)
    assert copies(slurm_cluster, job) == 1


def test_without_the_accounting_database_an_end_is_not_told(slurm_cluster: SlurmCluster, slurm_rest_site: Make) -> None:
    site, account = slurm_rest_site(), slurm_cluster.accounts[0]
    with without(slurm_cluster, "slurmdbd"):
        running, short = accepted(site, spec(account, "sleep 60\n")), accepted(site, spec(account))
        wait_for(lambda: short.name not in (seen := site.observe([running, short])).attempts and seen)
        seen = site.observe([running, short])
        assert running.name in seen.attempts
        assert not seen.absent
        assert any("accounting" in warning for warning in seen.warnings)
        nobody = spec(account)
        assert isinstance(site.adopt([sent(nobody, fresh("batch"))])[nobody.name], Unreachable)
        assert any("accounting" in problem for problem in site.check().problems)
    wait_for(lambda: site.observe([short]).attempts.get(short.name), limit_s=60)
    assert site.observe([short]).attempts[short.name][-1].state is AttemptState.SUCCEEDED
    site.cancel([running])


def test_a_request_that_a_sleeping_controller_takes_later_is_found(
    slurm_cluster: SlurmCluster, slurm_rest_site: Make
) -> None:
    site, job, batch = slurm_rest_site(sbatch_s_max=3, submit_s_max=5), spec(slurm_cluster.accounts[0]), fresh("batch")
    site.check()
    opened = site._begin
    with pytest.MonkeyPatch.context() as patch:  # the controller falls asleep after it has minted the token
        patch.setattr(site, "_begin", lambda *args: _then_stop(slurm_cluster, opened(*args)))
        try:
            assert isinstance(site.submit(batch, [job])[job.name], Uncertain)
        finally:
            _wake(slurm_cluster)
    answer = wait_for(lambda: isinstance(a := site.adopt([sent(job, batch)])[job.name], Accepted) and a, limit_s=60)
    assert isinstance(answer, Accepted)
    assert copies(slurm_cluster, job) == 1


@pytest.mark.timeout(120)
def test_a_request_is_not_taken_after_its_tokens_end(slurm_cluster: SlurmCluster, slurm_rest_site: Make) -> None:
    """Absent is said only once the token has ended: until then the controller could still wake and take the job."""
    site = slurm_rest_site(sbatch_s_max=2, submit_s_max=3, rest={"sending_token_s": 8})
    job, batch = spec(slurm_cluster.accounts[0]), fresh("batch")
    site.check()
    opened = site._begin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "_begin", lambda *args: _then_stop(slurm_cluster, opened(*args)))
        began = time.monotonic()
        try:
            assert isinstance(site.submit(batch, [job])[job.name], Uncertain)
            time.sleep(max(0.0, began + 10 - time.monotonic()))
        finally:
            _wake(slurm_cluster)
    wait_for(lambda: slurm_cluster.run(["squeue"]).returncode == 0)
    kinds: list[type] = []
    while not kinds or kinds[-1] is not Absent:
        kinds.append(type(site.adopt([sent(job, batch)])[job.name]))
        assert time.monotonic() - began < 60, kinds
        time.sleep(0.3)
    assert Uncertain in kinds
    assert time.monotonic() - began > 8 + TOKEN_MARGIN_S
    assert copies(slurm_cluster, job) == 0
    accepted(site, job)
    assert copies(slurm_cluster, job) == 1


def _then_stop(cluster: SlurmCluster, answer: object) -> object:
    cluster.run(["kill", "-STOP", str(cluster.daemons()["slurmctld"])])
    return answer


def _wake(cluster: SlurmCluster) -> None:
    cluster.run(["kill", "-CONT", str(cluster.daemons()["slurmctld"])])


def test_every_call_ends_while_the_controller_sleeps(slurm_cluster: SlurmCluster, slurm_rest_site: Make) -> None:
    site = slurm_rest_site(answer_s_max=2)
    site.check()
    with asleep(slurm_cluster):
        began = time.monotonic()
        with pytest.raises(Unreachable):
            site.observe([known(spec(slurm_cluster.accounts[0]), "1")])
        assert time.monotonic() - began < 5


# ── cut connections ─────────────────────────────────────────────────────────────────────────────────────


class CuttingProxy:
    """Stands before slurmrestd, and cuts every connection once so many submissions have passed."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("http://").rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._left = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, submissions: int) -> None:
        self._left = submissions

    def _count(self, data: bytes) -> None:
        """A request has gone on: nobody will hear its answer if it was the last one."""
        with self._lock:
            counting = self._left > 0
            self._left -= data.count(b"POST /slurm/")
            due = counting and self._left <= 0
        if due:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            cut, self._open = self._open, []
        for one in cut:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        self._listener.close()
        self._cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            with self._lock:
                self._open += [near, far]
            for here, there in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(here, there), daemon=True).start()

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while data := here.recv(1 << 16):
                there.sendall(data)
                self._count(data)
            there.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(slurm_cluster: SlurmCluster, slurm_rest_site: Make) -> Iterator[CuttingProxy]:
    standing = CuttingProxy(slurm_cluster.slurmrestd)
    yield standing
    standing.close()


@pytest.mark.torture
@pytest.mark.timeout(60 + 60 * ROUNDS)
def test_every_job_exactly_once_after_a_cut(
    slurm_cluster: SlurmCluster, slurm_rest_site: Make, proxy: CuttingProxy
) -> None:
    bounds = {"sbatch_s_max": 3, "submit_s_max": 4}
    site = slurm_rest_site(**bounds, rest={"url": proxy.url, "sending_token_s": 10})
    site.check()
    kinds: Counter[str] = Counter()
    jobs: list[JobSpec] = []
    for _ in range(ROUNDS):
        batch = [_appending(slurm_cluster.accounts[n % 2]) for n in range(JOBS)]
        jobs += batch
        _send_until_accepted(site, batch, kinds, proxy)
    print("answers after a cut:", dict(kinds))
    assert kinds["Uncertain"], "no cut fell into a batch: the test proved nothing"
    for job in jobs:
        assert copies(slurm_cluster, job) == 1
    wait_for(lambda: _ran(slurm_cluster, jobs) == {job.name: 1 for job in jobs}, limit_s=120, every_s=1)


def _appending(account: str) -> JobSpec:
    """A job that leaves one line each time that it runs."""
    return spec(account, 'mkdir -p "$HOME/ran" && echo "$SLURM_JOB_ID" >> "$HOME/ran/$SLURM_JOB_NAME"\n', gpus=0)


def _send_until_accepted(site: SlurmRest, jobs: Sequence[JobSpec], kinds: Counter[str], proxy: CuttingProxy) -> None:
    """What the broker does: send, adopt what is uncertain, send again only what is proven absent."""
    waiting, batch = list(jobs), fresh("batch")
    proxy.cut_after(random.randint(1, JOBS))
    for _ in range(20):
        answers = site.submit(batch, waiting)
        kinds.update(type(answer).__name__ for answer in answers.values())
        again = [job for job in waiting if isinstance(answers[job.name], Unreachable)]
        unclear = [job for job in waiting if isinstance(answers[job.name], Uncertain)]
        again += _adopted(site, unclear, batch, kinds)
        if not again:
            break
        waiting, batch = again, fresh("batch")
    else:
        raise AssertionError("jobs that can never be sent")


def _adopted(site: SlurmRest, jobs: list[JobSpec], batch: str, kinds: Counter[str]) -> list[JobSpec]:
    """Ask until each is accepted or absent; return the absent ones."""
    absent: list[JobSpec] = []
    until = time.monotonic() + 60
    while jobs:
        assert time.monotonic() < until, f"never became clear: {jobs}"
        answers = site.adopt([sent(job, batch) for job in jobs])
        kinds.update("adopted: " + type(answer).__name__ for answer in answers.values())
        absent += [job for job in jobs if isinstance(answers[job.name], Absent)]
        jobs = [job for job in jobs if isinstance(answers[job.name], Uncertain | Unreachable)]
        time.sleep(0.5)
    return absent


def _ran(cluster: SlurmCluster, jobs: Sequence[JobSpec]) -> dict[str, int]:
    lines: Counter[str] = Counter()
    for account in {job.account for job in jobs}:
        done = cluster.run(["sh", "-c", 'cd "$HOME/ran" && wc -l -- *'], user=account).stdout.decode()
        lines.update({name: int(n) for n, name in (line.split() for line in done.splitlines()) if name != "total"})
    names = {job.name for job in jobs}
    return {name: count for name, count in lines.items() if name in names}


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_renewed_before_it_ends(slurm_cluster: SlurmCluster, slurm_rest_site: Make) -> None:
    site = slurm_rest_site(rest={"token_s": 6, "renew_s": 3})
    nobody = [known(spec(slurm_cluster.accounts[0]), "99999999")]
    site.observe(nobody)
    first = site._tokens[slurm_cluster.login][0]
    site.observe(nobody)
    assert site._tokens[slurm_cluster.login][0] == first
    time.sleep(3.5)
    for _ in range(4):
        site.observe(nobody)
        time.sleep(1)
    assert site._tokens[slurm_cluster.login][0] != first


def test_a_token_that_is_refused_is_given_up(slurm_cluster: SlurmCluster, slurm_rest_site: Make) -> None:
    """As after the site has changed its key."""
    site, nobody = slurm_rest_site(), [known(spec(slurm_cluster.accounts[0]), "99999999")]
    site.observe(nobody)
    site._tokens[slurm_cluster.login] = ("a.b.c", time.monotonic() + 900)
    with pytest.raises(Unreachable):
        site.observe(nobody)
    assert site.observe(nobody).absent == {nobody[0].name}


def test_only_the_sites_own_accounts_get_a_token(slurm_cluster: SlurmCluster, slurm_rest_site: Make) -> None:
    request = {"do": "tokens", "minted_for": ["root", "nobody", slurm_cluster.accounts[0]], "life_s": 60}
    said = slurm_cluster.run([slurm_cluster.gateway], user=slurm_cluster.login, input=frame(request)).stdout
    site = json.loads(said.split(b"\n")[0].partition(b" ")[2])
    assert list(site["tokens"]) == [slurm_cluster.accounts[0]]
    job = spec("nobody")
    assert isinstance(slurm_rest_site().submit(fresh("batch"), [job])[job.name], Unreachable)


def test_no_token_outlives_a_quarter_of_an_hour(slurm_cluster: SlurmCluster) -> None:
    request = {"do": "tokens", "minted_for": [slurm_cluster.accounts[0]], "life_s": 901}
    said = slurm_cluster.run([slurm_cluster.gateway], user=slurm_cluster.login, input=frame(request)).stdout
    assert b"at most 900 s" in said
    assert b"tokens" not in said.replace(b"mints tokens", b"")


def test_a_project_account_mints_nothing(slurm_cluster: SlurmCluster) -> None:
    if slurm_cluster.isolation == "shared":
        pytest.skip(f"this cluster has one account for all: {slurm_cluster.reason}")
    own, other = slurm_cluster.accounts[:2]
    request = frame({"minted_for": [other], "life_s": 60})
    for argv in (["sudo", "-n", slurm_cluster.gateway, "token"], [slurm_cluster.gateway, "token"]):
        done = slurm_cluster.run(argv, user=own, input=request)
        assert b"eyJ" not in done.stdout + done.stderr
    for argv in (["scontrol", "token"], ["scontrol", "token", f"username={other}"]):
        assert slurm_cluster.run(argv, user=own).returncode != 0
    done = slurm_cluster.run(["sudo", "-n", "scontrol", "token", f"username={other}"], user=slurm_cluster.login)
    assert done.returncode != 0, "the broker's login account has its tokens from the gateway only"
