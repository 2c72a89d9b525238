"""The programme manager's commands on programmes."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli import programme_file
from cli.client import Client, Query, Row, connect, part
from cli.exits import Exit, Failure
from cli.options import Json, classes_known, programmes_known, projects_known, sites_known
from cli.output import Column, as_json, listed, note, one_line, say, table
from cli.programme_views import can_award as show_answer
from cli.programme_views import change_text, shares_text, show
from cli.units import credits_of_hours, day, duration_s, first_day, hours_text, last_day, paris_today

app = typer.Typer()
programme = typer.Typer()
app.add_typer(programme, name="programme", help="Programmes: policies with a budget.")

NewName = Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits and hyphens.")]
Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=programmes_known)]
From = Annotated[str | None, typer.Option("--from", help="The budget's first day. [default: 1 January]")]
To = Annotated[str | None, typer.Option("--to", help="Its last day, included. [default: 31 December]")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
File = Annotated[Path, typer.Argument(metavar="FILE.toml", help="`programme template` prints one to begin with.")]


def _templates_known(incomplete: str) -> list[tuple[str, str]]:
    return [known for known in programme_file.templates().items() if known[0].startswith(incomplete)]


class Kind(StrEnum):
    """Kinds of programme."""

    PACK_IA = "pack-ia"
    CHALLENGE = "challenge"
    POOLED_DATA = "pooled-data"
    TRAINING = "training"
    OTHER = "other"


@programme.command("open")
def open_programme(
    name: NewName,
    budget: Annotated[str, typer.Option(help="Normalised GPU-hours: 1000h.")],
    kind: Annotated[Kind, typer.Option(help="What it is for.")] = Kind.OTHER,
    default_time: Annotated[str, typer.Option(help="A job's time limit if it names none.")] = "1:00:00",
    start: From = None,
    end: To = None,
    in_json: Json = False,
) -> None:
    """Open a programme with a budget and few rules: the short way, all paid by the Region, no State aid.

    \b
    Example:
      idf-compute programme open pack-ia-2026 --kind pack-ia --budget 1000h
    """
    body = {"name": name, "kind": kind.value, "default_time_limit_s": duration_s(default_time)}
    _open({**body, "budgets": [_budget(budget, start, end)]}, in_json=in_json)


@programme.command("create")
def create_programme(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE.toml]", help="The programme as a file.")] = None,
    template: Annotated[str | None, typer.Option(help="Take this ready-made file: `programme templates`.")] = None,
    name: Annotated[str | None, typer.Option(help="Its name, where the file gives none.")] = None,
    budget: Annotated[str | None, typer.Option(help="Normalised GPU-hours, where the file gives none.")] = None,
    start: From = None,
    end: To = None,
    in_json: Json = False,
) -> None:
    """Open a programme as a TOML file describes it: rules, budgets, who pays.

    \b
    Example:
      idf-compute programme create pack-ia-2027.toml
      idf-compute programme create --template pack-ia --name pack-ia-2027 --budget 20000h
    """
    if (file is None) == (template is None):
        raise Failure(Exit.USAGE, "a programme is created from a file or from a template", "give one of them")
    body = programme_file.read(file) if file else _from_template(str(template))
    if name and body.get("name", name) != name:
        raise Failure(Exit.USAGE, f"the file names it {body['name']}, --name {name}", "leave one of them out")
    if not name and "name" not in body:
        raise Failure(Exit.USAGE, "the programme has no name", 'give --name, or write name = "…" in the file')
    if budget and body["budgets"]:
        raise Failure(Exit.USAGE, "the file has budgets already", "leave --budget out, or [[budget]]")
    budgets = [_budget(budget, start, end)] if budget else body["budgets"]
    _open({**body, "name": name or body["name"], "budgets": budgets}, in_json=in_json)


@programme.command("templates")
def list_templates(in_json: Json = False) -> None:
    """List the ready-made files, one for each kind of programme of the Region's plan.

    \b
    Example:
      idf-compute programme templates
    """
    items: list[Row] = [{"name": name, "about": about} for name, about in programme_file.templates().items()]
    columns = (Column("NAME"), Column("ABOUT", shrinks=True))
    listed(items, in_json=in_json, columns=columns, rows=lambda item: [item["name"], item["about"]])


@programme.command("template")
def print_template(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=_templates_known)], in_json: Json = False
) -> None:
    """Print a ready-made file, to be changed and given to `programme create`.

    \b
    Example:
      idf-compute programme template pack-ia > pack-ia-2027.toml
    """
    text = programme_file.template(name)
    say(as_json({"name": name, "text": text}) if in_json else text.removesuffix("\n"))


@programme.command("show")
def show_programme(name: Name, in_json: Json = False) -> None:
    """Show a programme: its rules in words, its budgets with what is left, who pays.

    \b
    Example:
      idf-compute programme show pack-ia-2027
    """
    found = connect().get(f"/v1/programmes/{part(name)}")
    if in_json:
        say(as_json(found))
    else:
        show(found)


@programme.command("set")
def set_policy(name: Name, file: File, yes: Yes = False, in_json: Json = False) -> None:
    """Put a file's rules in force from now on; shows what changes and asks first.

    A key that the file leaves out goes back to its default. The rules until now are kept as history.

    \b
    Example:
      idf-compute programme set pack-ia-2027 pack-ia-2027.toml
    """
    import sys

    body = programme_file.read(file)
    if body.pop("name", name) != name:
        raise Failure(Exit.USAGE, f"{file} is of another programme than {name}", "correct its name")
    if body.pop("budgets") + body.pop("shares"):
        note("budgets and shares are left as they are: see `programme fund` and `programme shares`")
    client = connect()
    changes = client.post(f"/v1/programmes/{part(name)}/policy/plan", body)["changes"]
    for change in changes:
        note(one_line(change_text(change)))
    if not changes:
        note("nothing changes")
    elif not yes:
        if not sys.stdin.isatty():
            raise Failure(Exit.USAGE, "nobody is there to be asked, nothing was changed", "give --yes")
        if not typer.confirm("Put this in force?", err=True):
            note("nothing was changed")
            return
    _tell_policy(client, name, body if changes else None, in_json=in_json)


@programme.command("fund")
def fund_programme(
    name: Name,
    hours: Annotated[str, typer.Argument(metavar="HOURS", help="Normalised GPU-hours: 5000h.")],
    start: Annotated[str, typer.Option("--from", help="First day, in Paris.")],
    end: Annotated[str, typer.Option("--to", help="Last day, included.")],
    in_json: Json = False,
) -> None:
    """Give a programme a further budget, for awards that begin within its days; the same days again add to it.

    \b
    Example:
      idf-compute programme fund pack-ia-2027 5000h --from 2028-01-01 --to 2028-12-31
    """
    wanted = _budget(hours, start, end)
    funded = connect().post(f"/v1/programmes/{part(name)}/budgets", wanted)
    text = f"programme {one_line(name)} has {hours_text(wanted['credits'])} more from {start} to {end}"
    say(as_json(funded) if in_json else text)


@programme.command("shares")
def change_shares(
    name: Name,
    start: Annotated[str, typer.Option("--from", help="First day, in Paris; it must be to come.")],
    region: Annotated[int, typer.Option(min=0, max=1000, help="The Region's thousandths.")] = 0,
    company: Annotated[int, typer.Option(min=0, max=1000, help="The company's.")] = 0,
    partner: Annotated[int, typer.Option(min=0, max=1000, help="A partner's.")] = 0,
    in_json: Json = False,
) -> None:
    """Change who pays which share of each charge, in thousandths that make 1000, from a day on.

    \b
    Example:
      idf-compute programme shares pack-ia-2027 --from 2027-07-01 --region 500 --company 500
    """
    parts = {"region_thousandths": region, "company_thousandths": company, "partner_thousandths": partner}
    changed = connect().post(f"/v1/programmes/{part(name)}/shares", {"valid_from": str(day(start)), **parts})
    if in_json:
        say(as_json(changed))
    else:
        table([Column(f"WHO PAYS IN {one_line(name)}")], [[shares_text(shares)] for shares in changed["shares"]])


@programme.command("can-award")
def can_award(
    hours: Annotated[str, typer.Argument(metavar="HOURS", help="Normalised GPU-hours: 5000h.")],
    of: Annotated[str | None, typer.Option("--programme", autocompletion=programmes_known, help="Out of it.")] = None,
    project: Annotated[
        str | None, typer.Option("-p", "--project", autocompletion=projects_known, help="To it.")
    ] = None,
    site: Annotated[str | None, typer.Option(autocompletion=sites_known, help="Capacity of this site only.")] = None,
    gpu_class: Annotated[str | None, typer.Option(autocompletion=classes_known, help="Of this class only.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="First day, in Paris. [default: today]")] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Last day. [default: the policy's longest, else 12 months]")
    ] = None,
    in_json: Json = False,
) -> int:
    """Say whether hours can still be awarded, from policy, budgets, holds and contracts, and which of them binds.

    Exits 0 for yes and 3 for no.

    \b
    Example:
      idf-compute programme can-award 5000h
      idf-compute programme can-award 5000h --programme pack-ia-2027 --site jean-zay
    """
    query: Query = {
        "amount_credits": credits_of_hours(hours), "programme": of, "project": project, "site": site,
        "gpu_class": gpu_class, "start_on": start and str(day(start)), "end_on": end and str(day(end)),
    }  # fmt: skip
    answer = connect().get("/v1/can-award", query)
    if in_json:
        say(as_json(answer))
    else:
        show_answer(answer)
    return Exit.OK if answer["can_award"] else Exit.REFUSED


@programme.command("list")
def list_programmes(in_json: Json = False) -> None:
    """List programmes and what is left to award today.

    \b
    Example:
      idf-compute programme list
    """
    columns = (
        Column("NAME"), Column("KIND"), Column("AID", spare=1), Column("BUDGETS", right=True, spare=2),
        Column("TO AWARD NOW", right=True),
    )  # fmt: skip
    items, _ = connect().pages("/v1/programmes")
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda p: [
            p["name"], p["kind"], p["policy"]["regime"], len(p["budgets"]),
            "no budget today" if p["unawarded_credits"] is None else hours_text(p["unawarded_credits"]),
        ],
    )  # fmt: skip


def _from_template(name: str) -> Row:
    return programme_file.parsed(programme_file.template(name).encode(), f"template {name}")


def _open(body: Row, *, in_json: bool) -> None:
    opened = connect().post("/v1/programmes", body)
    if in_json:
        say(as_json(opened))
        return
    parts = [
        f"{hours_text(b['unawarded_credits'])} to award from {first_day(b['start_at'])} to {last_day(b['end_at'])}"
        for b in opened["budgets"]
    ]
    say(f"programme {one_line(opened['name'])} is open with {', '.join(parts) or 'no budget yet'}")
    if not opened["budgets"]:
        note(f"fund it with: idf-compute programme fund {one_line(opened['name'])} HOURS --from … --to …")


def _budget(hours: str, start: str | None, end: str | None) -> Row:
    """Give a budget: of this calendar year unless days are given."""
    year = paris_today().year
    return {
        "start_on": str(day(start)) if start else f"{year}-01-01",
        "end_on": str(day(end)) if end else f"{year}-12-31",
        "credits": credits_of_hours(hours),
    }


def _tell_policy(client: Client, name: str, body: Row | None, *, in_json: bool) -> None:
    path = f"/v1/programmes/{part(name)}"
    found = client.get(path) if body is None else client.post(f"{path}/policy", body)
    text = f"programme {one_line(name)} is under policy {found['policy_version']}"
    say(as_json(found) if in_json else text)
