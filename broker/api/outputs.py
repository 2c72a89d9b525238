"""Outputs of jobs: list, read a piece. Of an array each path is led by its task, and `task` names one of them."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from adapters.arrays import INDEX_MAX, parse_array
from adapters.port import Scheduler
from broker.accounts import owns
from broker.api.edge import At, Edge, GuardedRoute, allow
from broker.api.jobs import job_of, task_row
from broker.api.pages import Limit
from broker.errors import NotFound
from broker.known import job_name
from broker.memberships import LOG_READERS
from broker.models import Site
from broker.schemas import OutputOut, OutputsOut, SiteIn

OUTPUT_BYTES_MAX = 8 * 1024 * 1024
router = APIRouter(route_class=GuardedRoute, tags=["jobs"])

OutputCursor = Annotated[str | None, Query(max_length=4096)]
"""The path after which a page begins."""
OfTask = Annotated[int | None, Query(ge=0, le=INDEX_MAX, description="One task of an array, whose paths stand alone")]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job's outputs lie, or those of one task of an array."""

    row: Any
    settings: SiteIn
    task: int | None
    there: bool
    """Whether the job was sent, and what lies under that account still is its project's."""

    @property
    def tasks(self) -> tuple[int, ...] | None:
        """The tasks whose folders are meant; None of a job that is no array."""
        if self.row["array_words"] is None:
            return None
        return parse_array(self.row["array_words"]).tasks if self.task is None else (self.task,)

    def scheduler(self, at: Edge) -> Scheduler:
        """Return the way to the site."""
        return at.services.schedulers.at(self.row["site_id"], self.settings)


@router.get("/jobs/{job_id}/outputs", openapi_extra=allow("engineer"))
def list_outputs(
    job_id: str, at: At, limit: Limit = 50, cursor: OutputCursor = None, task: OfTask = None
) -> OutputsOut:
    """List the files of a job's output folder, by path, read as its project's account."""
    place = _place(at, job_id, task)
    if not place.there:
        return OutputsOut(items=[], next_cursor=None, exists=False, left_out=[])
    found = place.scheduler(at).list_outputs(place.row["account"], job_name(job_id), place.tasks)
    above = "" if task is None else f"{task}/"
    files = [OutputOut.model_validate(file, from_attributes=True) for file in found.files]
    shown = [file.model_copy(update={"path": file.path.removeprefix(above)}) for file in files]
    rest = [file for file in shown if cursor is None or file.path > cursor]
    return OutputsOut(
        items=rest[:limit],
        next_cursor=rest[limit - 1].path if len(rest) > limit else None,
        exists=found.exists,
        left_out=list(found.left_out),
    )


@router.get("/jobs/{job_id}/outputs/content", response_class=Response, openapi_extra=allow("engineer"))
def read_output(
    job_id: str,
    at: At,
    path: Annotated[str, Query(min_length=1, max_length=4096)],
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit_bytes: Annotated[int, Query(ge=1, le=OUTPUT_BYTES_MAX)] = OUTPUT_BYTES_MAX,
    task: OfTask = None,
) -> Response:
    """Read a piece of one output file from an offset; `Idf-File-Size` tells the size of the whole."""
    place = _place(at, job_id, task)
    if not place.there:
        raise NotFound(f"job {job_id} has no outputs: it was not sent yet, or its account was wiped", None)
    of_task, name = (place.task, path) if task is not None or place.tasks is None else _of_array(place, path)
    piece = place.scheduler(at).read_output(place.row["account"], job_name(job_id), name, offset, limit_bytes, of_task)
    headers = {"Idf-File-Size": str(piece.size_bytes)}
    return Response(piece.data, media_type="application/octet-stream", headers=headers)


def _of_array(place: Place, path: str) -> tuple[int, str]:
    """Part a path of an array into its task and what lies in that one's folder."""
    number, _, name = path.partition("/")
    task = next((task for task in place.tasks or () if str(task) == number), None)
    if task is None or not name:
        raise NotFound(f"no output {path!r} of the array {place.row['id']}", "its paths begin with a task: 7/model.bin")
    return task, name


def _place(at: Edge, job_id: str, task: int | None) -> Place:
    """Return where the outputs lie, to those who may read the job's log."""
    with at.read() as session:
        row = job_of(session, at, job_id, LOG_READERS)
        if task is not None:
            task_row(session, row, task)
        settings = SiteIn.model_validate(session.get_one(Site, row["site_id"]).settings)
        there = owns(session, row["site_id"], settings, row["account"], row["project_id"])
        return Place(row, settings, task, there and row["site_job_id"] is not None)
