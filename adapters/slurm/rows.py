"""Rows of squeue and sacct, read field by field; a row that cannot be read is handed back, never dropped.

Times are seconds since 1970 (SLURM_TIME_FORMAT=%s). The fields come in the order that the gateway says; free
text is the last one, so a separator inside a job's name cuts nothing.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.port import UNLIMITED_S, Attempt, AttemptState
from adapters.slurm.states import Tres, attempt_state, parse_tres

NODES_MAX = 4096


@dataclass(slots=True)
class Row:
    """One attempt as one source shows it."""

    job: str
    name: str
    user: str
    work_folder: str
    state: AttemptState
    native_state: str
    submitted_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    elapsed_s: int
    tres: Tres
    time_limit_s: int | None
    nodes: tuple[str, ...]
    reason: str
    exit_code: int | None = None
    signal: int | None = None

    def attempt(self, cluster: str, account: str) -> Attempt:
        """Return the port's view of it. A requeue resets the submit time, so that tells attempts apart.

        Raises:
            ValueError: Slurm gave no submit time.
        """
        if self.submitted_at is None:
            raise ValueError("no submit time")
        return Attempt(
            source_key=f"{cluster}/{self.job}/{int(self.submitted_at.timestamp())}",
            site_job_id=self.job, name=self.name, account=account, state=self.state,
            native_state=self.native_state, submitted_at=self.submitted_at, started_at=self.started_at,
            ended_at=self.ended_at, elapsed_s=self.elapsed_s, gpus=self.tres.gpus,
            gpu_types=self.tres.gpu_types, cpus=self.tres.cpus, memory_mib=self.tres.memory_mib,
            node_count=self.tres.nodes, nodes=self.nodes,
            time_limit_s=self.time_limit_s, exit_code=self.exit_code, signal=self.signal, reason=self.reason,
        )  # fmt: skip


def queue_rows(text: str, fields: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Return squeue's rows, and those that could not be read."""
    return _rows(text, fields, _queue_row)


def accounting_rows(text: str, fields: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Return sacct's rows, and those that could not be read."""
    return _rows(text, fields, _accounting_row)


def _rows(text: str, fields: Sequence[str], read: Callable[[dict[str, str]], Row]) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    odd: list[str] = []
    for line in text.split("\n"):
        if not line:
            continue
        words = line.split("|", len(fields) - 1)
        try:
            rows.append(read(dict(zip(fields, words, strict=True))))
        except (ValueError, KeyError, OverflowError, OSError):
            odd.append(line)
    return rows, odd


def _queue_row(field: dict[str, str]) -> Row:
    """squeue's start and end of a job that waits are a forecast: left out. Its end is decided by accounting."""
    native = field["State"]
    state = attempt_state(native)
    begun = state is not AttemptState.QUEUED
    return Row(
        job=field["JobArrayID"], name=field["Name"], user=field["UserName"], work_folder=field["WorkDir"],
        state=state, native_state=native, submitted_at=_moment(field["SubmitTime"]),
        started_at=_moment(field["StartTime"]) if begun else None,
        ended_at=_moment(field["EndTime"]) if state.ended else None,
        elapsed_s=_clock(field["TimeUsed"]) or 0, tres=parse_tres(field["tres-alloc"]) if begun else Tres(),
        time_limit_s=_limit(field["TimeLimit"]), nodes=host_list(field["NodeList"]) if begun else (),
        reason="" if field["Reason"] == "None" else field["Reason"],
    )  # fmt: skip


def _accounting_row(field: dict[str, str]) -> Row:
    native, ended_at = field["State"], _moment(field["End"])
    code, _, signal = field["ExitCode"].partition(":")
    return Row(
        job=field["JobID"], name=field["JobName"], user=field["User"], work_folder=field["WorkDir"],
        state=attempt_state(native, over=ended_at is not None), native_state=native,
        submitted_at=_moment(field["Submit"]), started_at=_moment(field["Start"]), ended_at=ended_at,
        elapsed_s=int(field["ElapsedRaw"] or 0), tres=parse_tres(field["AllocTRES"]),
        time_limit_s=_limit(field["TimelimitRaw"]), nodes=host_list(field["NodeList"]),
        reason="" if field["Reason"] == "None" else field["Reason"],
        exit_code=int(code) if code else None, signal=int(signal) or None if signal else None,
    )  # fmt: skip


def _limit(word: str) -> int | None:
    """Read a time limit: minutes from sacct, a clock from squeue."""
    if word.upper() == "UNLIMITED":
        return UNLIMITED_S
    return int(word) * 60 if word.isdigit() else _clock(word)


def _moment(word: str) -> datetime | None:
    """Slurm writes Unknown, N/A or None for a time that is not there (yet)."""
    if word in ("", "Unknown", "N/A", "None", "NONE"):
        return None
    return datetime.fromtimestamp(int(word), UTC)


_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", re.ASCII)


def _clock(word: str) -> int | None:
    """Read `[days-][hours:]minutes:seconds`; None for UNLIMITED, NOT_SET, INVALID and the like."""
    match = _CLOCK.fullmatch(word)
    if match is None:
        if word.replace("_", "").isalpha() or word in ("", "N/A"):
            return None
        raise ValueError(word)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


_HOST = r"([^,\[\]]*)(?:\[([0-9,-]+)\]([^,\[\]]*))?(?:,|$)"
_HOSTS = re.compile(_HOST, re.ASCII)
_HOST_LIST = re.compile(f"(?:{_HOST})+", re.ASCII)


def host_list(text: str) -> tuple[str, ...]:
    """Expand `gpu[01-03,07],login1`, to at most `NODES_MAX` names; another notation is kept as one word."""
    if text in ("", "None assigned", "(null)", "N/A"):
        return ()
    if not _HOST_LIST.fullmatch(text):
        return (text,)
    names: list[str] = []
    for match in _HOSTS.finditer(text):
        before, ranges, after = match.groups()
        if ranges is None:
            names += [before] if before else []
            continue
        for part in ranges.split(","):
            first, _, last = part.partition("-")
            if not first.isdigit() or (last and not last.isdigit()) or len(names) > NODES_MAX:
                return (text,)
            numbers = range(int(first), min(int(last or first), int(first) + NODES_MAX) + 1)
            names += [f"{before}{number:0{len(first)}d}{after}" for number in numbers]
    return tuple(names)
