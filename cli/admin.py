"""The programme manager's commands: organisations, programmes, projects, awards."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.client import connect, part
from cli.options import Json, Project, projects_known
from cli.output import Column, as_json, listed, one_line, say
from cli.units import credits_of_hours, day, duration_s, duration_text, first_day, hours_text, last_day

app = typer.Typer()
org, programme, project, award = typer.Typer(), typer.Typer(), typer.Typer(), typer.Typer()
app.add_typer(org, name="org", help="Organisations that are helped.")
app.add_typer(programme, name="programme", help="Programmes: policies with a budget.")
app.add_typer(project, name="project", help="Projects of organisations, and their members.")
app.add_typer(award, name="award", help="Awards of GPU-hours to projects.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits and hyphens.")]
FullName = Annotated[str | None, typer.Option("--full-name", help="The name as it is shown.")]


class Kind(StrEnum):
    """Kinds of programme."""

    PACK_IA = "pack-ia"
    CHALLENGE = "challenge"
    POOLED_DATA = "pooled-data"
    TRAINING = "training"
    OTHER = "other"


class Confidentiality(StrEnum):
    """Who may see a project's data."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"


class Nature(StrEnum):
    """What law a project's data falls under."""

    NONE = "none"
    PERSONAL = "personal"
    HEALTH = "health"


@org.command("add")
def add_org(
    name: Name,
    full_name: FullName = None,
    siret: Annotated[str | None, typer.Option(help="The establishment's SIRET, 14 digits.")] = None,
    in_json: Json = False,
) -> None:
    """Add an organisation.

    \b
    Example:
      idf-compute org add acme --full-name "Acme SAS" --siret 73282932000074
    """
    body = {"name": name, "full_name": full_name, "siret": siret.replace(" ", "") if siret else None}
    added = connect().post("/v1/organisations", body)
    say(as_json(added) if in_json else f"organisation {one_line(added['name'])} is added")


@org.command("list")
def list_orgs(in_json: Json = False) -> None:
    """List organisations.

    \b
    Example:
      idf-compute org list
    """
    columns = (Column("NAME"), Column("FULL NAME", shrinks=True), Column("SIRET"))
    items, _ = connect().pages("/v1/organisations")
    listed(items, in_json=in_json, columns=columns, rows=lambda o: [o["name"], o["full_name"], o["siret"]])


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


@project.command("add")
def add_project(
    name: Name,
    *,
    organisation: Annotated[str, typer.Option("--org", help="Whose project it is.")],
    of_programme: Annotated[str, typer.Option("--programme", help="The programme that it belongs to.")],
    confidentiality: Annotated[Confidentiality, typer.Option(help="Of its data.")] = Confidentiality.INTERNAL,
    nature: Annotated[Nature, typer.Option(help="Of its data.")] = Nature.NONE,
    in_json: Json = False,
) -> None:
    """Add a project of an organisation to a programme.

    \b
    Example:
      idf-compute project add vision --org acme --programme pack-ia-2026
    """
    names = {"name": name, "organisation": organisation, "programme": of_programme}
    data = {"confidentiality": confidentiality.value, "nature": nature.value}
    added = connect().post("/v1/projects", {**names, **data})
    say(as_json(added) if in_json else f"project {one_line(added['name'])} is added")


@project.command("list")
def list_projects(in_json: Json = False) -> None:
    """List the projects that you may see.

    \b
    Example:
      idf-compute project list
    """
    columns = (
        Column("NAME"), Column("ORGANISATION"), Column("PROGRAMME"), Column("DATA", spare=1),
        Column("MEMBERS", shrinks=True),
    )  # fmt: skip
    items, _ = connect().pages("/v1/projects")
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda p: [
            p["name"], p["organisation"], p["programme"], f"{p['confidentiality']}/{p['nature']}",
            ", ".join(p["members"]) or None,
        ],
    )  # fmt: skip


@project.command("join")
def join_project(
    name: Annotated[str, typer.Argument(metavar="PROJECT", autocompletion=projects_known)],
    person: Annotated[str, typer.Argument(metavar="PERSON")],
    in_json: Json = False,
) -> None:
    """Make a person a member of a project.

    \b
    Example:
      idf-compute project join vision alice
    """
    joined = connect().post(f"/v1/projects/{part(name)}/members", {"person": person})
    say(as_json(joined) if in_json else f"{one_line(person)} is a member of {one_line(joined['name'])}")


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
