"""Where a job may run and as what: pure functions over facts, which name the rule that refuses."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from adapters.arrays import Array
from broker.certifications import DataClass, Needs, Proof, proven_until
from broker.errors import BrokerError, PlacementRefused
from broker.schemas import JobIn, SiteIn
from broker.schemas.kubernetes import NodesIn
from broker.sizing import Sized, sized
from quotas.charging import CPU_CLASS, GPUS_ONLY, Rule, rate_credits_per_s
from quotas.errors import NotChargeable, QuotaError, SizeUnknown

_BY_DIGEST = re.compile("@sha256:[0-9a-f]{64}$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tools:
    """What is put around a job's program: modules to load, an image to run in."""

    modules: tuple[str, ...] = ()
    container: str | None = None


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """An enrolled site as placement sees it."""

    id: str
    settings: SiteIn
    problems: Sequence[str]
    account: str | None
    """The project's account there, or one that is free; None when there is neither, and the job would wait."""
    account_is_new: bool
    rule: Rule = GPUS_ONLY
    """The charging rule in force for the partition that jobs are sent to."""
    array_size_max: int | None = None
    """Every index of an array's task lies below it; None: the site did not tell."""
    environments: Mapping[str, Tools] = field(default_factory=dict)
    """The environments that it offers, by name."""
    proofs: Sequence[Proof] = ()
    """Its services' certifications; looked up only where the data asks for one."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A site and a GPU class for a job, and what it counts there."""

    site: SiteFacts
    gpu_class: str
    account: str | None
    sized: Sized
    weight_thousandths: int
    rate_credits_per_s: int
    tools: Tools = Tools()
    requeues: int = 0
    """Further runs that the site may give it."""
    proven_until: datetime | None = None
    """When the certification ends that lets the data go there; None where it needs none."""


@dataclass(frozen=True, slots=True)
class Data:
    """What a job computes on, what is asked of those who hold it, and when."""

    data_class: DataClass
    needs: Needs
    now: datetime
    """All figures are as of this moment."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A site that may not or cannot run a job, and the rule that says so."""

    site: SiteFacts
    error: BrokerError | QuotaError


def options(
    wanted: JobIn,
    data: Data,
    sites: Sequence[SiteFacts],
    weights: Mapping[str, int],
    array: Array | None = None,
) -> tuple[list[Placement], list[Refused]]:
    """Return the sites that may and can run the job, and why the others cannot.

    They come in the order of their names, those at the end where the project would have to wait for an account.

    Raises:
        PlacementRefused: there is no site at all.
    """
    if not sites:
        name = f"no site {wanted.site} is enrolled" if wanted.site else "no site is enrolled yet"
        raise PlacementRefused(name, "`idf-compute site list` shows the sites")
    placements: list[Placement] = []
    refusals: list[Refused] = []
    for site in sorted(sites, key=lambda site: (site.account is None, site.settings.name)):
        try:
            _check_array(array, site)
            placements.append(_place_at(wanted, data, site, weights))
        except PlacementRefused as refusal:
            refusals.append(Refused(site, refusal))
    return placements, refusals


def _check_array(array: Array | None, site: SiteFacts) -> None:
    """Refuse an array that numbers its tasks higher than its site does.

    Raises:
        PlacementRefused: names the largest index.
    """
    if array is not None and site.array_size_max is not None and array.tasks[-1] >= site.array_size_max:
        raise PlacementRefused(
            f"the array has a task {array.tasks[-1]}, "
            f"site {site.settings.name} numbers tasks from 0 to {site.array_size_max - 1} (MaxArraySize)",
            f"number the tasks up to {site.array_size_max - 1}, in several arrays if need be"
            if site.array_size_max
            else "submit one job per task",
        )


def none_left(refusals: Sequence[Refused]) -> BrokerError | QuotaError:
    """Return the one refusal, or one that gives each site's own reason."""
    errors = [refused.error for refused in refusals]
    if len(errors) == 1:
        return errors[0]
    return PlacementRefused("; ".join(e.detail for e in errors), "; ".join(e.remedy or "" for e in errors))


def _place_at(wanted: JobIn, data: Data, site: SiteFacts, weights: Mapping[str, int]) -> Placement:
    settings = site.settings
    if site.problems:
        raise PlacementRefused(f"site {settings.name} is not fit: {site.problems[0]}", "an operator must see to it")
    proven = _check_data(wanted, data, site)
    tools = choose_tools(wanted, site)
    gpu_class = choose_class(wanted, settings, weights)
    if settings.kubernetes is not None:
        _check_pool(wanted, tools, settings.name, settings.kubernetes.nodes_for(settings.gpu_types.get(gpu_class)))
    _check_slicing(gpu_class, data.data_class, settings)
    asked = sized(wanted, site.rule, settings.name)
    taken = asked.gpus_taken
    if taken > settings.gpus_per_job_max:
        raise PlacementRefused(
            f"{taken} GPUs were asked for, site {settings.name} gives a job at most {settings.gpus_per_job_max}",
            f"--gpus {settings.gpus_per_job_max}" if taken == wanted.gpus else "ask for fewer nodes: --nodes",
        )
    if wanted.time_limit_s is not None and wanted.time_limit_s > settings.time_limit_s_max:
        raise PlacementRefused(
            f"the time limit is {wanted.time_limit_s // 60} min, "
            f"site {settings.name} allows {settings.time_limit_s_max // 60}",
            f"--time {settings.time_limit_s_max // 60}",
        )
    weight = weights[gpu_class] if wanted.gpus else site.rule.cpu_weight_thousandths or 0
    try:
        rate = rate_credits_per_s(site.rule, asked.size, weight)
    except (NotChargeable, SizeUnknown) as refusal:
        raise PlacementRefused(f"site {settings.name}: {refusal.detail}", refusal.remedy) from refusal
    return Placement(site, gpu_class, site.account, asked, weight, rate, tools, _requeues(wanted, settings), proven)


def _check_data(wanted: JobIn, data: Data, site: SiteFacts) -> datetime | None:
    """Return until when the site may compute on such data, None where that needs no certification.

    Raises:
        PlacementRefused: it may not.
    """
    name, confidentiality = site.settings.name, data.data_class.confidentiality
    if site.settings.isolation == "shared" and confidentiality != "public":
        raise PlacementRefused(
            f"site {name} has one shared account: public data only, the project's is {confidentiality}",
            "use a site with project accounts",
        )
    starts_at = max(data.now, wanted.begin_at or data.now)
    until = starts_at + timedelta(seconds=wanted.time_limit_s or 0)
    return proven_until(name, data.data_class, site.proofs, data.needs, data.now, until)


def _check_pool(wanted: JobIn, tools: Tools, name: str, nodes: NodesIn | None) -> None:
    """Refuse what no Kubernetes pool can do, so that another site gets the job.

    Raises:
        PlacementRefused: names it.
    """
    image = tools.container
    sized = nodes is not None and nodes.cpus_per_node and (nodes.gpus_per_node or not wanted.gpus)
    for asked, what, remedy in (
        (wanted.signal, "sends no signal before the time limit", "catch SIGTERM, which comes shortly before the end"),
        (tools.modules, "has no environment modules", "choose an image that holds what is needed"),
        (wanted.array and wanted.nodes > 1, "gives each task of an array one node", "submit a job for each task"),
        (wanted.exclusive and not sized, "does not give whole nodes away", "ask for GPUs and CPUs"),
        (
            image and not _BY_DIGEST.search(image),
            "takes images by their digest only",
            "--container IMAGE@sha256:DIGEST",
        ),
    ):
        if asked:
            raise PlacementRefused(f"site {name} is a Kubernetes pool, which {what}", f"{remedy}, or another site")


def _check_slicing(gpu_class: str, data_class: DataClass, settings: SiteIn) -> None:
    """Refuse a GPU that projects share by time slicing to data about people: its memory is kept apart by nothing.

    Raises:
        PlacementRefused: names the class.
    """
    if data_class.nature != "none" and gpu_class in settings.time_sliced:
        raise PlacementRefused(
            f"GPUs of class {gpu_class} at site {settings.name} are shared between projects by time slicing: "
            f"not for {data_class.nature} data",
            "choose a class of whole GPUs or MIG slices, or another site",
        )


def _requeues(wanted: JobIn, settings: SiteIn) -> int:
    """Return how often the site may run the job again.

    Raises:
        PlacementRefused: the job counts on it, and the site runs each job once.
    """
    if wanted.requeue and not settings.requeues:
        raise PlacementRefused(f"site {settings.name} runs a job once", "leave out --requeue, or choose another site")
    return 0 if wanted.requeue is False else settings.requeues


def choose_tools(wanted: JobIn, site: SiteFacts) -> Tools:
    """Return the modules and the image of a job: those of its named environment, and those that it names itself.

    Raises:
        PlacementRefused: the site does not offer them.
    """
    name, named = site.settings.name, Tools()
    if wanted.named_environment is not None:
        shown = ", ".join(sorted(site.environments)) or "none"
        if wanted.named_environment not in site.environments:
            raise PlacementRefused(
                f"site {name} offers no environment {wanted.named_environment}; it offers: {shown}",
                "`idf-compute env list` shows which site offers which",
            )
        named = site.environments[wanted.named_environment]
        if named.container is not None and wanted.container is not None:
            raise PlacementRefused(
                f"the environment {wanted.named_environment} of site {name} is an image already",
                "leave out --container",
            )
    tools = Tools((*named.modules, *wanted.modules), named.container or wanted.container)
    if tools.container is not None and not site.settings.containers:
        raise PlacementRefused(f"site {name} offers no containers", "leave out --container, or choose another site")
    return tools


def choose_class(wanted: JobIn, settings: SiteIn, weights: Mapping[str, int]) -> str:
    """Return the GPU class: the one asked for, the only one, or the smallest for a first look; `cpu` without GPU.

    Raises:
        PlacementRefused: the site lacks it, or there is a choice to be made.
    """
    if wanted.gpus == 0:
        return CPU_CLASS
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
