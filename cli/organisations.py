"""The programme manager's commands on organisations and projects."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.client import connect, part
from cli.options import Json, projects_known
from cli.output import Column, as_json, listed, one_line, say

app = typer.Typer()
org, project = typer.Typer(), typer.Typer()
app.add_typer(org, name="org", help="Organisations that are helped.")
app.add_typer(project, name="project", help="Projects of organisations, and their members.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits and hyphens.")]
FullName = Annotated[str | None, typer.Option("--full-name", help="The name as it is shown.")]


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
