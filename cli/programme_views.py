"""A programme in words: its rules, its budgets, who pays. It imports no Typer."""

from collections.abc import Iterator
from typing import Any

from cli.client import Row
from cli.output import Column, one_line, say, table
from cli.units import duration_text, first_day, hours_text, last_day, moment_text

HOURS = ("award_credits_max", "four_eyes_above_credits")
BEFORE_ANYTHING = "1970-01-01"


def show(programme: Row) -> None:
    """Print a programme."""
    policy = programme["policy"]
    title = f": {one_line(policy['full_name'])}" if policy["full_name"] else ""
    since = moment_text(programme["policy_since"])
    say(f"programme {one_line(programme['name'])}{title}, kind {policy['kind']}")
    say(f"\nRules (policy {programme['policy_version']}, since {since})")
    for rule in rules(policy):
        say(f"  {one_line(rule)}")
    say("\nBudgets (an award draws from the one that holds its first day)")
    columns = [Column("  FROM"), Column("TO"), *(Column(name, right=True) for name in ("BUDGET", "AWARDED", "LEFT"))]
    if programme["budgets"]:
        table(columns, [_budget(budget) for budget in programme["budgets"]])
    else:
        name = one_line(programme["name"])
        say(f"  none yet: idf-compute programme fund {name} 1000h --from 2027-01-01 --to 2027-12-31")
    say("\nWho pays each charge")
    for shares in programme["shares"]:
        say(f"  {shares_text(shares)}")


def _budget(budget: Row) -> list[str]:
    days = [f"  {first_day(budget['start_at'])}", str(last_day(budget["end_at"]))]
    return days + [hours_text(budget[key]) for key in ("budget_credits", "awarded_credits", "unawarded_credits")]


def shares_text(shares: Row) -> str:
    """Word shares: `from 2027-06-01: Region 60 %, company 40 %`; who pays nothing is left out."""
    since = str(first_day(shares["valid_from"]))
    parts = [
        f"{who} {percent(shares[f'{who.lower()}_thousandths'])}"
        for who in ("Region", "company", "partner")
        if shares[f"{who.lower()}_thousandths"]
    ]
    return f"{'from the beginning' if since == BEFORE_ANYTHING else f'from {since}'}: {', '.join(parts)}"


def percent(thousandths: int) -> str:
    """Word thousandths as a percentage, exactly: `50 %`, `33.3 %`."""
    whole, tenth = divmod(thousandths, 10)
    return f"{whole}.{tenth} %" if tenth else f"{whole} %"


def rules(policy: Row) -> Iterator[str]:
    """Yield a sentence per rule of a policy; what sets no bound says so."""
    yield f"an award lasts {_months(policy['shortest_months'], policy['longest_months'])}"
    yield _bounded(policy["award_credits_max"], "an award is at most {}", "an award may be of any size")
    cohort = policy["awards_per_year_max"]
    yield f"at most {cohort} awards begin in a calendar year" if cohort else "any number of awards may begin in a year"
    four_eyes = policy["four_eyes_above_credits"]
    yield _bounded(four_eyes, "above {} two people approve", "no award needs a second person")
    yield f"data may be {', '.join(policy['confidentialities'])}; its nature {', '.join(policy['natures'])}"
    yield {
        "de-minimis": "its help is aid under de minimis",
        "exempted": f"its help is aid under the exempted scheme {policy['scheme']}",
        "none": "its help counts as no State aid",
    }.get(policy["regime"], f"aid regime {policy['regime']}")
    yield f"a job that names no time limit gets {duration_text(policy['default_time_limit_s'])}"
    yield from _times(policy)
    yield from (reclaim_text(rule) for rule in policy["reclaim"])
    if policy["free_hours_first"]:
        yield "allocated hours (GENCI, EuroHPC) are used before purchased ones"
    if policy.get("images") is not None:
        yield f"jobs may name these images only: {', '.join(policy['images']) or 'none'}"


def _times(policy: Row) -> Iterator[str]:
    warnings = ", ".join(percent(share) for share in policy["warn_at_thousandths"])
    yield f"a warning when {warnings} of an award is spent" if warnings else "no warning while an award is spent"
    yield f"an award's end is shown {policy['expiring_days']} days before"
    yield f"its data may leave until {policy['export_days']} days after"
    if policy["reclaim"]:
        yield f"what lies unused is taken back {policy['notice_days']} days after a notice:"
    else:
        yield "nothing that lies unused is taken back"


def reclaim_text(rule: Row) -> str:
    """Word a reclaim rule."""
    after, below, take = (
        percent(rule[key]) for key in ("after_thousandths", "used_below_thousandths", "take_thousandths")
    )
    return f"  after {after} of its time with less than {below} used: {take} of what is available"


def _months(shortest: int | None, longest: int | None) -> str:
    if shortest and longest:
        return f"{shortest} to {longest} months"
    if shortest:
        return f"at least {shortest} month{'s' if shortest > 1 else ''}"
    return f"at most {longest} month{'s' if longest > 1 else ''}" if longest else "as long as it is granted for"


def _bounded(credits_max: int | None, bounded: str, free: str) -> str:
    return free if credits_max is None else bounded.format(hours_text(credits_max))


def change_text(change: Row) -> str:
    """Word one change of a policy: `longest_months: 6 -> 9`."""
    name = change["name"]
    label = name.removesuffix("_s") if name == "default_time_limit_s" else name.replace("_credits", "")
    return f"{label}: {_value(name, change['before'])} -> {_value(name, change['after'])}"


def _value(name: str, value: Any) -> str:
    if value is None:
        return "no bound" if name not in ("full_name", "scheme") else "none"
    if name in HOURS:
        return hours_text(value)
    if name == "default_time_limit_s":
        return duration_text(value)
    if name == "reclaim":
        return "; ".join(reclaim_text(rule).strip() for rule in value) or "nothing"
    if isinstance(value, list):
        return ", ".join(str(each) for each in value) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def can_award(answer: Row) -> None:
    """Print whether an award could be granted, and the numbers behind it."""
    asked, days = (
        hours_text(answer["asked_credits"]),
        f"{first_day(answer['start_at'])} to {last_day(answer['end_at'])}",
    )
    if answer["can_award"]:
        say(f"yes: {asked} can be awarded from {days}")
        most = hours_text(answer["largest_credits"])
        say(f"  first to bind: {answer['binds']}, at {most}")
    else:
        say(f"no: {asked} cannot be awarded from {days}")
        for refusal in answer["refusals"]:
            say(f"  {refusal['side']}: {one_line(refusal['detail'])}")
            say(f"    {one_line(refusal['remedy'])}")
    if answer["budgets"]:
        say("\nBudgets that hold the first day")
        columns = [Column("  PROGRAMME"), Column("FROM"), Column("TO"), Column("LEFT", right=True)]
        table(columns, [_left(each, "programme", "unawarded_credits") for each in answer["budgets"]])
    say(f"\nContracts, of which other awards may still draw {hours_text(answer['promised_credits'])}")
    names = [Column("  SITE"), Column("CLASS"), Column("FROM"), Column("TO")]
    rows = [_left(each, "site", "left_credits", "held_credits", "gpu_class") for each in answer["contracts"]]
    if rows:
        table([*names, Column("LEFT", right=True), Column("HELD", right=True)], rows)
    else:
        say("  none runs then")


def _left(row: Row, owner: str, left: str, held: str | None = None, gpu_class: str | None = None) -> list[str]:
    kind = [row[gpu_class]] if gpu_class else []
    days = [str(first_day(row["start_at"])), str(last_day(row["end_at"]))]
    return [f"  {row[owner]}", *kind, *days, hours_text(row[left]), *([hours_text(row[held])] if held else [])]
