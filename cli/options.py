"""The options that several commands share, and the completion of names, which never fails."""

from collections.abc import Callable, Iterator
from typing import Annotated

import typer

Completion = Iterator[tuple[str, str]]


def _names(path: str, key: str, remark: Callable[[dict[str, object]], str]) -> Callable[[str], Completion]:
    def complete(incomplete: str) -> Completion:
        from cli.client import connect
        from cli.exits import Failure
        from cli.output import one_line

        try:
            items, _ = connect().pages(path, limit=100)
        except Failure:
            return
        for item in items:
            if str(item[key]).startswith(incomplete):
                yield one_line(item[key]), one_line(remark(item))

    return complete


jobs_known = _names("/v1/jobs", "id", lambda job: f"{job['state']} {job['name'] or ''}")
projects_known = _names("/v1/projects", "name", lambda project: str(project["programme"]))
awards_known = _names("/v1/awards", "id", lambda award: f"{award['project']} {award['state']}")
sites_known = _names("/v1/sites", "name", lambda site: str(site["kind"]))
programmes_known = _names("/v1/programmes", "name", lambda programme: str(programme["kind"]))
classes_known = _names("/v1/gpu-classes", "name", lambda kind: f"weight {kind['weight_thousandths']}")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Project = Annotated[
    str | None, typer.Option("--project", "-p", help="Only of this project.", autocompletion=projects_known)
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id.", autocompletion=jobs_known)]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many to show at most.")]
