"""Jobs under a charging rule, from the plan to the ledger's settle, on both engines and over a scheduler in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select
from world import JOB, World, world

from adapters.fake import FakeJob, FakeScheduler
from broker.known import job_name
from quotas.models import Transfer

SHARES = {"cpus_per_gpu": 10, "memory_mib_per_gpu": 90 * 1024, "gpus_per_node": 4, "cpus_per_node": 32}
WEIGHT, CPU_WEIGHT = 2000, 50


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made
        assert made.faults() == []


@pytest.fixture
def ruled(region: World) -> World:
    region.set_rule(**SHARES, cpu_weight_thousandths=CPU_WEIGHT)
    region.enter_contract(gpu_class="cpu")
    return region


def site(region: World) -> FakeScheduler:
    assert isinstance(region.scheduler, FakeScheduler)
    return region.scheduler


def at_site(region: World, job: Any) -> FakeJob:
    return next(known for known in site(region).jobs.values() if known.spec.name == job_name(job["id"]))


def begun(region: World, **changes: Any) -> Any:
    job = region.submit(**changes)
    region.step()
    site(region).advance(0)
    region.step()
    return job


def ended(region: World, job: Any, after_s: int) -> Any:
    site(region).advance(after_s)
    site(region).finish(job_name(job["id"]))
    region.step()
    return region.job(job["id"])


def settled_credits(region: World, job: Any, kind: str = "settle") -> int:
    wanted = select(Transfer.amount).where(col(Transfer.reference_id) == job["id"], col(Transfer.kind) == kind)
    with region.services.database.read() as session:
        return session.exec(wanted).one()


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        ({"gpus": 2}, 2 * WEIGHT),
        ({"gpus": 2, "cpus_per_gpu": 12}, 4800),
        ({"gpus": 1, "memory_mib": 270 * 1024}, 3 * WEIGHT),
        ({"gpus": 2, "nodes": 2, "memory_mib": 135 * 1024}, 3 * WEIGHT),
        ({"gpus": 1, "exclusive": True}, 4 * WEIGHT),
        ({"gpus": 2, "nodes": 2, "exclusive": True}, 8 * WEIGHT),
        ({"gpus": 0, "cpus": 8}, 8 * CPU_WEIGHT),
        ({"gpus": 0, "cpus": 8, "nodes": 2, "memory_mib": 180 * 1024}, 40 * CPU_WEIGHT),
        ({"gpus": 0}, CPU_WEIGHT),
    ],
)
def test_the_charge_is_what_was_held_for_the_time_that_it_ran(ruled: World, changes: dict[str, Any], rate: int) -> None:
    job = begun(ruled, **changes)
    assert (job["rate_credits_per_s"], job["held_credits"]) == (rate, rate * 3660)
    done = ended(ruled, job, 600)
    assert done["charged_credits"] == settled_credits(ruled, job) == rate * 600
    assert settled_credits(ruled, job, "contract-settle") == rate * 600, "the weights are the same here"
    usage = done["usage"][0]
    assert usage["rate_credits_per_s"] == rate
    assert usage["exclusive"] == changes.get("exclusive", False)
    assert usage["nodes"] == changes.get("nodes", 1)
    assert usage["cpus"] is not None
    assert usage["memory_mib"] is not None
    assert ruled.award()["held_credits"] == 0


def test_the_contract_is_counted_by_the_same_rule_at_its_own_weight(ruled: World) -> None:
    ruled.post("marc", "/gpu-classes", {"name": "a100-80", "weight_thousandths": 3000, "valid_from": "2026-06-01"})
    job = begun(ruled, gpus=2, cpus_per_gpu=12)
    assert job["rate_credits_per_s"] == 7200
    assert settled_credits(ruled, job, "hold") == 7200 * 3660
    held = settled_credits(ruled, job, "contract-hold")
    assert held == 4800 * 3660, "the contract was signed when the class weighed 2"
    ended(ruled, job, 100)
    assert settled_credits(ruled, job, "contract-settle") == 4800 * 100


def test_a_gpus_share_is_asked_for_where_nothing_was_named(ruled: World) -> None:
    job = begun(ruled, gpus=3)
    spec = at_site(ruled, job).spec
    assert (spec.cpus_per_gpu, spec.memory_mib, spec.cpus, spec.exclusive) == (10, 270 * 1024, None, False)
    assert job["notices"] == [
        "no CPUs were named: 10 a GPU are requested, a GPU's share at teratec (--cpus-per-gpu)",
        "no memory was named: 270 GiB a node are requested, its GPUs' share at teratec (--mem)",
    ]
    without = begun(ruled, gpus=0, cpus=5)
    spec = at_site(ruled, without).spec
    assert (spec.gpus, spec.gpu_type, spec.cpus, spec.memory_mib) == (0, "", 5, 45 * 1024)
    assert without["notices"] == [
        "no memory was named: 45 GiB a node are requested, its CPUs' share at teratec (--mem)"
    ]
    bare = ruled.submit(gpus=0, memory_mib=512)
    assert bare["notices"] == ["no CPUs were named: one on each node is requested (--cpus)"]
    assert (bare["gpu_class"], bare["gpus"], bare["cpus"]) == ("cpu", 0, 1)


def test_whole_nodes_are_asked_for_whole(ruled: World) -> None:
    job = begun(ruled, gpus=1, exclusive=True)
    spec = at_site(ruled, job).spec
    assert (spec.cpus_per_gpu, spec.memory_mib, spec.exclusive) == (None, 360 * 1024, True)
    assert "--gpus 4 costs the same" in job["notices"][1]
    refused = ruled.refused(gpus=6, exclusive=True)
    assert "a node of site teratec has 4" in refused["detail"]
    assert refused["remedy"] == "--nodes 2"
    too_many = ruled.refused(gpus=3, nodes=3, exclusive=True)
    assert "12 GPUs were asked for" in too_many["detail"]


def test_a_partition_of_whole_nodes_counts_every_job_whole(region: World) -> None:
    region.set_rule(**SHARES, whole_nodes=True)
    job = begun(region)
    assert (job["rate_credits_per_s"], job["exclusive"]) == (4 * WEIGHT, True)
    assert ended(region, job, 60)["charged_credits"] == 4 * WEIGHT * 60


def test_whole_nodes_of_cpus(region: World) -> None:
    site(region).gpus_per_node = 0
    region.set_rule(cpus_per_node=32, cpu_weight_thousandths=CPU_WEIGHT)
    region.enter_contract(gpu_class="cpu")
    job = begun(region, gpus=0, nodes=2, exclusive=True)
    assert (job["rate_credits_per_s"], job["cpus"]) == (64 * CPU_WEIGHT, None)
    assert ended(region, job, 60)["charged_credits"] == 64 * CPU_WEIGHT * 60


def test_a_rule_entered_later_never_changes_a_job_that_is_held(ruled: World) -> None:
    job = begun(ruled, gpus=2, cpus_per_gpu=12)
    ruled.set_rule(valid_from="2026-02-01", cpus_per_gpu=1)
    assert ended(ruled, job, 100)["charged_credits"] == 4800 * 100
    assert ruled.submit(gpus=2, cpus_per_gpu=12)["rate_credits_per_s"] == 24 * WEIGHT


def test_the_rule_of_the_partition_that_jobs_are_sent_to(region: World) -> None:
    region.enrol_site(name="second", partition="gpu")
    region.enter_contract("second")
    region.set_rule(site="second", cpus_per_gpu=4)
    region.set_rule(site="second", partition="other", cpus_per_gpu=1)
    assert region.submit(site="second", cpus_per_gpu=8)["rate_credits_per_s"] == 2 * WEIGHT
    region.set_rule(site="second", partition="gpu", cpus_per_gpu=8)
    assert region.submit(site="second", cpus_per_gpu=8)["rate_credits_per_s"] == WEIGHT
    assert region.submit(site="teratec", cpus_per_gpu=8)["rate_credits_per_s"] == WEIGHT
    plan = region.post("ines", "/jobs/plan", {**JOB, "site": "second"})
    assert plan["partition"] == "gpu"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"gpus": 0, "cpus": 4}, "no rate for jobs without GPU"), ({"exclusive": True}, "how many GPUs a whole node has")],
)
def test_a_site_without_a_rule_counts_gpus_only(region: World, changes: dict[str, Any], words: str) -> None:
    refused = region.refused(**changes)
    assert refused["code"] == "placement-refused"
    assert words in refused["detail"]
    assert refused["remedy"]
    job = begun(region, cpus_per_gpu=32, memory_mib=60_000)
    assert (job["rate_credits_per_s"], job["notices"]) == (WEIGHT, [])
    assert ended(region, job, 60)["charged_credits"] == WEIGHT * 60


def test_a_job_without_gpu_needs_a_contract_too(region: World) -> None:
    region.set_rule(cpu_weight_thousandths=CPU_WEIGHT)
    refused = region.refused(gpus=0, cpus=4)
    assert (refused["code"], "no contract for cpu" in refused["detail"]) == ("contract-too-small", True)
    region.enter_contract(gpu_class="cpu", hours=1)
    refused = region.refused(gpus=0, cpus=4)
    assert "the job may use 4.066 h of cpu" in refused["detail"]


def test_no_contract_for_cpus_where_they_have_no_rate(region: World) -> None:
    body = {
        "site": "teratec",
        "gpu_class": "cpu",
        "gpu_seconds": 3600,
        "start_on": "2026-01-01",
        "end_on": "2099-01-01",
    }
    answer = region.call("marc", "POST", "/contracts", {**body, "kind": "purchased", "order_number": "BC-1"})
    assert answer.status_code == 422
    assert "no rate for jobs without GPU" in answer.json()["detail"]


@pytest.mark.parametrize(("what", "words"), [("cpus", "counts CPUs"), ("memory_mib", "counts memory")])
def test_what_the_source_does_not_tell_is_never_zero(ruled: World, what: str, words: str) -> None:
    job = begun(ruled)
    site(ruled).advance(60)
    site(ruled).finish(job_name(job["id"]))
    site(ruled)._change(at_site(ruled, job), **{what: None})
    ruled.step()
    still_open = ruled.job(job["id"])
    assert still_open["settled_at"] is None
    assert words in still_open["reason"]
    site(ruled)._change(at_site(ruled, job), **{what: 1})
    ruled.step()
    assert ruled.job(job["id"])["charged_credits"] == WEIGHT * 60


@pytest.mark.parametrize(
    ("given", "stopped"),
    [
        ({"cpus": 11}, True),
        ({"memory_mib": 92_161}, True),
        ({"gpus": 2}, True),
        ({"cpus": 9}, False),
        ({"cpus": None}, False),
    ],
)
def test_a_job_that_is_given_more_than_is_held_is_stopped(ruled: World, given: dict[str, Any], stopped: bool) -> None:
    job = ruled.submit()
    ruled.step()
    site(ruled).advance(0)
    site(ruled)._change(at_site(ruled, job), **given)
    ruled.step()
    seen = ruled.job(job["id"])
    assert (seen["cancel_requested_at"] is not None) is stopped


def test_gpus_given_to_a_job_without_gpu_stop_it(ruled: World) -> None:
    job = ruled.submit(gpus=0, cpus=4)
    ruled.step()
    site(ruled).advance(0)
    site(ruled)._change(at_site(ruled, job), gpus=1, gpu_types={"a100": 1})
    ruled.step()
    assert ruled.job(job["id"])["cancel_requested_at"] is not None


def test_a_job_that_never_ran_is_charged_nothing(ruled: World) -> None:
    job = ruled.submit()
    ruled.step()
    ruled.post("ines", f"/jobs/{job['id']}/cancel")
    for _ in range(3):
        ruled.step()
    done = ruled.job(job["id"])
    assert (done["state"], done["charged_credits"]) == ("cancelled", 0)
    assert [usage["rate_credits_per_s"] for usage in done["usage"]] == [0]


def test_the_sum_is_shown_before_anything_is_submitted(ruled: World) -> None:
    plan = ruled.post("ines", "/jobs/plan", {**JOB, "gpus": 2, "cpus_per_gpu": 12, "memory_mib": 1024})
    assert plan["sum"] == [
        "2 GPUs",
        "24 CPUs at 10 a GPU count as 2.4",
        "1 GiB of memory at 90 GiB a GPU count as 0.012",
        "2.4 × weight 2 × (3600 + 60) s = 4.88 h (4800 credits a second)",
    ]
    assert (plan["rate_credits_per_s"], plan["held_credits"]) == (4800, 4800 * 3660)
    rules = ruled.get("ines", "/charging-rules")["items"]
    assert plan["charging_rule"] == rules[0]["id"]


def test_whole_nodes_count_whole_under_a_ceiling(ruled: World) -> None:
    ruled.post("marc", "/ceilings", {"scope": "project", "name": "vision", "what": "gpus_running", "amount": 4})
    refused = ruled.refused(gpus=2, nodes=2, exclusive=True)
    assert (refused["code"], "8 more were asked for" in refused["detail"]) == ("ceiling-reached", True)
    ruled.submit(exclusive=True)
    second, without = ruled.submit(gpus=1), ruled.submit(gpus=0, cpus=4)
    ruled.step()
    ruled.step()
    waits = ruled.job(second["id"])
    assert (waits["state"], "4 are in use" in waits["reason"]) == ("held", True)
    assert ruled.job(without["id"])["state"] != "held", "it waits for no GPU"


def test_rules_are_entered_by_operators_once_a_day_and_listed(region: World) -> None:
    made = region.set_rule(partition="gpu", **SHARES)
    assert (made["site"], made["memory_mib_per_node"], made["cpu_weight_thousandths"]) == ("teratec", 360 * 1024, None)
    body = {"site": "teratec", "partition": "gpu", "valid_from": "2026-01-01"}
    again = region.call("olga", "POST", "/charging-rules", body)
    assert (again.status_code, again.json()["code"]) == (409, "name-taken")
    assert "partition gpu of site teratec" in again.json()["detail"]
    region.set_rule()
    again = region.call("olga", "POST", "/charging-rules", {**body, "partition": ""})
    assert "site teratec has a charging rule from that day" in again.json()["detail"]
    assert region.call("marc", "POST", "/charging-rules", body).status_code == 403
    assert region.call("olga", "POST", "/charging-rules", {**body, "site": "nowhere"}).status_code == 404
    region.enrol_site(name="second")
    region.set_rule(site="second")
    for path, sites in (("", ["teratec", "teratec", "second"]), ("?site=second", ["second"])):
        assert [rule["site"] for rule in region.get("ines", f"/charging-rules{path}")["items"]] == sites
    first = region.get("alma", "/charging-rules?limit=1")
    assert len(region.get("alma", f"/charging-rules?limit=5&cursor={first['next_cursor']}")["items"]) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"cpus_per_gpu": 0}, {"memory_mib_per_gpu": -1}, {"cpu_weight_thousandths": 0}, {"whole_nodes": True},
        {"partition": "a b"}, {"partition": "x" * 65}, {"cpus_per_gpu": 1.5}, {"gpus_per_node": 10**9}, {"free": True},
    ],
)  # fmt: skip
def test_rules_that_make_no_sense(region: World, changes: dict[str, Any]) -> None:
    body = {"site": "teratec", "valid_from": "2026-01-01", **changes}
    answer = region.call("olga", "POST", "/charging-rules", body)
    assert answer.status_code == 422, answer.text


def test_the_class_of_jobs_without_gpu_is_no_gpu_class(region: World) -> None:
    body = {"name": "cpu", "weight_thousandths": 1, "valid_from": "2026-01-01"}
    refused = region.call("marc", "POST", "/gpu-classes", body)
    assert (refused.status_code, "reserved" in refused.text) == (422, True)
    with pytest.raises(AssertionError, match="reserved"):
        region.enrol_site(name="third", gpu_types={"cpu": "c"})
