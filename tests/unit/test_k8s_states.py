"""From what a pool's API server tells to attempts: each state, each time, and silence where nothing is certain."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.k8s.seen import SeenJob, SeenPod, job_of, pod_of, quantity
from adapters.k8s.states import attempts_of, attempts_of_tasks
from adapters.k8s.waits import Wait, wait_of
from adapters.port import UNLIMITED_S, Attempt, AttemptState

T0 = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
NOW = T0 + timedelta(hours=1)


def at(seconds: int) -> str:
    return (T0 + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def job(*, conditions: tuple[str, ...] = (), nodes: int = 1, annotations: dict[str, str] | None = None,
        suspend: bool = False, failed: int = 0, queue: str = "") -> SeenJob:  # fmt: skip
    return job_of(
        {
            "metadata": {"uid": "u1", "name": "idf-1", "namespace": "idf-p", "creationTimestamp": at(0),
                         "annotations": annotations or {},
                         "labels": {"kueue.x-k8s.io/queue-name": queue} if queue else {}},
            "spec": {"completions": nodes, "suspend": suspend,
                     "template": {"metadata": {}, "spec": {"containers": [{}], "activeDeadlineSeconds": 600}}},
            "status": {"failed": failed, "conditions": [{"type": c, "status": "True"} for c in conditions]},
        }
    )  # fmt: skip


def pod(phase: str = "Running", *, name: str = "a", index: int = 0, created: int = 1, start: int | None = 2,
        end: int | None = None, exit_code: int = 0, why: str = "", said: str = "", disruption: str = "",
        reason: str = "", deleted: int | None = None, node: str = "n1",
        limit_s: int | None = 600) -> SeenPod:  # fmt: skip
    status: dict[str, Any] = {"phase": phase}
    if start is not None:
        status["startTime"] = at(start)
    if end is not None:
        done = {"exitCode": exit_code, "finishedAt": at(end), "reason": why or "Error", "message": said}
        status["containerStatuses"] = [{"state": {"terminated": done}}]
    if disruption:
        status["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": disruption,
                                 "lastTransitionTime": at(50)}]  # fmt: skip
    if reason:
        status["reason"] = reason
    metadata: dict[str, Any] = {
        "uid": f"pod-{name}", "name": name, "namespace": "idf-p", "creationTimestamp": at(created),
        "labels": {
            "batch.kubernetes.io/controller-uid": "u1", "idf-compute/job": "idf-1", "idf-compute/gpu-type": "a100"},
        "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
    }  # fmt: skip
    if deleted is not None:
        metadata["deletionTimestamp"] = at(deleted)
    asked = {"nvidia.com/gpu": "2", "cpu": "1500m", "memory": "512Mi"}
    spec = {"nodeName": node, "containers": [{"resources": {"requests": asked}}]}
    return pod_of({"metadata": metadata, "spec": {**spec, "activeDeadlineSeconds": limit_s}, "status": status})


def told(seen: SeenJob | None, *pods: SeenPod) -> tuple[Attempt, ...]:
    return attempts_of(seen, pods, "pool", NOW)


ENDS: dict[str, tuple[SeenPod, AttemptState]] = {
    "by itself": (pod("Succeeded", end=60), AttemptState.SUCCEEDED),
    "with a code": (pod("Failed", end=60, exit_code=3), AttemptState.FAILED),
    "at its limit": (pod("Failed", end=60, reason="DeadlineExceeded"), AttemptState.TIMED_OUT),
    "for want of memory": (pod("Failed", end=60, exit_code=137, why="OOMKilled"), AttemptState.OUT_OF_MEMORY),
    "for a more urgent one": (pod("Failed", end=60, disruption="PreemptionByScheduler"), AttemptState.PREEMPTED),
    "by a drain": (pod("Failed", end=60, disruption="EvictionByEvictionAPI"), AttemptState.PREEMPTED),
    "with its node": (pod("Failed", disruption="DeletionByPodGC"), AttemptState.NODE_FAILED),
    "by a kubelet short of disk": (pod("Failed", end=60, reason="Evicted"), AttemptState.NODE_FAILED),
    "by a kubelet without room": (pod("Failed", start=2, reason="OutOfcpu"), AttemptState.NODE_FAILED),
    "by a kubelet that went down as it began": (
        pod("Failed", end=60, exit_code=128, why="StartError", said="failed to create shim task: context canceled"),
        AttemptState.NODE_FAILED,
    ),
    "without what it begins with": (
        pod("Failed", end=60, exit_code=128, why="StartError", said='exec: "/bin/sh": no such file or directory'),
        AttemptState.FAILED,
    ),
    "unseen by its kubelet": (
        pod("Failed", end=60, exit_code=137, why="ContainerStatusUnknown"),
        AttemptState.NODE_FAILED,
    ),
    "by somebody's hand": (pod("Failed", end=60, exit_code=143, deleted=55), AttemptState.CANCELLED),
}


@pytest.mark.parametrize("case", ENDS, ids=lambda name: name.replace(" ", "-"))
def test_an_end_has_its_word(case: str) -> None:
    seen, state = ENDS[case]
    kind = "Complete" if state is AttemptState.SUCCEEDED else "Failed"
    (attempt,) = told(job(conditions=(kind,)), seen)
    assert attempt.state is state
    assert attempt.ended_at is not None


def test_it_lasts_from_the_pods_start_to_the_last_end() -> None:
    (attempt,) = told(job(conditions=("Complete",)), pod("Succeeded", start=10, end=75))
    assert (attempt.started_at, attempt.ended_at) == (T0 + timedelta(seconds=10), T0 + timedelta(seconds=75))
    assert (attempt.elapsed_s, attempt.gpus, dict(attempt.gpu_types)) == (65, 2, {"a100": 2})
    assert (attempt.cpus, attempt.memory_mib, attempt.time_limit_s) == (2, 512, 600)


def test_a_node_that_is_gone_ends_it_when_it_was_taken_away() -> None:
    (attempt,) = told(job(conditions=("Failed",)), pod("Failed", start=10, disruption="DeletionByPodGC"))
    assert attempt.elapsed_s == 40


def test_what_runs_is_counted_until_now() -> None:
    (attempt,) = told(job(), pod(start=10))
    assert (attempt.state, attempt.elapsed_s, attempt.ended_at) == (AttemptState.RUNNING, 3590, None)


def test_gpus_are_taken_while_images_come() -> None:
    (attempt,) = told(job(), pod("Pending", start=10))
    assert attempt.state is AttemptState.RUNNING


def test_the_first_attempt_has_one_key_from_the_queue_to_the_end() -> None:
    keys = {told(job())[0].source_key, told(job(), pod("Pending", start=None, node=""))[0].source_key}
    keys.add(told(job(conditions=("Complete",)), pod("Succeeded", end=9))[0].source_key)
    assert keys == {"pool/u1/1"}


def test_an_end_under_a_job_that_did_not_end_is_not_told_yet() -> None:
    assert told(job(), pod("Failed", end=60)) == ()
    assert told(job(), pod("Succeeded", end=60)) == ()


def test_a_job_that_was_suspended_again_waits_for_its_second_attempt() -> None:
    first, second = told(job(suspend=True), pod("Failed", end=60, exit_code=143, deleted=55))
    assert (first.state, first.elapsed_s) == (AttemptState.PREEMPTED, 58)
    assert (second.state, second.source_key) == (AttemptState.QUEUED, "pool/u1/2")


def test_what_a_queue_took_away_stays_preempted_once_it_is_admitted_again() -> None:
    evicted = pod("Failed", end=60, exit_code=143, deleted=55)
    first, second = told(job(suspend=True, queue="idf"), evicted)
    assert (first.state, second.state) == (AttemptState.PREEMPTED, AttemptState.QUEUED)
    assert second.reason == "waits to be admitted by the pool's queue"
    assert told(job(queue="idf"), evicted) == (), "the next pod is not made yet"
    again = pod("Succeeded", name="b", created=70, start=71, end=90)
    assert told(job(queue="idf", conditions=("Complete",)), evicted, again)[0] == first


def test_what_a_queue_took_away_stays_preempted_however_it_is_cancelled_afterwards() -> None:
    evicted, wish = pod("Failed", end=60, exit_code=143, deleted=63), {"idf-compute/cancelled": at(80)}
    before = told(job(suspend=True, queue="idf"), evicted)[0]
    first, second = told(job(suspend=True, queue="idf", annotations=wish), evicted)
    assert (first, second.state, second.started_at) == (before, AttemptState.CANCELLED, None)
    again = pod("Failed", name="b", created=70, start=71, end=81, exit_code=143, deleted=85)
    first, second = told(job(suspend=True, queue="idf", annotations=wish), evicted, again)
    assert (first, second.state) == (before, AttemptState.CANCELLED)


def test_a_drained_run_stays_preempted_when_the_next_is_cancelled() -> None:
    drained = pod("Failed", end=60, exit_code=143, deleted=63, disruption="EvictionByEvictionAPI")
    again = pod("Failed", name="b", created=70, start=71, end=81, exit_code=143, deleted=85)
    states = [
        each.state for each in told(job(suspend=True, annotations={"idf-compute/cancelled": at(80)}), drained, again)
    ]
    assert states == [AttemptState.PREEMPTED, AttemptState.CANCELLED]


def test_each_further_pod_is_an_attempt() -> None:
    lost = pod("Failed", name="a", created=1, end=30, disruption="PreemptionByScheduler")
    again = pod("Succeeded", name="b", created=40, start=41, end=90)
    first, second = told(job(conditions=("Complete",)), again, lost)
    assert (first.state, first.elapsed_s, second.state, second.elapsed_s) == ("preempted", 28, "succeeded", 49)


def test_an_attempt_over_two_nodes_is_one_pod_of_each() -> None:
    pods = (
        pod("Succeeded", name="a", index=0, start=2, end=60),
        pod("Succeeded", name="b", index=1, start=5, end=70, node="n2"),
    )
    (attempt,) = told(job(conditions=("Complete",), nodes=2), *pods)
    assert (attempt.gpus, attempt.node_count, attempt.nodes, attempt.elapsed_s) == (4, 2, ("n1", "n2"), 68)


def test_the_first_that_failed_by_itself_says_why() -> None:
    failed = pod("Failed", name="b", index=1, start=5, end=30, exit_code=9, node="n2")
    dragged = pod("Failed", name="a", index=0, end=31, exit_code=143, deleted=30)
    (attempt,) = told(job(conditions=("Failed",), nodes=2), dragged, failed)
    assert (attempt.state, attempt.exit_code) == (AttemptState.FAILED, 9)


def test_one_of_two_pods_is_not_the_whole() -> None:
    assert told(job(nodes=2), pod("Succeeded", end=9))[0].state is AttemptState.RUNNING


def test_a_cancelled_job_is_cancelled_with_and_without_a_pod() -> None:
    wish = {"idf-compute/cancelled": at(50)}
    (never,) = told(job(suspend=True, annotations=wish))
    assert (never.state, never.started_at, never.elapsed_s) == (AttemptState.CANCELLED, None, 0)
    (ran,) = told(job(suspend=True, annotations=wish), pod("Failed", end=60, exit_code=143, deleted=52))
    assert (ran.state, ran.elapsed_s) == (AttemptState.CANCELLED, 58)
    (waited,) = told(job(suspend=True, annotations=wish), pod("Pending", start=None, node="", deleted=52))
    assert (waited.state, waited.elapsed_s) == (AttemptState.CANCELLED, 0)


def test_a_job_that_ended_by_itself_stays_so_however_late_it_was_cancelled() -> None:
    wish = {"idf-compute/cancelled": at(70)}
    (attempt,) = told(job(conditions=("Complete",), annotations=wish), pod("Succeeded", end=60))
    assert attempt.state is AttemptState.SUCCEEDED


def test_a_pod_whose_node_is_silent_still_runs() -> None:
    (attempt,) = told(job(), pod("Running", deleted=60, disruption="DeletionByTaintManager"))
    assert attempt.state is AttemptState.RUNNING


def test_a_job_that_is_gone_is_known_by_its_pods() -> None:
    (attempt,) = told(None, pod("Failed", end=60, exit_code=143, deleted=55))
    assert (attempt.state, attempt.native_state, attempt.elapsed_s) == (AttemptState.CANCELLED, "Deleted", 58)
    assert told(None) == ()


def test_pods_that_are_gone_are_no_proof_of_a_free_job() -> None:
    assert told(job(conditions=("Failed",), failed=1)) == ()
    assert told(job(conditions=("Failed",)))[0].state is AttemptState.FAILED


def test_a_limit_that_was_taken_away_is_told() -> None:
    assert told(job(), pod(limit_s=None))[0].time_limit_s == UNLIMITED_S


@pytest.mark.parametrize(("text", "value"), [("2", 2), ("500m", 0.5), ("600Mi", 600 << 20), ("1e3", 1000), ("1G", 1e9)])
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "m", "1Zi", "-1", "one", "1 Mi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        quantity(text)


def array(*, completed: str = "", failed: str = "", annotations: dict[str, str] | None = None) -> SeenJob:
    return job_of(
        {
            "metadata": {"uid": "u1", "name": "idf-1", "namespace": "idf-p", "creationTimestamp": at(0),
                         "annotations": {"idf-compute/array": "3,5,9", **(annotations or {})}},
            "spec": {"completions": 3, "template": {"metadata": {}, "spec": {"containers": [{}]}}},
            "status": {"completedIndexes": completed, "failedIndexes": failed},
        }
    )  # fmt: skip


def test_each_task_stands_by_itself() -> None:
    pods = [pod("Succeeded", name="a", index=0, end=60), pod("Failed", name="b", index=1, end=70, exit_code=4)]
    told, never = attempts_of_tasks(array(completed="0", failed="1"), pods, None, "pool", NOW)
    assert [(attempt.task, attempt.state, attempt.exit_code) for attempt in told] == [
        (3, "succeeded", 0), (5, "failed", 4), (9, "queued", None)
    ]  # fmt: skip
    assert [attempt.source_key for attempt in told] == ["pool/u1_3/1", "pool/u1_5/1", "pool/u1_9/1"]
    assert {attempt.site_job_id for attempt in told} == {"u1"}
    assert not never


def test_only_the_tasks_asked_about_are_told() -> None:
    told, never = attempts_of_tasks(array(), [], [9, 4], "pool", NOW)
    assert ([attempt.task for attempt in told], never) == ([9], {4})


def test_a_cancelled_task_does_not_cancel_the_others() -> None:
    told, _ = attempts_of_tasks(array(annotations={"idf-compute/cancelled-5": at(9)}), [], None, "pool", NOW)
    assert [attempt.state for attempt in told] == ["queued", "cancelled", "queued"]


def waiting(words: str = "", begin: int | None = None) -> SeenJob:
    wishes = {"idf-compute/after": words} | ({"idf-compute/begin": at(begin)} if begin is not None else {})
    return job(suspend=True, annotations=wishes)


@pytest.mark.parametrize(
    ("kind", "other", "expected"),
    [
        ("afterok", job(), Wait.YET),
        ("afterok", job(conditions=("Complete",)), Wait.OVER),
        ("afterok", job(conditions=("Failed",)), Wait.NEVER),
        ("afterok", job(suspend=True, annotations={"idf-compute/cancelled": at(5)}), Wait.NEVER),
        ("afterok", None, Wait.NEVER),
        ("afternotok", job(conditions=("Failed",)), Wait.OVER),
        ("afternotok", job(conditions=("Complete",)), Wait.NEVER),
        ("afternotok", None, Wait.NEVER),
        ("afterany", job(), Wait.YET),
        ("afterany", job(conditions=("Failed",)), Wait.OVER),
        ("afterany", None, Wait.OVER),
    ],
)
def test_what_a_job_waits_for(kind: str, other: SeenJob | None, expected: Wait) -> None:
    assert wait_of(waiting(f"{kind}:u2"), {"u2": other}.get, NOW) is expected


def test_all_that_a_job_waits_for_must_have_come_true() -> None:
    others = {"u2": job(conditions=("Complete",)), "u3": job()}
    assert wait_of(waiting("afterok:u2,afterok:u3"), others.get, NOW) is Wait.YET
    assert wait_of(waiting("afternotok:u2,afterok:u3"), others.get, NOW) is Wait.NEVER
    assert wait_of(waiting(begin=7200), others.get, NOW) is Wait.YET
    assert wait_of(waiting("afterok:u2", begin=60), others.get, NOW) is Wait.OVER
