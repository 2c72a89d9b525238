"""The broker's service whose sending stands still at a chosen point, so that a test can kill it just there.

    serve_that_stops.py before|after FOLDER

While FOLDER/armed exists, the next batch stands still right before it is sent, or right after the site took
it and before its ids are recorded; FOLDER/stopped then says so.
"""

import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.port import Answer, JobSpec, Scheduler
from broker import admin, bootstrap


class StopsWhileSending:
    """A real scheduler, but for the one moment."""

    def __init__(self, real: Scheduler, point: str, folder: Path) -> None:
        self._real, self._point, self._folder = real, point, folder

    def submit(self, batch: str, specs: Sequence[JobSpec]) -> Mapping[str, Answer]:
        if not (self._folder / "armed").exists():
            return self._real.submit(batch, specs)
        if self._point == "after":
            self._real.submit(batch, specs)
        (self._folder / "stopped").touch()
        threading.Event().wait()
        raise AssertionError("unreachable")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def main() -> None:
    point, folder = sys.argv[1], Path(sys.argv[2])
    real = bootstrap._slurm
    bootstrap._slurm = lambda site: StopsWhileSending(real(site), point, folder)  # type: ignore[assignment]
    sys.argv = ["idf-compute-broker", "serve"]
    admin.main()


if __name__ == "__main__":
    main()
