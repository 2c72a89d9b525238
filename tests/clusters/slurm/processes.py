"""What runs on this machine, read from /proc."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def every() -> Iterator[int]:
    """Every process that can be seen."""
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208


def parent(pid: int) -> int:
    """The parent's id; 0 when the process is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def alive(pid: int) -> bool:
    """Whether it runs: a zombie does not."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in ("Z", "X")


def name(pid: int) -> str:
    """The command's short name."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def command_line(pid: int) -> list[str]:
    """The arguments it was started with; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def descendants(root: int) -> list[int]:
    """All processes below `root`, parents first."""
    children: dict[int, list[int]] = {}
    for pid in every():
        children.setdefault(parent(pid), []).append(pid)
    found = list(children.get(root, []))
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def of_namespace(pid_namespace: str) -> list[int]:
    """All processes of a pid namespace, as `readlink /proc/PID/ns/pid` names it."""
    return [pid for pid in every() if namespace(pid) == pid_namespace]


def namespace(pid: int) -> str:
    """The pid namespace of a process; empty when it is gone or not ours to look at."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115
    except OSError:
        return ""


def listening(port: int) -> bool:
    """Whether something listens on the TCP port; looked up, for a trial connection would stain logs."""
    local = f":{port:04X}"
    tables = [path for path in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")) if path.exists()]
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    return any(row[1].endswith(local) and row[3] == "0A" for row in rows)


def wait_until(condition: Callable[[], bool], timeout_s: float, pause_s: float = 0.05) -> bool:
    """Wait for a condition; False when it did not come in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True


def _stat(pid: int) -> list[str]:
    """State, parent and what follows, behind the name that may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
