"""What every scheduler promises, asked of the one in memory, of a real Slurm by its three transports and of a pool."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from integration.slurm_jobs import fresh, known, spec, wait_for

from adapters.arrays import task_name
from adapters.fake import FakeScheduler
from adapters.port import (
    Absent,
    Accepted,
    After,
    AfterKind,
    Answer,
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
from adapters.slurm.rest import SlurmRest


class Ground(Protocol):
    """A scheduler with what is needed to watch a job on it."""

    scheduler: Scheduler
    account: str
    sized: str
    """The GPU type of nodes with four GPUs and 32 CPUs."""

    def ended(
        self, job: Known, state: AttemptState = AttemptState.SUCCEEDED, exit_code: int = 0, task: int | None = None
    ) -> Attempt: ...

    def running(self, job: Known, *tasks: int) -> None: ...

    def wrote(self, job: Known, data: bytes, task: int | None = None) -> None: ...

    def now(self) -> datetime: ...


class FakeGround:
    """In memory a job does what the test says that its script would have done."""

    account = "idf001"
    sized = "a100"

    def __init__(self) -> None:
        self.scheduler = self.fake = FakeScheduler(accounts=frozenset({"idf001", "idf002"}))

    def ended(
        self, job: Known, state: AttemptState = AttemptState.SUCCEEDED, exit_code: int = 0, task: int | None = None
    ) -> Attempt:
        self.fake.start_waiting()
        self.fake.advance(3)
        if not newest(self.fake, job, task).state.ended:
            self.fake.finish(task_name(job.name, task), state, exit_code)
        return newest(self.fake, job, task)

    def running(self, job: Known, *tasks: int) -> None:
        self.fake.start_waiting()

    def wrote(self, job: Known, data: bytes, task: int | None = None) -> None:
        self.fake.start_waiting()
        self.fake.write_log(task_name(job.name, task), data)

    def now(self) -> datetime:
        return self.fake.now


class RealGround:
    """On a real cluster the script does it, and the test waits."""

    sized = "a100"

    def __init__(self, scheduler: Scheduler, account: str) -> None:
        self.scheduler, self.account = scheduler, account

    def ended(
        self, job: Known, state: AttemptState = AttemptState.SUCCEEDED, exit_code: int = 0, task: int | None = None
    ) -> Attempt:
        def attempt() -> Attempt | None:
            seen = attempts_of(self.scheduler, job, task)
            return seen[-1] if seen and seen[-1].state.ended else None

        found: Attempt = wait_for(attempt, limit_s=60)
        return found

    def running(self, job: Known, *tasks: int) -> None:
        wait_for(lambda: all(self._runs(job, task) for task in tasks or (None,)), limit_s=60)

    def _runs(self, job: Known, task: int | None) -> bool:
        seen = attempts_of(self.scheduler, job, task)
        return bool(seen) and seen[-1].state is AttemptState.RUNNING

    def wrote(self, job: Known, data: bytes, task: int | None = None) -> None:
        name = task_name(job.name, task)
        wait_for(lambda: self.scheduler.read_log(job.account, name, 0, 1000, 1).data == data)

    def now(self) -> datetime:
        return datetime.now(UTC)


ON_SLURM = {"ssh": "slurm_site", "rest": "slurm_rest_site", "pyslurm": "pyslurm_site"}


class PoolGround(RealGround):
    """A pool whose real node has eight GPUs and few CPUs: larger jobs go to simulated nodes, for two seconds."""

    sized = "v100"


@pytest.fixture(
    params=[
        "fake",
        *(pytest.param(site, marks=pytest.mark.cluster) for site in ON_SLURM),
        pytest.param("k8s", marks=pytest.mark.kubernetes),
    ]
)
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "fake":
        yield FakeGround()
        return
    if request.param == "k8s":
        request.getfixturevalue("real_node")
        yield PoolGround(request.getfixturevalue("k8s_site")(), "idf-p001")
        return
    make: Callable[..., Any] = request.getfixturevalue(ON_SLURM[request.param])
    yield RealGround(make(), request.getfixturevalue("slurm_cluster").accounts[0])


def attempts_of(scheduler: Scheduler, job: Known, task: int | None = None) -> list[Attempt]:
    return [one for one in scheduler.observe([job]).attempts.get(job.name, ()) if one.task == task]


def newest(scheduler: Scheduler, job: Known, task: int | None = None) -> Attempt:
    return attempts_of(scheduler, job, task)[-1]


def send(ground: Ground, job: JobSpec) -> Known:
    answer = first_answer(ground, job, fresh("batch"))
    assert isinstance(answer, Accepted), answer
    return known(job, answer.site_job_id) if isinstance(ground, RealGround) else _known_to_fake(ground, job, answer)


def first_answer(ground: Ground, job: JobSpec, batch: str) -> Answer:
    """Submit a job; one after others must be refused by name where slurmrestd is asked: it waits at the broker."""
    answer = ground.scheduler.submit(batch, [job])[job.name]
    if isinstance(ground.scheduler, SlurmRest) and job.after:
        assert isinstance(answer, Rejected), answer
        pytest.skip("slurmrestd is not asked for jobs after others: refused by name")
    return answer


def _known_to_fake(ground: Ground, job: JobSpec, answer: Accepted) -> Known:
    return Known(job.name, job.account, answer.site_job_id, ground.now() - timedelta(seconds=5))


def asked(ground: Ground, name: str, batch: str) -> Sent:
    return Sent(name, ground.account, batch, ground.now() - timedelta(seconds=5))


def test_a_job_is_seen_from_its_queue_to_its_end(ground: Ground) -> None:
    job = send(ground, spec(ground.account, "sleep 2\n"))
    first = ground.scheduler.observe([job])
    assert first.attempts[job.name][0].state in (AttemptState.QUEUED, AttemptState.RUNNING)
    last = ground.ended(job)
    assert last.state is AttemptState.SUCCEEDED
    assert last.gpus == 1
    assert last.started_at is not None
    assert last.ended_at is not None
    assert last.elapsed_s == int((last.ended_at - last.started_at).total_seconds()) > 0
    assert last.source_key == first.attempts[job.name][0].source_key


def test_a_failure_keeps_its_exit_code(ground: Ground) -> None:
    last = ground.ended(send(ground, spec(ground.account, "exit 3\n")), AttemptState.FAILED, 3)
    assert (last.state, last.exit_code) == (AttemptState.FAILED, 3)


def test_what_was_given_is_told(ground: Ground) -> None:
    last = ground.ended(send(ground, spec(ground.account, "sleep 2\n", gpus=2, cpus_per_gpu=3, memory_mib=600,
                                   gpu_type=ground.sized)))  # fmt: skip
    assert (last.gpus, last.cpus, last.memory_mib, last.node_count) == (2, 6, 600, 1)


def test_a_job_without_gpu_is_given_none(ground: Ground) -> None:
    wanted = spec(ground.account, "sleep 2\n", gpus=0, gpu_type="", cpus=6, memory_mib=300, nodes=2)
    last = ground.ended(send(ground, wanted))
    assert (last.gpus or 0, dict(last.gpu_types)) == (0, {})
    assert (last.cpus, last.memory_mib, last.node_count) == (6, 600, 2)


def test_a_job_alone_on_its_node_is_given_all_its_gpus_and_cpus(ground: Ground) -> None:
    last = ground.ended(send(ground, spec(ground.account, "sleep 2\n", exclusive=True, memory_mib=300,
                                   gpu_type=ground.sized)))  # fmt: skip
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
    wait_for(lambda: ground.scheduler.observe([nobody]).absent == {"idf-nobody"})
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


def asked_about(job: Known, *tasks: int) -> Known:
    return replace(job, tasks=frozenset(tasks))


def test_each_task_of_an_array_is_seen_by_itself(ground: Ground) -> None:
    script = 'sleep 2; [ "$SLURM_ARRAY_TASK_ID" != 4 ] || exit 3\n'
    job = asked_about(send(ground, spec(ground.account, script, array="1,4-6:2")), 1, 4, 6)
    first = ground.scheduler.observe([job]).attempts[job.name]
    assert [attempt.task for attempt in first] == [1, 4, 6]
    assert {attempt.site_job_id for attempt in first} == {job.site_job_id}
    assert len({attempt.source_key for attempt in first}) == 3
    ground.running(job, 1, 4, 6)
    ends = [ground.ended(job, task=1), ground.ended(job, AttemptState.FAILED, 3, task=4), ground.ended(job, task=6)]
    assert [(end.state, end.exit_code) for end in ends] == [
        (AttemptState.SUCCEEDED, 0), (AttemptState.FAILED, 3), (AttemptState.SUCCEEDED, 0)
    ]  # fmt: skip
    assert all(end.gpus == 1 and end.elapsed_s > 0 for end in ends)
    assert [end.source_key for end in ends] == [attempt.source_key for attempt in first]
    assert not ground.scheduler.observe([job]).absent


def test_only_the_tasks_asked_about_are_told_and_one_that_never_was_is_absent(ground: Ground) -> None:
    job = asked_about(send(ground, spec(ground.account, "sleep 2\n", array="0-2")), 1, 99)
    wait_for(lambda: ground.scheduler.observe([job]).absent == {f"{job.name}_99"})
    assert {attempt.task for attempt in ground.scheduler.observe([job]).attempts[job.name]} == {1}


def test_no_more_tasks_run_than_an_array_lets(ground: Ground) -> None:
    job = asked_about(send(ground, spec(ground.account, "sleep 60\n", array="0-2%2")), 0, 1, 2)
    ground.running(job, 0, 1)
    assert newest(ground.scheduler, job, 2).state is AttemptState.QUEUED
    ground.scheduler.cancel([job])
    for task in range(3):
        assert ground.ended(job, task=task).state is AttemptState.CANCELLED


def test_one_task_is_cancelled_and_the_others_go_on(ground: Ground) -> None:
    job = asked_about(send(ground, spec(ground.account, "sleep 60\n", array="0-3%2")), 0, 1, 2, 3)
    ground.running(job, 0, 1)
    for task in (0, 3):
        named = Known(task_name(job.name, task), job.account, task_name(job.site_job_id, task), job.submitted_after)
        assert isinstance(ground.scheduler.cancel([named])[named.name], Accepted)
    assert ground.ended(job, task=0).state is AttemptState.CANCELLED
    seen = ground.scheduler.observe([job])
    left = [attempt.state for attempt in seen.attempts[job.name] if attempt.task == 3]
    assert left == [AttemptState.CANCELLED] or f"{job.name}_3" in seen.absent, "it waited: no record need be"
    assert newest(ground.scheduler, job, 1).state is AttemptState.RUNNING
    ground.scheduler.cancel([job])
    assert ground.ended(job, task=1).state is AttemptState.CANCELLED


def test_adoption_finds_an_array_by_its_own_id(ground: Ground) -> None:
    batch, job = fresh("batch"), spec(ground.account, "sleep 3\n", array="0-5%2")
    answer = first_answer(ground, job, batch)
    assert isinstance(answer, Accepted)
    assert "_" not in answer.site_job_id
    assert ground.scheduler.adopt([asked(ground, job.name, batch)]) == {job.name: answer}


def test_each_task_has_a_log(ground: Ground) -> None:
    job = send(ground, spec(ground.account, 'printf "task $SLURM_ARRAY_TASK_ID\\n"\n', array="3,7"))
    for task in (3, 7):
        ground.wrote(job, f"task {task}\n".encode(), task)
    assert not ground.scheduler.read_log(job.account, job.name, 0, 10, 0).exists


@pytest.mark.parametrize("array", ["0-5000", "3-1", "0-3%0", "$(id)", "1;2"])
def test_an_array_that_cannot_be_is_rejected(ground: Ground, array: str) -> None:
    job = spec(ground.account, array=array)
    assert isinstance(ground.scheduler.submit(fresh("batch"), [job])[job.name], Rejected)


def test_the_site_says_how_high_tasks_are_numbered(ground: Ground) -> None:
    assert ground.scheduler.check().array_size_max == 1001


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


def test_a_job_after_another_waits_and_runs(ground: Ground) -> None:
    first = send(ground, spec(ground.account, "sleep 3\n"))
    second = send(ground, spec(ground.account, "sleep 2\n", after=(After(AfterKind.OK, first.site_job_id),)))
    seen = ground.scheduler.observe([second]).attempts[second.name][-1]
    assert seen.state is AttemptState.QUEUED
    assert ground.ended(first).state is AttemptState.SUCCEEDED
    assert ground.ended(second).state is AttemptState.SUCCEEDED


def test_a_job_after_a_failure_that_was_to_be_a_success_never_runs(ground: Ground) -> None:
    first = send(ground, spec(ground.account, "sleep 3; exit 3\n"))
    second = send(ground, spec(ground.account, "sleep 2\n", after=(After(AfterKind.OK, first.site_job_id),)))
    assert ground.ended(first, AttemptState.FAILED, 3).state is AttemptState.FAILED
    last = ground.ended(second, AttemptState.CANCELLED)
    assert (last.state, last.elapsed_s) == (AttemptState.CANCELLED, 0)


def test_a_job_after_one_that_is_not_known_is_not_sent(ground: Ground) -> None:
    job = spec(ground.account, after=(After(AfterKind.OK, "99999999"),))
    assert isinstance(first_answer(ground, job, fresh("batch")), Unreachable)


def test_a_job_after_an_array_waits_for_all_its_tasks(ground: Ground) -> None:
    script = '[ "$SLURM_ARRAY_TASK_ID" = 0 ] || sleep 5\n'
    first = asked_about(send(ground, spec(ground.account, script, array="0-1")), 0, 1)
    second = send(ground, spec(ground.account, "sleep 1\n", after=(After(AfterKind.OK, first.site_job_id),)))
    ground.running(first, 1)
    assert ground.ended(first, task=0).state is AttemptState.SUCCEEDED
    assert newest(ground.scheduler, second).state is AttemptState.QUEUED
    assert ground.ended(first, task=1).state is AttemptState.SUCCEEDED
    assert ground.ended(second).state is AttemptState.SUCCEEDED


def test_each_task_has_outputs(ground: Ground) -> None:
    if isinstance(ground, PoolGround):
        pytest.skip("a pool keeps no files of a job: they are the data store's")
    script = 'printf "$SLURM_ARRAY_TASK_ID" > "$IDF_OUTPUTS/a.txt"\nsleep 1\n'
    job = asked_about(send(ground, spec(ground.account, script, array="3,7")), 3, 7)
    ground.running(job, 3, 7)
    if isinstance(ground, FakeGround):
        for task in (3, 7):
            ground.fake.write_output(task_name(job.name, task), "a.txt", b"%d" % task)

    def listed(*tasks: int) -> list[str]:
        return [file.path for file in ground.scheduler.list_outputs(job.account, job.name, tasks).files]

    wait_for(lambda: listed(3, 7) == ["3/a.txt", "7/a.txt"])
    assert listed(7) == ["7/a.txt"]
    assert ground.scheduler.read_output(job.account, job.name, "a.txt", 0, 100, 7).data == b"7"
    with pytest.raises(Rejected):
        ground.scheduler.read_output(job.account, job.name, "a.txt", 0, 100, 8)


def test_a_job_does_not_begin_before_its_time(ground: Ground) -> None:
    job = send(ground, spec(ground.account, begin=ground.now() + timedelta(hours=1)))
    ground_state = ground.scheduler.observe([job]).attempts[job.name][-1].state
    assert ground_state is AttemptState.QUEUED
    assert isinstance(ground.scheduler.cancel([job])[job.name], Accepted)
    assert ground.ended(job).state is AttemptState.CANCELLED


def test_outputs_are_listed_and_read(ground: Ground) -> None:
    if isinstance(ground, PoolGround):
        pytest.skip("a pool keeps no files of a job: they are the data store's")
    job = send(ground, spec(ground.account, 'printf one > "$IDF_OUTPUTS/a.txt"\nsleep 2\n'))
    ground.running(job)
    if isinstance(ground, FakeGround):
        ground.fake.write_output(job.name, "a.txt", b"one")
    files = wait_for(lambda: ground.scheduler.list_outputs(job.account, job.name).files)
    assert [(file.path, file.size_bytes) for file in files] == [("a.txt", 3)]
    piece = ground.scheduler.read_output(job.account, job.name, "a.txt", 1, 100)
    assert (piece.data, piece.size_bytes) == (b"ne", 3)
    for path in ("missing", "../claim"):
        with pytest.raises(Rejected):
            ground.scheduler.read_output(job.account, job.name, path, 0, 100)


def test_a_job_that_never_was_has_no_outputs(ground: Ground) -> None:
    assert not ground.scheduler.list_outputs(ground.account, fresh()).exists


def test_it_tells_when_a_job_would_start_or_why_not(ground: Ground) -> None:
    begin = (ground.now() + timedelta(hours=2)).replace(microsecond=0)
    forecast = ground.scheduler.expected_start(spec(ground.account, begin=begin))
    assert forecast.start is not None
    assert forecast.start >= begin
    never = ground.scheduler.expected_start(spec(ground.account, gpus=400))
    assert never.start is None
    assert "Requested node configuration is not available" in str(never.unknown)
