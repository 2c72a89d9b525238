"""Changes of a granted award: supplement, extension, transfer, closure; and those that wait for a decision."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.award_views import age_text, changed, show
from cli.client import Row, connect, part
from cli.exits import Exit, Failure
from cli.options import Json, awards_known
from cli.output import Column, as_json, listed, say
from cli.units import credits_of_hours, day, hours_text, last_day

app = typer.Typer()

AwardId = Annotated[str, typer.Argument(metavar="AWARD", help="An award's id.", autocompletion=awards_known)]
Hours = Annotated[str, typer.Argument(metavar="HOURS", help="Normalised GPU-hours: 100h, 1.5h.")]
Reason = Annotated[str, typer.Option(help="Why, in a sentence.")]


class Worked(StrEnum):
    """Whether the proof of concept worked."""

    YES = "yes"
    NO = "no"
    PARTLY = "partly"


class InProduction(StrEnum):
    """Whether it is in production."""

    YES = "yes"
    NO = "no"
    PLANNED = "planned"


class State(StrEnum):
    """How far a change is."""

    REQUESTED = "requested"
    IN_REVIEW = "in_review"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    GRANTED = "granted"


def refuse_terms(body: Row) -> None:
    """Refuse other terms for a change: it is approved as it was asked for. Raises Failure."""
    if body:
        raise Failure(
            Exit.USAGE, "a change is approved as it was asked for", "refuse it, and let it be asked for otherwise"
        )


@app.command("supplement")
def supplement(award_id: AwardId, hours: Hours, reason: Reason, in_json: Json = False) -> None:
    """Ask for more GPU-hours; a manager's own wish is granted at once below the programme's threshold.

    \b
    Example:
      idf-compute award supplement awd-06h0e3kz72pj7gd4 50h --reason "twice the data"
    """
    _asked(award_id, "supplements", {"amount_credits": credits_of_hours(hours), "reason": reason}, in_json)


@app.command("extend")
def extend(
    award_id: AwardId,
    end: Annotated[str, typer.Option("--to", help="The new last day, included.")],
    reason: Reason,
    in_json: Json = False,
) -> None:
    """Ask for a later end. Jobs that are submitted already keep their deadline.

    \b
    Example:
      idf-compute award extend awd-06h0e3kz72pj7gd4 --to 2027-08-31 --reason "the data came late"
    """
    _asked(award_id, "extensions", {"end_on": str(day(end)), "reason": reason}, in_json)


@app.command("transfer")
def transfer(
    award_id: AwardId,
    to_award: Annotated[str, typer.Argument(metavar="TO_AWARD", help="Of the same programme.")],
    hours: Hours,
    reason: Reason,
    in_json: Json = False,
) -> None:
    """Ask that available GPU-hours of an award go to another of the same programme.

    \b
    Example:
      idf-compute award transfer awd-06h0e3kz72pj7gd4 awd-06h0e3m0519a6tnq 20h --reason "they need it"
    """
    body = {"to_award": to_award, "amount_credits": credits_of_hours(hours), "reason": reason}
    _asked(award_id, "transfers", body, in_json)


@app.command("close")
def close(
    award_id: AwardId,
    *,
    worked: Annotated[Worked, typer.Option(help="Did the proof of concept work?")],
    in_production: Annotated[InProduction, typer.Option(help="Is it in production?")],
    jobs_created: Annotated[str, typer.Option(help="How many jobs it created; `unknown` if nobody can say.")],
    benefit: Annotated[str, typer.Option(help="What did it bring in return?")],
    next_step: Annotated[str, typer.Option(help="What comes next?")],
    reason: Reason = "its work is done",
    in_json: Json = False,
) -> None:
    """Answer the five questions on an award's outcome, and ask for its end if it still runs.

    Its jobs are cancelled, what is left goes back to the programme, and it is closed when the last job is settled.

    \b
    Example:
      idf-compute award close awd-06h0e3kz72pj7gd4 --worked yes --in-production planned \\
        --jobs-created unknown --benefit "a third less scrap" --next-step "a pilot line"
    """
    body: Row = {
        "worked": worked.value,
        "in_production": in_production.value,
        "jobs_created": _count(jobs_created),
        "benefit": benefit,
        "next_step": next_step,
        "reason": reason,
    }
    closed = connect().post(f"/v1/awards/{part(award_id)}/close", body)
    if in_json:
        say(as_json(closed))
    else:
        show(closed)


@app.command("changes")
def list_changes(
    state: Annotated[State | None, typer.Option(help="Only changes that stand so.")] = None, in_json: Json = False
) -> None:
    """List changes that were asked for; those that wait for a decision: --state requested.

    \b
    Example:
      idf-compute award changes --state requested
    """
    items, _ = connect().pages("/v1/award-changes", {"state": state.value if state else None})
    columns = (
        Column("ID"), Column("AWARD"), Column("PROJECT", shrinks=True), Column("KIND"), Column("STATE"),
        Column("WHAT"), Column("AGE", right=True, spare=1), Column("ASKED BY", spare=2),
    )  # fmt: skip
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda c: [
            c["id"], c["award"], c["project"], c["kind"], c["state"], _what(c), age_text(c["asked_at"]), c["asked_by"]
        ],
    )  # fmt: skip


def _what(change: Row) -> str:
    if change["other_award"]:
        return f"{hours_text(change['amount_credits'])} to {change['other_award']}"
    if change["amount_credits"] is not None:
        return hours_text(change["amount_credits"])
    return f"until {last_day(change['end_at'])}" if change["end_at"] else "now"


def _asked(award_id: str, kind: str, body: Row, in_json: bool) -> None:
    answer = connect().post(f"/v1/awards/{part(award_id)}/{kind}", body)
    say(as_json(answer) if in_json else changed(answer))


def _count(text: str) -> int | None:
    if text == "unknown":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 7):
        raise Failure(Exit.USAGE, f"{text!r} is no number of jobs", "write a whole number, or unknown")
    return int(text)
