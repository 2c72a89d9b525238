"""Rows of slurmrestd, as those of squeue and sacct: the same words, times and amounts, so that both read alike.

A number is written plainly up to v0.0.39, with Slurm's NO_VAL and INFINITE among them, and as
`{"set": …, "infinite": …, "number": …}` from v0.0.40 on; a state is a word first and then a list of words.
Sources: plugins/openapi/{,db}v0.0.38 of 22.05, plugins/data_parser of 23.11 to 26.05 (JOB_INFO, JOB).
"""

import json
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Any

from adapters.port import UNLIMITED_S, AttemptState
from adapters.slurm.rows import Row, host_list
from adapters.slurm.states import NOTHING_ALLOCATED, Tres, attempt_state, parse_tres

Json = Mapping[str, Any]

Records = Sequence[tuple[str, Json]]
"""Jobs of the queue, each under its id."""
Codes = Mapping[tuple[str, datetime | None], int]
"""Exit codes by job and submit time."""

_INFINITE = 0xFFFFFFFF
_UNSET = frozenset({_INFINITE, 0xFFFFFFFE, 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFE})
"""INFINITE and NO_VAL (slurm.h) of the numbers read here, none of which has 16 bits."""
_RUNS = frozenset({"RUNNING", "CONFIGURING", "RESIZING", "SIGNALING", "STOPPED"})


def of_ids(jobs: object, ids: Set[str]) -> tuple[Records, list[str]]:
    """Return the queue's records of these jobs, none of them an array, and what could not be read."""
    if not isinstance(jobs, list):
        return [], ["slurmrestd gave no list of jobs"]
    records: list[tuple[str, Json]] = []
    odd: list[str] = []
    for job in jobs:
        try:
            job_id, array = str(_known_integer(job["job_id"])), _integer(job.get("array_job_id"))
        except _UNREADABLE as error:
            odd.append(_shown(job, error))
            continue
        if not array and job_id in ids:
            records.append((job_id, job))
    return records, odd


def queue_rows(records: Records, now: int) -> tuple[list[Row], list[str]]:
    """Return the queue's rows, and those that could not be read; `now` is the controller's time."""
    return _rows(records, lambda record: _queue_row(record, now))


def accounting_rows(jobs: object, codes: Codes) -> tuple[list[Row], list[str]]:
    """Return slurmdbd's rows, one per attempt, and those that could not be read.

    Up to v0.0.38 slurmrestd tells 0 as the exit code of every job that was not ended by a signal
    (`_dump_job_exit_code`): then `codes` are the queue's, and 0 of a failure that is not among them is unknown.
    """
    if not isinstance(jobs, list):
        return [], ["slurmrestd gave no list of jobs"]
    return _rows(jobs, lambda job: _accounting_row(job, codes))


def at_work(records: Records) -> set[str]:
    """Return the jobs that wait or run for the first time: accounting has nothing to add to these."""
    return {job_id for job_id, job in records if _integer(job.get("restart_cnt")) == 0 and not _has_ended(job)}


def _has_ended(job: Json) -> bool:
    try:
        return attempt_state(_word(job["job_state"])).ended
    except (KeyError, ValueError):
        return True


def exit_codes(records: Records) -> dict[tuple[str, datetime | None], int]:
    """Return the exit codes that the queue still knows; up to v0.0.38 they are wait statuses there."""
    codes = {}
    for job_id, job in records:
        status, submitted_at = job.get("exit_code"), job.get("submit_time")
        if isinstance(status, int) and isinstance(submitted_at, int):
            codes[job_id, _moment(submitted_at)] = 0 if status & 0x7F else _below_128(status >> 8)
    return codes


def _below_128(code: int) -> int:
    """sacct's way (PRINT_EXITCODE): 128 is taken off."""
    return code - 128 if code >= 128 else code


_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError)


def _rows(told: Sequence[Any], read: Callable[[Any], Row]) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    odd: list[str] = []
    for one in told:
        try:
            rows.append(read(one))
        except _UNREADABLE as error:
            odd.append(_shown(one, error))
    return rows, odd


def _shown(what: object, error: Exception) -> str:
    return f"{type(error).__name__} {error}: {json.dumps(what)[:250]}"


def _queue_row(record: tuple[str, Json], now: int) -> Row:
    job_id, job = record
    native = _word(job["job_state"])
    state = attempt_state(native)
    begun = state is not AttemptState.QUEUED
    return Row(
        job=job_id, name=_text(job["name"]), user=_text(job["user_name"]),
        work_folder=_text(job["current_working_directory"]), state=state, native_state=native,
        submitted_at=_moment(job["submit_time"]), started_at=_moment(job["start_time"]) if begun else None,
        ended_at=_moment(job["end_time"]) if state.ended else None,
        elapsed_s=_time_used(job, native, now) if begun else 0,
        tres=parse_tres(_text(job["tres_alloc_str"])) if begun else Tres(),
        time_limit_s=_minutes(job["time_limit"]), nodes=host_list(_text(job["nodes"])) if begun else (),
        reason=_reason(_text(job.get("state_description")) or _text(job["state_reason"])),
        expected_start=None if begun else _moment(job["start_time"]),
    )  # fmt: skip


def _time_used(job: Json, native: str, now: int) -> int:
    """squeue's TimeUsed (job_time_used, squeue/print.c): what was suspended is left out."""
    start, end = _integer(job["start_time"]) or 0, _integer(job["end_time"]) or 0
    before, suspended = _integer(job["pre_sus_time"]) or 0, _integer(job["suspend_time"]) or 0
    if start == 0:
        return 0
    if native == "SUSPENDED":
        return before
    until = now if native in _RUNS or end == 0 else end
    return max(0, until - suspended + before) if suspended else max(0, until - start)


def _accounting_row(job: Json, codes: Codes) -> Row:
    time, state = job["time"], job["state"]
    native, ended_at = _word(state["current"]), _moment(time["end"])
    killer = _text(job.get("kill_request_user"))
    if native == "CANCELLED" and killer:
        native = f"CANCELLED by {killer}"
    job_id, submitted_at = str(_known_integer(job["job_id"])), _moment(time["submission"])
    row = Row(
        job=job_id, name=_text(job["name"]), user=_text(job["user"]), work_folder=_text(job["working_directory"]),
        state=attempt_state(native, over=ended_at is not None), native_state=native, submitted_at=submitted_at,
        started_at=_moment(time["start"]), ended_at=ended_at, elapsed_s=_integer(time["elapsed"]) or 0,
        tres=_tres(job["tres"]["allocated"]), time_limit_s=_minutes(time["limit"]),
        nodes=host_list(_text(job["nodes"])), reason=_reason(_text(state["reason"])),
    )  # fmt: skip
    row.exit_code, row.signal = _ended_with(job["exit_code"])
    if job["exit_code"]["status"] == "SUCCESS":  # a list of words from v0.0.40 on
        row.exit_code = 0 if row.state is AttemptState.SUCCEEDED else codes.get((job_id, submitted_at))
    return row


def _ended_with(said: Json) -> tuple[int | None, int | None]:
    """Return exit code and signal, as sacct's `code:signal`."""
    signal = said.get("signal") or {}
    number = _integer(signal.get("id", signal.get("signal_id"))) or None
    code = _integer(said.get("return_code"))
    if number is not None or _word(said["status"]) == "PENDING":
        return 0, number
    return None if code is None else _below_128(code), None


def _tres(allocated: object) -> Tres:
    """Read slurmdbd's list of trackable resources; memory is MiB there."""
    if not isinstance(allocated, list):
        raise TypeError("tres")
    if not allocated:
        return NOTHING_ALLOCATED
    pairs = []
    for one in allocated:
        count = _integer(one["count"])
        if count is None or count < 0:
            continue
        name = f"{one['type']}/{one['name']}" if one.get("name") else str(one["type"])
        pairs.append(f"{name}={count}{'M' if name == 'mem' else ''}")
    return parse_tres(",".join(pair for pair in pairs if pair.startswith(("cpu=", "mem=", "node=", "gres/gpu"))))


def _word(value: object) -> str:
    """Return a state as squeue shows it (job_state_string): a flag comes before the state that it stands with."""
    words = [str(word) for word in value] if isinstance(value, list) else [str(value or "")]
    if not all(words or [""]):
        raise ValueError(f"no state: {value!r}")
    unknown = (word for word in words if attempt_state(word) is AttemptState.UNKNOWN)
    shown = (word for word in _FLAGS if word in words)
    return next(unknown, None) or next(shown, None) or words[0]


_FLAGS = (
    "COMPLETING", "STAGE_OUT", "CONFIGURING", "EXPEDITING", "RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD",
    "SPECIAL_EXIT", "STOPPED", "REVOKED", "RESV_DEL_HOLD", "SIGNALING",
)  # fmt: skip


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"no text: {value!r}")
    return value


def _reason(text: str) -> str:
    return "" if text == "None" else text


def _integer(value: object) -> int | None:
    """Return a number however it is written; None where it is not set, or without end."""
    if isinstance(value, Mapping):
        if value.get("infinite") or not value.get("set"):
            return None
        value = value["number"]
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"no number: {value!r}")
    return None if value in _UNSET else value


def _known_integer(value: object) -> int:
    number = _integer(value)
    if not number:
        raise ValueError(f"no job id: {value!r}")
    return number


def _minutes(value: object) -> int | None:
    if value == _INFINITE or (isinstance(value, Mapping) and value.get("infinite")):
        return UNLIMITED_S
    minutes = _integer(value)
    return None if minutes is None else minutes * 60


def _moment(value: object) -> datetime | None:
    seconds = _integer(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
