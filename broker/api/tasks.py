"""Tasks of array jobs: list, show, cancel."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from sqlmodel import Session

from accounting.newest import attempts_of
from adapters.arrays import INDEX_MAX, parse_array
from broker.api.edge import ANYBODY, At, GuardedRoute, allow
from broker.api.jobs import job_of, sees_whole, task_row, usage_out, visible_job
from broker.api.pages import Cursor, Limit, number_after, page
from broker.cancel import request_cancel_task
from broker.lifecycle import JobState
from broker.memberships import SUBMITTERS
from broker.progress import progress_of_task
from broker.schemas import Page, TaskDetail, TaskOut
from broker.tasks import rows_of_tasks, state_of

router = APIRouter(route_class=GuardedRoute, tags=["jobs"])

Task = Annotated[int, Path(ge=0, le=INDEX_MAX, description="The number of a task of the array")]
_SAME = ("reason", "started_at", "ended_at", "settled_at", "cancel_requested_at", "charged_credits", "exit_code")


@router.get("/jobs/{job_id}/tasks", openapi_extra=allow(*ANYBODY))
def list_tasks(
    job_id: str,
    at: At,
    state: Annotated[JobState | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[TaskOut]:
    """List the tasks of an array by their numbers; a job that is no array has none."""
    last = number_after(cursor)
    with at.read() as session:
        row, role = visible_job(session, at, job_id)
        known = rows_of_tasks(session, [job_id])[job_id]
        words = row["array_words"]
        numbers = [task for task in (parse_array(words).tasks if words else ()) if task > last]
        wanted = [task for task in numbers if state in (None, state_of(row["state"], known.get(task)))]
        items = [_out(row, task, known.get(task)) for task in wanted[: limit + 1]]
    return page(items if sees_whole(at, role) else [progress_of_task(item) for item in items], limit, "task")


@router.get("/jobs/{job_id}/tasks/{task}", openapi_extra=allow(*ANYBODY))
def show_task(job_id: str, task: Task, at: At) -> TaskDetail:
    """Show one task of an array with its attempts and their charges."""
    with at.read() as session:
        row, role = visible_job(session, at, job_id)
        seen = _out(row, task, task_row(session, row, task))
        shown = seen if sees_whole(at, role) else progress_of_task(seen)
        attempts = [usage_out(*attempt) for attempt in attempts_of(session, job_id, task)]
    return TaskDetail(**shown.model_dump(), usage=attempts)


@router.post("/jobs/{job_id}/tasks/{task}/cancel", response_model=TaskOut, openapi_extra=allow("engineer", "operator"))
def cancel_task(job_id: str, task: Task, at: At) -> Response:
    """Ask for the end of one task of an array; one that has ended already is answered with its final state."""

    def cancellable(session: Session) -> Any:
        operates = "operator" in at.caller.roles
        row = visible_job(session, at, job_id)[0] if operates else job_of(session, at, job_id, SUBMITTERS)
        return row, task_row(session, row, task)

    with at.read() as session:
        cancellable(session)

    def act(session: Session) -> TaskOut:
        request_cancel_task(session, job_id, task, f"cancelled by {at.caller.name}")
        row, seen = cancellable(session)
        return _out(row, task, seen)

    answer = at.once(None, act, status=200)
    at.services.bell.ring()
    return answer


def _out(row: Any, task: int, seen: Any) -> TaskOut:
    """Show a task from its job's row and its own, which is None as long as it waits."""
    same = {name: getattr(seen, name, None) for name in _SAME}
    return TaskOut(task=task, state=state_of(row["state"], seen), **same)
