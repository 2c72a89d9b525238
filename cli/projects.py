"""Commands on projects and on who belongs to them."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.client import Row, connect, part
from cli.options import Json, projects_known
from cli.output import Column, as_json, listed, one_line, say
from cli.units import day, moment, moment_text

app = typer.Typer()
project = typer.Typer()
app.add_typer(project, name="project", help="Projects of organisations, and their members.")

Known = Annotated[str, typer.Argument(metavar="PROJECT", autocompletion=projects_known)]
Person = Annotated[str, typer.Argument(metavar="PERSON")]


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


class MemberRole(StrEnum):
    """What somebody is in a project."""

    LEAD = "lead"
    MEMBER = "member"
    VIEWER = "viewer"
    COACH = "coach"


@project.command("add")
def add_project(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits and hyphens.")],
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
    name: Known,
    person: Person,
    role: Annotated[
        MemberRole,
        typer.Option(help="A viewer reads all but submits nothing, a coach sees progress only."),
    ] = MemberRole.MEMBER,
    start: Annotated[str | None, typer.Option("--from", help="First day, in Paris. [default: now]")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last day, included. [default: none]")] = None,
    in_json: Json = False,
) -> None:
    """Let a person join a project. Its lead may do so too, in any role but lead.

    \b
    Example:
      idf-compute project join vision alice
      idf-compute project join vision bob --role coach --from 2026-09-01 --to 2026-12-31
    """
    body: Row = {"person": person, "role": role.value}
    if start is not None:
        body["from_on"] = str(day(start))
    if end is not None:
        body["to_on"] = str(day(end))
    joined = connect().post(f"/v1/projects/{part(name)}/members", body)
    say(as_json(joined) if in_json else _text(joined))


@project.command("leave")
def leave_project(
    name: Known,
    person: Person,
    on: Annotated[str | None, typer.Option(help="Last day, included. [default: at once]")] = None,
    in_json: Json = False,
) -> None:
    """End a person's part in a project; from then on they see nothing of it.

    \b
    Example:
      idf-compute project leave vision bob --on 2026-12-31
    """
    body = {"person": person} if on is None else {"person": person, "on": str(day(on))}
    left = connect().post(f"/v1/projects/{part(name)}/members/leave", body)
    say(as_json(left) if in_json else _text(left))


@project.command("members")
def list_members(
    name: Known,
    every: Annotated[bool, typer.Option("--all", "-a", help="Those who left, and those to come, too.")] = False,
    in_json: Json = False,
) -> None:
    """List who belongs to a project, and as what.

    \b
    Example:
      idf-compute project members vision --all
    """
    columns = (Column("PERSON"), Column("ROLE"), Column("FROM"), Column("UNTIL"), Column("NOW", spare=1))
    query = {"all": "true"} if every else {}
    items, _ = connect().pages(f"/v1/projects/{part(name)}/members", query)
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda m: [
            m["person"], m["role"], moment_text(m["start_at"]), moment_text(m["end_at"]), "yes" if m["holds"] else "no",
        ],
    )  # fmt: skip


def _text(member: Row) -> str:
    who = f"{one_line(member['person'])} is {one_line(member['role'])} of {one_line(member['project'])}"
    if member["end_at"] is None:
        return f"{who} from {moment_text(member['start_at'])} on"
    if moment(member["end_at"]) <= moment(member["start_at"]):
        return f"{one_line(member['person'])} will not be {one_line(member['role'])} of {one_line(member['project'])}"
    return f"{who} from {moment_text(member['start_at'])} until {moment_text(member['end_at'])}"
