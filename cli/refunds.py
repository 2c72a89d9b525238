"""The commands on refunds: credits given back with a reason and evidence."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.client import Row, connect, part
from cli.options import JobId, Json
from cli.output import Column, as_json, listed, one_line, say
from cli.units import credits_of_hours, euros_text, hours_text, moment_text

app = typer.Typer()
refund = typer.Typer()
app.add_typer(refund, name="refund", help="Refunds: credits given back with a reason.")

RefundId = Annotated[str, typer.Argument(metavar="REFUND", help="A refund's id.")]
ALL = "all"


class Reason(StrEnum):
    """Why credits are given back."""

    NODE_FAILURE = "node_failure"
    OPERATOR_FAULT = "operator_fault"
    OTHER = "other"


class State(StrEnum):
    """How a refund stands."""

    REQUESTED = "requested"
    POSTED = "posted"
    REFUSED = "refused"


@refund.command("request")
def request(
    job: JobId,
    *,
    reason: Annotated[Reason, typer.Option(help="Why.")],
    evidence: Annotated[str, typer.Option(help="What proves it, such as a ticket.")],
    amount: Annotated[str, typer.Option(help="Normalised GPU-hours, 3h, or all that still can be.")] = ALL,
    contract: Annotated[bool, typer.Option("--contract", help="The site gives its capacity back too.")] = False,
    in_json: Json = False,
) -> None:
    """Ask for credits of a job to be given back. A manager's own is posted at once up to a bound; above, and where
    an operator asks, a second person approves.

    \b
    Example:
      idf-compute refund request JOB --reason node_failure --evidence "ticket 123" --amount 3h
    """
    body: Row = {"job_id": job, "reason": reason.value, "evidence": evidence, "with_contract": contract}
    body["amount_credits"] = None if amount == ALL else credits_of_hours(amount)
    _told(connect().post("/v1/refunds", body), in_json=in_json)


@refund.command("approve")
def approve(refund_id: RefundId, in_json: Json = False) -> None:
    """Approve a refund that somebody else asked for; it is posted then.

    \b
    Example:
      idf-compute refund approve rfd-0a1b2c
    """
    _told(connect().post(f"/v1/refunds/{part(refund_id)}/approve"), in_json=in_json)


@refund.command("refuse")
def refuse(
    refund_id: RefundId, why: Annotated[str, typer.Option(help="The reason, for who asked.")], in_json: Json = False
) -> None:
    """Refuse a refund, with the reason.

    \b
    Example:
      idf-compute refund refuse rfd-0a1b2c --why "the node was not at fault"
    """
    _told(connect().post(f"/v1/refunds/{part(refund_id)}/refuse", {"why": why}), in_json=in_json)


@refund.command("list")
def list_refunds(
    job: Annotated[str | None, typer.Option(help="Only of this job.")] = None,
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    in_json: Json = False,
) -> None:
    """List refunds, newest first.

    \b
    Example:
      idf-compute refund list --state requested
    """
    columns = (
        Column("ID"), Column("JOB"), Column("PROJECT", spare=2, shrinks=True), Column("STATE"), Column("REASON"),
        Column("AMOUNT", right=True), Column("VALUE", right=True, spare=1), Column("ASKED BY", spare=3),
        Column("ASKED", spare=4), Column("EVIDENCE", shrinks=True),
    )  # fmt: skip
    items, _ = connect().pages("/v1/refunds", {"job": job, "state": state.value if state else None})
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda r: [
            r["id"], r["job_id"], r["project"], r["state"], r["reason"], hours_text(r["amount_credits"]),
            euros_text(r["value_micro_euros"]) if r["state"] == "posted" else None, r["requested_by"],
            moment_text(r["requested_at"]), r["evidence"],
        ],
    )  # fmt: skip


def _told(answer: Row, *, in_json: bool) -> None:
    if in_json:
        say(as_json(answer))
        return
    hours, name = hours_text(answer["amount_credits"]), one_line(answer["id"])
    if answer["state"] == "posted":
        say(f"refund {name}: {hours} given back, worth {euros_text(answer['value_micro_euros'])}")
    elif answer["state"] == "requested":
        say(f"refund {name}: {hours} asked for; another person, a manager, must approve it")
    else:
        say(f"refund {name} is refused")
