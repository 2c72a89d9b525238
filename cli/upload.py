"""Send a folder to the broker, unless it has it already."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cli import config, snapshot
from cli.client import Client
from cli.output import note, one_line
from cli.units import size_text

BAR_FROM_BYTES = 4 * 1024 * 1024


def send_folder(client: Client, folder: Path, *, dry_run: bool = False) -> str | None:
    """Pack a folder, show its size, send it if the broker lacks it. Raises Failure.

    Gives the digest under which the broker has it; None after a dry run that found it was not there.
    """
    limits = config.load()
    packed = snapshot.pack(folder, limits.snapshot_bytes_max, limits.snapshot_files_max)
    with packed.file:
        sizes = f"{size_text(packed.content_bytes)}, packed {size_text(packed.size_bytes)}"
        known = client.exists(f"/v1/snapshots/{packed.digest}")
        ending = "the broker has it already" if known else ("not sent" if dry_run else "sending")
        note(f"folder {one_line(folder)}: {packed.files:,} files, {sizes}, {packed.digest[:12]}; {ending}")
        if not known and not dry_run:
            with bar(packed.size_bytes, "sending") as seen:
                client.put(f"/v1/snapshots/{packed.digest}", packed.file, packed.size_bytes, seen)
    return packed.digest if known or not dry_run else None


@contextmanager
def bar(size_bytes: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for a large file on a terminal; give what must be told of each block moved."""
    if size_bytes < BAR_FROM_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=size_bytes)
        yield lambda moved: progress.advance(task, moved)
