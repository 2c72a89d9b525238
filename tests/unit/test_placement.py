"""Where a job may run: pure functions over facts."""

from typing import Any

import pytest
from world import SITE

from broker.errors import PlacementRefused
from broker.placement import SiteFacts, none_left, options
from broker.schemas import JobIn, SiteIn

WEIGHTS = {"a100-80": 2000, "v100-32": 1000, "h100-80": 4000}


def site(name: str = "teratec", *, account: str | None = "idf001", problems: Any = (), **changes: Any) -> SiteFacts:
    settings = SiteIn.model_validate({**SITE, "name": name, **changes})
    return SiteFacts(f"sit-{name}", settings, problems, account, account_is_new=False)


def job(**changes: Any) -> JobIn:
    return JobIn.model_validate({"script": "true", "time_limit_s": 3600, **changes})


def placed(wanted: JobIn, *sites: SiteFacts, confidentiality: str = "internal") -> tuple[str, str, str | None]:
    found = options(wanted, confidentiality, sites, WEIGHTS)[0][0]
    return found.site.settings.name, found.gpu_class, found.account


def refusal(wanted: JobIn, *sites: SiteFacts, confidentiality: str = "internal") -> PlacementRefused:
    with pytest.raises(PlacementRefused) as caught:
        raise none_left(options(wanted, confidentiality, sites, WEIGHTS)[1])
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
