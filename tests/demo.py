"""`make demo`: one job's whole trip on this machine, from the command line to a settled charge.

`make up` does the same and leaves it running; `make down` ends it. Everything lies below the given folder.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clusters.region import Region, RegionError
from clusters.slurm import startup
from clusters.slurm.cluster import SlurmCluster
from clusters.slurm.layout import ClusterError

PORT = 8470
EXAMPLE = Path(__file__).resolve().parents[1] / "docs/examples/train.sbatch"
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["demo", "up", "down"])
    parser.add_argument("--folder", type=Path, default=Path("build/demo"))
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder: Path = chosen.folder.resolve()
    try:
        if chosen.what == "down":
            clear(folder)
            print("Nothing is left running.")
            return 0
        with region(folder, keep=chosen.what == "up") as made:
            trip(made)
            if chosen.what == "up":
                what_next(made)
    except (RegionError, ClusterError) as error:
        print(f"\nthe demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; nothing is left running", file=sys.stderr)
        return 130
    return 0


@contextmanager
def region(folder: Path, *, keep: bool) -> Iterator[Region]:
    """A region in the folder, ended at the end unless kept; whatever an earlier run left is cleared first."""
    clear(folder)
    made = None
    done = False
    try:
        say("A throwaway Slurm on loopback: two nodes with four fake A100 each, accounting, its own sshd")
        began = time.monotonic()
        cluster = SlurmCluster.start("demo", folder)
        how = f"isolation {cluster.isolation}" + (f": {cluster.reason}" if cluster.reason else "")
        note(f"Slurm {cluster.version} is up after {time.monotonic() - began:.0f} s, {how}")
        say("The broker on SQLite, an operator, a manager and an engineer with a token each")
        made = Region.make(folder / "region", cluster, port=PORT if free(PORT) else None)
        made.start()
        note(f"it answers at {made.url}")
        yield made
        done = True
    finally:
        if not (keep and done):
            if made is not None:
                made.stop()
            startup.remove(folder / "demo")
            if done:
                say("Everything is shut down")


def trip(made: Region) -> None:
    say("The manager opens a programme, an organisation, a project and an award of 100 GPU-hours")
    made.enrol(typed=show)
    say("The engineer looks at what is left")
    type_(made, "ines", "quota")
    say("... and submits an ordinary sbatch script, over SSH to the cluster; its log comes live")
    type_(made, "ines", "submit", "--follow", os.path.relpath(EXAMPLE))
    job_id = json.loads(made.cli("ines", "jobs", "--limit", "1", "--json"))[0]["id"]
    say("The job is settled")
    wait_settled(made, job_id)
    type_(made, "ines", "show", job_id)
    type_(made, "ines", "quota")
    say("The operator's GPU report agrees with the ledger")
    type_(made, "marc", "report", "gpu", "--by", "project")


def wait_settled(made: Region, job_id: str) -> None:
    until = time.monotonic() + 30
    while json.loads(made.cli("ines", "show", job_id, "--json"))["settled_at"] is None:
        if time.monotonic() > until:
            raise RegionError(f"{job_id} was not settled within 30 s")
        time.sleep(0.2)


def type_(made: Region, person: str, *arguments: str) -> None:
    """Type a command as a person, for all to see."""
    show(person, arguments)
    program = str(Path(sys.executable).parent / "idf-compute")
    environment = made.client_environment(person)
    status = subprocess.run([program, *arguments], env=environment, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        raise RegionError(f"`idf-compute {shlex.join(arguments)}` ended with {status}")


def show(person: str, arguments: Sequence[str]) -> None:
    print(f"{DIM}{person}${PLAIN} idf-compute {shlex.join(arguments)}", flush=True)


def say(sentence: str) -> None:
    print(f"\n{BOLD}── {sentence}{PLAIN}", flush=True)


def note(sentence: str) -> None:
    print(f"   {sentence}", flush=True)


def what_next(made: Region) -> None:
    """Write a shell file per person and say what to type."""
    for person in ("ines", "paul", "marc", "olga"):
        settings = {k: v for k, v in made.client_environment(person).items() if k.startswith("IDF_")}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(settings.items())]
        lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
        (made.folder / f"{person}.sh").write_text("\n".join(lines) + "\n")
    shown = os.path.relpath(made.folder)
    say("It is left running. Type next:")
    note(f". {shown}/ines.sh          # be the engineer (marc: manager, olga: operator)")
    note("idf-compute submit --try --follow -- hostname")
    note("idf-compute jobs")
    note("make down                 # end it all")


def free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def clear(folder: Path) -> None:
    """End what an earlier run left, and remove its folder."""
    pid_file = folder / "region/broker.pid"
    if pid_file.exists():
        end_broker(int(pid_file.read_text()), folder)
    startup.remove(folder / "demo")
    shutil.rmtree(folder, ignore_errors=True)


def end_broker(pid: int, folder: Path) -> None:
    """End a process only if it is the broker of this very folder: ids are used again."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return
    if f"IDF_BROKER_DATA_DIR={folder / 'region/broker'}".encode() not in environment:
        return
    os.kill(pid, signal.SIGTERM)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
