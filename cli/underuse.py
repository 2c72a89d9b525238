"""Awards that run out, lie unused or go back: forecasts, notices of reclaim, justifications."""

from typing import Annotated

import typer

from cli.client import Query, connect, part
from cli.options import Json, Project, awards_known
from cli.outlook import outlook_text, risks_text
from cli.output import Column, as_json, listed, one_line, say
from cli.units import hours_text, last_day

award = typer.Typer()
"""Commands of the group `award`, which cli.awards takes in."""

AwardId = Annotated[str, typer.Argument(metavar="AWARD", help="An award's id.", autocompletion=awards_known)]
Reason = Annotated[str, typer.Option(help="Why, in a sentence.")]


@award.command("forecast")
def forecast(
    of_project: Project = None,
    programme: Annotated[str | None, typer.Option("--programme", help="Only of this programme.")] = None,
    at_risk: Annotated[bool, typer.Option("--at-risk", help="Only those that somebody should look at.")] = False,
    in_json: Json = False,
) -> None:
    """Tell what becomes of awards at their present rate: when they run out, what is left at their end.

    \b
    Example:
      idf-compute award forecast --programme pack-ia-2026 --at-risk
    """
    columns = (
        Column("AWARD"), Column("PROJECT", shrinks=True), Column("LEFT", right=True), Column("A DAY", right=True),
        Column("OUTLOOK", shrinks=True), Column("AT RISK", shrinks=True),
    )  # fmt: skip
    query: Query = {"project": of_project, "programme": programme, "at_risk": "true" if at_risk else None}
    items, _ = connect().pages("/v1/forecasts", query)
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda f: [
            f["award"], f["project"], hours_text(f["available_credits"] + f["held_credits"]),
            hours_text(f["burn_credits_per_day"]), outlook_text(f), risks_text(f),
        ],
    )  # fmt: skip


@award.command("reclaims")
def reclaims(
    of_project: Project = None,
    due: Annotated[bool, typer.Option("--due", help="Only those that are still to come.")] = False,
    in_json: Json = False,
) -> None:
    """List what lies unused and goes back, or went: announced, justified, decided, done.

    \b
    Example:
      idf-compute award reclaims --due
    """
    columns = (
        Column("AWARD"), Column("PROJECT", shrinks=True), Column("AMOUNT", right=True), Column("LAST DAY"),
        Column("STATE"), Column("WHY", shrinks=True, spare=1),
    )  # fmt: skip
    query: Query = {"project": of_project, "due": "true" if due else None}
    items, _ = connect().pages("/v1/reclaims", query)
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda r: [
            r["award"], r["project"], hours_text(r["reclaimed_credits"] or r["announced_credits"]),
            str(last_day(r["due_at"])), _state(r), r["outcome_reason"] or r["decision_reason"] or r["justification"],
        ],
    )  # fmt: skip


@award.command("justify")
def justify(
    award_id: AwardId,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Why it lies unused, in a sentence or two.")],
    in_json: Json = False,
) -> None:
    """Say, as the project's lead, why an award lies unused and must keep its hours. A manager decides.

    \b
    Example:
      idf-compute award justify awd-06fq3w2k8v0z9x1c "the hospital sends the data in July"
    """
    done = connect().post(f"/v1/awards/{part(award_id)}/justification", {"text": text})
    amount = hours_text(done["announced_credits"])
    say(as_json(done) if in_json else f"the {amount} stay until a manager has decided; the managers were told")


@award.command("accept-justification")
def accept_justification(award_id: AwardId, reason: Reason, in_json: Json = False) -> None:
    """Accept why an award lies unused: everything stays with it.

    \b
    Example:
      idf-compute award accept-justification awd-06fq3w2k8v0z9x1c --reason "the data is on its way"
    """
    done = connect().post(f"/v1/awards/{part(award_id)}/justification/accept", {"reason": reason})
    say(as_json(done) if in_json else f"everything stays with award {one_line(done['award'])}; its leads are told")


@award.command("refuse-justification")
def refuse_justification(award_id: AwardId, reason: Reason, in_json: Json = False) -> None:
    """Refuse why an award lies unused: what was announced goes back unless it is used.

    \b
    Example:
      idf-compute award refuse-justification awd-06fq3w2k8v0z9x1c --reason "others wait"
    """
    done = connect().post(f"/v1/awards/{part(award_id)}/justification/refuse", {"reason": reason})
    when, amount = last_day(done["due_at"]), hours_text(done["announced_credits"])
    say(as_json(done) if in_json else f"up to {amount} go back after {when} unless they are used; its leads are told")


def _state(reclaim: dict[str, str | None]) -> str:
    if reclaim["outcome"]:
        return one_line(reclaim["outcome"])
    if reclaim["decision"]:
        return one_line(reclaim["decision"])
    return "undecided" if reclaim["justification"] else "announced"
