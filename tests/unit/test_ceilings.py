"""Ceilings on what is in use at one time, on both engines."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from world import World, world

from adapters.fake import FakeScheduler
from quotas.ceilings import Limit, reached


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


def limit(region: World, scope: str, name: str, what: str, amount: int | None) -> Any:
    return region.post("marc", "/ceilings", {"scope": scope, "name": name, "what": what, "amount": amount})


def scheduler(region: World) -> FakeScheduler:
    assert isinstance(region.scheduler, FakeScheduler)
    return region.scheduler


def name_of(region: World, scope: str) -> str:
    names = {"project": "vision", "programme": "pack-ia-2026", "site": "teratec"}
    return names.get(scope) or str(region.award()["id"])


@pytest.mark.parametrize("scope", ["award", "project", "programme", "site"])
def test_no_more_jobs_wait_than_may(region: World, scope: str) -> None:
    limit(region, scope, name_of(region, scope), "jobs_queued", 2)
    region.submit()
    region.submit()
    problem = region.refused()
    assert problem["code"] == "ceiling-reached"
    assert problem["detail"] == (
        f"{scope} {name_of(region, scope)} may have 2 jobs that wait: 2 are in use, 1 more were asked for"
    )
    assert problem["remedy"] == "wait until a job has started"
    region.step()
    scheduler(region).start_waiting()
    region.step()
    assert region.submit()["state"] == "held", "those that run do not wait"


def test_two_at_one_instant_never_both_take_the_last_place(region: World) -> None:
    limit(region, "project", "vision", "jobs_queued", 5)
    answers: list[int] = []
    job = {"project": "vision", "arguments": ["true"], "time_limit_s": 60}

    def submit() -> None:
        answers.append(region.call("ines", "POST", "/jobs", job).status_code)

    threads = [threading.Thread(target=submit) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] * 5 + [422] * 7


@pytest.mark.parametrize("scope", ["award", "project", "programme", "site"])
def test_no_more_gpus_run_than_may_and_the_others_wait_and_say_why(region: World, scope: str) -> None:
    limit(region, scope, name_of(region, scope), "gpus_running", 3)
    first, second, third = (region.submit(gpus=n)["id"] for n in (2, 2, 1))
    region.step()
    assert region.job(first)["state"] in ("queued", "running")
    for id_ in (second, third):
        waiting = region.job(id_)
        assert waiting["state"] == "held", "none overtakes an older one"
        assert waiting["reason"] == f"waits: {scope} {name_of(region, scope)} may have 3 GPUs at once, 2 are in use"
    region.post("ines", f"/jobs/{first}/cancel")
    for _ in range(4):
        region.step()
    for id_ in (second, third):
        assert region.job(id_)["state"] in ("queued", "running")


def test_a_job_above_the_ceiling_would_wait_for_ever_and_is_refused(region: World) -> None:
    limit(region, "project", "vision", "gpus_running", 3)
    problem = region.refused(gpus=4)
    assert problem["detail"] == "project vision may have 3 GPUs at once: 0 are in use, 4 more were asked for"
    assert problem["remedy"] == "--gpus 3"


def test_a_ceiling_is_changed_shown_and_lifted(region: World) -> None:
    limit(region, "project", "vision", "gpus_running", 3)
    assert limit(region, "project", "vision", "gpus_running", 8)["amount"] == 8
    limit(region, "site", "teratec", "bytes_stored", 10**12)
    region.submit(gpus=2)
    region.step()
    shown = {(row["name"], row["what"]): row for row in region.get("alma", "/ceilings")["items"]}
    assert (shown["vision", "gpus_running"]["amount"], shown["vision", "gpus_running"]["in_use"]) == (8, 2)
    stored = shown["teratec", "bytes_stored"]
    assert (stored["in_use"], stored["in_use_unknown"]) == (None, "nothing is stored by this release")
    assert limit(region, "project", "vision", "gpus_running", None)["amount"] is None
    again = {"scope": "project", "name": "vision", "what": "gpus_running", "amount": None}
    answer = region.call("marc", "POST", "/ceilings", again)
    assert (answer.status_code, answer.json()["detail"]) == (404, "project vision has no such ceiling")


@pytest.mark.parametrize(("scope", "name"), [("award", "awd-none"), ("project", "none"), ("site", "none")])
def test_a_ceiling_on_nothing_is_refused(region: World, scope: str, name: str) -> None:
    body = {"scope": scope, "name": name, "what": "jobs_queued", "amount": 1}
    answer = region.call("marc", "POST", "/ceilings", body)
    assert (answer.status_code, answer.json()["detail"]) == (404, f"no {scope} {name}")


@pytest.mark.parametrize(
    ("what", "in_use", "remedy"),
    [
        ("gpus_running", 4, "--gpus 4"),
        ("gpus_running", 8, "ask your programme manager for a higher ceiling"),
        ("bytes_stored", 3, "at most 5"),
        ("jobs_queued", 8, "wait until a job has started"),
    ],
)
def test_a_refusal_names_the_smallest_change_that_would_pass(what: Any, in_use: int, remedy: str) -> None:
    assert reached(Limit("project", "prj-1", what, 8), "vision", in_use, 9).remedy == remedy


def test_quota_why_says_what_a_submission_would(region: World) -> None:
    job = {"project": "vision", "arguments": ["true"], "gpus": 4, "time_limit_s": 3600}
    fine = region.post("ines", "/quota/why", job)
    assert (fine["passes"], fine["plan"]["held_credits"]) == (True, 4 * 3660 * 2000)
    limit(region, "project", "vision", "gpus_running", 3)
    refused = region.post("ines", "/quota/why", job)
    problem = region.refused(gpus=4)
    assert {k: refused[k] for k in ("code", "detail", "remedy")} == {
        k: problem[k] for k in ("code", "detail", "remedy")
    }
    assert region.award()["held_credits"] == 0


def test_a_refusal_of_the_award_shows_how_it_stands_and_what_would_pass(region: World) -> None:
    region.submit(gpus=8, time_limit_s=4 * 3600)
    problem = region.refused(gpus=8, time_limit_s=4 * 3600)
    award = region.award()["id"]
    assert problem["detail"] == (
        "the job would hold 64.266 h (normalised GPU-hours) and project vision has 35.733 h available "
        f"of award {award}: 64.266 h are held by open jobs, 0 h are spent"
    )
    assert problem["remedy"] == "--time 133, or --gpus 4, or wait until running jobs settle"
    assert region.submit(gpus=8, time_limit_s=133 * 60)["state"] == "held"
