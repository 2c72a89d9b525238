"""A throwaway PostgreSQL on loopback for the tests, as whatever user may run it. Standard library only."""

import os
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

START_S_MAX = 30


class PostgresUnavailable(Exception):
    """It cannot be had here; the message says why, for the skip."""


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `url` is SQLAlchemy's, of its empty database `postgres`."""

    folder: Path
    binaries: Path
    port: int

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        return f"postgresql+psycopg://idf@127.0.0.1:{self.port}/{name}"

    @classmethod
    def start(cls) -> "PostgresServer":
        binaries = _binaries()
        folder = Path(tempfile.mkdtemp(prefix="idf-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        server = cls(folder, binaries, _free_port())
        data = folder / "data"
        server._run(
            "initdb", "-D", data, "-U", "idf", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"
        )
        server.resume()
        return server

    def resume(self) -> None:
        """Start the server again after `crash`: it recovers from its write-ahead log."""
        data = self.folder / "data"
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-D", data, "-l", self.folder / "log", "-o", options, "-w", "-t", START_S_MAX, "start")

    def crash(self) -> None:
        """End the server at once, as a power cut would: nothing is written any more, no client is told."""
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-m", mode, "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: object) -> None:
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        command = [*user, str(self.binaries / program), *map(str, arguments)]
        # The server inherits its output's file, so a pipe would never reach its end.
        with tempfile.TemporaryFile("w+") as output:
            status = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False).returncode
            if status:
                output.seek(0)
                raise PostgresUnavailable(f"{program} failed: {output.read()[-2000:]}")


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise PostgresUnavailable("PostgreSQL is not installed: tests/clusters/install-packages.sh postgres")
    return found[-1].parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
