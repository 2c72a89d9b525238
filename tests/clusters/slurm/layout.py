"""Where everything of one cluster lies, and the ports it listens on."""

import random
import socket
from dataclasses import dataclass
from pathlib import Path

INSIDE = Path("/srv")
"""Where a cluster with accounts of its own sees its folder: short enough for socket paths, and reachable
by project accounts even when the folder itself lies below a private home."""

SOCKET_PATH_LENGTH_MAX = 107
"""Linux, unix(7): sun_path holds 108 bytes with the final zero."""

PARTED = {
    "/tmp": "/run/instances/tmp",
    "/var/tmp": "/run/instances/var-tmp",
    "/dev/shm": "/run/instances/shm",
}
"""Places that each account's jobs see their own copy of, and where root keeps the copies."""

NODES = ("node1", "node2")
FOLDERS = (
    "etc", "etc/ssh", "run", "log", "state", "state/slurmctld", "state/mariadb", "home", "site", "client",
)  # fmt: skip


class ClusterError(Exception):
    """The cluster could not be started, reached or used; the sentence says which part and why."""


@dataclass(frozen=True)
class Layout:
    """The paths of one cluster: `folder` as this process sees it, `root` as the daemons see it."""

    folder: Path
    root: Path

    def check(self) -> None:
        """Refuse a folder whose sockets could not be bound, before anything is started."""
        longest = self.root / "run" / "munge.socket.2.lock"
        if len(str(longest)) > SOCKET_PATH_LENGTH_MAX:
            raise ClusterError(f"{self.folder} is too long a path for Unix sockets: choose a shorter --base")

    def make(self) -> None:
        """Create the folders; only secrets inside them are private, so that jobs can reach their homes."""
        for name in ("", *FOLDERS, *(f"state/{node}" for node in NODES)):
            path = self.folder / name
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write one file below the folder; it never exists with a wider mode than asked."""
        path = self.folder / name
        path.touch(mode=mode)
        path.chmod(mode)
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1, free when they were chosen."""

    mariadbd: int
    slurmdbd: int
    slurmctld: int
    node1: int
    node2: int
    slurmrestd: int
    sshd: int

    @classmethod
    def choose(cls) -> "Ports":
        """Choose below the ephemeral range, where no outgoing connection can take one in the meantime."""
        chosen: set[int] = set()
        while len(chosen) < 7:
            port = random.randint(20000, 32000)
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                chosen.add(port)
        return cls(*chosen)
