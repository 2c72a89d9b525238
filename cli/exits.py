"""Exit codes and the one exception that a command ends with."""

from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """What a script that calls `idf-compute` may rely on. The docstring of each is what `--help` prints."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    REFUSED = 3
    NOT_FOUND = 4
    UNREACHABLE = 5
    FORBIDDEN = 6
    JOB_FAILED = 10
    JOB_CANCELLED = 11
    JOB_TIMED_OUT = 12
    JOB_OUT_OF_MEMORY = 13
    JOB_NODE_FAILED = 14
    JOB_PREEMPTED = 15
    JOB_LOST = 16
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS = {
    Exit.OK: "done",
    Exit.UNEXPECTED: "something unexpected: a bug here, or a figure that does not add up",
    Exit.USAGE: "the command, a file or a value was not understood",
    Exit.REFUSED: "refused by a rule; the answer says which and what would make it pass",
    Exit.NOT_FOUND: "no such job, project, award, site or person",
    Exit.UNREACHABLE: "the broker could not be reached or does not answer",
    Exit.FORBIDDEN: "not logged in, or not allowed",
    Exit.JOB_FAILED: "the job failed (submit --wait or --follow, logs -f)",
    Exit.JOB_CANCELLED: "the job was cancelled",
    Exit.JOB_TIMED_OUT: "the job ran into its time limit",
    Exit.JOB_OUT_OF_MEMORY: "the job ran out of memory",
    Exit.JOB_NODE_FAILED: "a node failed under the job",
    Exit.JOB_PREEMPTED: "the site took the job's place for another",
    Exit.JOB_LOST: "the site no longer knows the job",
    Exit.INTERRUPTED: "interrupted by Ctrl-C; a submitted job goes on",
}

_OF_STATE = {
    "succeeded": Exit.OK,
    "failed": Exit.JOB_FAILED,
    "cancelled": Exit.JOB_CANCELLED,
    "timed_out": Exit.JOB_TIMED_OUT,
    "out_of_memory": Exit.JOB_OUT_OF_MEMORY,
    "node_failed": Exit.JOB_NODE_FAILED,
    "preempted": Exit.JOB_PREEMPTED,
    "lost": Exit.JOB_LOST,
}

_OF_STATUS = {
    400: Exit.USAGE,
    401: Exit.FORBIDDEN,
    403: Exit.FORBIDDEN,
    404: Exit.NOT_FOUND,
    422: Exit.USAGE,
    502: Exit.UNREACHABLE,
    503: Exit.UNREACHABLE,
    504: Exit.UNREACHABLE,
}


class Failure(Exception):
    """The end of a command: one sentence for a person, what would help, and the exit code for a script."""

    def __init__(
        self, exit_code: Exit, sentence: str, remedy: str | None = None, problem: dict[str, Any] | None = None
    ) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
        self.sentence = sentence
        self.remedy = remedy
        self.problem = problem
        """The broker's problem details (RFC 9457), when it was the broker that said no."""

    def as_json(self) -> dict[str, Any]:
        """Give what `--json` prints on stderr: the broker's problem where there is one, and the exit code."""
        own = {"detail": self.sentence, "remedy": self.remedy}
        return {"exit_code": int(self.exit_code), **own, **(self.problem or {})}


def has_ended(state: str) -> bool:
    """Say whether a job in this state is over."""
    return state in _OF_STATE


def of_state(state: str) -> Exit:
    """Give the exit code of a job that ended in `state`; a word nobody knows is unexpected."""
    return _OF_STATE.get(state, Exit.UNEXPECTED)


def of_status(status: int, code: str) -> Exit:
    """Give the exit code of a refusal: by its HTTP status; a rule's own code tells a rule from bad input."""
    if status in (400, 422) and code not in ("", "bad-request", "invalid-request"):
        return Exit.REFUSED
    if 400 <= status < 500:
        return _OF_STATUS.get(status, Exit.REFUSED)
    return _OF_STATUS.get(status, Exit.UNEXPECTED)


def epilogue() -> str:
    """Give the list of exit codes as `idf-compute --help` ends with it."""
    return "\n".join(["Exit codes:", *(f"  {code.value:>3}  {text}" for code, text in MEANINGS.items())])
