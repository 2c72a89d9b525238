"""What a coach sees of a job: how far it is, and nothing that engineers wrote or that comes out of their data.

Shown: states and times, who submitted it, where, its size, its credits. Hidden: its name, the reasons and notices,
which quote it; script and folder, whose digest opens the folder; its exit code, which is an output (docs/rules.md).
"""

from typing import Any

from broker.schemas import JobDetail, JobOut, TaskOut

_EMPTY: dict[str, Any] = {"name": None, "reason": None, "notices": [], "exit_code": None}
HIDDEN = tuple(_EMPTY)
_EMPTY_OF_TASK: dict[str, Any] = {"reason": None, "exit_code": None}
_TOOLS: dict[str, Any] = {"named_environment": None, "modules": [], "container": None}
HIDDEN_IN_DETAIL = (*HIDDEN, "snapshot", "script_sha256", *_TOOLS, "causes")


def progress_of(job: JobOut) -> JobOut:
    """Return a job as its project's coach sees it in a list."""
    return job.model_copy(update={**_EMPTY, "hidden": list(HIDDEN)})


def progress_in_detail(job: JobDetail) -> JobDetail:
    """Return a job with its timeline as its project's coach sees it."""
    events = [event.model_copy(update={"cause": None}) for event in job.events]
    empty = {"snapshot": None, "script_sha256": None, "hidden": list(HIDDEN_IN_DETAIL)}
    return job.model_copy(update={**_EMPTY, **_TOOLS, **empty, "events": events})


def progress_of_task(task: TaskOut) -> TaskOut:
    """Return one task of an array as its project's coach sees it."""
    return task.model_copy(update={**_EMPTY_OF_TASK, "hidden": list(_EMPTY_OF_TASK)})
