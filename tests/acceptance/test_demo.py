"""`make demo` as a newcomer types it: exit 0, the settled charge in print, nothing left running, also after a crash."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters.slurm import control

pytestmark = pytest.mark.cluster
DEMO = Path(__file__).resolve().parents[1] / "demo.py"
ROOT = DEMO.parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "demo"
    assert demo("down", tmp_path / "demo").returncode == 0
    assert left_running(tmp_path) == []


def begin(what: str, folder: Path) -> "subprocess.Popen[str]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IDF_")}
    command = [sys.executable, str(DEMO), what, "--folder", str(folder)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def demo(what: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    process = begin(what, folder)
    out, _ = process.communicate(timeout=170)
    return subprocess.CompletedProcess(what, process.returncode, out, "")


def left_running(folder: Path) -> list[str]:
    """Command lines and environments of processes that name the folder, and members of its cluster."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and int(process.name) != os.getpid():
            found.append(words.decode(errors="replace")[:300])
    cluster = folder / "demo/demo"
    return found + [str(pid) for pid in (control.members(cluster) if cluster.exists() else [])]


def test_one_run_ends_well_and_leaves_nothing(folder: Path) -> None:
    began = time.monotonic()
    done = demo("demo", folder)
    assert done.returncode == 0, done.stdout[-3000:]
    assert time.monotonic() - began < 180
    assert "epoch 5/5" in done.stdout
    assert re.search(r"charged \d+(\.\d+)? h", done.stdout), done.stdout[-3000:]
    assert "\x1b" not in done.stdout, "no colours into a pipe"
    assert left_running(folder.parent) == []


def test_a_run_after_one_that_was_killed(folder: Path) -> None:
    killed = begin("demo", folder)
    assert killed.stdout is not None
    for line in killed.stdout:
        if "epoch 1/5" in line or "submit" in line:
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert left_running(folder.parent) != [], "the crash left something to clear up"
    done = demo("demo", folder)
    assert done.returncode == 0, done.stdout[-3000:]
    assert left_running(folder.parent) == []
