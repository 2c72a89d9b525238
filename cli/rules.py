"""The operator's commands for charging rules: what the jobs of a site's partition count."""

from typing import Annotated

import typer

from cli.client import Row, connect
from cli.options import Json, sites_known
from cli.output import Column, as_json, listed, one_line, say
from cli.units import day, first_day, memory_mib, memory_text, paris_today, thousandths

app = typer.Typer()
rule = typer.Typer()
app.add_typer(rule, name="rule", help="Charging rules: what counts beside GPUs.")


@rule.command("add")
def add_rule(
    site: Annotated[str, typer.Argument(metavar="SITE", autocompletion=sites_known)],
    partition: Annotated[str, typer.Option(help="[default: all that have no rule of their own]")] = "",
    start: Annotated[str | None, typer.Option("--from", help="Valid from this day. [default: today]")] = None,
    cpus_per_gpu: Annotated[int | None, typer.Option(min=1, help="A GPU's share of CPUs; more count.")] = None,
    memory_per_gpu: Annotated[str | None, typer.Option(help="A GPU's share of memory: 90G.")] = None,
    whole_nodes: Annotated[bool, typer.Option("--whole-nodes", help="Every job has its nodes alone.")] = False,
    gpus_per_node: Annotated[int | None, typer.Option(min=1, help="What a whole node counts.")] = None,
    cpus_per_node: Annotated[int | None, typer.Option(min=1, help="[default: its GPUs' shares]")] = None,
    memory_per_node: Annotated[str | None, typer.Option(help="[default: its GPUs' shares]")] = None,
    cpu_weight: Annotated[str | None, typer.Option(help="One CPU of a job without GPU: 0.05. [default: none]")] = None,
    in_json: Json = False,
) -> None:
    """Say what jobs of a site count from a day on: the largest of GPUs, CPUs and memory over a GPU's share.

    Jobs held before that keep the rule of their hold. Without --cpu-weight jobs without GPU are refused.

    \b
    Example:
      idf-compute rule add jean-zay --partition gpu --cpus-per-gpu 10 --memory-per-gpu 90G
      idf-compute rule add jean-zay --from 2026-01-01 --gpus-per-node 4 --cpu-weight 0.05
    """
    figures = {
        "cpus_per_gpu": cpus_per_gpu,
        "memory_mib_per_gpu": memory_mib(memory_per_gpu) if memory_per_gpu else None,
        "gpus_per_node": gpus_per_node,
        "cpus_per_node": cpus_per_node,
        "memory_mib_per_node": memory_mib(memory_per_node) if memory_per_node else None,
        "cpu_weight_thousandths": thousandths(cpu_weight) if cpu_weight else None,
    }
    since = day(start) if start else paris_today()
    body: Row = {"site": site, "partition": partition, "valid_from": str(since), "whole_nodes": whole_nodes}
    added = connect().post("/v1/charging-rules", {**body, **{k: v for k, v in figures.items() if v is not None}})
    where = f"partition {one_line(added['partition'])} of site" if added["partition"] else "site"
    counted = one_line("; ".join(filter(None, (_shares(added), _node(added), _without_gpu(added)))))
    since_text = first_day(added["valid_from"])
    say(as_json(added) if in_json else f"{where} {one_line(added['site'])} counts from {since_text} on: {counted}")


@rule.command("list")
def list_rules(
    site: Annotated[str | None, typer.Argument(metavar="[SITE]", autocompletion=sites_known)] = None,
    in_json: Json = False,
) -> None:
    """List charging rules, those of the past included. Where there is none, GPUs alone are counted.

    \b
    Example:
      idf-compute rule list jean-zay
    """
    columns = (
        Column("SITE"), Column("PARTITION"), Column("FROM"), Column("A GPU'S SHARE", shrinks=True),
        Column("WHOLE NODES", spare=1, shrinks=True), Column("WITHOUT GPU"),
    )  # fmt: skip
    items, _ = connect().pages("/v1/charging-rules", {"site": site})
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda r: [
            r["site"], r["partition"] or "(others)", str(first_day(r["valid_from"])), _shares(r), _node(r) or None,
            _without_gpu(r),
        ],
    )  # fmt: skip


def _shares(found: Row) -> str:
    parts = [f"{found['cpus_per_gpu']} CPUs"] if found["cpus_per_gpu"] else []
    parts += [memory_text(found["memory_mib_per_gpu"])] if found["memory_mib_per_gpu"] else []
    return f"GPUs at {', '.join(parts)} each" if parts else "GPUs only"


def _node(found: Row) -> str:
    parts = [
        f"{found[f'{what}_per_node']} {what.upper()[:-1]}s" for what in ("gpus", "cpus") if found[f"{what}_per_node"]
    ]
    parts += [memory_text(found["memory_mib_per_node"])] if found["memory_mib_per_node"] else []
    when = "always whole nodes" if found["whole_nodes"] else "a whole node"
    return f"{when} of {', '.join(parts)}" if parts else ""


def _without_gpu(found: Row) -> str:
    weight = found["cpu_weight_thousandths"]
    return f"weight {weight / 1000:g} a CPU" if weight else "jobs without GPU refused"
