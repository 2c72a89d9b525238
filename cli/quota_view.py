"""What the command `quota` does. It imports no Typer, so that the short way to it is short."""

from cli.client import Row, connect
from cli.outlook import outlook_text
from cli.output import as_json, bar, note, one_line, say
from cli.units import class_hours_text, first_day, hours_text, last_day


def quota(project: str | None, in_json: bool) -> None:
    """Print what is left of each award, as a bar and in hours of each kind of GPU."""
    answer = connect().get("/v1/quota", {"project": project})
    if in_json:
        say(as_json(answer))
        return
    if not answer["awards"]:
        note("no award; a programme manager gives one with: idf-compute award grant")
    outlooks = {forecast["award"]: outlook_text(forecast) for forecast in answer.get("forecasts", ())}
    for number, award in enumerate(answer["awards"]):
        if number:
            say("")
        _show(award)
        if award["id"] in outlooks:
            say(f"  {outlooks[award['id']]}")


def _show(award: Row) -> None:
    ended = "" if award["active"] else ", no job may start now"
    days = f"{first_day(award['start_at'])} to {last_day(award['end_at'])}{ended}"
    whose = f"{one_line(award['project'])} ({one_line(award['programme'])})"
    say(f"{whose}, award {one_line(award['id'])}, {days}")
    available, total = award["available_credits"], award["total_credits"]
    say(f"  {bar(available, total)} {hours_text(available)} left of {hours_text(total)}")
    parts = [
        ("held by open jobs", "held_credits"),
        ("used", "consumed_credits"),
        ("beyond holds", "overrun_credits"),
    ]
    said = [f"{hours_text(award[key])} {name}" for name, key in parts if award[key]]
    if said:
        say(f"  {', '.join(said)}")
    for sentence in award["notices"]:
        say(f"  {one_line(sentence)}")
    if award["classes"] and available > 0:
        say(f"  enough for {in_hours_of_each_class(award)} on one GPU")


def in_hours_of_each_class(award: Row) -> str:
    """Write a balance as `25 h h100-80 or 100 h v100-32`."""
    kinds = award["classes"]
    return " or ".join(f"{class_hours_text(kind['available_s'])} {one_line(kind['gpu_class'])}" for kind in kinds)
