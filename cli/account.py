"""The commands login, logout and whoami."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import config
from cli.client import Client, Row, connect
from cli.exits import Exit, Failure
from cli.options import Json
from cli.output import as_json, note, one_line, say

app = typer.Typer()
STDIN = "-"


@app.command()
def login(
    url: Annotated[str | None, typer.Option(help="The broker's address. [default: the one used before]")] = None,
    token_file: Annotated[
        str | None,
        typer.Option("--token-file", metavar="FILE|-", help="Read the token from a file or from stdin."),
    ] = None,
    in_json: Json = False,
) -> None:
    """Log in with a token: it is asked for unseen, tried, and kept in a file that only you may read.

    \b
    Example:
      idf-compute login --url https://broker.example
      idf-compute login --url https://broker.example --token-file alice.token
    """
    before = config.load_saved()
    address = url or config.named_url() or before.url
    if not address:
        raise Failure(Exit.USAGE, "the broker's address is missing", "give it with --url https://…")
    address = config.checked_url(address)
    token = _token(token_file)
    me = Client(address, token).get("/v1/me")
    file = config.save(before._replace(url=address, token=token))
    if in_json:
        say(as_json(me))
        return
    say(f"logged in at {address} as {_described(me)}")
    note(f"the token is kept in {one_line(file)}")


def _token(token_file: str | None) -> str:
    """Read the token from a file, from stdin, or hidden from the terminal; never from an argument."""
    from getpass import getpass

    if token_file and token_file != STDIN:
        return config.read_token(Path(token_file))
    if token_file == STDIN or not sys.stdin.isatty():
        return config.checked_token(sys.stdin.readline(1024))
    return config.checked_token(getpass("Token (not shown): "))


def _described(me: Row) -> str:
    person = me["person"]
    parts = ", ".join(f"{each['role']} of {each['project']}" for each in me["memberships"]) or "in no project"
    return one_line(f"{person['name']} ({', '.join(person['roles'])}), {parts}")


@app.command()
def logout(in_json: Json = False) -> None:
    """Forget the token on this machine. It stays valid elsewhere until it is revoked.

    \b
    Example:
      idf-compute logout
    """
    before = config.load_saved()
    if before.token:
        config.save(before._replace(token=None))
    text = "the token is forgotten here" if before.token else "you were not logged in"
    say(as_json({"was_logged_in": bool(before.token)}) if in_json else text)


@app.command()
def whoami(in_json: Json = False) -> None:
    """Say who you are to the broker, with which roles and projects.

    \b
    Example:
      idf-compute whoami
    """
    me = connect().get("/v1/me")
    address = config.load().url
    say(as_json({**me, "url": address}) if in_json else f"{_described(me)}\nat {address}")
