"""Awards and changes of them, in words."""

from cli.client import Row
from cli.output import Column, bar, note, one_line, say, table
from cli.units import first_day, hours_text, last_day, moment, moment_text

_NEXT = {
    "requested": "a manager decides: idf-compute award approve {id}",
    "in_review": "it waits for a decision: idf-compute award approve {id}",
}


def stands(award: Row) -> str:
    """Say in a line how an award stands."""
    id_, state = one_line(award["id"]), award["state"]
    amount = award["awarded_credits"] if award["awarded_credits"] is not None else award["proposed_credits"]
    days = f"from {first_day(award['start_at'])}, until {last_day(award['end_at'])}"
    said = f"award {id_}: {hours_text(amount)}, {days}, {one_line(state)}"
    if award.get("approved_by"):
        said += f", approved by {', '.join(map(one_line, award['approved_by']))}"
    following = _NEXT.get(state, "").format(id=id_)
    return f"{said}; {following}" if following else said


def changed(change: Row) -> str:
    """Say how a change stands, with what else is to be known of it."""
    id_, award = one_line(change["id"]), one_line(change["award"])
    said = f"{one_line(change['kind'])} {id_} of award {award}: {one_line(change['state'])}"
    if change["state"] == "in_review":
        people = ", ".join(map(one_line, change["approved_by"]))
        said += f", approved by {people}; another manager must: idf-compute award approve {id_}"
    elif change["state"] == "requested":
        said += f"; a manager decides: idf-compute award approve {id_}"
    return "\n".join([said, *map(one_line, change["notices"])])


def age_text(since: str) -> str:
    """Write how long ago something was, in days, below two days in hours."""
    from datetime import UTC, datetime

    hours = max(0, int((datetime.now(UTC) - moment(since)).total_seconds() // 3600))
    return f"{hours // 24} d" if hours >= 48 else f"{hours} h"


def show(award: Row) -> None:
    """Print the whole story of an award."""
    say(stands(award))
    for label, value in _facts(award):
        if value is not None:
            say(f"  {label:<14}{one_line(value)}")
    if award["granted_at"]:
        left, total = award["available_credits"], award["total_credits"]
        say(f"  {'left':<14}{bar(left, total)} {hours_text(left)} of {hours_text(total)}")
    for sentence in award["notices"]:
        note(sentence)
    _outcome(award["outcome"])
    if award["changes"]:
        say("")
        _changes(award["changes"])
    say("")
    columns = (Column("AT"), Column("WHO", spare=1), Column("STEP"), Column("WORDS", shrinks=True))
    table(columns, ([moment_text(e["at"]), e["person"], e["kind"], e["text"]] for e in award["events"]))


def _facts(award: Row) -> list[tuple[str, str | None]]:
    act, storage = award["act_reference"], award["storage"]
    return [
        ("project", f"{award['project']} ({award['programme']})"),
        ("purpose", award["purpose"]),
        ("goes on from", award["continues"]),
        ("act", f"{act} of {award['act_on']}" if act and award["act_on"] else act),
        ("requested", f"{hours_text(award['requested_credits'])} by {award['requested_by'] or 'unknown'}, "
                      f"{moment_text(award['requested_at'])}"),
        ("awarded", hours_text(award["awarded_credits"]) if award["granted_at"] else None),
        ("final", hours_text(award["final_credits"]) if award["closed_at"] else None),
        ("held", hours_text(award["held_credits"]) if award["held_credits"] else None),
        ("used", hours_text(award["consumed_credits"]) if award["consumed_credits"] else None),
        ("beyond holds", hours_text(award["overrun_credits"]) if award["overrun_credits"] else None),
        ("data", storage_text(storage) if storage else None),
    ]  # fmt: skip


def storage_text(storage: Row) -> str:
    """Write what may be done with an award's data, and until when."""
    phase = str(storage["phase"]).replace("_", "-")
    return (
        f"{phase}; writable until {last_day(storage['writable_until'])}, "
        f"may be exported until {last_day(storage['export_until'])}"
    )


def _outcome(outcome: Row | None) -> None:
    if outcome is None:
        return
    created = "unknown" if outcome["jobs_created"] is None else str(outcome["jobs_created"])
    say("")
    say(f"outcome, told by {one_line(outcome['person'] or 'unknown')}, {moment_text(outcome['at'])}")
    for label, value in (
        ("it worked", outcome["worked"]), ("in production", outcome["in_production"]), ("jobs created", created),
        ("benefit", outcome["benefit"]), ("next step", outcome["next_step"]),
    ):  # fmt: skip
        say(f"  {label:<14}{one_line(value)}")


def _changes(changes: list[Row]) -> None:
    columns = (
        Column("CHANGE"),
        Column("KIND"),
        Column("STATE"),
        Column("HOURS", right=True),
        Column("REASON", shrinks=True),
    )
    rows = (
        [c["id"], c["kind"], c["state"], hours_text(c["amount_credits"]) if c["amount_credits"] else None, c["reason"]]
        for c in changes
    )
    table(columns, rows)
