"""The one process that all daemons of a pool descend from; when it ends, so does everything.

Run as `supervisor.py FOLDER`. With a real node it is process 1 of namespaces of its own; without, it is a guard
and its worker, as the Slurm cluster's is.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from clusters.kubernetes import namespace
from clusters.slurm.supervisor import Supervisor, guard, kill_descendants


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def main(folder: Path) -> None:
    """Run one pool's daemons until told to halt."""
    plan = json.loads((folder / "plan.json").read_text())
    if plan["node"]:
        namespace.enter(folder)
    else:
        guard()
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(folder / "run")
    listener.bind("control")
    listener.listen(16)
    os.chdir("/")
    signal.signal(signal.SIGTERM, _leave)
    try:
        Supervisor(folder, plan).serve(listener)
    finally:
        kill_descendants()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
