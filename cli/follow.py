"""Wait for a job's end, showing its log or its states meanwhile, and end with the job's own outcome."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cli.client import LOG_WAIT_S, Client, LogChunk, Row, path_of
from cli.exits import Exit, Failure, has_ended, of_state
from cli.output import LogText, note, one_line
from cli.units import duration_text, hours_text, moment

CHUNK_BYTES = 256 * 1024
POLL_PAUSES_S = (0.2, 0.3, 0.5, 1, 2)
"""Between two looks at a job that is waited for; the last one repeats."""
PATIENCE_S = 120
"""For how long a broker that went away in the middle of a log is tried again."""
START_WAIT_S = 2
"""For how long the broker holds a request before the job runs, so that its states are seen to change."""
IDLE_PAUSE_S = 0.3
"""The least time between two requests that bring nothing, should the broker not hold them."""
AWAY_PAUSE_S = 2
T = TypeVar("T")


def follow(client: Client, job: str, offset: int = 0, *, raw: bool = False) -> Exit:
    """Show the log of a job, or a task, from an offset (bytes) until it ends. Ctrl-C leaves it running."""
    try:
        _stream(client, job, offset, raw=raw)
        return outcome({**client.get(path_of(job)), "id": job})
    except KeyboardInterrupt:
        return interrupted(job)


def wait(client: Client, job: str) -> Row | None:
    """Wait for a job's end, saying each new state on stderr; None after Ctrl-C."""
    pauses, said = iter(POLL_PAUSES_S), ""
    pause = 0.0
    try:
        while True:
            seen = _patiently(lambda: client.get(path_of(job)))
            if has_ended(str(seen["state"])):
                return seen
            said = _say_state(job, str(seen["state"]), said)
            pause = next(pauses, pause)
            time.sleep(pause)
    except KeyboardInterrupt:
        return None


def print_log(client: Client, job: str, offset: int, *, raw: bool) -> None:
    """Print what a job has logged so far, from an offset in bytes."""
    text, exists = LogText(), False
    for chunk in _so_far(client, job, offset):
        exists = exists or chunk.exists
        _show(text, chunk.text, raw=raw)
    _show(text, b"", raw=raw, final=True)
    if not exists:
        note(f"job {one_line(job)} has no log yet; wait for it with: idf-compute logs -f {one_line(job)}")


def whole_log(client: Client, job: str, offset: int) -> Row:
    """Give what a job has logged so far as `text`, with the offset to go on from."""
    chunks = list(_so_far(client, job, offset))
    text = b"".join(chunk.text for chunk in chunks).decode("utf-8", "backslashreplace")
    last = chunks[-1]
    return {
        "job": job,
        "text": text,
        "next_offset": last.next_offset,
        "exists": last.exists,
        "state": last.state,
    }


def _so_far(client: Client, job: str, offset: int) -> Iterator[LogChunk]:
    while True:
        chunk = client.log(job, offset, CHUNK_BYTES)
        yield chunk
        if not chunk.text or chunk.next_offset <= offset:
            return
        offset = chunk.next_offset


def interrupted(job: str) -> Exit:
    """Say that Ctrl-C ended this command only."""
    note(f"\nthe job goes on; to end it: idf-compute cancel {one_line(job)}")
    return Exit.INTERRUPTED


def outcome(job: Row) -> Exit:
    """Say on stderr how a job ended and what it cost, and give the exit code."""
    state = str(job["state"])
    if not has_ended(state):
        note(f"job {one_line(job['id'])} is {one_line(state)}")
        return Exit.OK
    took = f" after {duration_text(ran_s(job) or 0)}" if job["started_at"] else " before it started"
    why = f" ({one_line(job['reason'])})" if job["reason"] else ""
    code = f", exit code {job['exit_code']}" if job["exit_code"] else ""
    charge = job["charged_credits"]
    cost = f"charged {hours_text(charge)}" if charge is not None else "its charge is not settled yet"
    note(f"job {one_line(job['id'])}: {one_line(state)}{took}{code}{why}; {cost}")
    return of_state(state)


def ran_s(job: Row) -> int | None:
    """Give for how long a job ran or has been running, in seconds; None before it starts."""
    if not job["started_at"]:
        return None
    end = moment(job["ended_at"]).timestamp() if job["ended_at"] else time.time()
    return max(0, int(end - moment(job["started_at"]).timestamp()))


def _stream(client: Client, job: str, offset: int, *, raw: bool) -> None:
    """Print the log as it grows. After the end, one empty answer proves that all was read."""
    text, said, ever, hold_s = LogText(), "", False, 0
    while True:
        asked = time.monotonic()
        chunk = _patiently(lambda: client.log(job, offset, CHUNK_BYTES, hold_s))  # noqa: B023 - called at once
        ended = has_ended(chunk.state)
        if not ended:
            said = _say_state(job, chunk.state, said)
        _show(text, chunk.text, raw=raw)
        ever, offset = ever or chunk.exists, chunk.next_offset
        if ended and not chunk.text:
            break
        hold_s = 0 if ended else LOG_WAIT_S if chunk.state == "running" and chunk.exists else START_WAIT_S
        if not chunk.text:
            time.sleep(max(0.0, IDLE_PAUSE_S - (time.monotonic() - asked)))
    _show(text, b"", raw=raw, final=True)
    if not ever:
        note("the job wrote no log")


def _show(text: LogText, chunk: bytes, *, raw: bool, final: bool = False) -> None:
    if raw:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(text.feed(chunk, final=final))
        sys.stdout.flush()


def _say_state(job: str, state: str, said: str) -> str:
    if state and state != said:
        note(f"job {one_line(job)} is {one_line(state)}")
    return state or said


def _patiently(ask: Callable[[], T]) -> T:
    """Ask again while the broker is away, for two minutes; the job does not need it to run."""
    begun, told = time.monotonic(), False
    while True:
        try:
            return ask()
        except Failure as failure:
            if failure.exit_code is not Exit.UNREACHABLE or time.monotonic() > begun + PATIENCE_S:
                raise
        if not told:
            note("the broker does not answer; the job goes on, trying again …")
        told = True
        time.sleep(AWAY_PAUSE_S)
