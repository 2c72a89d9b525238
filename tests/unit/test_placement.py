"""Where a job may run: pure functions over facts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from world import SITE

from broker.certifications import NEEDS, DataClass, Proof
from broker.errors import PlacementRefused
from broker.placement import Data, Placement, Refused, SiteFacts, none_left, options
from broker.schemas import JobIn, SiteIn

WEIGHTS = {"a100-80": 2000, "v100-32": 1000, "h100-80": 4000}


NOW = datetime(2026, 5, 17, 12, tzinfo=UTC)


def site(
    name: str = "teratec", *, account: str | None = "idf001", problems: Any = (), proofs: Any = (), **changes: Any
) -> SiteFacts:
    settings = SiteIn.model_validate({**SITE, "name": name, **changes})
    return SiteFacts(f"sit-{name}", settings, problems, account, account_is_new=False, proofs=proofs)


def job(**changes: Any) -> JobIn:
    return JobIn.model_validate({"script": "true", "time_limit_s": 3600, **changes})


def weighed(
    wanted: JobIn, sites: tuple[SiteFacts, ...], confidentiality: str, nature: str
) -> tuple[list[Placement], list[Refused]]:
    return options(wanted, Data(DataClass(confidentiality, nature), NEEDS, NOW), sites, WEIGHTS)


def placed(
    wanted: JobIn, *sites: SiteFacts, confidentiality: str = "internal", nature: str = "none"
) -> tuple[str, str, str | None]:
    found = weighed(wanted, sites, confidentiality, nature)[0][0]
    return found.site.settings.name, found.gpu_class, found.account


def refusal(
    wanted: JobIn, *sites: SiteFacts, confidentiality: str = "internal", nature: str = "none"
) -> PlacementRefused:
    with pytest.raises(PlacementRefused) as caught:
        raise none_left(weighed(wanted, sites, confidentiality, nature)[1])
    return caught.value


def test_the_first_site_by_name_that_can_run_it() -> None:
    assert placed(job(), site("b"), site("a", account="idf007")) == ("a", "a100-80", "idf007")
    assert placed(job(), site("a", problems=["broken"]), site("b"))[0] == "b"
    assert placed(job(gpus=8), site("a", gpus_per_job_max=4), site("b"))[0] == "b"
    assert placed(job(), site("a", account=None), site("b"))[0] == "b", "rather than wait for an account"
    assert placed(job(), site("a", account=None)) == ("a", "a100-80", None)


def test_no_site_says_so() -> None:
    assert refusal(job()).detail == "no site is enrolled yet"
    assert refusal(job(site="x")).detail == "no site x is enrolled"


def test_each_site_gives_its_own_reason() -> None:
    refused = refusal(job(gpus=9), site("a"), site("b", problems=["no accounting"]))
    assert "site a gives a job at most 8" in refused.detail
    assert "site b is not fit: no accounting" in refused.detail
    assert "--gpus 8" in (refused.remedy or "")


def test_the_smallest_class_is_that_of_least_weight() -> None:
    both = site(gpu_types={"a100-80": "a100", "v100-32": "v100"})
    assert placed(job(smallest_gpu=True), both)[1] == "v100-32"
    assert placed(job(gpu_class="a100-80"), both)[1] == "a100-80"
    assert "several" in refusal(job(), both).detail


def test_a_class_without_a_weight_does_not_count_as_a_choice() -> None:
    assert placed(job(), site(gpu_types={"a100-80": "a100", "b200": "b200"}))[1] == "a100-80"
    assert "no GPU class b200" in refusal(job(gpu_class="b200"), site(gpu_types={"b200": "b200"})).detail


@pytest.mark.parametrize("confidentiality", ["internal", "confidential"])
def test_a_shared_account_is_for_public_data(confidentiality: str) -> None:
    shared = site(isolation="shared")
    assert "public data only" in refusal(job(), shared, confidentiality=confidentiality).detail
    assert placed(job(), shared, confidentiality="public")[0] == "teratec"


def test_bounds_are_included() -> None:
    bounded = site(gpus_per_job_max=4, time_limit_s_max=3600)
    assert placed(job(gpus=4, time_limit_s=3600), bounded)
    assert "5 GPUs" in refusal(job(gpus=5), bounded).detail
    assert "61 min" in refusal(job(time_limit_s=3660), bounded).detail


def proof(scheme: str = "hds", version: str = "2", **changes: Any) -> Proof:
    facts = {"scope": ("computing", "storage"), "start_at": NOW - timedelta(days=30), "confirmed": True, **changes}
    end_at = facts.pop("end_at", NOW + timedelta(days=30))
    return Proof("Bare Metal", scheme, version, end_at=end_at, **facts)


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"version": "1.1"}, "HDS of Bare Metal is of version 1.1"),
    ({"scope": ("storage",)}, "covers storage only"),
    ({"confirmed": False}, "waits for a second operator's confirmation"),
    ({"end_at": NOW}, "ended 2026-05-17 12:00 UTC"),
    ({"start_at": NOW + timedelta(days=1)}, "begins 2026-05-18 12:00 UTC"),
    ({"end_at": NOW + timedelta(minutes=59)}, "ends 2026-05-17 12:59 UTC, before the job's time limit would"),
    ({"scheme": "secnumcloud", "version": "3.2"}, "site teratec has none"),
]


@pytest.mark.parametrize(("changes", "sentence"), FAULTS)
def test_health_data_goes_to_a_service_with_a_proof_that_counts_only(changes: dict[str, Any], sentence: str) -> None:
    refused = refusal(job(), site(proofs=[proof(**changes)]), nature="health")
    assert "health data is computed on by a service with HDS 2 only" in refused.detail
    assert sentence in refused.detail
    assert "certification add" in (refused.remedy or "")
    assert placed(job(), site(proofs=[proof(**changes), proof()]), nature="health")[0] == "teratec", "one is enough"


def test_each_axis_asks_for_a_proof_of_its_own() -> None:
    hds, secnumcloud = proof(), proof("secnumcloud", "3.2")
    both = {"confidentiality": "confidential", "nature": "health"}
    assert "confidential data" in refusal(job(), site(proofs=[hds]), **both).detail
    assert "health data" in refusal(job(), site(proofs=[secnumcloud]), **both).detail
    assert placed(job(), site(proofs=[hds, secnumcloud]), **both)[0] == "teratec"
    for scheme, version in (("iso-27001", "2022"), ("secnumcloud", "3.10"), ("hds", "2.0")):
        assert placed(job(), site(proofs=[proof(scheme, version)]), nature="personal")[0] == "teratec"
    assert "version 2013" in refusal(job(), site(proofs=[proof("iso-27001", "2013")]), nature="personal").detail


def test_the_right_to_compute_there_ends_with_the_proof_that_lasts_longest() -> None:
    longest = NOW + timedelta(days=90)
    proofs = [proof(), proof(end_at=longest), proof("secnumcloud", "3.2", end_at=longest + timedelta(days=1))]
    [found], _ = weighed(job(), (site(proofs=proofs),), "confidential", "health")
    assert found.proven_until == longest
    [found], _ = weighed(job(), (site(proofs=proofs),), "internal", "none")
    assert found.proven_until is None


def test_a_proof_must_last_to_the_end_of_a_job_that_begins_later() -> None:
    later = job(begin_at=(NOW + timedelta(days=30)).isoformat())
    assert "before the job's time limit" in refusal(later, site(proofs=[proof()]), nature="health").detail


def pool(**nodes: dict[str, Any]) -> SiteFacts:
    """A Kubernetes pool of two classes; what is given is said of the nodes of a type."""
    made = {type_: {"labels": {"gpu": type_}, **nodes.get(type_, {})} for type_ in ("a100", "v100")}
    return site(
        "a-pool",
        proofs=[proof()],
        kind="k8s",
        gpu_types={"a100-80": "a100", "v100-32": "v100"},
        kubernetes={"kubeconfig": "/nowhere", "image": f"idf/job@sha256:{'0' * 64}", "nodes": made},
        accounts=[],
        containers=True,
        **dict.fromkeys(("host", "login", "identity_file", "host_key")),
    )


def test_a_gpu_shared_by_time_slicing_is_not_for_data_about_people() -> None:
    here = pool(a100={"time_sliced": True})
    for nature in ("personal", "health"):
        detail = refusal(job(gpu_class="a100-80"), here, nature=nature).detail
        assert f"shared between projects by time slicing: not for {nature} data" in detail
        assert placed(job(gpu_class="v100-32"), here, nature=nature)[1] == "v100-32"
    assert placed(job(gpu_class="a100-80"), here)[1] == "a100-80"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"signal": "USR1", "signal_s": 60}, "sends no signal"),
        ({"modules": ["cuda"]}, "no environment modules"),
        ({"array": "0-3", "nodes": 2, "gpus": 2}, "one node"),
        ({"container": "/images/torch.sif"}, "by their digest"),
    ],
)
def test_what_no_pool_can_do_goes_to_another_site(asked: dict[str, Any], why: str) -> None:
    here, wanted = pool(), job(gpu_class="a100-80", **asked)
    assert placed(wanted, here, site("z-slurm", containers=True))[0] == "z-slurm"
    assert why in refusal(wanted, here).detail
    named = job(gpu_class="a100-80", container=f"docker://registry/image@sha256:{'0' * 64}")
    assert placed(named, here)[0] == "a-pool"


def test_a_pool_gives_whole_nodes_away_where_it_says_how_large_they_are() -> None:
    wanted = job(gpu_class="a100-80", exclusive=True)
    assert "whole nodes" in refusal(wanted, pool()).detail
    sized = pool(a100={"gpus_per_node": 8, "cpus_per_node": 120})
    assert "no charging rule" in refusal(wanted, sized).detail, "the pool would; the Region has not said what it costs"
