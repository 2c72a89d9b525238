"""What people type and read: durations in seconds, memory in MiB, GPU-hours in credits, days in Paris."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from cli.exits import Exit, Failure

CREDITS_PER_HOUR = 3_600_000
"""A normalised GPU-hour: one GPU x 3,600 s x a weight of 1000 thousandths (docs/glossary.md)."""
CREDITS_MAX = 2**53

_SLURM_TIME = re.compile(
    r"(?:(?P<d>[0-9]+)-(?P<dh>[0-9]+)(?::(?P<dm>[0-9]+)(?::(?P<ds>[0-9]+))?)?"
    r"|(?P<h>[0-9]+):(?P<hm>[0-9]+):(?P<hs>[0-9]+)|(?P<m>[0-9]+)(?::(?P<ms>[0-9]+))?)"
)
_UNIT_TIME = re.compile(r"(?=[0-9])(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")
_MEMORY = re.compile(r"([0-9]+)([KMGT]?)B?", re.IGNORECASE | re.ASCII)
_HOURS = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?h?")
_EUROS = re.compile(r"([0-9]{1,9})(?:[.,]([0-9]{1,6}))?(?: ?€)?", re.ASCII)
_DIGITS_MAX = 15


def slurm_duration_s(text: str) -> int:
    """Read a time limit as sbatch does: M, M:SS, H:MM:SS, D-H, D-H:MM, D-H:MM:SS. Raises Failure."""
    match = _SLURM_TIME.fullmatch(text.strip()) if len(text) <= _DIGITS_MAX else None
    if match is None:
        raise _bad_time(text)
    of = {name: int(value) for name, value in match.groupdict(default="0").items()}
    hours, minutes, seconds = (
        of["dh"] + of["h"],
        of["dm"] + of["hm"] + of["m"],
        of["ds"] + of["hs"] + of["ms"],
    )
    return _at_least_a_minute(of["d"] * 86400 + hours * 3600 + minutes * 60 + seconds, text)


def duration_s(text: str) -> int:
    """Read what `--time` takes: sbatch's forms, and 90m, 2h, 1d, 1h30m. Raises Failure."""
    match = _UNIT_TIME.fullmatch(text.strip()) if len(text) <= _DIGITS_MAX else None
    if match is None or not any(match.groups()):
        return slurm_duration_s(text)
    days, hours, minutes, seconds = (int(value or 0) for value in match.groups())
    return _at_least_a_minute(days * 86400 + hours * 3600 + minutes * 60 + seconds, text)


def _at_least_a_minute(value_s: int, text: str) -> int:
    if value_s < 60:
        raise Failure(Exit.USAGE, f"the time {text!r} is below one minute", "a job asks for at least one minute")
    return value_s


def _bad_time(text: str) -> Failure:
    return Failure(
        Exit.USAGE,
        f"the time {text!r} is not understood",
        "write 90m, 2h, 1d, minutes, HH:MM:SS or D-HH:MM:SS",
    )


def duration_text(value_s: int) -> str:
    """Write a duration as sbatch would: H:MM:SS, with days D-HH:MM:SS."""
    days, rest = divmod(max(0, value_s), 86400)
    hours, rest = divmod(rest, 3600)
    clock = f"{rest // 60:02}:{rest % 60:02}"
    return f"{days}-{hours:02}:{clock}" if days else f"{hours}:{clock}"


def memory_mib(text: str) -> int:
    """Read memory per node, 4G or 512M (MiB without a unit, as sbatch), rounded up to MiB. Raises Failure."""
    match = _MEMORY.fullmatch(text.strip()) if len(text) <= _DIGITS_MAX else None
    if match is None or int(match[1]) == 0:
        raise Failure(Exit.USAGE, f"the memory {text!r} is not understood", "write 4G or 512M, per node")
    kib = int(match[1]) * {"K": 1, "": 1024, "M": 1024, "G": 1024**2, "T": 1024**3}[match[2].upper()]
    return -(-kib // 1024)


def memory_text(amount_mib: int) -> str:
    """Write an amount of memory: 90 GiB, or MiB where that is no whole number of GiB."""
    whole, rest = divmod(amount_mib, 1024)
    return f"{amount_mib} MiB" if rest or not whole else f"{whole} GiB"


def job_size_text(job: dict[str, Any]) -> str:
    """Write what a job, a plan or an attempt asks for: `2 x a100-80`, or `8 CPUs` where it has no GPU."""
    from cli.output import one_line

    whole = "whole nodes" if job.get("exclusive") else ""
    if job["gpus"]:
        return f"{job['gpus']} x {one_line(job['gpu_class'])}{', ' if whole else ''}{whole}"
    cpus = job.get("cpus")
    return f"{cpus} CPU{'s' if cpus != 1 else ''}" if cpus else whole or "no GPU"


def tasks_text(job: dict[str, Any]) -> str:
    """Write how many tasks an array, or the plan of one, has, and which: `16 tasks (0-15%4)`."""
    from cli.output import one_line

    return f"{job['tasks']} task{'s' if job['tasks'] != 1 else ''} ({one_line(job['array'])})"


def thousandths(weight: str) -> int:
    """Read a weight of at most three decimals, 4 or 0.05, as thousandths. Raises Failure."""
    whole, _, decimals = weight.partition(".")
    digits = f"{whole}{decimals:0<3}"
    if not digits.isascii() or not digits.isdigit() or len(decimals) > 3 or not whole or len(digits) > 7:
        raise Failure(Exit.USAGE, f"the weight {weight!r} is not understood", "write 4 or 2.5, at most three decimals")
    return int(digits)


def credits_of_hours(text: str) -> int:
    """Turn "100h" or "1.5" normalised GPU-hours into credits, exactly. Raises Failure."""
    from decimal import Decimal

    match = _HOURS.fullmatch(text.strip()) if len(text) <= 40 else None
    if match is None:
        raise Failure(Exit.USAGE, f"the GPU-hours {text!r} are not understood", "write 100h or 1.5h")
    amount = Decimal(match[1]) * CREDITS_PER_HOUR
    if amount != amount.to_integral_value():
        raise Failure(Exit.USAGE, f"{match[1]} GPU-hours are no whole number of credits", "1 h is 3,600,000 credits")
    if not 0 < amount <= CREDITS_MAX:
        raise Failure(Exit.USAGE, f"{match[1]} GPU-hours cannot be awarded", "give more than 0 h and at most 2.5e9 h")
    return int(amount)


def gpu_seconds_of_hours(text: str) -> int:
    """Turn "5000h" GPU-hours of one class into GPU-seconds, exactly. Raises Failure."""
    amount = credits_of_hours(text)
    if amount % 1000:
        raise Failure(Exit.USAGE, f"{text} are no whole number of GPU-seconds", "write 100h or 1.5h")
    return amount // 1000


def micro_euros(text: str) -> int:
    """Turn euros, "37000" or "2.35", into micro-euros, exactly. Raises Failure."""
    match = _EUROS.fullmatch(text.strip())
    if match is None:
        raise Failure(Exit.USAGE, f"the euros {text!r} are not understood", "write 37000 or 2.35, at most six decimals")
    return int(match[1]) * 1_000_000 + int(f"{match[2] or '':0<6}")


def exact_euros_text(amount_micro_euros: int) -> str:
    """Write micro-euros as euros, exactly: two decimals, more where they are needed."""
    whole, rest = divmod(amount_micro_euros, 1_000_000)
    decimals = f"{rest:06}".rstrip("0")
    return f"{whole}.{decimals:0<2} €"


def euros_text(amount_micro_euros: int | None) -> str:
    """Write micro-euros as euros and cents, rounded towards zero; unknown stays unknown, and little is not nothing."""
    if amount_micro_euros is None:
        return "unknown"
    if 0 < amount_micro_euros < 10_000:
        return "<0.01 €"
    sign, cents = ("-" if amount_micro_euros < 0 else ""), abs(amount_micro_euros) // 10_000
    return f"{sign}{cents // 100}.{cents % 100:02} €"


def hours_text(amount_credits: int | None) -> str:
    """Write credits as normalised GPU-hours, rounded towards zero, as they may be typed: without a thousands' comma.

    Two decimals, three below one hour; below a tenth two digits, so that little is never shown as nothing.
    """
    if amount_credits is None:
        return "unknown"
    sign, amount = ("-" if amount_credits < 0 else ""), abs(amount_credits)
    if 0 < amount < CREDITS_PER_HOUR // 10:
        return f"{sign}{_two_digits(amount / CREDITS_PER_HOUR)} h"
    decimals = 3 if amount < CREDITS_PER_HOUR else 2
    whole, rest = divmod(amount * 10**decimals // CREDITS_PER_HOUR, 10**decimals)
    return f"{sign}{whole}{f'.{rest:0{decimals}}'.rstrip('0').rstrip('.')} h"


def _two_digits(value: float) -> str:
    return f"{value:.2g}" if value >= 0.0001 else "<0.0001"


def class_hours_text(available_s: int) -> str:
    """Write how long a GPU could run: whole hours, below ten with one decimal, rounded down."""
    tenths = available_s // 360
    return f"{tenths // 10} h" if tenths >= 100 or tenths % 10 == 0 else f"{tenths // 10}.{tenths % 10} h"


def day(text: str) -> date:
    """Read a calendar day, YYYY-MM-DD. Raises Failure."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Failure(Exit.USAGE, f"the day {text!r} is not understood", "write it as 2026-12-31") from None


def moment(text: str) -> datetime:
    """Read a time of the wire; one without a zone is UTC."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def moment_text(text: str | None) -> str | None:
    """Write a time of the wire in this machine's zone, to the second."""
    return None if text is None else moment(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def paris_today() -> date:
    """Return the day that it is in Paris, wherever this machine stands: the Region's days are days there."""
    return datetime.now(ZoneInfo("Europe/Paris")).date()


def first_day(start_at: str) -> date:
    """Give the day in Paris that starts at this UTC time: 22:00 or 23:00 of the day before."""
    return (moment(start_at).astimezone(UTC) + timedelta(hours=2)).date()


def last_day(end_at: str) -> date:
    """Give the last day in Paris before this UTC time (excluded), which is that day's 22:00 or 23:00."""
    return (moment(end_at).astimezone(UTC) - timedelta(seconds=1)).date()


def size_text(size_bytes: int) -> str:
    """Write a size in KiB, MiB or GiB."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    for power, unit in ((1, "KiB"), (2, "MiB")):
        if size_bytes < 1024 ** (power + 1):
            return f"{size_bytes / 1024**power:.1f} {unit}"
    return f"{size_bytes / 1024**3:.1f} GiB"
