"""Where a job may run and as what: pure functions over facts, which name the rule that refuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.errors import BrokerError, PlacementRefused
from broker.schemas import JobIn, SiteIn
from quotas.errors import QuotaError


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """An enrolled site as placement sees it."""

    id: str
    settings: SiteIn
    problems: Sequence[str]
    account: str | None
    """The project's account there, or one that is free; None when there is neither."""
    account_is_new: bool


@dataclass(frozen=True, slots=True)
class Placement:
    """A site and a GPU class for a job."""

    site: SiteFacts
    gpu_class: str
    account: str


def options(
    wanted: JobIn, confidentiality: str, sites: Sequence[SiteFacts], weights: Mapping[str, int]
) -> tuple[list[Placement], list[PlacementRefused]]:
    """Return the sites that may and can run the job, in the order of their names, and why the others cannot.

    Raises:
        PlacementRefused: there is no site at all.
    """
    if not sites:
        name = f"no site {wanted.site} is enrolled" if wanted.site else "no site is enrolled yet"
        raise PlacementRefused(name, "`idf-compute site list` shows the sites")
    placements: list[Placement] = []
    refusals: list[PlacementRefused] = []
    for site in sorted(sites, key=lambda site: site.settings.name):
        try:
            placements.append(_place_at(wanted, confidentiality, site, weights))
        except PlacementRefused as refusal:
            refusals.append(refusal)
    return placements, refusals


def none_left(refusals: Sequence[BrokerError | QuotaError]) -> BrokerError | QuotaError:
    """Return the one refusal, or one that gives each site's own reason."""
    if len(refusals) == 1:
        return refusals[0]
    return PlacementRefused("; ".join(r.detail for r in refusals), "; ".join(r.remedy or "" for r in refusals))


def _place_at(wanted: JobIn, confidentiality: str, site: SiteFacts, weights: Mapping[str, int]) -> Placement:
    settings = site.settings
    if site.problems:
        raise PlacementRefused(f"site {settings.name} is not fit: {site.problems[0]}", "an operator must see to it")
    if settings.isolation == "shared" and confidentiality != "public":
        raise PlacementRefused(
            f"site {settings.name} has one shared account: public data only, the project's is {confidentiality}",
            "use a site with project accounts",
        )
    gpu_class = choose_class(wanted, settings, weights)
    if wanted.gpus > settings.gpus_per_job_max:
        raise PlacementRefused(
            f"{wanted.gpus} GPUs were asked for, site {settings.name} gives a job at most {settings.gpus_per_job_max}",
            f"--gpus {settings.gpus_per_job_max}",
        )
    if wanted.time_limit_s is not None and wanted.time_limit_s > settings.time_limit_s_max:
        raise PlacementRefused(
            f"the time limit is {wanted.time_limit_s // 60} min, "
            f"site {settings.name} allows {settings.time_limit_s_max // 60}",
            f"--time {settings.time_limit_s_max // 60}",
        )
    if site.account is None:
        raise PlacementRefused(
            f"site {settings.name} has no free project account", "an operator must add accounts there"
        )
    return Placement(site, gpu_class, site.account)


def choose_class(wanted: JobIn, settings: SiteIn, weights: Mapping[str, int]) -> str:
    """Return the GPU class: the one asked for, the only one, or the smallest for a first look.

    Raises:
        PlacementRefused: the site lacks it, or there is a choice to be made.
    """
    offered = sorted((name for name in settings.gpu_types if name in weights), key=lambda name: (weights[name], name))
    shown = ", ".join(offered) or "none"
    if wanted.gpu_class is not None:
        if wanted.gpu_class not in offered:
            raise PlacementRefused(
                f"site {settings.name} has no GPU class {wanted.gpu_class}; it has: {shown}",
                f"--gpu-class with one of: {shown}",
            )
        return wanted.gpu_class
    if not offered:
        raise PlacementRefused(
            f"no GPU class of site {settings.name} has a weight",
            "a manager sets one with `idf-compute class add`",
        )
    if len(offered) > 1 and not wanted.smallest_gpu:
        raise PlacementRefused(
            f"site {settings.name} has several GPU classes: {shown}", f"--gpu-class with one of: {shown}"
        )
    return offered[0]
