"""Commands about people and their tokens."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.client import connect, part
from cli.exits import Exit, Failure
from cli.options import Json
from cli.output import Column, as_json, listed, note, one_line, say
from cli.units import moment_text

app = typer.Typer()
person, token = typer.Typer(), typer.Typer()
app.add_typer(person, name="person", help="People who may use the broker.")
app.add_typer(token, name="token", help="Tokens that people log in with.")


class Role(StrEnum):
    """What somebody may do."""

    ENGINEER = "engineer"
    MANAGER = "manager"
    OPERATOR = "operator"
    AUDITOR = "auditor"


class Erasable(StrEnum):
    """What may be erased of a person."""

    FULL_NAME = "full-name"
    EMAIL = "email"


@person.command("add")
def add_person(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits and hyphens.")],
    full_name: Annotated[str | None, typer.Option("--full-name", help="The name as it is shown.")] = None,
    email: Annotated[str | None, typer.Option(help="Where notices go.")] = None,
    role: Annotated[list[Role] | None, typer.Option("--role", help="May be repeated. [default: engineer]")] = None,
    in_json: Json = False,
) -> None:
    """Add a person.

    \b
    Example:
      idf-compute person add alice --full-name "Alice Martin" --email alice@example.fr
    """
    roles = [each.value for each in role or [Role.ENGINEER]]
    given = {} if email is None else {"email": email}
    added = connect().post("/v1/persons", {"name": name, "full_name": full_name, "roles": roles, **given})
    say(as_json(added) if in_json else f"{one_line(added['name'])} is added as {', '.join(added['roles'])}")


@person.command("set")
def set_person(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Yourself; an operator may name anybody.")],
    full_name: Annotated[str | None, typer.Option("--full-name", help="The name as it is shown.")] = None,
    email: Annotated[str | None, typer.Option(help="Where notices go.")] = None,
    clear: Annotated[list[Erasable] | None, typer.Option("--clear", help="Erase; may be repeated.")] = None,
    in_json: Json = False,
) -> None:
    """Change or erase a full name or an address of mail; what is not named stays as it is.

    \b
    Example:
      idf-compute person set alice --email alice@example.fr
      idf-compute person set alice --clear email --clear full-name
    """
    given = {key: value for key, value in (("full_name", full_name), ("email", email)) if value is not None}
    cleared = [each.value.replace("-", "_") for each in clear or []]
    changed = connect().post(f"/v1/persons/{part(name)}", {**given, "clear": cleared})
    say(as_json(changed) if in_json else f"{one_line(changed['name'])} is changed")


@person.command("list")
def list_persons(in_json: Json = False) -> None:
    """List people and their roles.

    \b
    Example:
      idf-compute person list
    """
    columns = (
        Column("NAME"), Column("FULL NAME", shrinks=True), Column("ROLES"), Column("EMAIL", spare=2),
        Column("SINCE", spare=1),
    )  # fmt: skip
    items, _ = connect().pages("/v1/persons")
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda p: [
            p["name"], p["full_name"], ", ".join(p["roles"]), p["email"], moment_text(p["created_at"])
        ],
    )  # fmt: skip


@token.command("issue")
def issue_token(
    person_name: Annotated[str, typer.Argument(metavar="PERSON")],
    label: Annotated[str, typer.Option(help="What it is for.")] = "token",
    days: Annotated[int, typer.Option(min=1, max=3650, help="For how long it is valid.")] = 365,
    save_to: Annotated[Path | None, typer.Option("--save-to", help="A new file for it, 0600.")] = None,
    in_json: Json = False,
) -> None:
    """Issue a token. It is shown this once; with --save-to it is written to a file and not shown.

    \b
    Example:
      idf-compute token issue alice --days 180 --save-to alice.token
    """
    if save_to is not None and (save_to.exists() or not save_to.parent.is_dir()):
        raise Failure(Exit.USAGE, f"{save_to} cannot be made", "name a new file in a folder that is there")
    issued = connect().post("/v1/tokens", {"person": person_name, "label": label, "days": days})
    secret = str(issued["token"])
    if save_to is not None:
        _write(save_to, secret)
        issued = {**issued, "token": None, "saved_to": str(save_to)}
    if in_json:
        say(as_json(issued))
        return
    where = "it is shown this once" if save_to is None else f"it is in {save_to}"
    until = moment_text(issued["expires_at"])
    note(f"token {one_line(issued['id'])} for {one_line(person_name)}, until {until}; {where}")
    if save_to is None:
        say(secret)


def _write(file: Path, secret: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(f"{secret}\n")


@token.command("list")
def list_tokens(in_json: Json = False) -> None:
    """List tokens, without their secrets.

    \b
    Example:
      idf-compute token list
    """
    columns = (
        Column("ID"), Column("PERSON"), Column("LABEL", shrinks=True), Column("EXPIRES"),
        Column("REVOKED", spare=1),
    )  # fmt: skip
    items, _ = connect().pages("/v1/tokens")
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda t: [
            t["id"], t["person"], t["label"], moment_text(t["expires_at"]), moment_text(t["revoked_at"])
        ],
    )  # fmt: skip


@token.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As token list shows it.")],
    in_json: Json = False,
) -> None:
    """Revoke a token at once.

    \b
    Example:
      idf-compute token revoke 01JD3X8N5E
    """
    revoked = connect().post(f"/v1/tokens/{part(token_id)}/revoke")
    say(as_json(revoked) if in_json else f"token {one_line(revoked['id'])} is revoked")
