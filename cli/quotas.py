"""The command `quota`: what is left of each award, as a bar and in hours of each kind of GPU."""

import typer

from cli import quota_view
from cli.options import Json, Project

app = typer.Typer()


@app.command()
def quota(project: Project = None, in_json: Json = False) -> None:
    """Show what is left of your awards, in normalised GPU-hours and in hours of each kind of GPU.

    \b
    Example:
      idf-compute quota --project vision
    """
    quota_view.quota(project, in_json)
