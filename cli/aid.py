"""The commands on State aid: what a company declared and had, the register, the letter to a company."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import Query, Row, connect, part
from cli.exits import Exit, Failure
from cli.options import Json
from cli.output import Cell, Column, Figure, as_json, csv, listed, note, one_line, say, table
from cli.units import day, euros_text, micro_euros

app = typer.Typer()
aid = typer.Typer()
app.add_typer(aid, name="aid", help="State aid: declarations, what is left, the register, letters.")

LINES_MAX = 1_000_000
REGIMES = ("de-minimis", "de-minimis-agriculture", "de-minimis-fishery", "de-minimis-sgei", "exempted")

Org = Annotated[str, typer.Argument(metavar="ORG", help="The organisation's name.")]


class Format(StrEnum):
    """Forms of the register."""

    CSV = "csv"
    JSON = "json"


@aid.command("declare")
def declare_aid(
    organisation: Org,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE.toml]", help="The aids that it declares.")] = None,
    *,
    none: Annotated[bool, typer.Option("--none", help="It declares that it had none.")] = False,
    on: Annotated[str, typer.Option("--on", help="Day on which the declaration was signed.")],
    document: Annotated[str, typer.Option("--document", help="Where the signed declaration is kept.")],
    in_json: Json = False,
) -> None:
    """Enter a company's declaration of all aids of its single undertaking (entreprise unique).

    It takes the place of the one before it. FILE.toml has one [[aid]] for each aid, by whomever it was given:
    granted_on = 2025-03-10, giver = "Bpifrance", euros = 25000.50, act = "DOS 0123456/00", regime = "de-minimis"
    (or de-minimis-agriculture, de-minimis-fishery, de-minimis-sgei, exempted).

    \b
    Example:
      idf-compute aid declare acme aids.toml --on 2026-05-04 --document "GED 2026/17"
      idf-compute aid declare acme --none --on 2026-05-04 --document "GED 2026/17"
    """
    if none == (file is not None):
        raise Failure(Exit.USAGE, "a declaration names aids in a file, or none", "give either FILE.toml or --none")
    aids = _read_aids(file) if file is not None else []
    body = {"declared_on": str(day(on)), "document": document, "aids": aids}
    entered = connect().post(f"/v1/organisations/{part(organisation)}/aid-declarations", body)
    total = sum(one["value_micro_euros"] for one in aids)
    text = f"{one_line(organisation)} declares {_counted(len(aids))}, {euros_text(total)} together, by {entered['id']}"
    say(as_json(entered) if in_json else text)


def _counted(aids: int) -> str:
    return "no aid" if aids == 0 else "1 aid" if aids == 1 else f"{aids} aids"


def _read_aids(file: Path) -> list[Row]:
    import tomllib
    from decimal import Decimal

    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{file} is not valid TOML: {error}") from None
    aids = content.get("aid")
    if set(content) != {"aid"} or not isinstance(aids, list) or not all(isinstance(one, dict) for one in aids):
        raise Failure(
            Exit.USAGE, f"{file} has other than one [[aid]] for each aid", "see: idf-compute aid declare --help"
        )
    return [_aid(one, f"{file}, aid {number}") for number, one in enumerate(aids, 1)]


def _aid(fields: dict[str, Any], where: str) -> Row:
    """Turn one [[aid]] into what the broker takes. Raises Failure, one sentence."""
    from datetime import date, datetime

    wanted = {"granted_on", "giver", "euros", "act"}
    missing, unknown = sorted(wanted - set(fields)), sorted(set(fields) - wanted - {"regime"})
    if missing or unknown:
        what = f"{', '.join(missing)} is missing" if missing else f"no field {', '.join(unknown)} is known"
        raise Failure(Exit.USAGE, f"{where}: {what}", f"give {', '.join(sorted(wanted))}, and regime where it differs")
    granted_on, regime = fields["granted_on"], fields.get("regime", REGIMES[0])
    if not isinstance(granted_on, date) or isinstance(granted_on, datetime):
        raise Failure(Exit.USAGE, f"{where}: granted_on is no day", "write it without quotes: 2025-03-10")
    if regime not in REGIMES:
        raise Failure(Exit.USAGE, f"{where}: no regime {regime!r} is known", f"give one of {', '.join(REGIMES)}")
    return {
        "granted_on": str(granted_on),
        "giver": str(fields["giver"]),
        "value_micro_euros": micro_euros(str(fields["euros"])),
        "act_reference": str(fields["act"]),
        "regime": regime,
    }


@aid.command("show")
def show_aid(
    organisation: Org,
    on: Annotated[str | None, typer.Option("--on", help="Day of a grant to come. [default: today]")] = None,
    in_json: Json = False,
) -> None:
    """Show what a single undertaking (entreprise unique) had in the window of years, and what is left.

    \b
    Example:
      idf-compute aid show acme --on 2026-09-01
    """
    answer = connect().get(
        f"/v1/organisations/{part(organisation)}/aid", {"on": str(day(on)) if on is not None else None}
    )
    if in_json:
        say(as_json(answer))
        return
    say(f"{one_line(answer['organisation'])}, single undertaking of {', '.join(map(one_line, answer['undertaking']))}")
    if answer["ceiling_micro_euros"] is None:
        note(f"no de minimis ceiling is set for {answer['on']}; an operator sets it under [aid] in the settings")
        return
    _show_window(answer)
    for declared in answer["declarations"]:
        say(
            f"{one_line(declared['organisation'])} declared {_counted(declared['aids'])} on {declared['declared_on']} "
            f"({one_line(declared['document'])})"
        )
    if not answer["may_be_granted"]:
        note(f"no grant on {answer['on']}: {one_line(answer['organisation'])} has no declaration that is young enough")


def _show_window(answer: Row) -> None:
    window = f"{answer['from_on']} to {answer['to_on']}"
    say(f"de minimis aid of {window} ({answer['years']} years; {one_line(answer['source'])})")
    if answer["aids"]:
        columns = (
            Column("GRANTED"), Column("ORGANISATION", spare=2), Column("BY", shrinks=True), Column("ACT", shrinks=True),
            Column("EUROS", right=True),
        )  # fmt: skip
        table(
            columns,
            [
                [a["granted_on"], a["organisation"], a["giver"] or "this register", a["act_reference"],
                 euros_text(a["value_micro_euros"])]
                for a in answer["aids"]
            ],
        )  # fmt: skip
    sums = ("declared", "+ counted here", "= sum"), ("ceiling", "left")
    keys = ("declared", "counted", "total"), ("ceiling", "left")
    amounts = [[euros_text(answer[f"{key}_micro_euros"]) for key in some] for some in keys]
    width = max(len(amount) for some in amounts for amount in some)
    for names, some in zip(sums, amounts, strict=True):
        for name, amount in zip(names, some, strict=True):
            say(f"  {name:<15}{amount:>{width}}")


@aid.command("register")
def register(
    start: Annotated[str | None, typer.Option("--from", help="First day on which a line was entered.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last day, included.")] = None,
    form: Annotated[Format, typer.Option("--format", help="Form of the file.")] = Format.CSV,
    in_json: Json = False,
) -> None:
    """Print the register's lines for the national register, by the days on which they were entered.

    \b
    Example:
      idf-compute aid register --from 2026-05-01 --to 2026-05-31 > aides-2026-05.csv
    """
    client = connect()
    days: Query = {"from": str(day(start)) if start else None, "to": str(day(end)) if end else None}
    lines, more = client.pages("/v1/aid/register", days, limit=LINES_MAX)
    if more:
        raise Failure(Exit.REFUSED, f"the register has more than {LINES_MAX} lines in these days", "give fewer days")
    if in_json or form is Format.JSON:
        say(as_json(lines))
        return
    columns = client.get("/v1/aid/rules")["register_columns"]
    csv(list(columns.values()), [[_cell(line, field) for field in columns] for line in lines])


def _cell(line: Row, field: str) -> Cell:
    if field == "amount_euros":
        return _exact(line["value_micro_euros"])
    value: Cell = line[field]
    return value


def _exact(amount_micro_euros: int) -> Figure:
    """Write euros with a point, two to six decimals, exactly."""
    whole, rest = divmod(abs(amount_micro_euros), 1_000_000)
    decimals = f"{rest:06}".rstrip("0").ljust(2, "0")
    return Figure(f"{'-' if amount_micro_euros < 0 else ''}{whole}.{decimals}")


@aid.command("rules")
def rules(in_json: Json = False) -> None:
    """Show the ceilings in force by date, and where they come from.

    \b
    Example:
      idf-compute aid rules
    """
    answer = connect().get("/v1/aid/rules")
    if in_json:
        say(as_json(answer))
        return
    columns = (
        Column("FROM"), Column("UNTIL"), Column("CEILING", right=True), Column("YEARS", right=True),
        Column("SOURCE", shrinks=True),
    )  # fmt: skip
    listed(
        answer["ceilings"],
        in_json=False,
        columns=columns,
        rows=lambda c: [
            c["valid_from"], c["valid_until"], euros_text(c["ceiling_micro_euros"]), c["years"], c["source"]
        ],
    )  # fmt: skip
    note(f"a declaration may be {answer['declaration_days']} days old on the day of a grant")


@aid.command("letter")
def letter(
    award: Annotated[str, typer.Argument(metavar="AWARD", help="The award's id.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write it to this file.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Plain text instead of a page to print.")] = False,
    in_json: Json = False,
) -> None:
    """Give the letter, in French, that tells a company of an award's aid: a page that prints on A4, or text.

    \b
    Example:
      idf-compute aid letter awd-06f3k2m1x8t7q4c9 --out lettre.html
    """
    answer = connect().get(f"/v1/awards/{part(award)}/aid-letter")
    content = as_json(answer) if in_json else answer["text"] if text else answer["html"]
    if out is None:
        say(content.removesuffix("\n"))
        return
    try:
        out.write_text(content, encoding="utf-8")
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot write {out}: {error.strerror}") from None
    note(f"the letter to {one_line(answer['organisation'])} is in {out}")
