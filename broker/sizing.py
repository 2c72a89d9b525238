"""What a job asks of a site and counts there: the size that its hold pays for. Pure functions.

Where the site's rule counts CPUs or memory and nobody named any, a GPU's share is asked for explicitly, so
that the hold and the charge agree and no default of the scheduler's, such as all of a node's memory, surprises.
"""

from dataclasses import dataclass

from broker.errors import PlacementRefused
from broker.schemas import JobIn
from quotas.charging import Rule, Size, is_whole, memory_text


@dataclass(frozen=True, slots=True)
class Sized:
    """What is asked of the scheduler (`memory_mib` per node), and what that counts (`size`)."""

    size: Size
    cpus_per_gpu: int | None
    cpus: int | None
    """Of a job without GPU, over all nodes."""
    memory_mib: int | None
    gpus_taken: int
    """That nobody else can use meanwhile: those asked for, or all of its whole nodes."""
    notices: tuple[str, ...]


def sized(wanted: JobIn, rule: Rule, site: str) -> Sized:
    """Complete what a job asks for by the shares of a site's charging rule.

    Raises:
        PlacementRefused: its GPUs do not fit the whole nodes that it would have.
    """
    whole = is_whole(rule, exclusive=wanted.exclusive)
    if whole and rule.gpus_per_node is not None and wanted.gpus > wanted.nodes * rule.gpus_per_node:
        raise PlacementRefused(
            f"{wanted.gpus} GPUs were asked for on {wanted.nodes} whole nodes, "
            f"a node of site {site} has {rule.gpus_per_node}",
            f"--nodes {-(-wanted.gpus // rule.gpus_per_node)}",
        )
    notices: list[str] = []
    cpus_per_gpu = wanted.cpus_per_gpu or (None if whole else _cpus_per_gpu(wanted, rule, site, notices))
    cpus = wanted.cpus or (None if whole else _cpus(wanted, notices))
    total = cpus if wanted.gpus == 0 else None if cpus_per_gpu is None else wanted.gpus * cpus_per_gpu
    memory_mib = wanted.memory_per_node_mib or _memory_mib(wanted, rule, total, site, notices)
    taken = max(wanted.gpus, wanted.nodes * (rule.gpus_per_node or 0)) if whole else wanted.gpus
    if taken > wanted.gpus > 0:
        notices.append(f"whole nodes count with all their GPUs: --gpus {taken} costs the same")
    size = Size(
        gpus=wanted.gpus,
        cpus=total,
        memory_mib=None if memory_mib is None else memory_mib * wanted.nodes,
        nodes=wanted.nodes,
        exclusive=whole,
    )
    return Sized(size, cpus_per_gpu, cpus, memory_mib, taken, tuple(notices))


def _cpus_per_gpu(wanted: JobIn, rule: Rule, site: str, notices: list[str]) -> int | None:
    if wanted.gpus and rule.cpus_per_gpu is not None:
        notices.append(
            f"no CPUs were named: {rule.cpus_per_gpu} a GPU are requested, a GPU's share at {site} (--cpus-per-gpu)"
        )
        return rule.cpus_per_gpu
    return None


def _cpus(wanted: JobIn, notices: list[str]) -> int | None:
    if wanted.gpus:
        return None
    notices.append("no CPUs were named: one on each node is requested (--cpus)")
    return wanted.nodes


def _memory_mib(wanted: JobIn, rule: Rule, cpus: int | None, site: str, notices: list[str]) -> int | None:
    """Return the share of memory per node, rounded down: never more than the GPUs or CPUs pay for."""
    if is_whole(rule, exclusive=wanted.exclusive):
        share = rule.memory_mib_per_node if _counts_memory(wanted, rule) else None
        whose = "all of a node"
    elif not _counts_memory(wanted, rule) or rule.memory_mib_per_gpu is None:
        return None
    elif wanted.gpus:
        share, whose = wanted.gpus * rule.memory_mib_per_gpu // wanted.nodes, "its GPUs' share"
    else:
        share = (cpus or 0) * rule.memory_mib_per_gpu // ((rule.cpus_per_gpu or 1) * wanted.nodes)
        whose = "its CPUs' share"
    if share is not None:
        share = max(share, 1)
        notices.append(f"no memory was named: {memory_text(share)} a node are requested, {whose} at {site} (--mem)")
    return share


def _counts_memory(wanted: JobIn, rule: Rule) -> bool:
    return rule.memory_mib_per_gpu is not None and (wanted.gpus > 0 or rule.cpus_per_gpu is not None)
