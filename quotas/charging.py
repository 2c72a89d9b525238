"""What a job counts at a site, in credits a second: the same rule for its hold and for its charge.

Counted is the largest of its GPUs, its CPUs over a GPU's share and its memory over a GPU's share, each
rounded up to the credit; whole nodes where it has its nodes to itself; a rate per CPU where it has no GPU.
The functions over a `Rule` and a `Size` are pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, select
from sqlmodel import Session

from quotas.amounts import hours_text
from quotas.errors import NotChargeable, SizeUnknown
from quotas.models import ChargingRule
from storage.tables import new_id, utcnow

CPU_CLASS = "cpu"
"""The GPU class of a job without GPU: no GPU class may have this name."""

_rules: Table = ChargingRule.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is counted: None where something is not. `id` is None where no rule was ever entered."""

    id: str | None = None
    partition: str = ""
    """Empty: every partition that has no rule of its own."""
    valid_from: datetime | None = None
    cpus_per_gpu: int | None = None
    """A GPU's share of CPUs."""
    memory_mib_per_gpu: int | None = None
    whole_nodes: bool = False
    """Every job has its nodes to itself, as on a partition with OverSubscribe=EXCLUSIVE."""
    gpus_per_node: int | None = None
    cpus_per_node: int | None = None
    memory_mib_per_node: int | None = None
    cpu_weight_thousandths: int | None = None
    """Credits a second of one CPU of a job without GPU; None: such jobs are refused."""


GPUS_ONLY = Rule()
"""Where no rule was ever entered: GPUs alone are counted, and a job without GPU has no price."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a job asks for or was given, over all its nodes. None where that is not known."""

    gpus: int
    cpus: int | None = None
    memory_mib: int | None = None
    nodes: int | None = 1
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """One thing that a rule counts, and the credits a second that it alone would come to."""

    credits_per_s: int
    text: str
    counts_as: str
    """In GPUs, or in CPUs where the job has no GPU; rounded up to the thousandth."""


def rate_credits_per_s(rule: Rule, size: Size, weight_thousandths: int) -> int:
    """Return what a job of this size counts, in credits a second.

    The weight is that of one GPU of the job's class; of one CPU where it has no GPU (`cpu_weight` of the
    rule for the award's side). A contract's leg comes from the same rule and size with the contract's weight.

    Raises:
        NotChargeable: the rule has no price for such a job.
        SizeUnknown: the rule counts something of which the number is not known.
    """
    return max(part.credits_per_s for part in counted(rule, size, weight_thousandths))


def counted(rule: Rule, size: Size, weight_thousandths: int) -> tuple[Counted, ...]:
    """Return everything that the rule counts of a job; the largest is what it costs.

    Raises:
        NotChargeable, SizeUnknown: as `rate_credits_per_s`.
    """
    if weight_thousandths < 0 or min(size.gpus, size.cpus or 0, size.memory_mib or 0, size.nodes or 0) < 0:
        raise ValueError("sizes and weights are never negative")
    given = _with_whole_nodes(rule, size)
    if given.gpus == 0:
        return _without_gpu(rule, given, weight_thousandths)
    parts = [_counted(_several(given.gpus, "GPU"), given.gpus, 1, weight_thousandths)]
    if rule.cpus_per_gpu is not None:
        cpus = _known(given.cpus, "CPUs")
        text = f"{_several(cpus, 'CPU')} at {rule.cpus_per_gpu} a GPU"
        parts.append(_counted(text, cpus, rule.cpus_per_gpu, weight_thousandths))
    if rule.memory_mib_per_gpu is not None:
        memory_mib = _known(given.memory_mib, "memory")
        text = f"{memory_text(memory_mib)} of memory at {memory_text(rule.memory_mib_per_gpu)} a GPU"
        parts.append(_counted(text, memory_mib, rule.memory_mib_per_gpu, weight_thousandths))
    return tuple(parts)


def is_whole(rule: Rule, *, exclusive: bool) -> bool:
    """Say whether a job has its nodes to itself."""
    return exclusive or rule.whole_nodes


def _with_whole_nodes(rule: Rule, size: Size) -> Size:
    """Raise a size to everything that its nodes hold, where nobody else may use them."""
    if not is_whole(rule, exclusive=size.exclusive):
        return size
    if size.gpus and rule.gpus_per_node is None:
        raise NotChargeable("no charging rule says how many GPUs a whole node has", "ask without --exclusive")
    if not size.gpus and rule.gpus_per_node is not None:
        raise NotChargeable("a job without GPU cannot have whole nodes that hold GPUs", "ask for GPUs: --gpus 1")
    if not size.gpus and rule.cpus_per_node is None:
        raise NotChargeable("no charging rule says how many CPUs a whole node has", "ask without --exclusive")
    nodes = _known(size.nodes, "nodes")
    return replace(
        size,
        gpus=max(size.gpus, nodes * (rule.gpus_per_node or 0)),
        cpus=_at_least(size.cpus, nodes, rule.cpus_per_node),
        memory_mib=_at_least(size.memory_mib, nodes, rule.memory_mib_per_node),
    )


def _at_least(amount: int | None, nodes: int, per_node: int | None) -> int | None:
    return amount if per_node is None else max(amount or 0, nodes * per_node)


def _without_gpu(rule: Rule, size: Size, weight: int) -> tuple[Counted, ...]:
    """Count CPUs, and memory over a CPU's part of a GPU's share, so that much memory on one CPU is not free."""
    if rule.cpu_weight_thousandths is None:
        raise NotChargeable("there is no rate for jobs without GPU", "ask for GPUs: --gpus 1")
    cpus = _known(size.cpus, "CPUs")
    parts = [_counted(_several(cpus, "CPU"), cpus, 1, weight)]
    if rule.cpus_per_gpu is not None and rule.memory_mib_per_gpu is not None:
        memory_mib = _known(size.memory_mib, "memory")
        share = f"{memory_text(rule.memory_mib_per_gpu)} for {_several(rule.cpus_per_gpu, 'CPU')}"
        text = f"{memory_text(memory_mib)} of memory at {share}"
        parts.append(_counted(text, memory_mib * rule.cpus_per_gpu, rule.memory_mib_per_gpu, weight))
    return tuple(parts)


def _known(amount: int | None, what: str) -> int:
    if amount is None:
        raise SizeUnknown(f"the charging rule counts {what}, and the job's are not known")
    return amount


def _counted(text: str, amount: int, share: int, weight: int) -> Counted:
    thousandths = -(-amount * 1000 // share)
    as_text = _decimal(thousandths)
    shown = text if share == 1 else f"{text} {'counts' if amount == 1 else 'count'} as {as_text}"
    return Counted(-(-amount * weight // share), shown, as_text)


def sum_lines(rule: Rule, size: Size, weight_thousandths: int, time_limit_s: int, kill_grace_s: int) -> list[str]:
    """Word the sum of a hold, a line for each thing counted and one for what comes of it.

    Raises:
        NotChargeable, SizeUnknown: as `rate_credits_per_s`.
    """
    parts = counted(rule, size, weight_thousandths)
    largest = max(parts, key=lambda part: part.credits_per_s)
    lines = [part.text for part in parts]
    if is_whole(rule, exclusive=size.exclusive):
        lines.insert(0, f"{_several(size.nodes or 0, 'whole node')} of {_node_text(rule)}")
    held = largest.credits_per_s * (time_limit_s + kill_grace_s)
    lines.append(
        f"{largest.counts_as} × weight {_decimal(weight_thousandths)} × ({time_limit_s} + {kill_grace_s}) s"
        f" = {hours_text(held)} ({largest.credits_per_s} credits a second)"
    )
    return lines


def _node_text(rule: Rule) -> str:
    figures = [_several(rule.gpus_per_node, "GPU")] if rule.gpus_per_node is not None else []
    if rule.cpus_per_node is not None:
        figures.append(_several(rule.cpus_per_node, "CPU"))
    if rule.memory_mib_per_node is not None:
        figures.append(memory_text(rule.memory_mib_per_node))
    return ", ".join(figures)


def memory_text(amount_mib: int) -> str:
    """Word an amount of memory: `90 GiB`, or MiB where that is no whole number of GiB."""
    whole, rest = divmod(amount_mib, 1024)
    return f"{amount_mib} MiB" if rest or not whole else f"{whole} GiB"


def _several(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _decimal(thousandths: int) -> str:
    whole, rest = divmod(thousandths, 1000)
    return f"{whole}.{rest:03}".rstrip("0").rstrip(".")


_columns = [
    _rules.c[name]
    for name in (
        "id", "partition", "valid_from", "cpus_per_gpu", "memory_mib_per_gpu", "whole_nodes", "gpus_per_node",
        "cpus_per_node", "memory_mib_per_node", "cpu_weight_thousandths",
    )
]  # fmt: skip
"""In the order of `Rule`'s fields."""


def _rule(row: Any) -> Rule:
    return Rule(*row[: len(_columns)])


def rules_in_force(connection: Connection, at: datetime) -> dict[tuple[str, str], Rule]:
    """Return the rules in force at a moment, by site id and partition."""
    wanted = select(*_columns, _rules.c.site_id).where(_rules.c.valid_from <= at).order_by(_rules.c.valid_from)
    return {(row.site_id, row.partition): _rule(row) for row in connection.execute(wanted)}


def rule_for(rules: Mapping[tuple[str, str], Rule], site_id: str, partition: str | None) -> Rule:
    """Return a partition's own rule, else the one for all partitions of the site, else `GPUS_ONLY`."""
    own = rules.get((site_id, partition or ""))
    return own or rules.get((site_id, "")) or GPUS_ONLY


def rule_at(connection: Connection, site_id: str, partition: str | None, at: datetime) -> Rule:
    """Return the rule in force for jobs of a site's partition at a moment."""
    return rule_for(rules_in_force(connection, at), site_id, partition)


def rules_by_id(connection: Connection, ids: Iterable[str | None]) -> dict[str | None, Rule]:
    """Return rules by id, with `GPUS_ONLY` under None: as they are frozen on jobs at their hold."""
    found: dict[str | None, Rule] = {None: GPUS_ONLY}
    named = sorted({id_ for id_ in ids if id_ is not None})
    if named:
        found |= {row.id: _rule(row) for row in connection.execute(select(*_columns).where(_rules.c.id.in_(named)))}
    return found


def enter_rule(session: Session, site_id: str, rule: Rule) -> ChargingRule:
    """Write a rule. What a node holds of CPUs and memory is its GPUs' (or CPUs') shares where nothing is said."""
    gpus = rule.gpus_per_node
    cpus_per_node = rule.cpus_per_node or _share(gpus, rule.cpus_per_gpu)
    memory_mib_per_node = rule.memory_mib_per_node or _share(gpus, rule.memory_mib_per_gpu)
    if memory_mib_per_node is None and rule.cpus_per_gpu and rule.memory_mib_per_gpu and cpus_per_node:
        memory_mib_per_node = cpus_per_node * rule.memory_mib_per_gpu // rule.cpus_per_gpu
    row = ChargingRule(
        id=new_id("rul"),
        site_id=site_id,
        partition=rule.partition,
        valid_from=rule.valid_from or utcnow(),
        cpus_per_gpu=rule.cpus_per_gpu,
        memory_mib_per_gpu=rule.memory_mib_per_gpu,
        whole_nodes=rule.whole_nodes,
        gpus_per_node=gpus,
        cpus_per_node=cpus_per_node,
        memory_mib_per_node=memory_mib_per_node,
        cpu_weight_thousandths=rule.cpu_weight_thousandths,
        created_at=utcnow(),
    )
    session.add(row)
    session.flush()
    return row


def _share(gpus: int | None, per_gpu: int | None) -> int | None:
    return None if gpus is None or per_gpu is None else gpus * per_gpu
