"""Options of a job that are read from text: when it begins, its signal, what it runs after, its environment."""

import re
from datetime import datetime, timedelta

from cli.exits import Exit, Failure
from cli.units import duration_s

_RELATIVE = re.compile(r"(now)?\+(.+)")
_SLURM_UNITS = re.compile(r"([0-9]{1,9})(second|minute|hour|day|week)s?")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
_UNIT_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}
_SIGNAL = re.compile(r"(?:B:)?(?:SIG)?([A-Z0-9]{1,4})(?:@([0-9]{1,5}))?")
_NUMBERS = {"1": "HUP", "2": "INT", "3": "QUIT", "10": "USR1", "12": "USR2", "15": "TERM", "18": "CONT"}
SIGNALS = tuple(_NUMBERS.values())
SIGNAL_S = 60
"""So long before the end a signal is sent when no time is named, as with sbatch."""
HOW_TO_BEGIN = "write +2h, 22:30, 2026-12-31 or 2026-12-31T08:00"


def begin_at(text: str, now: datetime | None = None) -> str:
    """Read when a job may begin: +2h, a time of day, a day or both, in this machine's zone. Raises Failure."""
    now = (now or datetime.now()).astimezone()
    try:
        moment = _relative(text.strip(), now) or _time_of_day(text.strip(), now) or _absolute(text.strip())
    except (ValueError, OverflowError) as error:
        raise Failure(Exit.USAGE, f"the time to begin {text!r} is not understood", HOW_TO_BEGIN) from error
    return moment.replace(microsecond=0).isoformat()


def _relative(text: str, now: datetime) -> datetime | None:
    match = _RELATIVE.fullmatch(text)
    if match is None:
        return None
    if units := _SLURM_UNITS.fullmatch(match[2]):
        return now + timedelta(seconds=int(units[1]) * _UNIT_S[units[2]])
    if match[1] and match[2].isdecimal():
        return now + timedelta(seconds=int(match[2]))  # sbatch counts seconds there
    try:
        return now + timedelta(seconds=duration_s(match[2]))
    except Failure as failure:
        raise ValueError(text) from failure


def _time_of_day(text: str, now: datetime) -> datetime | None:
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    today = now.replace(hour=int(match[1]), minute=int(match[2]), second=int(match[3] or 0), microsecond=0)
    return today if today > now else today + timedelta(days=1)


def _absolute(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.astimezone()


def signal_of(text: str) -> tuple[str, int]:
    """Read `USR1@120`, `B:USR1@120` or `10`: the signal, and how many seconds before the end. Raises Failure."""
    match = _SIGNAL.fullmatch(text.strip().upper())
    name = _NUMBERS.get(match[1], match[1]) if match else ""
    if match is None or name not in SIGNALS:
        raise Failure(Exit.USAGE, f"the signal {text!r} is not understood", "write USR1@120: the signal, then seconds")
    return name, int(match[2] or SIGNAL_S)


def after_fields(succeeded: list[str], ended: list[str], failed: list[str]) -> list[dict[str, str]]:
    """Give what a job runs after, as the broker reads it."""
    kinds = (("afterok", succeeded), ("afterany", ended), ("afternotok", failed))
    return [{"job": job, "kind": kind} for kind, jobs in kinds for job in dict.fromkeys(jobs)]


def environment_fields(given: list[str]) -> tuple[dict[str, str], str | None]:
    """Part `--env NAME=VALUE`, a variable, from `--env NAME`, an environment that the site offers. Raises Failure."""
    variables = [pair for pair in given if "=" in pair]
    names = [name for name in given if "=" not in name]
    if any(pair.startswith("=") for pair in variables) or "" in names:
        raise Failure(
            Exit.USAGE,
            "--env without a name is not understood",
            "write --env NAME=VALUE, or --env with one of env list",
        )
    if len(names) > 1:
        raise Failure(Exit.USAGE, f"--env names several environments: {', '.join(names)}", "name one; add --module")
    return dict(pair.split("=", 1) for pair in variables), names[0] if names else None
