"""Slurm's words for states and trackable resources, in the port's words.

Sources: squeue(1) and sacct(1) of 22.05 to 26.05, sections "JOB STATE CODES". Decide on the state, never on
the exit code: out of memory, for one, exits with `0:125`.
"""

import re
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil

from adapters.port import AttemptState

_STATES = {
    "PENDING": AttemptState.QUEUED,
    "REQUEUED": AttemptState.QUEUED,
    "REQUEUE_FED": AttemptState.QUEUED,
    "REQUEUE_HOLD": AttemptState.QUEUED,
    "RESV_DEL_HOLD": AttemptState.QUEUED,
    "SPECIAL_EXIT": AttemptState.QUEUED,
    "EXPEDITING": AttemptState.QUEUED,
    "RUNNING": AttemptState.RUNNING,
    "CONFIGURING": AttemptState.RUNNING,
    "COMPLETING": AttemptState.RUNNING,
    "RESIZING": AttemptState.RUNNING,
    "SIGNALING": AttemptState.RUNNING,
    "STAGE_OUT": AttemptState.RUNNING,
    "STOPPED": AttemptState.RUNNING,
    "SUSPENDED": AttemptState.RUNNING,
    "POWER_UP_NODE": AttemptState.RUNNING,
    "UPDATE_DB": AttemptState.RUNNING,
    "COMPLETED": AttemptState.SUCCEEDED,
    "FAILED": AttemptState.FAILED,
    "LAUNCH_FAILED": AttemptState.FAILED,
    "RECONFIG_FAIL": AttemptState.FAILED,
    "CANCELLED": AttemptState.CANCELLED,
    "DEADLINE": AttemptState.CANCELLED,
    "REVOKED": AttemptState.CANCELLED,
    "TIMEOUT": AttemptState.TIMED_OUT,
    "OUT_OF_MEMORY": AttemptState.OUT_OF_MEMORY,
    "NODE_FAIL": AttemptState.NODE_FAILED,
    "BOOT_FAIL": AttemptState.NODE_FAILED,
    "PREEMPTED": AttemptState.PREEMPTED,
}


def attempt_state(native: str, *, over: bool = False) -> AttemptState:
    """Return the port's word for Slurm's, which may be followed by ` by <uid>`.

    `over` says that accounting gave the attempt an end: then a requeue means that this run was taken off
    its nodes, and the run that waits is another attempt.
    """
    words = native.split(maxsplit=1)
    state = _STATES.get(words[0].rstrip("+"), AttemptState.UNKNOWN) if words else AttemptState.UNKNOWN
    if over and state is AttemptState.QUEUED and words[0] != "PENDING":
        return AttemptState.PREEMPTED
    return state


@dataclass(frozen=True, slots=True)
class Tres:
    """What an attempt was given, of Slurm's trackable resources."""

    gpus: int | None = None
    """None when the site does not track `gres/gpu`, or nothing was allocated yet."""
    gpu_types: dict[str, int] = field(default_factory=dict)
    cpus: int | None = None
    memory_mib: int | None = None
    nodes: int | None = None


NOTHING_ALLOCATED = Tres()


def parse_tres(text: str) -> Tres:
    """Read `cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=1G,node=1`.

    The untyped count and the typed ones are the same GPUs; typed ones alone are added up. Memory is rounded
    up to MiB, which is also its unit where none is written.

    Raises:
        ValueError: the text has another shape.
    """
    if not text or text == "N/A":
        return NOTHING_ALLOCATED
    amounts = dict(pair.split("=", 1) for pair in text.split(","))
    prefix = "gres/gpu:"
    types = {name[len(prefix) :]: int(n) for name, n in amounts.items() if name.startswith(prefix)}
    gpus = int(amounts["gres/gpu"]) if "gres/gpu" in amounts else sum(types.values()) if types else None
    return Tres(
        gpus,
        types,
        cpus=int(amounts["cpu"]) if "cpu" in amounts else None,
        memory_mib=_mib(amounts["mem"]) if "mem" in amounts else None,
        nodes=int(amounts["node"]) if "node" in amounts else None,
    )


_MEMORY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMGTP]?)", re.ASCII)
_KIB = {"K": 1, "": 1024, "M": 1024, "G": 1024**2, "T": 1024**3, "P": 1024**4}


def _mib(text: str) -> int:
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return ceil(Fraction(match[1]) * _KIB[match[2]] / 1024)
