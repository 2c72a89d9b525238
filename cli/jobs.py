"""Commands about jobs that were submitted: jobs, show, logs, cancel."""

from typing import Annotated

import typer

from cli import job_views
from cli.options import JobId, Json, Limit, Project, jobs_known

app = typer.Typer()


@app.command()
def jobs(
    project: Project = None,
    state: Annotated[
        str | None,
        typer.Option("--state", "-s", help="Only in this state.", autocompletion=lambda: list(job_views.STATES)),
    ] = None,
    limit: Limit = 50,
    every: Annotated[bool, typer.Option("--all", "-a", help="Show all, up to 10,000.")] = False,
    in_json: Json = False,
) -> None:
    """List jobs, the newest first.

    \b
    Example:
      idf-compute jobs --project vision --state running
    """
    job_views.jobs(project, state, limit, every, in_json)


@app.command()
def show(
    job: JobId,
    tasks: Annotated[bool, typer.Option("--tasks", help="List the tasks of an array.")] = False,
    in_json: Json = False,
) -> None:
    """Show a job: its timeline, attempts and charge, and why it waits. One task of an array is ID_7.

    \b
    Example:
      idf-compute show 01JD3X8N5E
      idf-compute show 01JD3X8N5E --tasks
    """
    job_views.show(job, tasks, in_json)


@app.command()
def logs(
    job: JobId,
    keep_on: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Write the bytes as they are, into a file or pipe.")] = False,
    offset: Annotated[int, typer.Option("--offset", min=0, help="Start at this byte.")] = 0,
    in_json: Json = False,
) -> int:
    """Print the log of a job. With --follow, end with the outcome of the job (see idf-compute --help).

    Each task of an array has a log of its own: ID_7.

    \b
    Example:
      idf-compute logs -f 01JD3X8N5E
      idf-compute logs 01JD3X8N5E_7
      idf-compute logs --raw 01JD3X8N5E > train.log
    """
    return job_views.logs(job, keep_on, raw, offset, in_json)


@app.command()
def cancel(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Jobs' ids.", autocompletion=jobs_known)],
    in_json: Json = False,
) -> int:
    """End jobs, or single tasks of arrays (ID_7). What they used is charged, the rest of their hold comes back.

    \b
    Example:
      idf-compute cancel 01JD3X8N5E 01JD3XA2QF_7
    """
    return job_views.cancel(ids, in_json)
