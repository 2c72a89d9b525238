"""Awards from their request to their end: the commands of those who ask and of those who decide."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from cli import award_changes, award_file
from cli.award_views import age_text, changed, show, stands
from cli.client import Row, connect, part
from cli.options import Json, Project, awards_known, projects_known
from cli.output import Column, as_json, listed, say
from cli.units import credits_of_hours, day, first_day, hours_text, last_day, moment_text

app = typer.Typer()
award = typer.Typer()
app.add_typer(award, name="award", help="Awards of GPU-hours to projects.")

ToProject = Annotated[str, typer.Argument(metavar="PROJECT", autocompletion=projects_known)]
Hours = Annotated[str, typer.Argument(metavar="HOURS", help="Normalised GPU-hours: 100h, 1.5h.")]
From = Annotated[str, typer.Option("--from", help="First day, in Paris.")]
To = Annotated[str, typer.Option("--to", help="Last day, included.")]
Purpose = Annotated[str | None, typer.Option(help="What it is for, in a sentence.")]
Act = Annotated[str | None, typer.Option("--act", help="Reference of the Region's decision.")]
ActOn = Annotated[str | None, typer.Option("--act-on", help="Day of the Region's decision.")]
AwardId = Annotated[str, typer.Argument(metavar="AWARD", help="An award's id.", autocompletion=awards_known)]
Wish = Annotated[str, typer.Argument(metavar="ID", help="Of an award (awd-…) or of a change (chg-…).")]
Reason = Annotated[str, typer.Option(help="Why, in a sentence.")]


class State(StrEnum):
    """How far an award is."""

    REQUESTED = "requested"
    IN_REVIEW = "in_review"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    ACTIVE = "active"
    EXPIRING = "expiring"
    CLOSED = "closed"


def _wanted(project: str, hours: str, start: str, end: str, **more: str | None) -> Row:
    body = {"project": project, "amount_credits": credits_of_hours(hours)}
    days = {"start_on": str(day(start)), "end_on": str(day(end))}
    return {**body, **days, **{name: value for name, value in more.items() if value is not None}}


@award.command("request")
def request_award(
    to_project: ToProject,
    hours: Hours,
    start: From,
    end: To,
    purpose: Purpose = None,
    in_json: Json = False,
) -> None:
    """Ask for normalised GPU-hours for a project of yours; a manager of the Region decides.

    \b
    Example:
      idf-compute award request vision 100h --from 2027-01-01 --to 2027-06-30 --purpose films
    """
    asked = connect().post("/v1/awards/request", _wanted(to_project, hours, start, end, purpose=purpose))
    say(as_json(asked) if in_json else stands(asked))


@award.command("grant")
def grant_award(
    to_project: ToProject,
    hours: Hours,
    start: From,
    end: To,
    *,
    purpose: Purpose = None,
    act: Act = None,
    act_on: ActOn = None,
    in_json: Json = False,
) -> None:
    """Grant normalised GPU-hours to a project between two days: request and approval in one.

    One is 3,600,000 credits. Where two managers must approve, it waits for the second.

    \b
    Example:
      idf-compute award grant vision 100h --from 2026-01-01 --to 2026-06-30
    """
    papers = {"purpose": purpose, "act_reference": act, "act_on": str(day(act_on)) if act_on else None}
    granted = connect().post("/v1/awards", _wanted(to_project, hours, start, end, **papers))
    say(as_json(granted) if in_json else stands(granted))


@award.command("continue")
def continue_award(
    award_id: AwardId,
    hours: Hours,
    start: From,
    end: To,
    purpose: Purpose = None,
    in_json: Json = False,
) -> None:
    """Ask for a further award that goes on from another: the project keeps its data and its members.

    \b
    Example:
      idf-compute award continue awd-06h0e3kz72pj7gd4 200h --from 2027-07-01 --to 2027-12-31
    """
    client = connect()
    before = client.get(f"/v1/awards/{part(award_id)}")
    words = purpose or f"goes on from {before['id']}"
    body = _wanted(before["project"], hours, start, end, purpose=words, continues=before["id"])
    asked = client.post("/v1/awards/request", body)
    say(as_json(asked) if in_json else stands(asked))


@award.command("list")
def list_awards(
    of_project: Project = None,
    state: Annotated[State | None, typer.Option(help="Only awards that stand so; `in_review` is a queue.")] = None,
    in_json: Json = False,
) -> None:
    """List awards, what is left of them, and how old a request is.

    \b
    Example:
      idf-compute award list --state in_review
    """
    columns = (
        Column("ID"), Column("PROJECT", shrinks=True), Column("STATE"), Column("FROM", spare=2), Column("TO"),
        Column("AWARDED", right=True, spare=1), Column("LEFT", right=True), Column("HELD", right=True, spare=3),
        Column("AGE", right=True, spare=4),
    )  # fmt: skip
    query: dict[str, str | int | None] = {"project": of_project, "state": state.value if state else None}
    items, _ = connect().pages("/v1/awards", query)
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda a: [
            a["id"], a["project"], a["state"], str(first_day(a["start_at"])), str(last_day(a["end_at"])),
            hours_text(a["total_credits"] if a["granted_at"] else a["proposed_credits"]),
            hours_text(a["available_credits"]), hours_text(a["held_credits"]), age_text(a["requested_at"]),
        ],
    )  # fmt: skip
    if not in_json:
        for item in items:
            for sentence in item["notices"]:
                say(f"{item['id']} ({item['project']}): {sentence}")


@award.command("show")
def show_award(award_id: AwardId, in_json: Json = False) -> None:
    """Show an award: amounts, dates, balances, its story, changes and outcome.

    \b
    Example:
      idf-compute award show awd-06h0e3kz72pj7gd4
    """
    found = connect().get(f"/v1/awards/{part(award_id)}")
    if in_json:
        say(as_json(found))
    else:
        show(found)


@award.command("events")
def list_events(award_id: AwardId, in_json: Json = False) -> None:
    """List all steps of an award's story: when, who, what.

    \b
    Example:
      idf-compute award events awd-06h0e3kz72pj7gd4
    """
    items, _ = connect().pages(f"/v1/awards/{part(award_id)}/events")
    columns = (Column("AT"), Column("WHO", spare=1), Column("STEP"), Column("WORDS", shrinks=True))
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda e: [moment_text(e["at"]), e["person"], e["kind"], e["text"]],
    )


@award.command("comment")
def comment(award_id: AwardId, text: Annotated[str, typer.Argument(metavar="TEXT")], in_json: Json = False) -> None:
    """Say something about an award; all who see the award can read it.

    \b
    Example:
      idf-compute award comment awd-06h0e3kz72pj7gd4 "which data will it use?"
    """
    said = connect().post(f"/v1/awards/{part(award_id)}/comments", {"text": text})
    say(as_json(said) if in_json else stands(said))


@award.command("approve")
def approve(
    wish: Wish,
    *,
    hours: Annotated[str | None, typer.Option(help="Another amount than asked for (awards).")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Another first day (awards).")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Another last day (awards).")] = None,
    act: Act = None,
    act_on: ActOn = None,
    in_json: Json = False,
) -> None:
    """Approve a request or a change. Above the programme's threshold two managers must.

    \b
    Example:
      idf-compute award approve awd-06h0e3kz72pj7gd4 --hours 80h
    """
    given: dict[str, Any] = {
        "amount_credits": credits_of_hours(hours) if hours else None,
        "start_on": str(day(start)) if start else None,
        "end_on": str(day(end)) if end else None,
        "act_reference": act,
        "act_on": str(day(act_on)) if act_on else None,
    }
    body = {name: value for name, value in given.items() if value is not None}
    _decided("approve", wish, body, in_json)


@award.command("refuse")
def refuse(wish: Wish, reason: Reason, in_json: Json = False) -> None:
    """Refuse a request or a change, with a reason.

    \b
    Example:
      idf-compute award refuse awd-06h0e3kz72pj7gd4 --reason "the cohort is full"
    """
    _decided("refuse", wish, {"reason": reason}, in_json)


@award.command("withdraw")
def withdraw(wish: Wish, reason: Reason = "no longer needed", in_json: Json = False) -> None:
    """Take back a request or a change that is not decided yet.

    \b
    Example:
      idf-compute award withdraw chg-06h0e3kz72pj7gd4
    """
    _decided("withdraw", wish, {"reason": reason}, in_json)


def _decided(step: str, wish: str, body: Row, in_json: bool) -> None:
    """Decide an award or a change, whichever the id names."""
    of_change = wish.startswith("chg-")
    kind = "award-changes" if of_change else "awards"
    if of_change and step == "approve":
        award_changes.refuse_terms(body)
    answer = connect().post(f"/v1/{kind}/{part(wish)}/{step}", body)
    say(as_json(answer) if in_json else changed(answer) if of_change else stands(answer))


award.add_typer(award_changes.app)
award.add_typer(award_file.app)
