"""The programme manager's commands on programmes."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.client import connect
from cli.options import Json
from cli.output import Column, as_json, listed, one_line, say
from cli.units import credits_of_hours, duration_s, duration_text, hours_text

app = typer.Typer()
programme = typer.Typer()
app.add_typer(programme, name="programme", help="Programmes: policies with a budget.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits and hyphens.")]


class Kind(StrEnum):
    """Kinds of programme."""

    PACK_IA = "pack-ia"
    CHALLENGE = "challenge"
    POOLED_DATA = "pooled-data"
    TRAINING = "training"
    OTHER = "other"


@programme.command("open")
def open_programme(
    name: Name,
    budget: Annotated[str, typer.Option(help="Normalised GPU-hours: 1000h.")],
    kind: Annotated[Kind, typer.Option(help="What it is for.")] = Kind.OTHER,
    default_time: Annotated[str, typer.Option(help="A job's time limit if it names none.")] = "1:00:00",
    in_json: Json = False,
) -> None:
    """Open a programme with a budget of normalised GPU-hours.

    \b
    Example:
      idf-compute programme open pack-ia-2026 --kind pack-ia --budget 1000h
    """
    body = {"name": name, "kind": kind.value, "budget_credits": credits_of_hours(budget)}
    opened = connect().post("/v1/programmes", {**body, "default_time_limit_s": duration_s(default_time)})
    left = hours_text(opened["unawarded_credits"])
    say(as_json(opened) if in_json else f"programme {one_line(opened['name'])} is open with {left} to award")


@programme.command("list")
def list_programmes(in_json: Json = False) -> None:
    """List programmes and what is left to award.

    \b
    Example:
      idf-compute programme list
    """
    columns = (
        Column("NAME"),
        Column("KIND"),
        Column("DEFAULT TIME", right=True),
        Column("TO AWARD", right=True),
    )
    items, _ = connect().pages("/v1/programmes")
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda p: [
            p["name"], p["kind"], duration_text(p["default_time_limit_s"]), hours_text(p["unawarded_credits"])
        ],
    )  # fmt: skip
