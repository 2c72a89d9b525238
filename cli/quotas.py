"""The command `quota`: what is left of each award, why a job would be refused, and ceilings."""

from enum import StrEnum
from typing import Annotated

import typer

from cli import quota_view
from cli.client import Row, connect
from cli.exits import Exit, Failure
from cli.options import Json, Project, sites_known
from cli.output import Column, as_json, listed, one_line, say
from cli.units import duration_s, duration_text, hours_text

app = typer.Typer()
group = typer.Typer(invoke_without_command=True)
app.add_typer(group, name="quota")


class Scope(StrEnum):
    """Whose use a ceiling bounds."""

    AWARD = "award"
    PROJECT = "project"
    PROGRAMME = "programme"
    SITE = "site"


class What(StrEnum):
    """What a ceiling bounds."""

    GPUS = "gpus-running"
    JOBS = "jobs-queued"
    BYTES = "bytes-stored"


ScopeOf = Annotated[Scope, typer.Argument(metavar="SCOPE", help="award, project, programme or site.")]
Owner = Annotated[str, typer.Argument(metavar="NAME", help="Its name; an award's id.")]
WhatOf = Annotated[What, typer.Argument(metavar="WHAT", help="gpus-running, jobs-queued or bytes-stored.")]


@group.callback()
def quota(context: typer.Context, project: Project = None, in_json: Json = False) -> None:
    """Show what is left of your awards, in normalised GPU-hours and in hours of each kind of GPU.

    \b
    Example:
      idf-compute quota --project vision
      idf-compute quota why --gpus 8 --time 24h
    """
    if context.invoked_subcommand is None:
        quota_view.quota(project, in_json)


@group.command("why")
def why(
    project: Project = None,
    award: Annotated[str | None, typer.Option(help="The award that should pay.")] = None,
    site: Annotated[str | None, typer.Option(help="At this site.", autocompletion=sites_known)] = None,
    gpus: Annotated[int, typer.Option(help="GPUs, over all nodes.")] = 1,
    gpu_class: Annotated[str | None, typer.Option("--gpu-class", help="[default: the smallest]")] = None,
    nodes: Annotated[int, typer.Option(help="Nodes.")] = 1,
    time: Annotated[str | None, typer.Option("--time", "-t", help="Time limit. [default: the programme's]")] = None,
    in_json: Json = False,
) -> int:
    """Say which budget, contract or ceiling would refuse a job of this size, and the smallest change that would pass.

    Nothing is submitted or held. Exits 3 where a submission would be refused.

    \b
    Example:
      idf-compute quota why --project vision --gpus 8 --time 24h
    """
    body: Row = {"project": project, "award": award, "site": site, "gpus": gpus, "nodes": nodes}
    body |= {"gpu_class": gpu_class, "smallest_gpu": gpu_class is None, "arguments": ["true"]}
    body["time_limit_s"] = duration_s(time) if time else None
    answer = connect().post("/v1/quota/why", body)
    if in_json:
        say(as_json(answer))
    elif answer["passes"]:
        _passes(answer["plan"])
    else:
        say(f"It would be refused ({one_line(answer['code'])}): {one_line(answer['detail'])}.")
        say(f"What would pass: {one_line(answer['remedy'])}" if answer["remedy"] else "Nothing smaller would pass.")
    return Exit.OK if answer["passes"] else Exit.REFUSED


def _passes(plan: Row) -> None:
    size = f"{plan['gpus']} × {one_line(plan['gpu_class'])} for {duration_text(plan['time_limit_s'])}"
    say(f"It would pass: {size} at {one_line(plan['site'])}.")
    held, available = hours_text(plan["held_credits"]), hours_text(plan["available_credits"])
    say(f"It would hold {held} of the {available} available of award {one_line(plan['award'])},")
    say(f"with the capacity of contract {one_line(plan['contract'])}.")


@group.command("set")
def set_ceiling(
    scope: ScopeOf,
    name: Owner,
    what: WhatOf,
    amount: Annotated[int, typer.Argument(metavar="AMOUNT", help="GPUs, jobs or bytes at one time.", min=0)],
    in_json: Json = False,
) -> None:
    """Set the most that an award, a project, a programme or a site may have in use at one time.

    A job above it waits (GPUs) or is refused (jobs that wait); what runs already goes on.

    \b
    Example:
      idf-compute quota set project vision gpus-running 16
    """
    _change(scope, name, what, amount, in_json=in_json)


@group.command("lift")
def lift_ceiling(scope: ScopeOf, name: Owner, what: WhatOf, in_json: Json = False) -> None:
    """Take a ceiling away.

    \b
    Example:
      idf-compute quota lift project vision gpus-running
    """
    _change(scope, name, what, None, in_json=in_json)


def _change(scope: Scope, name: str, what: What, amount: int | None, *, in_json: bool) -> None:
    if amount is not None and amount < 0:
        raise Failure(Exit.USAGE, "a ceiling is not below zero", "give 0 or more, or lift it")
    body = {"scope": scope.value, "name": name, "what": what.value.replace("-", "_"), "amount": amount}
    answer = connect().post("/v1/ceilings", body)
    bound = "has no ceiling any more" if amount is None else f"may have at most {amount}"
    say(as_json(answer) if in_json else f"{scope.value} {one_line(name)} {bound}: {what.value}")


@group.command("limits")
def list_ceilings(in_json: Json = False) -> None:
    """List all ceilings and what is in use under them.

    \b
    Example:
      idf-compute quota limits
    """
    columns = (
        Column("SCOPE"), Column("NAME", shrinks=True), Column("WHAT"), Column("CEILING", right=True),
        Column("IN USE", right=True),
    )  # fmt: skip
    items, _ = connect().pages("/v1/ceilings")
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda c: [
            c["scope"], c["name"], c["what"].replace("_", "-"), c["amount"],
            "unknown" if c["in_use"] is None else c["in_use"],
        ],
    )  # fmt: skip
