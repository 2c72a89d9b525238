"""The programme manager's commands on tariffs: what a GPU-hour costs at a site."""

from typing import Annotated

import typer

from cli.client import Row, connect
from cli.options import Json, classes_known, sites_known
from cli.output import Column, as_json, listed, note, one_line, say
from cli.units import day, exact_euros_text, first_day, micro_euros, paris_today

app = typer.Typer()
tariff = typer.Typer()
app.add_typer(tariff, name="tariff", help="Tariffs: what a GPU-hour costs at a site.")


@tariff.command("add")
def add_tariff(
    site: Annotated[str, typer.Argument(metavar="SITE", autocompletion=sites_known)],
    gpu_class: Annotated[str, typer.Argument(metavar="CLASS", autocompletion=classes_known)],
    euros: Annotated[str, typer.Argument(metavar="EUROS", help="Per hour of one GPU: 2.35. At most six decimals.")],
    start: Annotated[str | None, typer.Option("--from", help="Valid from this day. [default: today]")] = None,
    in_json: Json = False,
) -> None:
    """Enter what one hour of one GPU costs from a day on, not normalised. A charge takes that of its attempt's start.

    Charges that had waited for a tariff get their value.

    \b
    Example:
      idf-compute tariff add jean-zay h100-80 2.35 --from 2026-01-01
    """
    body: Row = {"site": site, "gpu_class": gpu_class, "micro_euros_per_gpu_hour": micro_euros(euros)}
    added = connect().post("/v1/tariffs", {**body, "valid_from": str(day(start) if start else paris_today())})
    if in_json:
        say(as_json(added))
        return
    what = f"{one_line(added['gpu_class'])} at {one_line(added['site'])}"
    price = exact_euros_text(added["micro_euros_per_gpu_hour"])
    say(f"an hour of {what} costs {price} from {first_day(added['valid_from'])} on")
    _tell(added)


def _tell(answer: Row) -> None:
    if answer["valued"]:
        note(f"{answer['valued']} charges that had waited for a tariff have their value now")
    if answer["unknown"]:
        note(f"{answer['unknown']} charges are still without a tariff")


@tariff.command("list")
def list_tariffs(
    at: Annotated[str | None, typer.Option(help="In force on this day. [default: today]")] = None,
    in_json: Json = False,
) -> None:
    """List the tariffs in force on a day.

    \b
    Example:
      idf-compute tariff list --at 2026-06-30
    """
    columns = (Column("SITE"), Column("CLASS"), Column("PER GPU-HOUR", right=True), Column("VALID FROM"))
    items, _ = connect().pages("/v1/tariffs", {"at": str(day(at))} if at else None)
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda t: [
            t["site"], t["gpu_class"], exact_euros_text(t["micro_euros_per_gpu_hour"]), str(first_day(t["valid_from"])),
        ],
    )  # fmt: skip


@tariff.command("complete")
def complete_values(in_json: Json = False) -> None:
    """Value charges whose tariff was entered after they were settled. A value that is known never changes.

    \b
    Example:
      idf-compute tariff complete
    """
    answer = connect().post("/v1/tariffs/complete")
    text = f"{answer['valued']} charges valued, {answer['unknown']} still without a tariff"
    say(as_json(answer) if in_json else text)
