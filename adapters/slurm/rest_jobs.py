"""A job as slurmrestd is asked to run it, and what its answer to that proves.

What is asked is taken from sbatch's own flags (wrapper.py), each of which has one place in slurmrestd's JSON. A flag
without a place is refused by name: what cannot be asked for is never left out.
Sources: plugins/openapi/v0.0.38/jobs.c of 22.05, where a field is one of sbatch's options; from v0.0.40 on
plugins/data_parser/*/parsers.c (JOB_DESC_MSG), where it is a field of the request.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from adapters.errors import Rejected, Uncertain, Unreachable
from adapters.port import Accepted, Answer, JobSpec, Known
from adapters.slurm.refusals import what_proves
from adapters.slurm.rest_client import Outcome, Said
from adapters.slurm.wrapper import batch_script, sbatch_flags

Json = dict[str, Any]
Places = Mapping[str, Callable[[str], Json]]

KNOWN_VERSIONS = ("v0.0.36", "v0.0.37", "v0.0.38", *(f"v0.0.{minor}" for minor in range(40, 46)))
"""22.05 has 36 to 38, 26.05 has 42 to 45. 39 is left out: each release that has it has another of these."""
OF_OPTIONS = frozenset(KNOWN_VERSIONS[:3])
"""Versions whose fields are sbatch's options; slurmdbd's exit codes lack their number there (rest_rows.py)."""


def job_asked(spec: JobSpec, version: str) -> Json:
    """Return what is asked for a job, in the words of a version; the script is among it.

    Raises:
        Rejected: something of the job cannot be asked of Slurm, or not in this way.
    """
    asked: Json = {"script": batch_script(spec), "environment": {}}
    if spec.nodes > 1:
        asked["tasks"] = spec.nodes  # sbatch takes one for each node; slurmrestd would take one for all
    places = _OF_OPTIONS if version in OF_OPTIONS else _OF_FIELDS
    for flag in sbatch_flags(spec):
        name, _, value = flag.partition("=")
        if name not in places:
            raise Rejected(f"this site takes jobs through slurmrestd, which cannot be asked for {name}")
        asked |= places[name](value)
        if name in _TOLD:
            asked["environment"][_TOLD[name]] = value
    return asked


def job_body(asked: Json, version: str, home: str, environment: Mapping[str, str]) -> bytes:
    """Return the body that submits a job as sbatch would, from the account's home and with this environment."""
    pairs = {**environment, **asked["environment"], "SLURM_SUBMIT_DIR": home, "SLURM_UMASK": "0077"}
    log = "%x_%a.log" if "array" in asked else "%x.log"
    job = {**asked, "current_working_directory": home, "standard_output": f"{home}/.idf/logs/{log}"}
    if version not in OF_OPTIONS:
        return _encoded({"job": {**job, "environment": [f"{name}={value}" for name, value in pairs.items()]}})
    script = job.pop("script")
    return _encoded({"script": script, "job": {**job, "environment": pairs}})


def _encoded(body: Json) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _field(name: str, read: Callable[[str], Any] = str) -> Callable[[str], Json]:
    return lambda value: {name: read(value)}


def _number(value: str) -> Json:
    return {"set": True, "infinite": False, "number": int(value)}


def _mib(value: str) -> int:
    if not value.endswith("M"):
        raise Rejected(f"memory is asked of Slurm in MiB, not {value!r}")
    return int(value[:-1])


def _epoch(value: str) -> int:
    """sbatch is given times in UTC (wrapper.py); slurmrestd would read them in its own zone."""
    return int(datetime.strptime(value, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())


def _signal(value: str) -> Json:
    """Read sbatch's `[B:]<signal>@<seconds>`."""
    signal, _, seconds = value.rpartition("@")
    whom = ["BATCH_JOB"] if signal.startswith("B:") else []
    return {
        "kill_warning_signal": signal.removeprefix("B:"),
        "kill_warning_delay": _number(seconds),
        "kill_warning_flags": whom,
    }


def _nothing(_: str) -> Json:
    """slurmrestd reads no directives in a script, and exports nothing but what is sent."""
    return {}


_SAME: Places = {
    "--ignore-pbs": _nothing,
    "--export": _nothing,
    "--job-name": _field("name"),
    "--partition": _field("partition"),
    "--qos": _field("qos"),
    "--account": _field("account"),
    "--dependency": _field("dependency"),
    "--cpus-per-task": _field("cpus_per_task", int),
    "--array": _field("array"),
}
_OF_OPTIONS: Places = {
    **_SAME,
    "--no-requeue": lambda _: {"no_requeue": True},
    "--requeue": lambda _: {"requeue": True},
    "--open-mode": _field("open_mode"),
    "--nodes": _field("nodes"),
    "--time": _field("time_limit", int),
    "--gpus-per-node": _field("gpus_per_node"),
    "--gpus": _field("gpus"),
    "--cpus-per-gpu": _field("cpus_per_gpu", int),
    "--exclusive": lambda _: {"exclusive": "exclusive"},
    "--mem": _field("memory_per_node"),
    "--deadline": lambda value: {"deadline": f"uts{_epoch(value)}"},
    "--begin": lambda value: {"begin_time": f"uts{_epoch(value)}"},
    "--signal": _field("signal"),
    "--constraint": _field("constraints"),
}
_OF_FIELDS: Places = {
    **_SAME,
    "--no-requeue": lambda _: {"requeue": False},
    "--requeue": lambda _: {"requeue": True},
    "--open-mode": lambda value: {"open_mode": [value.upper()]},
    "--nodes": lambda value: {"minimum_nodes": int(value), "maximum_nodes": int(value)},
    "--time": _field("time_limit", _number),
    "--gpus-per-node": lambda value: {"tres_per_node": f"gres/gpu:{value}"},
    "--gpus": lambda value: {"tres_per_job": f"gres/gpu:{value}"},
    "--cpus-per-gpu": lambda value: {"cpus_per_tres": f"gres/gpu:{int(value)}"},
    "--exclusive": lambda _: {"shared": ["none"]},
    "--mem": lambda value: {"memory_per_node": _number(str(_mib(value)))},
    "--deadline": _field("deadline", _epoch),
    "--begin": lambda value: {"begin_time": _number(str(_epoch(value)))},
    "--constraint": _field("constraints"),
    "--signal": _signal,
}

_TOLD = {
    "--gpus-per-node": "SLURM_GPUS_PER_NODE",
    "--gpus": "SLURM_GPUS",
    "--cpus-per-gpu": "SLURM_CPUS_PER_GPU",
    "--cpus-per-task": "SLURM_CPUS_PER_TASK",
}
"""What sbatch itself tells a job of its request, and srun inside the job reads; slurmrestd tells nothing of it."""

_NOT_TAKEN = frozenset({401, 403, 404, 405, 411, 413, 415, 431})
"""Statuses of a request that slurmrestd, or what stands before it, did not act on."""
_ALREADY_GONE = frozenset({"Invalid job id specified", "Job/step already completing or completed"})


def submitted(outcome: Outcome) -> Answer:
    """Read what became of one submission.

    A job id proves that the job is there, whatever else is said: a job of a closed partition gets both.
    """
    if not isinstance(outcome, Said):
        return outcome
    job_id = outcome.body.get("job_id")
    if isinstance(job_id, int) and not isinstance(job_id, bool) and job_id > 0:
        return Accepted(str(job_id))
    said = outcome.sentence()
    if outcome.status == 400:
        return Rejected(said)  # slurmrestd did not please it: it was not passed on
    if outcome.status in _NOT_TAKEN:
        return Unreachable(f"slurmrestd did not take it: {said}")
    proven = [what_proves(str(error.get("error", "")).strip(), said) for error in outcome.errors]
    return proven[0] if proven and not any(isinstance(one, Uncertain) for one in proven) else Uncertain(said)


def cancelled(outcome: Outcome, job: Known) -> Answer:
    """Read what became of one wish to end a job; that it is gone already is as good."""
    if not isinstance(outcome, Said):
        return outcome
    words = {str(error.get(key, "")).strip() for error in outcome.errors for key in ("error", "description")}
    if words & _ALREADY_GONE or (outcome.status == 200 and not outcome.errors):
        return Accepted(job.site_job_id)
    said = outcome.sentence()
    if "Access/permission denied" in words:
        return Rejected(said)
    if any("connect failure" in word for word in words) or outcome.status in _NOT_TAKEN:
        return Unreachable(said)
    return Uncertain(said)
