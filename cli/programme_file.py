"""A programme as a TOML file: read whole, every key known, hours and durations as people write them."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

from cli.client import Row
from cli.exits import Exit, Failure
from cli.units import credits_of_hours, day, duration_s

TEMPLATES = Path(__file__).parent / "policies"
FILE_BYTES_MAX = 1_000_000

PLAIN = (
    "kind", "full_name", "shortest_months", "longest_months", "awards_per_year_max", "confidentialities", "natures",
    "regime", "scheme", "warn_at_thousandths", "notice_days", "expiring_days", "export_days", "free_hours_first",
    "images", "reclaim",
)  # fmt: skip
"""Keys that go to the broker as they are; it says what is wrong with their values."""
READ = {
    "default_time_limit": ("default_time_limit_s", duration_s),
    "award_max": ("award_credits_max", credits_of_hours),
    "four_eyes_above": ("four_eyes_above_credits", credits_of_hours),
}
"""Keys whose value is text that we read: the broker's name for it, and how."""
TABLES = {
    "reclaim": ("after_thousandths", "used_below_thousandths", "take_thousandths"),
    "budget": ("from", "to", "hours"),
    "share": ("from", "region_thousandths", "company_thousandths", "partner_thousandths"),
}


def read(file: Path) -> Row:
    """Read a programme's file as the body that opens it. Raises Failure."""
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {file}: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise Failure(Exit.USAGE, f"{file} is above 1 MB", "a programme's file has a few dozen lines")
    return parsed(content, str(file))


def template(name: str) -> str:
    """Give the text of a ready-made file. Raises Failure."""
    if name not in templates():
        raise Failure(Exit.USAGE, f"there is no template {name}", f"there are: {', '.join(templates())}")
    return (TEMPLATES / f"{name}.toml").read_text(encoding="utf-8")


def templates() -> dict[str, str]:
    """Give the ready-made files: name → what its first line says."""
    files = sorted(TEMPLATES.glob("*.toml"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for file in files}


def parsed(content: bytes, where: str) -> Row:
    """Turn a file's content into the body that opens a programme; `where` names it. Raises Failure."""
    import tomllib

    try:
        entries = tomllib.loads(content.decode())
    except ValueError as error:  # bad TOML, or bytes that are no UTF-8
        raise Failure(Exit.USAGE, f"{where} is not valid TOML: {error}") from error
    known = ("name", *PLAIN, *READ, "budget", "share")
    _check_keys(entries, known, where)
    for table, keys in TABLES.items():
        for entry in _tables(entries, table, where):
            _check_keys(entry, keys, f"{where}, [[{table}]]")
    body = {key: entries[key] for key in ("name", *PLAIN) if key in entries}
    for key, (field, reader) in READ.items():
        if key in entries:
            body[field] = reader(_text(entries, key, where))
    body["budgets"] = [_budget(entry, where) for entry in _tables(entries, "budget", where)]
    body["shares"] = [_shares(entry, where) for entry in _tables(entries, "share", where)]
    return body


def _check_keys(entries: Row, known: tuple[str, ...], where: str) -> None:
    for key in entries:
        if key not in known:
            from difflib import get_close_matches

            near = get_close_matches(key, known, n=1, cutoff=0.0)
            raise Failure(Exit.USAGE, f"{where}: the key {key!r} is not known", f"did you mean {near[0]}?")


def _tables(entries: Row, name: str, where: str) -> list[Row]:
    tables = entries.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
        raise Failure(Exit.USAGE, f"{where}: {name} is no list of tables", f"begin each of them with [[{name}]]")
    return tables


def _text(entries: Row, key: str, where: str) -> str:
    if not isinstance(entries.get(key), str):
        example = '"1h"' if key == "default_time_limit" else '"1000h"'
        raise Failure(Exit.USAGE, f"{where}: {key} is missing or no text", f"write it as {key} = {example}")
    return str(entries[key])


def _day(entry: Row, key: str, where: str) -> str:
    value: Any = entry.get(key)
    if isinstance(value, str):
        return str(day(value))
    if not isinstance(value, date) or isinstance(value, datetime):
        raise Failure(Exit.USAGE, f"{where}: {key} is missing or no day", f"write it as {key} = 2027-01-01")
    return str(value)


def _budget(entry: Row, where: str) -> Row:
    of = f"{where}, [[budget]]"
    days = {"start_on": _day(entry, "from", of), "end_on": _day(entry, "to", of)}
    return {**days, "credits": credits_of_hours(_text(entry, "hours", of))}


def _shares(entry: Row, where: str) -> Row:
    since = {"valid_from": _day(entry, "from", f"{where}, [[share]]")} if "from" in entry else {}
    return {**since, **{key: value for key, value in entry.items() if key != "from"}}
