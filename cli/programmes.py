"""The programme manager's commands on programmes."""

from datetime import date
from enum import StrEnum
from typing import Annotated

import typer

from cli.client import connect
from cli.options import Json
from cli.output import Column, as_json, listed, one_line, say
from cli.units import credits_of_hours, day, duration_s, duration_text, hours_text

app = typer.Typer()
programme = typer.Typer()
app.add_typer(programme, name="programme", help="Programmes: policies with a budget.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits and hyphens.")]
From = Annotated[str | None, typer.Option("--from", help="The budget's first day. [default: 1 January]")]
To = Annotated[str | None, typer.Option("--to", help="Its last day, included. [default: 31 December]")]


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
    start: From = None,
    end: To = None,
    in_json: Json = False,
) -> None:
    """Open a programme with a budget of normalised GPU-hours.

    \b
    Example:
      idf-compute programme open pack-ia-2026 --kind pack-ia --budget 1000h
    """
    body = {"name": name, "kind": kind.value, "default_time_limit_s": duration_s(default_time)}
    budgets = [{**_days(start, end), "credits": credits_of_hours(budget)}]
    opened = connect().post("/v1/programmes", {**body, "budgets": budgets})
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
            p["name"], p["kind"], duration_text(p["policy"]["default_time_limit_s"]), hours_text(p["unawarded_credits"])
        ],
    )  # fmt: skip


def _days(start: str | None, end: str | None) -> dict[str, str]:
    """Give a budget's days: those of this calendar year unless given."""
    year = date.today().year
    return {
        "start_on": str(day(start)) if start else f"{year}-01-01",
        "end_on": str(day(end)) if end else f"{year}-12-31",
    }
