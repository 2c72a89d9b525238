"""What a job may ask for beside its size: others before it, a time, a signal, further runs, tools; and its outputs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from world import JOB, SITE, World, world

from adapters.fake import FakeScheduler
from adapters.port import AfterKind, AttemptState, Forecast, JobSpec
from broker.known import job_name
from broker.models import Job, Site
from quotas.models import Contract
from storage.tables import utcnow


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


def site(region: World) -> FakeScheduler:
    assert isinstance(region.scheduler, FakeScheduler)
    return region.scheduler


def spec_of(region: World, job: Any) -> JobSpec:
    return next(each.spec for each in site(region).jobs.values() if each.spec.name == job_name(job["id"]))


def run_to(region: World, job: Any, state: AttemptState = AttemptState.SUCCEEDED) -> None:
    site(region).advance(60)
    site(region).finish(job_name(job["id"]), state)
    region.step()


def with_site(region: World, **changes: Any) -> str:
    """A second site with its contract; return its name."""
    region.enrol_site(name="second", **changes)
    region.enter_contract("second")
    return "second"


def after(job: Any, kind: str = "afterok") -> dict[str, Any]:
    return {"after": [{"job": job["id"], "kind": kind}]}


def test_a_job_waits_here_until_the_other_is_known_and_then_at_the_site(region: World) -> None:
    first = region.submit()
    second = region.submit(**after(first))
    assert second["reason"] == f"it runs after {first['id']} (its success)"
    region.step()
    assert region.job(second["id"])["state"] == "held", "the other one was not known when this turn began"
    region.step()
    assert region.job(second["id"])["state"] == "queued"
    known = region.job(first["id"])["site_job_id"]
    assert [(one.kind, one.site_job_id) for one in spec_of(region, second).after] == [(AfterKind.OK, known)]
    site(region).advance(0)
    region.step()
    assert (region.job(first["id"])["state"], region.job(second["id"])["state"]) == ("running", "queued")
    run_to(region, first)
    site(region).advance(1)
    region.step()
    assert region.job(second["id"])["state"] == "running"
    assert region.job(second["id"])["after"] == [{"job": first["id"], "kind": "afterok", "state": "succeeded"}]


@pytest.mark.parametrize(
    ("end", "kind", "state"),
    [
        (AttemptState.SUCCEEDED, "afterok", "queued"),
        (AttemptState.FAILED, "afterok", "cancelled"),
        (AttemptState.FAILED, "afterany", "queued"),
        (AttemptState.FAILED, "afternotok", "queued"),
        (AttemptState.SUCCEEDED, "afternotok", "cancelled"),
    ],
)
def test_after_a_job_of_another_site(region: World, end: AttemptState, kind: str, state: str) -> None:
    """No scheduler knows both, so the broker waits for the end; and tells it to neither."""
    other = with_site(region)
    first = region.submit(site="teratec")
    second = region.submit(site=other, **after(first, kind))
    region.step()
    region.step(other)
    assert (region.job(first["id"])["state"], region.job(second["id"])["state"]) == ("queued", "held")
    run_to(region, first, end)
    region.step(other)
    seen = region.job(second["id"])
    assert seen["state"] == state
    if state == "queued":
        assert spec_of(region, second).after == ()
    else:
        assert f"job {first['id']} is {end.value}, and this one was to run after" in seen["reason"]
        assert (seen["charged_credits"], seen["settled_at"] is None) == (0, False)


def test_what_can_never_be_is_refused_at_once(region: World) -> None:
    failed = region.submit()
    region.step()
    run_to(region, failed, AttemptState.FAILED)
    assert "is failed, and this one was to run after its success" in region.refused(**after(failed))["detail"]
    assert region.refused(after=[{"job": "job-nowhere"}])["detail"] == (
        "project vision has no job job-nowhere to run after"
    )
    theirs = region.submit("paul", project="voice")
    assert region.refused(**after(theirs))["status"] == 404, "as if there were none"
    twice = [{"job": failed["id"], "kind": "afterany"}, {"job": failed["id"], "kind": "afternotok"}]
    assert "named twice" in region.refused(after=twice)["detail"]


def test_many_that_wait_keep_nobody_else_from_being_sent(region: World) -> None:
    region.services.settings.dispatch_batch_max = 2
    first = region.submit(gpus=1)
    for _ in range(4):
        region.submit(gpus=1, time_limit_s=60, **after(first))
    later = region.submit(gpus=1)
    region.step()
    assert region.job(later["id"])["state"] == "queued"


def test_begin_waits_here_and_is_sent_shortly_before(region: World) -> None:
    far = (utcnow() + timedelta(hours=5)).replace(microsecond=0)
    near = (utcnow() + timedelta(minutes=5)).replace(microsecond=0)
    later, soon = region.submit(begin_at=far.isoformat()), region.submit(begin_at=near.isoformat())
    assert later["reason"] == f"it is to begin at {far.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    region.step()
    assert (region.job(later["id"])["state"], region.job(soon["id"])["state"]) == ("held", "queued")
    assert spec_of(region, soon).begin == near
    past = region.submit(begin_at=(utcnow() - timedelta(hours=1)).isoformat())
    region.step()
    assert spec_of(region, past).begin is None


def test_begin_after_the_awards_end_is_refused(region: World) -> None:
    problem = region.refused(begin_at=(utcnow() + timedelta(days=120)).isoformat())
    assert problem["code"] == "award-not-active"
    assert "the job is to begin" in problem["detail"]
    assert "--begin" in problem["remedy"]
    assert region.refused(begin_at="2026-12-31T08:00:00")["status"] == 422, "a time without a zone"


def test_the_contract_must_last_until_a_late_job_has_ended(region: World) -> None:
    other = with_site(region)
    with region.services.database.write() as session:
        session.execute(update(Contract).values(end_at=utcnow() + timedelta(hours=4)))
    begin = (utcnow() + timedelta(hours=3, minutes=30)).isoformat()
    problem = region.refused(begin_at=begin, site=other)
    assert (problem["code"], "after it begins" in problem["detail"]) == ("contract-too-small", True)
    assert region.submit(site=other, time_limit_s=600, begin_at=begin)["state"] == "held"


def test_a_signal_is_asked_for_and_fits_the_time(region: World) -> None:
    job = region.submit(signal_s=120)
    region.step()
    assert (spec_of(region, job).signal, spec_of(region, job).signal_s) == ("USR1", 120)
    assert region.refused(signal="TERM", signal_s=3600)["detail"] == (
        "the signal would be sent 3600 s before the end of a job of 3600 s"
    )
    assert "signal_s" in region.refused(signal="TERM")["detail"]
    assert region.refused(signal="KILL", signal_s=5)["status"] == 422


def test_a_site_that_runs_jobs_again_is_paid_for_each_run(region: World) -> None:
    other = with_site(region, requeues=2)
    one = 3660 * 2000
    job = region.submit(site=other)
    assert (job["held_credits"], job["requeues"]) == (3 * one, 2)
    assert any("3 times" in notice for notice in job["notices"])
    assert region.submit(site=other, requeue=False)["held_credits"] == one
    plan = region.post("ines", "/jobs/plan", {**JOB, "site": other})
    assert (plan["runs"], plan["held_credits"]) == (3, 3 * one)
    assert plan["sum"][-1].startswith("× 3 runs")
    assert region.refused(site="teratec", requeue=True)["detail"] == "site teratec runs a job once"


def test_every_run_is_charged_and_one_too_many_is_cancelled(region: World) -> None:
    with region.services.database.write() as session:
        session.execute(update(Site).values(settings={**SITE, "requeues": 1}))
    job = region.submit()
    region.step()
    assert spec_of(region, job).requeues == 1
    for cancelled in (False, True):
        site(region).advance(0)
        region.step()
        site(region).advance(100)
        site(region).requeue(job_name(job["id"]))
        region.step()
        assert (region.job(job["id"])["cancel_requested_at"] is not None) is cancelled
    with region.services.database.read() as session:
        why = session.get_one(Job, job["id"]).cancel_cause
    assert why == "the site runs it again, and its hold pays for 2 runs"
    region.step()
    done = region.job(job["id"])
    assert done["state"] == "cancelled"
    assert [usage["elapsed_s"] for usage in done["usage"]] == [100, 100, 0]
    assert done["charged_credits"] == 200 * 2000


@pytest.mark.parametrize(
    "asked",
    [
        {"script": "#!/bin/sh\n#SBATCH hetjob\ntrue\n"},
        {"script": "#!/bin/sh\n#SBATCH packjob\ntrue\n"},
        {"script": "#!/bin/sh\n#SBATCH --het-group=1\ntrue\n"},
        {"script": None, "arguments": ["srun", "--het-group=0,1", "a"]},
        {"script": None, "arguments": ["/usr/bin/srun", "a", ":", "b"]},
    ],
)
def test_a_heterogeneous_job_is_refused_by_name(region: World, asked: dict[str, Any]) -> None:
    assert "heterogeneous job" in region.refused(**asked)["detail"]


def test_a_line_after_the_first_command_directs_nothing(region: World) -> None:
    assert region.submit(script="#!/bin/sh\ntrue\n#SBATCH hetjob\n")["state"] == "held"


def test_memory_per_gpu_is_memory_of_a_node(region: World) -> None:
    job = region.submit(gpus=4, nodes=2, memory_per_gpu_mib=1000)
    region.step()
    assert spec_of(region, job).memory_mib == 2000
    assert region.refused(memory_per_gpu_mib=1000, memory_mib=1000)["status"] == 422


def test_an_environment_is_entered_used_and_kept(region: World) -> None:
    offered = {"site": "teratec", "name": "pytorch", "about": "PyTorch", "modules": ["cuda/12.4", "pytorch/2.5"]}
    region.post("olga", "/environments", offered)
    (listed,) = region.get("ines", "/environments?site=teratec")["items"]
    assert {key: listed[key] for key in offered} == offered
    job = region.submit(named_environment="pytorch", modules=["git"])
    region.post("olga", "/environments", {**offered, "modules": ["pytorch/3"]})
    region.step()
    assert spec_of(region, job).modules == ("cuda/12.4", "pytorch/2.5", "git")
    assert region.job(job["id"])["named_environment"] == "pytorch"
    region.post("olga", "/environments/remove", {"site": "teratec", "name": "pytorch"})
    assert region.get("ines", "/environments")["items"] == []
    problem = region.refused(named_environment="pytorch")
    assert problem["detail"] == "site teratec offers no environment pytorch; it offers: none"
    again = region.call("olga", "POST", "/environments/remove", {"site": "teratec", "name": "pytorch"})
    assert again.status_code == 404


def test_images_run_where_a_site_offers_that(region: World) -> None:
    image = f"docker://registry.example/torch@sha256:{'0' * 64}"
    assert region.refused(container="images/torch.sif")["detail"] == "site teratec offers no containers"
    named = {"site": "teratec", "name": "torch", "about": "x", "container": image}
    assert region.call("olga", "POST", "/environments", named).json()["detail"] == "site teratec offers no containers"
    other = with_site(region, containers=True)
    region.post("olga", "/environments", {**named, "site": other})
    job = region.submit(container="images/torch.sif")
    assert job["site"] == other
    assert region.job(job["id"])["container"] == "images/torch.sif"
    named_job = region.submit(named_environment="torch")
    assert region.job(named_job["id"])["container"] == image
    assert "is an image already" in region.refused(named_environment="torch", container="x.sif", site=other)["detail"]


def test_a_programme_says_which_images_its_jobs_may_name(region: World) -> None:
    image = f"docker://registry.example/torch@sha256:{'0' * 64}"
    other = with_site(region, containers=True)
    region.post("olga", "/environments", {"site": other, "name": "theirs", "about": "x", "container": "theirs.sif"})
    policy = {"kind": "pack-ia", "default_time_limit_s": 1800, "images": ["registry.example/torch", "images/a.sif"]}
    region.post("marc", "/programmes/pack-ia-2026/policy", policy)
    problem = region.refused(container="docker://registry.example/torch-of-mine@sha256:" + "0" * 64)
    assert "does not let its jobs run the image docker://registry.example/torch-of-mine@" in problem["detail"]
    assert problem["remedy"] == "--container with one of: registry.example/torch, images/a.sif"
    for allowed in ({"container": image}, {"container": "images/a.sif"}, {"named_environment": "theirs"}, {}):
        region.submit(site=other, **allowed)
    region.post("marc", "/programmes/pack-ia-2026/policy", {**policy, "images": []})
    assert region.refused(container=image)["remedy"] == "leave out --container"


def test_outputs_are_listed_in_pages_and_read_in_pieces(region: World) -> None:
    job = region.submit()
    path = f"/jobs/{job['id']}/outputs"
    assert region.get("ines", path) == {"items": [], "next_cursor": None, "exists": False, "left_out": []}
    region.step()
    site(region).advance(0)
    for name in ("b/c.txt", "a.bin", "d"):
        site(region).write_output(job_name(job["id"]), name, name.encode() * 2)
    first = region.get("ines", f"{path}?limit=2")
    assert [file["path"] for file in first["items"]] == ["a.bin", "b/c.txt"]
    rest = region.get("ines", f"{path}?limit=2&cursor={first['next_cursor']}")
    assert ([file["path"] for file in rest["items"]], rest["next_cursor"]) == (["d"], None)
    piece = region.call("ines", "GET", f"{path}/content?path=b/c.txt&offset=5&limit_bytes=4")
    assert (piece.content, piece.headers["Idf-File-Size"]) == (b"xtb/", "14")
    assert region.call("ines", "GET", f"{path}/content?path=../x").status_code == 422
    assert region.call("paul", "GET", path).status_code == 404
    site(region).faults.away = True
    assert region.call("ines", "GET", path).status_code == 503


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        (2, 1, "second"),
        (1, 2, "teratec"),
        (None, 1, "second"),
        (1, None, "teratec"),
        (None, None, "second"),
        (1, 1, "second"),
    ],
)
def test_the_site_that_starts_earlier_is_preferred(
    region: World, first: int | None, second: int | None, chosen: str
) -> None:
    """One that is not known to start earlier comes in the order of names."""
    region.upkeep.cluster = "second"
    with_site(region, cluster="second")
    hours = {"fake": first, "second": second}

    class OneOf(FakeScheduler):
        def expected_start(self, spec: JobSpec) -> Forecast:
            in_h = hours[self.cluster]
            return Forecast(None, "nobody knows") if in_h is None else Forecast(utcnow() + timedelta(hours=in_h))

    region.services.schedulers._make = lambda settings: OneOf(cluster=settings.cluster)
    region.services.schedulers.close()
    plan = region.post("ines", "/jobs/plan", JOB)
    assert plan["site"] == chosen
    assert (plan["expected_start_at"] is None) is (plan["expected_start_unknown"] == "nobody knows")
    assert region.submit()["site"] == chosen
    assert region.submit(site="teratec")["site"] == "teratec"


def test_a_plan_tells_the_expected_start_or_why_it_is_unknown(region: World) -> None:
    plan = region.post("ines", "/jobs/plan", JOB)
    assert abs(datetime.fromisoformat(plan["expected_start_at"]) - site(region).now) < timedelta(seconds=1)
    site(region).faults.away = True
    unknown = region.post("ines", "/jobs/plan", {**JOB, "gpus": 2})
    assert unknown["expected_start_at"] is None
    assert unknown["expected_start_unknown"] == "site teratec: the fake site is away"
