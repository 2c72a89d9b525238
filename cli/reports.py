"""The command `report gpu`: GPU use in a period, as a table, JSON or CSV."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from cli.client import Row, connect
from cli.exits import Exit, Failure
from cli.options import Json
from cli.output import Column, as_json, csv, note, say, table
from cli.units import day, euros_text, hours_text, paris_today

app = typer.Typer()
report = typer.Typer()
app.add_typer(report, name="report", help="Reports on GPU use.")
FIGURES = (
    *("jobs", "attempts", "gpu_seconds", "charged_credits", "overrun_credits", "refunds", "refunded_credits"),
    *("value_micro_euros", "region_micro_euros", "company_micro_euros", "partner_micro_euros", "unvalued_attempts"),
    *("refunded_value_micro_euros", "refunded_company_micro_euros", "unvalued_refunds"),
)


class By(StrEnum):
    """What a row stands for."""

    PROJECT = "project"
    PROGRAMME = "programme"
    SITE = "site"


@report.callback()
def _report() -> None:
    """Keep `gpu` a word of its own, though it is the only report so far."""


@report.command()
def gpu(
    start: Annotated[str | None, typer.Option("--from", help="First day. [default: the 1st of this month]")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last day, included. [default: today]")] = None,
    by: Annotated[By, typer.Option(help="What a row stands for.")] = By.PROJECT,
    in_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    in_json: Json = False,
) -> int:
    """Report GPU use by the end of the attempts; amounts agree with the ledger to the credit.

    \b
    Example:
      idf-compute report gpu --from 2026-01-01 --to 2026-06-30 --by programme --csv
    """
    if in_csv and in_json:
        raise Failure(Exit.USAGE, "--csv and --json are two forms of one answer", "give one of them")
    to = day(end) if end else paris_today()
    since = day(start) if start else to.replace(day=1)
    answer = connect().get("/v1/reports/gpu", {"from": str(since), "to": str(to), "by": by.value})
    if in_json:
        say(as_json(answer))
    elif in_csv:
        csv(
            [by.value, *FIGURES],
            [[row["key"], *(row[figure] for figure in FIGURES)] for row in answer["rows"]],
        )
    else:
        _print(answer)
    return _agreement(answer)


def _print(answer: Row) -> None:
    columns = [Column(answer["by"].upper(), shrinks=True), Column("JOBS", right=True)]
    columns += [Column(name, right=True) for name in ("ATTEMPTS", "GPU TIME", "CHARGED", "OVERRUN")]
    columns += [Column("REFUNDED", right=True, spare=1), Column("VALUE", right=True)]
    columns += [Column("COMPANY PAYS", right=True, spare=2)]
    total: dict[str, Any] = {"key": "total", **{figure: _total(answer["rows"], figure) for figure in FIGURES}}
    table(columns, [_row(row) for row in [*answer["rows"], total]])
    note(f"{answer['from_on']} to {answer['to_on']}; charges in normalised GPU-hours, before refunds")
    if total["unvalued_attempts"]:
        note(f"{total['unvalued_attempts']} attempts without a tariff: their value is unknown and not in the sums")
    if total["refunds"]:
        back, unknown = total["refunded_value_micro_euros"], total["unvalued_refunds"]
        note(f"refunds are worth {euros_text(back)}" + (f", {unknown} of them unknown" if unknown else ""))
    if answer["agrees"]:
        note("the ledger says the same, to the credit")


def _total(rows: list[Row], figure: str) -> int | None:
    """Add a figure up; unknown only where it is unknown in every row, and what is missing is counted beside it."""
    known = [row[figure] for row in rows if row[figure] is not None]
    return sum(known) if known or not rows else None


def _row(row: dict[str, Any]) -> list[str | int]:
    some = "+" if row["unvalued_attempts"] and row["value_micro_euros"] is not None else ""
    return [
        row["key"],
        row["jobs"],
        row["attempts"],
        hours_text(row["gpu_seconds"] * 1000),  # unweighted: a GPU-second of weight one is 1000 credits
        hours_text(row["charged_credits"]),
        hours_text(row["overrun_credits"]),
        hours_text(row["refunded_credits"]),
        euros_text(row["value_micro_euros"]) + some,
        euros_text(row["company_micro_euros"]) + some,
    ]


def _agreement(answer: Row) -> int:
    if answer["agrees"]:
        return Exit.OK
    note(
        f"WARNING: the charges ({answer['charged_credits']} credits, {answer['refunded_credits']} given back) do not "
        f"agree with the ledger ({answer['ledger_credits']} and {answer['ledger_refunded_credits']}); tell an operator"
    )
    return Exit.UNEXPECTED
