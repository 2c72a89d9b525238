"""The programme manager's commands on awards."""

from typing import Annotated

import typer

from cli import underuse
from cli.client import connect
from cli.options import Json, Project, projects_known
from cli.output import Column, as_json, listed, one_line, say
from cli.units import credits_of_hours, day, first_day, hours_text, last_day

app = typer.Typer()
award = typer.Typer()
app.add_typer(award, name="award", help="Awards of GPU-hours to projects.")
award.add_typer(underuse.award)


@award.command("grant")
def grant_award(
    to_project: Annotated[str, typer.Argument(metavar="PROJECT", autocompletion=projects_known)],
    hours: Annotated[str, typer.Argument(metavar="HOURS", help="Normalised GPU-hours: 100h, 1.5h.")],
    start: Annotated[str, typer.Option("--from", help="First day, in Paris.")],
    end: Annotated[str, typer.Option("--to", help="Last day, included.")],
    in_json: Json = False,
) -> None:
    """Grant normalised GPU-hours to a project between two days. One is 3,600,000 credits.

    \b
    Example:
      idf-compute award grant vision 100h --from 2026-01-01 --to 2026-06-30
    """
    body = {"project": to_project, "amount_credits": credits_of_hours(hours)}
    granted = connect().post("/v1/awards", {**body, "start_on": str(day(start)), "end_on": str(day(end))})
    amount = hours_text(granted["awarded_credits"])
    text = f"award {one_line(granted['id'])}: {amount}, until {last_day(granted['end_at'])}"
    say(as_json(granted) if in_json else text)


@award.command("list")
def list_awards(of_project: Project = None, in_json: Json = False) -> None:
    """List awards and what is left of them.

    \b
    Example:
      idf-compute award list --project vision
    """
    columns = (
        Column("ID"), Column("PROJECT", shrinks=True), Column("FROM", spare=2), Column("TO"),
        Column("AWARDED", right=True, spare=1), Column("LEFT", right=True),
        Column("HELD", right=True, spare=3),
    )  # fmt: skip
    items, _ = connect().pages("/v1/awards", {"project": of_project})
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda a: [
            a["id"], a["project"], str(first_day(a["start_at"])), str(last_day(a["end_at"])),
            *(hours_text(a[key]) for key in ("awarded_credits", "available_credits", "held_credits")),
        ],
    )  # fmt: skip
