"""Say what the #SBATCH lines of a script mean for a job of ours. Pure functions over text."""

import re
from typing import Any, NamedTuple

from cli.exits import Exit, Failure
from cli.job_options import HOW_TO_BEGIN, begin_at, signal_of
from cli.sbatch_options import Fate
from cli.sbatch_words import Found, found_in, wrong
from cli.units import memory_mib, slurm_duration_s

_COUNT = re.compile(r"[1-9][0-9]{0,6}")
_GPUS = re.compile(r"0|[1-9][0-9]{0,6}")
_RANGE = re.compile(r"([1-9][0-9]{0,6})(?:-([1-9][0-9]{0,6}))?")


class Directives(NamedTuple):
    """What a script asks of sbatch; None where it does not say. Counts are per job unless named otherwise."""

    name: str | None = None
    time_limit_s: int | None = None
    nodes: int | None = None
    gpus: int | None = None
    gpus_per_node: int | None = None
    gpus_per_task: int | None = None
    gres_per_node: int | None = None
    gpu_type: str | None = None
    constraint: str | None = None
    cpus_per_gpu: int | None = None
    cpus_per_task: int | None = None
    memory: tuple[str, int] | None = None
    """What it is counted by (`node`, `gpu`, `cpu`) and MiB."""
    tasks: int | None = None
    tasks_per_node: int | None = None
    exclusive: bool | None = None
    array: str | None = None
    """Its tasks, as they stand there; the broker reads them."""
    begin_at: str | None = None
    signal: str | None = None
    signal_s: int | None = None
    requeue: bool | None = None
    taken: tuple[Found, ...] = ()
    dropped: tuple[Found, ...] = ()


def parse(script: str) -> Directives:
    """Read a script. Raises Failure: a line sbatch would not take, or an option that would change the job."""
    directives = Directives()
    for found in found_in(script):
        fate = found.option.fate
        if fate is Fate.REFUSE:
            raise _refused(found, f"{found} cannot be taken over", found.option.remark)
        if fate is Fate.DROP:
            directives = directives._replace(dropped=(*directives.dropped, found))
        elif fate is Fate.TAKE:
            directives = _with(directives, found)
    return directives


def _with(directives: Directives, found: Found) -> Directives:
    """Add one taken option; a later one wins, as in sbatch."""
    taken = (*(other for other in directives.taken if other.option.name not in _same(found.option.name)), found)
    return directives._replace(taken=taken, **_meaning(found, found.option.name, found.value))


def _same(name: str) -> tuple[str, ...]:
    """Give the options that one undoes: itself, and its opposite."""
    return ("requeue", "no-requeue") if name in ("requeue", "no-requeue") else (name,)


def _meaning(found: Found, name: str, value: str) -> dict[str, Any]:
    """Give what one option sets in Directives."""
    counts = {"cpus-per-gpu": "cpus_per_gpu", "cpus-per-task": "cpus_per_task", "ntasks": "tasks"}
    counts["ntasks-per-node"] = "tasks_per_node"
    per_gpu_count = {"gpus": "gpus", "gpus-per-node": "gpus_per_node", "gpus-per-task": "gpus_per_task"}
    if name in counts:
        return {counts[name]: _count(found, value)}
    if name in per_gpu_count:
        return _gpus(found, per_gpu_count[name], value)
    if name.startswith("mem"):
        return {"memory": _memory(found, name, value)}
    readers = {"time": _time, "nodes": _nodes, "gres": _gres, "export": _export, "exclusive": _exclusive}
    readers |= {"begin": _begin, "signal": _signal, "requeue": _requeue, "no-requeue": _requeue}
    if name in readers:
        return readers[name](found, value)
    return {name.removeprefix("job-"): value}


def _count(found: Found, value: str) -> int:
    if not _COUNT.fullmatch(value):
        raise wrong(found.line, f"{found} is not understood", "give a whole number above 0")
    return int(value)


def _time(found: Found, value: str) -> dict[str, Any]:
    try:
        return {"time_limit_s": slurm_duration_s(value)}
    except Failure as failure:
        raise wrong(found.line, f"{found} is not understood", "write minutes, HH:MM:SS or D-HH:MM:SS") from failure


def _nodes(found: Found, value: str) -> dict[str, Any]:
    match = _RANGE.fullmatch(value)
    if match is None or (match[2] or match[1]) != match[1]:
        raise _refused(found, f"{found} is no single number of nodes", "write one number, such as --nodes=2")
    return {"nodes": int(match[1])}


def _gpus(found: Found, field: str, value: str) -> dict[str, Any]:
    if "," in value:
        raise _refused(found, f"{found} asks for several kinds of GPU", "a job has GPUs of one kind")
    kind, _, count = value.rpartition(":")
    if not _GPUS.fullmatch(count):
        raise wrong(found.line, f"{found} is not understood", "give a whole number")
    return {field: int(count), **({"gpu_type": kind} if kind else {})}


def _gres(found: Found, value: str) -> dict[str, Any]:
    resource, _, rest = value.removeprefix("gres:").removeprefix("gres/").partition(":")
    if resource != "gpu" or "," in value:
        raise _refused(found, f"{found} asks for more than GPUs", "only gpu[:type][:count] is taken over")
    if not rest or rest[-1] not in "0123456789" or (":" not in rest and not _GPUS.fullmatch(rest)):
        rest = f"{rest}:1" if rest else "1"
    return _gpus(found, "gres_per_node", rest)


def _memory(found: Found, name: str, value: str) -> tuple[str, int]:
    try:
        return name.removeprefix("mem").removeprefix("-per-") or "node", memory_mib(value)
    except Failure as failure:
        raise _refused(found, f"{found} is no amount of memory", "write an amount, such as --mem=64G") from failure


def _export(found: Found, value: str) -> dict[str, Any]:
    if value.upper() not in ("ALL", "NONE", "NIL"):
        raise _refused(found, f"--export with values (line {found.line}) cannot be taken over", "use --env NAME=VALUE")
    return {}


def _exclusive(found: Found, value: str) -> dict[str, Any]:
    if value:
        raise _refused(
            found, f"{found} shares nodes with some", "write --exclusive for whole nodes, or delete the line"
        )
    return {"exclusive": True}


def _begin(found: Found, value: str) -> dict[str, Any]:
    try:
        return {"begin_at": begin_at(value)}
    except Failure as failure:
        raise wrong(found.line, f"{found} is not understood", HOW_TO_BEGIN) from failure


def _signal(found: Found, value: str) -> dict[str, Any]:
    """Take `B:USR1@120`, and `USR1@120` too: a job of ours has no steps, so its program is what gets it."""
    try:
        name, seconds = signal_of(value)
    except Failure as failure:
        raise wrong(found.line, f"{found} is not understood", "write it as --signal=B:USR1@120") from failure
    return {"signal": name, "signal_s": seconds}


def _requeue(found: Found, value: str) -> dict[str, Any]:
    return {"requeue": found.option.name == "requeue"}


def _refused(found: Found, sentence: str, remedy: str) -> Failure:
    where = "" if f"line {found.line}" in sentence else f"line {found.line}: "
    return Failure(Exit.REFUSED, where + sentence, remedy)
