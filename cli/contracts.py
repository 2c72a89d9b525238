"""The programme manager's commands on contracts with sites."""

from typing import Annotated

import typer

from cli.client import Row, connect, part
from cli.exits import Exit, Failure
from cli.options import Json, sites_known
from cli.output import Column, as_json, listed, one_line, say
from cli.units import class_hours_text, day, first_day, gpu_seconds_of_hours, last_day, micro_euros

app = typer.Typer()
contract = typer.Typer()
app.add_typer(contract, name="contract", help="Contracts: the capacity that the Region has at sites.")

Hours = Annotated[str, typer.Argument(metavar="HOURS", help="GPU-hours of that class, not normalised: 5000h.")]


@contract.command("add")
def add_contract(
    site: Annotated[str, typer.Argument(metavar="SITE", autocompletion=sites_known)],
    gpu_class: Annotated[str, typer.Argument(metavar="CLASS", help="A GPU class of the site.")],
    hours: Hours,
    *,
    start: Annotated[str, typer.Option("--from", help="First day, in Paris.")],
    end: Annotated[str, typer.Option("--to", help="Last day, included.")],
    order: Annotated[str | None, typer.Option(help="Bought: the order's number.")] = None,
    price: Annotated[str | None, typer.Option(help="Bought: the price in euros before tax.")] = None,
    price_with_tax: Annotated[str | None, typer.Option(help="Bought: the price in euros with tax.")] = None,
    dossier: Annotated[str | None, typer.Option(help="Allocated: GENCI's or EuroHPC's dossier.")] = None,
    holder: Annotated[str | None, typer.Option(help="Allocated: who holds the dossier.")] = None,
    project: Annotated[str | None, typer.Option(help="Allocated: the project's name there.")] = None,
    in_json: Json = False,
) -> None:
    """Enter capacity that the Region has at a site: bought with --order, allocated with --dossier.

    \b
    Example:
      idf-compute contract add teratec a100-80 5000h --from 2026-01-01 --to 2026-12-31 \\
        --order BC-2026-17 --price 9000 --price-with-tax 10800
      idf-compute contract add jean-zay h100-80 20000h --from 2026-02-01 --to 2027-01-31 \\
        --dossier A0181012345 --holder "GENCI" --project tpu
    """
    if (order is None) == (dossier is None):
        raise Failure(
            Exit.USAGE, "a contract is either bought or allocated", "--order N, or --dossier N --holder --project"
        )
    body: Row = {"site": site, "gpu_class": gpu_class, "gpu_seconds": gpu_seconds_of_hours(hours)}
    body |= {"start_on": str(day(start)), "end_on": str(day(end)), "kind": "purchased" if order else "allocated"}
    body |= {"order_number": order, "dossier": dossier, "holder": holder, "holder_project": project}
    body["price_before_tax_micro_euros"] = micro_euros(price) if price else None
    body["price_with_tax_micro_euros"] = micro_euros(price_with_tax) if price_with_tax else None
    added = connect().post("/v1/contracts", body)
    text = f"contract {one_line(added['id'])}: {_hours(added, 'gpu_seconds')} at {one_line(added['site'])}"
    say(as_json(added) if in_json else f"{text}, until {last_day(added['end_at'])}")


@contract.command("list")
def list_contracts(
    site: Annotated[str | None, typer.Option(help="Of this site only.", autocompletion=sites_known)] = None,
    in_json: Json = False,
) -> None:
    """List contracts and what is left of them, in GPU-hours of their class.

    \b
    Example:
      idf-compute contract list --site teratec
    """
    columns = (
        Column("ID"), Column("SITE"), Column("CLASS"), Column("FROM", spare=2), Column("TO"),
        Column("ORDER OR DOSSIER", spare=1), Column("HOURS", right=True, spare=3), Column("LEFT", right=True),
        Column("HELD", right=True, spare=4), Column("USED", right=True, spare=5),
    )  # fmt: skip
    items, _ = connect().pages("/v1/contracts", {"site": site})
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda c: [
            c["id"], c["site"], c["gpu_class"], str(first_day(c["start_at"])), str(last_day(c["end_at"])),
            c["order_number"] or c["dossier"],
            *(class_hours_text(c[f"{what}gpu_seconds"]) for what in ("", "available_", "held_", "consumed_")),
        ],
    )  # fmt: skip


@contract.command("return")
def return_hours(
    id_: Annotated[str, typer.Argument(metavar="CONTRACT")],
    hours: Hours,
    reason: Annotated[str, typer.Option(help="Why they go: a typing error, hours taken back.")],
    in_json: Json = False,
) -> None:
    """Take hours out of a contract that it has left. What was entered is never changed, only answered.

    \b
    Example:
      idf-compute contract return ctr-01abc… 500h --reason "typed 5500, ordered 5000"
    """
    body = {"gpu_seconds": gpu_seconds_of_hours(hours), "reason": reason}
    changed = connect().post(f"/v1/contracts/{part(id_)}/return", body)
    left = _hours(changed, "available_gpu_seconds")
    say(as_json(changed) if in_json else f"contract {one_line(changed['id'])} has {left} left")


def _hours(contract_: Row, key: str) -> str:
    return f"{class_hours_text(contract_[key])} of {one_line(contract_['gpu_class'])}"
