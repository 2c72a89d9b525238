"""Every rule that refuses a submission says which it is, with the numbers, and what would make it pass."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session
from world import HOUR, JOB, World, world

from adapters.fake import FakeScheduler
from broker.api import jobs
from broker.app import BODY_BYTES_MAX
from broker.models import Job, JobPayload, Membership, ProjectAccount
from broker.submit import PLACEMENT_TRIES_MAX
from cli.units import paris_today
from quotas.errors import ContractTooSmall
from quotas.models import Award, Hold, Transfer
from quotas.writer import RowClash
from storage.tables import utcnow


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


def award_between(region: World, start_at: datetime, end_at: datetime) -> None:
    with region.services.database.write() as session:
        session.execute(update(Award).values(start_at=start_at, end_at=end_at))


def untouched(region: World) -> bool:
    with region.services.database.read() as session:
        return session.execute(select(Hold.id)).all() == session.execute(select(Job.id)).all() == []


def test_an_unknown_project(region: World) -> None:
    problem = region.refused(project="visiom")
    assert (problem["status"], problem["code"]) == (404, "not-found")
    assert problem["detail"] == "no project visiom that you belong to"
    assert "project list" in problem["remedy"]


def test_a_person_without_a_project(region: World) -> None:
    assert region.refused("nemo", project=None)["detail"] == "you belong to no project yet"


def test_a_person_of_several_projects_must_name_one(region: World) -> None:
    region.post("marc", "/projects/voice/members", {"person": "ines"})
    problem = region.refused(project=None)
    assert (problem["code"], "--project" in problem["remedy"]) == ("placement-refused", True)
    assert region.submit(project="voice")["project"] == "voice"


def test_an_award_that_has_ended(region: World) -> None:
    award_between(region, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, 23, 0, tzinfo=UTC))
    problem = region.refused()
    assert (problem["status"], problem["code"]) == (422, "award-not-active")
    assert "the last ended 2026-03-01 23:00 UTC" in problem["detail"]
    assert "award continue" in problem["remedy"]
    assert untouched(region)


def test_an_award_that_has_not_begun(region: World) -> None:
    begins = utcnow() + timedelta(days=2)
    award_between(region, begins, begins + timedelta(days=2))
    problem = region.refused()
    assert problem["code"] == "award-not-active"
    assert f"the next begins {begins:%Y-%m-%d %H:%M} UTC" in problem["detail"]


def test_no_award_at_all(region: World) -> None:
    region.post("marc", "/projects", {"name": "bare", "organisation": "acme", "programme": "pack-ia-2026"})
    region.post("marc", "/projects/bare/members", {"person": "ines"})
    problem = region.refused(project="bare")
    assert (problem["code"], problem["detail"]) == ("award-not-active", "project bare has no award yet")


def test_an_award_of_another_project(region: World) -> None:
    problem = region.refused(award=region.award("voice")["id"])
    assert (problem["status"], problem["code"]) == (404, "award-unknown")


def test_an_award_that_cannot_pay_says_both_sums(region: World) -> None:
    problem = region.refused(gpus=8, time_limit_s=24 * 3600)
    assert (problem["status"], problem["code"]) == (422, "award-too-small")
    assert "would hold 384.266 h" in problem["detail"]
    assert "vision has 100 h available" in problem["detail"]
    assert problem["remedy"].startswith("--time ")
    assert untouched(region)


def test_the_award_that_ends_first_pays_if_it_can(region: World) -> None:
    today = paris_today()
    sooner = {"project": "vision", "start_on": str(today - timedelta(days=1)), "end_on": str(today + timedelta(days=9))}
    small = region.post("marc", "/awards", {**sooner, "amount_credits": 3 * HOUR})["id"]
    assert region.submit()["award"] == small
    assert region.submit()["award"] != small, "less than one more job is left of it"


def test_more_gpus_than_the_site_gives(region: World) -> None:
    problem = region.refused(gpus=9)
    assert (problem["status"], problem["code"]) == (422, "placement-refused")
    assert "9 GPUs were asked for, site teratec gives a job at most 8" in problem["detail"]
    assert problem["remedy"] == "--gpus 8"


def test_a_time_limit_above_the_sites(region: World) -> None:
    problem = region.refused(time_limit_s=25 * 3600)
    assert "1500 min, site teratec allows 1440" in problem["detail"]
    assert problem["remedy"] == "--time 1440"


def test_a_gpu_class_that_the_site_lacks(region: World) -> None:
    problem = region.refused(gpu_class="h100-80")
    assert "no GPU class h100-80; it has: a100-80" in problem["detail"]


def test_several_gpu_classes_leave_a_choice(region: World) -> None:
    region.post("marc", "/gpu-classes", {"name": "v100-32", "weight_thousandths": 1000, "valid_from": "2026-01-01"})
    region.enrol_site(name="second", gpu_types={"a100-80": "a100", "v100-32": "v100"})
    for gpu_class in ("a100-80", "v100-32"):
        region.enter_contract("second", gpu_class)
    problem = region.refused(site="second")
    assert problem["code"] == "placement-refused"
    assert "several GPU classes: v100-32, a100-80" in problem["detail"]
    assert region.submit(site="second", smallest_gpu=True)["gpu_class"] == "v100-32"
    assert region.submit(site="second", gpu_class="a100-80")["gpu_class"] == "a100-80"


def test_a_class_without_a_weight_is_not_offered(region: World) -> None:
    region.enrol_site(name="second", gpu_types={"b200": "b200"})
    assert "no GPU class of site second has a weight" in region.refused(site="second")["detail"]


def test_an_unknown_site(region: World) -> None:
    assert region.refused(site="jean-zay")["detail"] == "no site jean-zay is enrolled"


def test_without_a_time_limit_the_programmes_default_is_said(region: World) -> None:
    job = region.submit(time_limit_s=None)
    assert job["time_limit_s"] == 1800
    assert job["held_credits"] == (1800 + 60) * 2000
    assert job["notices"] == ["no time limit was given: the programme's default of 30 min applies (--time)"]
    assert region.job(job["id"])["notices"] == job["notices"]


def test_a_time_limit_is_rounded_up_to_minutes(region: World) -> None:
    assert region.submit(time_limit_s=61)["time_limit_s"] == 120


def test_a_time_limit_beyond_the_awards_end_says_by_how_much(region: World) -> None:
    award_between(region, utcnow() - timedelta(days=1), utcnow() + timedelta(minutes=30, seconds=30))
    problem = region.refused(time_limit_s=3600)
    assert problem["code"] == "award-not-active"
    assert "30 min before the job's time limit would" in problem["detail"]
    assert problem["remedy"] == "--time 30"
    assert region.submit(time_limit_s=1800)["state"] == "held"


def test_a_shared_site_takes_public_data_only(region: World) -> None:
    region.enrol_site(name="shared", isolation="shared", accounts=["idf"])
    problem = region.refused(site="shared")
    assert problem["code"] == "placement-refused"
    assert "public data only, the project's is internal" in problem["detail"]


def test_a_site_with_problems_takes_nothing_until_it_is_well(region: World) -> None:
    region.upkeep.away = True
    region.post("olga", "/sites/teratec/check")
    problem = region.refused()
    assert "site teratec is not fit: it did not answer" in problem["detail"]
    region.upkeep.away = False
    region.post("olga", "/sites/teratec/check")
    assert region.submit()["state"] == "held"


def test_two_projects_at_one_instant_get_an_account_each(region: World) -> None:
    region.submit("ines")
    region.submit("paul", project="voice")
    with region.services.database.read() as session:
        taken = session.execute(select(ProjectAccount.account)).scalars().all()
    assert sorted(taken) == ["idf001", "idf002"]


ODD_NAMES = (
    "it's \"quoted\"", "a|b", "$(reboot) `id` ${HOME}", "été 東京 🚀", "[red]bold[/red] <b>", "%s %n {0}", "-rf *",
    "n" * 200,
)  # fmt: skip


def test_who_meets_others_at_every_try_is_told_to_come_again(region: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def clash(*_: object) -> None:
        raise RowClash

    monkeypatch.setattr("broker.api.jobs.hold", clash)
    problem = region.refused()
    assert (problem["status"], problem["code"]) == (503, "crowded")
    assert problem["remedy"] == "submit it again"
    monkeypatch.undo()
    assert untouched(region)


def test_who_is_outrun_is_paid_from_elsewhere_or_told_what_is_left(
    region: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    outrun = ContractTooSmall("others took it", "wait")
    real, refusals = jobs.hold, [outrun]

    def hold(*given: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return real(*given)

    monkeypatch.setattr(jobs, "hold", hold)
    assert region.submit()["state"] == "held"
    refusals += [outrun] * PLACEMENT_TRIES_MAX
    assert region.refused()["code"] == "contract-too-small"


def test_odd_names_are_kept_as_they_are(region: World) -> None:
    jobs = {name: region.submit(name=name)["id"] for name in ODD_NAMES}
    assert {name: region.job(id_)["name"] for name, id_ in jobs.items()} == {name: name for name in ODD_NAMES}
    region.step()
    assert isinstance(region.scheduler, FakeScheduler)
    sent = {seen.spec.name for seen in region.scheduler.jobs.values()}
    assert sent == {f"idf-{id_}" for id_ in jobs.values()}, "opaque at the site"


def test_names_that_are_refused(region: World) -> None:
    for name in ("two\nlines", "\x1b[31mred", "a\0b", "tab\tbed", "c1\x9b", "", "n" * 300, "\ud800"):
        assert invalid(region, {"name": name})["detail"].startswith("name: ")


def invalid(region: World, changes: dict[str, Any]) -> Any:
    """Send JSON as a client that escapes everything would: half surrogates cannot travel otherwise."""
    import json

    headers = {"Authorization": f"Bearer {region.tokens['ines']}", "Idempotency-Key": "k"}
    content = json.dumps({**JOB, **changes})
    answer = region.client.post("/v1/jobs", content=content, headers={**headers, "Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), answer.text
    assert untouched(region)
    return answer.json()


BAD_JOBS: tuple[dict[str, Any], ...] = (
        {"gpus": 1, "nodes": 2}, {"gpus": 0, "cpus_per_gpu": 1}, {"gpus": 0, "gpu_class": "a100-80"},
        {"gpus": 0, "cpus": 3, "nodes": 2}, {"gpus": 0, "smallest_gpu": True}, {"cpus": 4}, {"gpus": 0, "cpus": 0},
        {"gpus": -1}, {"gpus": 10**30}, {"gpus": 1.5}, {"gpus": "two"},
        {"time_limit_s": 0}, {"time_limit_s": 10**12}, {"memory_mib": 10**12}, {"cpus_per_gpu": 0},
        {"script": None}, {"script": ""}, {"script": " \n"}, {"script": "echo\0"}, {"script": "\ud800"},
        {"script": "x" * (1024 * 1024 + 1)}, {"arguments": ["\0"]}, {"arguments": ["\udfff"]},
        {"arguments": ["x" * (128 * 1024 + 1)]}, {"environment": {"A B": "x"}}, {"environment": {"": "x"}},
        {"environment": {"A": "\0"}}, {"environment": {"A=B": "x"}}, {"environment": {"A\n": "x"}},
        {"environment": {"A": "x" * (64 * 1024)}}, {"project": "Vision"}, {"project": "vision\n"},
        {"project": "../etc"}, {"award": "a\0"}, {"award": "\ud800"}, {"gpu_class": "a\0"}, {"snapshot": "0" * 63},
        {"snapshot": "../" + "0" * 61}, {"\ud800": 1}, {"a\x1b[31mb": 1},
        {"x" * 100_000: 1},
)  # fmt: skip


def test_bodies_that_are_refused(region: World) -> None:
    for changes in BAD_JOBS:
        detail = invalid(region, changes)["detail"]
        assert detail.isprintable(), detail
        assert len(detail) < 2000


def test_bodies_that_are_no_job(region: World) -> None:
    headers = {"Authorization": f"Bearer {region.tokens['ines']}", "Idempotency-Key": "k"}
    headers["Content-Type"] = "application/json"
    for content in (b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b'{"gpus": NaN}', b"[" * 100_000):
        answer = region.client.post("/v1/jobs", content=content, headers=headers)
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_that_is_too_large_announced_or_not(region: World) -> None:
    content = b'{"script": "' + b"x" * BODY_BYTES_MAX + b'"}'
    chunks = (content[start : start + 65536] for start in range(0, len(content), 65536))
    headers = {"Authorization": f"Bearer {region.tokens['ines']}", "Idempotency-Key": "k"}
    for body in (content, chunks):
        answer = region.client.post("/v1/jobs", content=body, headers=headers)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "too-large"


def test_a_path_may_hold_anything(region: World) -> None:
    for odd in ("%00", "a%00b", "%ff", "..", "%2e%2e", "%1b%5b31m", "x" * 3000, "%F0%9F%9A%80"):
        for path in (f"/jobs/{odd}", f"/jobs/{odd}/log", f"/jobs?project={odd}", f"/jobs?cursor={odd}"):
            answer = region.call("ines", "GET", path)
            assert answer.status_code < 500, (path, answer.text)
        for path in (f"/jobs/{odd}/cancel", f"/tokens/{odd}/revoke"):
            assert region.call("ines", "POST", path).status_code < 500, path


def test_a_cursor_of_ones_own_making(region: World) -> None:
    for cursor in ("AA==", "w6k=", "____", "a", "%", "AGI="):
        answer = region.call("ines", "GET", f"/jobs?cursor={cursor}")
        assert answer.status_code in (200, 400, 422), (cursor, answer.text)


def test_a_dry_run_says_the_same_and_changes_nothing(region: World) -> None:
    with region.services.database.read() as session:
        before = transfers(session)
    planned = region.post("ines", "/jobs/plan", JOB)
    assert (planned["held_credits"], planned["available_credits"]) == ((3600 + 60) * 2000, 100 * HOUR)
    refused = region.call("ines", "POST", "/jobs/plan", {**JOB, "gpus": 9})
    assert refused.json()["code"] == "placement-refused"
    with region.services.database.read() as session:
        assert transfers(session) == before
    assert untouched(region)


def transfers(session: Session) -> list[str]:
    return list(session.execute(select(Transfer.id)).scalars())


def test_a_snapshot_that_was_never_sent(region: World) -> None:
    problem = region.refused(snapshot="0" * 64)
    assert (problem["status"], "PUT /v1/snapshots/" in problem["remedy"]) == (404, True)


def test_who_left_the_project_cannot_submit_to_it(region: World) -> None:
    with region.services.database.write() as session:
        session.execute(delete(Membership))
    assert region.refused()["status"] == 404


def test_what_was_typed_reaches_the_payload_unchanged(region: World) -> None:
    script = '#!/bin/sh\n#SBATCH --array=0-9\n#SBATCH --gpus=8\necho "$(id)" | tr a b # é 東\r\n'
    words = ["--x=$(id)", "a b", "'", '"', "|", "é", "\n", ""]
    job = region.submit(script=script, arguments=words, environment={"A": "$(id)\n|é"})
    with region.services.database.read() as session:
        kept = session.get_one(JobPayload, job["id"])
        assert (kept.script, kept.arguments, kept.environment) == (script.encode(), words, {"A": "$(id)\n|é"})
