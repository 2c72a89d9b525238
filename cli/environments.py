"""Named environments: what sites offer to run in, entered by their operators; and three ready-made ones."""

from pathlib import Path
from typing import Annotated

import typer

from cli.client import Row, connect
from cli.exits import Exit, Failure
from cli.options import Json, sites_known
from cli.output import Column, as_json, listed, one_line, say

READY_MADE = Path(__file__).parent / "environments"
KEYS = ("about", "modules", "container")
app = typer.Typer()
env = typer.Typer()
app.add_typer(env, name="env", help="Environments that sites offer, for submit --env NAME.")
Site = Annotated[str, typer.Option("--site", help="Which site offers it.", autocompletion=sites_known)]


@env.command("list")
def list_environments(
    site: Annotated[str | None, typer.Option(help="Only of this site.", autocompletion=sites_known)] = None,
    in_json: Json = False,
) -> None:
    """List the environments that sites offer.

    \b
    Example:
      idf-compute env list --site jean-zay
    """
    columns = (Column("NAME"), Column("SITE"), Column("BRINGS", shrinks=True), Column("ABOUT", spare=1, shrinks=True))
    items, _ = connect().pages("/v1/environments", {"site": site})
    listed(items, in_json=in_json, columns=columns, rows=lambda e: [e["name"], e["site"], _brings(e), e["about"]])


@env.command("ready")
def ready_made(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print the example of this one.")] = None,
    in_json: Json = False,
) -> None:
    """List the ready-made environments, or print the script that shows how one is used.

    \b
    Example:
      idf-compute env ready
      idf-compute env ready pytorch > train.sh
    """
    if name is not None:
        text = example(name)
        say(as_json({"name": name, "example": text}) if in_json else text.rstrip("\n"))
        return
    items: list[Row] = [{"name": each, "about": read(each)["about"]} for each in names()]
    columns = (Column("NAME"), Column("ABOUT", shrinks=True))
    listed(items, in_json=in_json, columns=columns, rows=lambda e: [e["name"], e["about"]])


@env.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name; that of a ready-made one brings its text.")],
    site: Site,
    module: Annotated[list[str] | None, typer.Option(help="A module of the site; may be repeated.")] = None,
    container: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="An image there, or docker://…@sha256:…")
    ] = None,
    about: Annotated[str | None, typer.Option(help="What is in it, for those who choose.")] = None,
    file: Annotated[Path | None, typer.Option("--from", metavar="FILE.toml", help="about, modules, container.")] = None,
    in_json: Json = False,
) -> None:
    """Offer an environment at a site, or say anew what it is. Jobs keep what it was when they were submitted.

    \b
    Example:
      idf-compute env add pytorch --site jean-zay --module pytorch-gpu/py3/2.5.0
      idf-compute env add jax --site ovh --container /images/jax-0.4.sif
      idf-compute env add ours --site ovh --from ours.toml
    """
    body = {"site": site, "name": name, **(_of_file(file) if file else {})}
    typed = {"about": about, "modules": module, "container": container}
    body |= {key: value for key, value in typed.items() if value}
    if "about" not in body and name in names():
        body["about"] = read(name)["about"]
    if "about" not in body:
        raise Failure(Exit.USAGE, "an environment needs --about: what is in it", "env ready lists those with a text")
    added = connect().post("/v1/environments", body)
    say(as_json(added) if in_json else f"site {one_line(site)} offers {one_line(name)}: {one_line(_brings(added))}")


@env.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    site: Site,
    in_json: Json = False,
) -> None:
    """Offer an environment no longer. Jobs that were submitted with it keep it.

    \b
    Example:
      idf-compute env remove pytorch --site jean-zay
    """
    gone = connect().post("/v1/environments/remove", {"site": site, "name": name})
    say(as_json(gone) if in_json else f"site {one_line(site)} offers {one_line(name)} no longer")


def names() -> list[str]:
    """Give the names of the ready-made environments."""
    return sorted(file.stem for file in READY_MADE.glob("*.toml"))


def read(name: str) -> Row:
    """Give what is known of a ready-made environment. Raises Failure."""
    if name not in names():
        raise Failure(Exit.USAGE, f"there is no ready-made environment {name}", f"there are: {', '.join(names())}")
    return _parsed(READY_MADE / f"{name}.toml")


def example(name: str) -> str:
    """Give the script that shows how a ready-made environment is used. Raises Failure."""
    read(name)
    return (READY_MADE / f"{name}.sh").read_text(encoding="utf-8")


def _brings(environment: Row) -> str:
    parts = [f"module {name}" for name in environment["modules"]]
    return ", ".join([*parts, *([f"image {environment['container']}"] if environment["container"] else [])])


def _of_file(file: Path) -> Row:
    found = _parsed(file)
    unknown = sorted(set(found) - set(KEYS))
    if unknown:
        raise Failure(Exit.USAGE, f"{file}: nothing is called {', '.join(unknown)}", f"keys are: {', '.join(KEYS)}")
    return found


def _parsed(file: Path) -> Row:
    import tomllib

    try:
        with file.open("rb") as opened:
            return tomllib.load(opened)
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{file} is not valid TOML: {error}") from error
