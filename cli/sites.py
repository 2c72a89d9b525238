"""The operator's commands: sites and GPU classes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cli.client import Row, connect, part
from cli.exits import Exit, Failure
from cli.options import Json, classes_known, sites_known
from cli.output import Column, as_json, listed, note, one_line, say
from cli.units import day, first_day, moment_text, paris_today, thousandths

AUDIT_S = 900
"""An audit waits for jobs of its own in the site's queue (adapters/slurm/upkeep.py)."""

app = typer.Typer()
site, gpu_class = typer.Typer(), typer.Typer()
app.add_typer(site, name="site", help="Sites that jobs run on.")
app.add_typer(gpu_class, name="class", help="GPU classes and their weights.")


@site.command("enrol")
def enrol_site(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="How the broker reaches the site.")],
    transport: Annotated[
        str | None, typer.Option(metavar="ssh|rest|pyslurm", help="What jobs are sent by, whatever the file says.")
    ] = None,
    rest_url: Annotated[
        str | None, typer.Option("--rest-url", metavar="URL", help="slurmrestd's address, for --transport rest.")
    ] = None,
    in_json: Json = False,
) -> int:
    """Enrol a site as a TOML file describes it; files that it names lie on the broker's machine.

    It is audited first, and two of its project accounts try to cross into each other: that takes some 20 s, or longer
    where the queue is. Exits 3 on problems: no job is sent there while one stands.

    \b
    Example:
      idf-compute site enrol jean-zay.toml
      idf-compute site enrol ovh-pool.toml
      idf-compute site enrol teratec.toml --transport rest --rest-url https://slurm.example:6820
    """
    chosen = {"transport": transport, "rest_url": rest_url}
    description = _description(file) | {key: value for key, value in chosen.items() if value is not None}
    client = connect(AUDIT_S)
    with _auditing(description.get("name", file.stem)):
        answer = client.post("/v1/sites", description)
    return _told(answer, "is enrolled", in_json=in_json)


@contextmanager
def _auditing(name: object) -> Iterator[None]:
    """Tell that an audit is under way, with its time on a terminal."""
    doing = f"auditing {one_line(name)}: some 20 s, longer where its queue is"
    if not sys.stderr.isatty():
        note(doing)
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(doing)
        yield


def _description(file: Path) -> Row:
    import tomllib

    try:
        with file.open("rb") as opened:
            return tomllib.load(opened)
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{file} is not valid TOML: {error}") from error


@site.command("set")
def change_site(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="All that is known of the site now.")],
    in_json: Json = False,
) -> int:
    """Change an enrolled site as its file now describes it; it is audited as at its enrolment.

    Refused while jobs or accounts stand on what would go. What was found is what `site enrol` would have found.

    \b
    Example:
      idf-compute site set jean-zay.toml
    """
    description, client = _description(file), connect(AUDIT_S)
    name = description.get("name")
    if not isinstance(name, str):
        raise Failure(Exit.USAGE, f"{file} does not say which site it describes", 'name = "…"')
    with _auditing(name):
        answer = client.post(f"/v1/sites/{part(name)}/settings", description)
    return _told(answer, "is changed", in_json=in_json)


@site.command("list")
def list_sites(in_json: Json = False) -> None:
    """List sites, their GPUs and problems.

    \b
    Example:
      idf-compute site list
    """
    columns = (
        Column("NAME"), Column("KIND", spare=2), Column("ISOLATION", spare=1), Column("GPUS", shrinks=True),
        Column("FREE ACCOUNTS", right=True, spare=3), Column("CHECKED", spare=4),
        Column("PROBLEMS", right=True),
    )  # fmt: skip
    items, _ = connect().pages("/v1/sites")
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda s: [
            s["name"], s["kind"], s["isolation"], ", ".join(s["gpu_types"]),
            "any" if s["free_accounts"] is None else s["free_accounts"],
            moment_text(s["checked_at"]), len(s["problems"]) if s["checked_at"] else "unknown",
        ],
    )  # fmt: skip


@site.command("doctor")
def examine_site(
    name: Annotated[str, typer.Argument(metavar="SITE", autocompletion=sites_known)],
    last: Annotated[bool, typer.Option("--last", help="What was found last; the site is not asked.")] = False,
    in_json: Json = False,
) -> int:
    """Audit a site anew, as at its enrolment, and say what to change. Exits 3 on problems.

    \b
    Example:
      idf-compute site doctor jean-zay
      idf-compute site doctor jean-zay --last --json
    """
    if last:
        return _told(connect().get(f"/v1/sites/{part(name)}/audit"), "was audited", in_json=in_json)
    client = connect(AUDIT_S)
    with _auditing(name):
        answer = client.post(f"/v1/sites/{part(name)}/check")
    return _told(answer, "is audited", in_json=in_json)


def _told(answer: Row, what: str, *, in_json: bool) -> int:
    problems = [found for found in answer["findings"] if found["severity"] == "problem"]
    if in_json:
        say(as_json(answer))
        return Exit.REFUSED if problems else Exit.OK
    scheduler = f", {one_line(answer['scheduler'])}" if answer["scheduler"] else ""
    proven = f", proven on {moment_text(answer['proven_at'])}" if answer["proven_at"] else ""
    say(f"site {one_line(answer['name'])} {what}{scheduler}, isolation {one_line(answer['isolation'])}{proven}")
    advice = [found for found in answer["findings"] if found["severity"] != "problem"]
    for found in [*problems, *advice]:
        note(f"{one_line(found['severity'])}: {one_line(found['sentence'])} [{one_line(found['code'])}]")
        note(f"  what to change: {one_line(found['remedy'])}")
    if problems:
        note(
            f"then: idf-compute site doctor {one_line(answer['name'])}; or site set FILE.toml where the file was wrong"
        )
    return Exit.REFUSED if problems else Exit.OK


@site.command("accounts")
def list_accounts(
    name: Annotated[str, typer.Argument(metavar="SITE", autocompletion=sites_known)], in_json: Json = False
) -> None:
    """List the accounts of a site's pool that projects have; all others are free.

    \b
    Example:
      idf-compute site accounts jean-zay
    """
    columns = (
        Column("ACCOUNT"), Column("PROJECT", shrinks=True), Column("STATE"), Column("TAKEN", spare=2),
        Column("GPU-HOURS AT MOST", right=True, spare=1), Column("TROUBLE", shrinks=True),
    )  # fmt: skip
    items, _ = connect().pages(f"/v1/sites/{part(name)}/accounts")
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda a: [
            a["account"], a["project"], a["state"], moment_text(a["taken_at"]), _hours(a["gpu_minutes_max"]),
            a["trouble"],
        ],
    )  # fmt: skip


def _hours(minutes: int | None) -> str | None:
    return None if minutes is None else f"{minutes / 60:.1f}"


@gpu_class.command("add")
def add_class(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as h100-80 or h100-80.1g.10gb.")],
    weight: Annotated[str, typer.Option(help="Against the V100, which is 1: 2.5. At most three decimals.")],
    start: Annotated[str | None, typer.Option("--from", help="Valid from this day. [default: today]")] = None,
    in_json: Json = False,
) -> None:
    """Add a GPU class with its weight, or a new weight from a day on.

    \b
    Example:
      idf-compute class add h100-80 --weight 4 --from 2026-01-01
    """
    since = day(start) if start else paris_today()
    body = {"name": name, "weight_thousandths": thousandths(weight), "valid_from": str(since)}
    added = connect().post("/v1/gpu-classes", body)
    weighted = added["weight_thousandths"] / 1000
    say(as_json(added) if in_json else f"GPU class {one_line(added['name'])} has weight {weighted:g}")


@gpu_class.command("list")
def list_classes(in_json: Json = False) -> None:
    """List GPU classes as they are weighted today.

    \b
    Example:
      idf-compute class list
    """
    columns = (Column("NAME"), Column("WEIGHT", right=True), Column("VALID FROM"))
    items, _ = connect().pages("/v1/gpu-classes")
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda c: [c["name"], f"{c['weight_thousandths'] / 1000:g}", moment_text(c["valid_from"])],
    )


@gpu_class.command("history")
def class_history(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=classes_known)], in_json: Json = False
) -> None:
    """List all weights of a GPU class, past and to come. A hold keeps the weight of its moment.

    \b
    Example:
      idf-compute class history h100-80
    """
    items, _ = connect().pages("/v1/gpu-classes/history", {"name": name})
    listed(
        items,
        in_json=in_json,
        columns=(Column("VALID FROM"), Column("WEIGHT", right=True)),
        rows=lambda c: [str(first_day(c["valid_from"])), f"{c['weight_thousandths'] / 1000:g}"],
    )
