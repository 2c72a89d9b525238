"""What every scheduler promises, asked of the one in memory and of a real Slurm, by each of its three transports."""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from integration.slurm_jobs import fresh, known, spec, wait_for

from adapters.fake import FakeScheduler
from adapters.port import (
    Absent,
    Accepted,
    Attempt,
    AttemptState,
    JobSpec,
    Known,
    Rejected,
    Scheduler,
    Sent,
    Uncertain,
    Unreachable,
)


class Ground(Protocol):
    """A scheduler with what is needed to watch a job on it."""

    scheduler: Scheduler
    account: str

    def ended(self, job: Known, state: AttemptState = AttemptState.SUCCEEDED, exit_code: int = 0) -> Attempt: ...

    def running(self, job: Known) -> None: ...

    def wrote(self, job: Known, data: bytes) -> None: ...

    def now(self) -> datetime: ...


class FakeGround:
    """In memory a job does what the test says that its script would have done."""

    account = "idf001"

    def __init__(self) -> None:
        self.scheduler = self.fake = FakeScheduler(accounts=frozenset({"idf001", "idf002"}))

    def ended(self, job: Known, state: AttemptState = AttemptState.SUCCEEDED, exit_code: int = 0) -> Attempt:
        self.fake.start_waiting()
        self.fake.advance(3)
        if not self.fake.observe([job]).attempts[job.site_job_id][-1].state.ended:
            self.fake.finish(job.name, state, exit_code)
        return self.fake.observe([job]).attempts[job.site_job_id][-1]

    def running(self, job: Known) -> None:
        self.fake.start_waiting()

    def wrote(self, job: Known, data: bytes) -> None:
        self.fake.start_waiting()
        self.fake.write_log(job.name, data)

    def now(self) -> datetime:
        return self.fake.now


class SlurmGround:
    """On a real cluster the script does it, and the test waits."""

    def __init__(self, scheduler: Scheduler, account: str) -> None:
        self.scheduler, self.account = scheduler, account

    def _newest(self, job: Known) -> Attempt | None:
        attempts = self.scheduler.observe([job]).attempts.get(job.site_job_id, ())
        return attempts[-1] if attempts else None

    def ended(self, job: Known, state: AttemptState = AttemptState.SUCCEEDED, exit_code: int = 0) -> Attempt:
        def attempt() -> Attempt | None:
            newest = self._newest(job)
            return newest if newest and newest.state.ended else None

        found: Attempt = wait_for(attempt, limit_s=60)
        return found

    def running(self, job: Known) -> None:
        wait_for(lambda: (newest := self._newest(job)) and newest.state is AttemptState.RUNNING, limit_s=60)

    def wrote(self, job: Known, data: bytes) -> None:
        wait_for(lambda: self.scheduler.read_log(job.account, job.name, 0, 1000, 1).data == data)

    def now(self) -> datetime:
        return datetime.now(UTC)


ON_SLURM = {"ssh": "slurm_site", "rest": "slurm_rest_site", "pyslurm": "pyslurm_site"}


@pytest.fixture(params=["fake", *(pytest.param(transport, marks=pytest.mark.cluster) for transport in ON_SLURM)])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "fake":
        yield FakeGround()
        return
    make: Callable[..., Any] = request.getfixturevalue(ON_SLURM[request.param])
    yield SlurmGround(make(), request.getfixturevalue("slurm_cluster").accounts[0])


def send(ground: Ground, job: JobSpec) -> Known:
    answer = ground.scheduler.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Accepted), answer
    return known(job, answer.site_job_id) if isinstance(ground, SlurmGround) else _known_to_fake(ground, job, answer)


def _known_to_fake(ground: Ground, job: JobSpec, answer: Accepted) -> Known:
    return Known(job.name, job.account, answer.site_job_id, ground.now() - timedelta(seconds=5))


def asked(ground: Ground, name: str, batch: str) -> Sent:
    return Sent(name, ground.account, batch, ground.now() - timedelta(seconds=5))


def test_a_job_is_seen_from_its_queue_to_its_end(ground: Ground) -> None:
    job = send(ground, spec(ground.account, "sleep 2\n"))
    first = ground.scheduler.observe([job])
    assert first.attempts[job.site_job_id][0].state in (AttemptState.QUEUED, AttemptState.RUNNING)
    last = ground.ended(job)
    assert last.state is AttemptState.SUCCEEDED
    assert last.gpus == 1
    assert last.started_at is not None
    assert last.ended_at is not None
    assert last.elapsed_s == int((last.ended_at - last.started_at).total_seconds()) > 0
    assert last.source_key == first.attempts[job.site_job_id][0].source_key


def test_a_failure_keeps_its_exit_code(ground: Ground) -> None:
    last = ground.ended(send(ground, spec(ground.account, "exit 3\n")), AttemptState.FAILED, 3)
    assert (last.state, last.exit_code) == (AttemptState.FAILED, 3)


def test_what_was_given_is_told(ground: Ground) -> None:
    last = ground.ended(send(ground, spec(ground.account, "sleep 2\n", gpus=2, cpus_per_gpu=3, memory_mib=600)))
    assert (last.gpus, last.cpus, last.memory_mib, last.node_count) == (2, 6, 600, 1)


def test_a_job_without_gpu_is_given_none(ground: Ground) -> None:
    wanted = spec(ground.account, "sleep 2\n", gpus=0, gpu_type="", cpus=6, memory_mib=300, nodes=2)
    last = ground.ended(send(ground, wanted))
    assert (last.gpus or 0, dict(last.gpu_types)) == (0, {})
    assert (last.cpus, last.memory_mib, last.node_count) == (6, 600, 2)


def test_a_job_alone_on_its_node_is_given_all_its_gpus_and_cpus(ground: Ground) -> None:
    last = ground.ended(send(ground, spec(ground.account, "sleep 2\n", exclusive=True, memory_mib=300)))
    assert (last.gpus, last.cpus, last.memory_mib, last.node_count) == (4, 32, 300, 1)


def test_more_than_the_site_has_is_rejected_with_its_reason(ground: Ground) -> None:
    job = spec(ground.account, gpus=400)
    answer = ground.scheduler.submit(fresh("batch"), [job])[job.name]
    assert isinstance(answer, Rejected)
    assert "Requested node configuration is not available" in answer.reason


def test_one_bad_job_does_not_spoil_its_batch(ground: Ground) -> None:
    good, bad = spec(ground.account), spec(ground.account, gpus=400)
    answers = ground.scheduler.submit(fresh("batch"), [bad, good])
    assert isinstance(answers[bad.name], Rejected)
    assert isinstance(answers[good.name], Accepted)


def test_a_batch_runs_once_in_a_life(ground: Ground) -> None:
    batch, first, second = fresh("batch"), spec(ground.account), spec(ground.account)
    assert isinstance(ground.scheduler.submit(batch, [first])[first.name], Accepted)
    assert isinstance(ground.scheduler.submit(batch, [second])[second.name], Uncertain)
    assert ground.scheduler.adopt([asked(ground, second.name, fresh("batch"))]) == {second.name: Absent()}


def test_an_adopted_batch_never_begins(ground: Ground) -> None:
    batch, job = fresh("batch"), spec(ground.account)
    assert ground.scheduler.adopt([asked(ground, job.name, batch)]) == {job.name: Absent()}
    assert not isinstance(ground.scheduler.submit(batch, [job])[job.name], Accepted)
    assert ground.scheduler.adopt([asked(ground, job.name, batch)]) == {job.name: Absent()}


def test_adoption_finds_what_was_accepted(ground: Ground) -> None:
    batch, job = fresh("batch"), spec(ground.account)
    answer = ground.scheduler.submit(batch, [job])[job.name]
    assert ground.scheduler.adopt([asked(ground, job.name, batch)]) == {job.name: answer}


def test_an_id_that_was_never_given_is_absent(ground: Ground) -> None:
    nobody = Known("idf-nobody", ground.account, "99999999", ground.now())
    wait_for(lambda: ground.scheduler.observe([nobody]).absent == {"99999999"})
    assert not ground.scheduler.observe([nobody]).attempts


def test_cancelling_ends_a_job_that_runs_and_one_that_waits(ground: Ground) -> None:
    fillers = [send(ground, spec(ground.account, "sleep 50\n", gpus=4)) for _ in range(2)]
    waiting = send(ground, spec(ground.account, "sleep 50\n", gpus=4))
    for filler in fillers:
        ground.running(filler)
    for job in (waiting, *fillers):
        assert isinstance(ground.scheduler.cancel([job])[job.name], Accepted)
        assert ground.ended(job).state is AttemptState.CANCELLED
    assert isinstance(ground.scheduler.cancel([waiting])[waiting.name], Accepted), "it is gone: as good"


def test_a_log_is_read_from_an_offset(ground: Ground) -> None:
    job = send(ground, spec(ground.account, "printf 'one\\ntwo\\n'\n"))
    ground.wrote(job, b"one\ntwo\n")
    chunk = ground.scheduler.read_log(job.account, job.name, 4, 2, 0)
    assert (chunk.data, chunk.next_offset, chunk.exists) == (b"tw", 6, True)
    assert ground.scheduler.read_log(job.account, job.name, 8, 10, 0).data == b""


def test_a_log_that_is_not_there_yet(ground: Ground) -> None:
    chunk = ground.scheduler.read_log(ground.account, fresh(), 0, 10, 0)
    assert (chunk.data, chunk.next_offset, chunk.exists) == (b"", 0, False)


def test_a_snapshot_is_kept_under_its_digest_only(ground: Ground, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(fresh().encode() * 100_000)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    ground.scheduler.put_snapshot(ground.account, digest, archive)
    ground.scheduler.put_snapshot(ground.account, digest, archive)
    with pytest.raises(Rejected, match="digest"):
        ground.scheduler.put_snapshot(ground.account, "0" * 64, archive)


def test_an_account_of_another_site_gets_nothing(ground: Ground) -> None:
    job = spec("nobody")
    assert isinstance(ground.scheduler.submit(fresh("batch"), [job])[job.name], Unreachable)


def test_nothing_asked_is_nothing_answered(ground: Ground) -> None:
    assert ground.scheduler.submit(fresh("batch"), []) == {}
    assert ground.scheduler.adopt([]) == {}
    assert ground.scheduler.cancel([]) == {}
    assert not ground.scheduler.observe([]).attempts


def test_it_says_what_it_is(ground: Ground) -> None:
    facts = ground.scheduler.check()
    assert facts.scheduler
    assert facts.cluster
    assert not facts.problems
