"""A small region on this machine: a broker over a throwaway Slurm, with people, a project and an award.

The demo, the acceptance tests and the benches stand on it. Everything lies below one folder.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from clusters.slurm.cluster import SlurmCluster

from cli.units import paris_today

BROKER_S_MAX = 60
PEOPLE = {"olga": ("operator",), "marc": ("manager",), "ines": ("engineer",), "paul": ("engineer",)}
PROJECTS = {"vision": ("acme", "ines"), "voice": ("echo", "paul")}
GPU_CLASS = "a100-80"
PROGRAMME = "pack-ia-2026"


class RegionError(Exception):
    """The region did not come up, or a command in it failed; the message says which."""


@dataclass
class Region:
    """A broker's process and the settings of the people who use it."""

    folder: Path
    cluster: SlurmCluster
    port: int
    database_url: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    ssh_port: int | None = None
    """Where the site is reached, if not at its own port."""
    transport: str = "ssh"
    broker: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    def make(
        cls,
        folder: Path,
        cluster: SlurmCluster,
        *,
        database_url: str | None = None,
        port: int | None = None,
        transport: str = "ssh",
        **settings: str,
    ) -> "Region":
        """Lay the broker's database and its first tokens; nothing runs yet."""
        folder.mkdir(parents=True, exist_ok=True)
        region = cls(folder.resolve(), cluster, port or free_port(), database_url, settings, transport=transport)
        region.admin("migrate")
        for person, roles in PEOPLE.items():
            options = [word for role in roles for word in ("--role", role)]
            region.admin("token", person, "--file", str(region.token_file(person)), *options)
        return region

    @classmethod
    @contextmanager
    def running(
        cls, folder: Path, cluster: SlurmCluster, *, award: str = "100h", transport: str = "ssh", **settings: str
    ) -> Iterator["Region"]:
        """A region with its first project and award, as long as the block runs.

        Raises:
            RegionError: it did not come up, its books were not in order at the end, or a step of its worker had failed.
        """
        region = cls.make(folder, cluster, transport=transport, **settings)
        try:
            region.start()
            region.enrol(award)
            yield region
        finally:
            region.stop()
        if "in order" not in (said := region.admin("doctor")):
            raise RegionError(f"the books are not in order: {said}")
        if "step-fault" in (region.folder / "broker.log").read_text():
            raise RegionError(f"a step of the worker failed: see {region.folder}/broker.log")

    def environment(self) -> dict[str, str]:
        """The broker's."""
        own = {
            "IDF_BROKER_DATA_DIR": str(self.folder / "broker"),
            "IDF_BROKER_PORT": str(self.port),
            "IDF_BROKER_ALLOW_LOOPBACK_SITES": "true",
            "IDF_BROKER_RECONCILE_INTERVAL_S": "1",
            **self.settings,
        }
        if self.database_url is not None:
            own["IDF_BROKER_DATABASE_URL"] = self.database_url
        return {**_clean(), **own}

    def token_file(self, person: str) -> Path:
        return self.folder / f"{person}.token"

    def token(self, person: str) -> str:
        return self.token_file(person).read_text().strip()

    def admin(self, *arguments: str) -> str:
        """Run `idf-compute-broker`."""
        return _run([_program("idf-compute-broker"), *arguments], self.environment())

    def start(self, *program: str) -> None:
        """Start the service, or a `program` in its place, and wait until it answers."""
        with (self.folder / "broker.log").open("ab") as log:
            command = program or (_program("idf-compute-broker"), "serve")
            self.broker = subprocess.Popen(
                command, env=self.environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        (self.folder / "broker.pid").write_text(str(self.broker.pid))
        until = time.monotonic() + BROKER_S_MAX
        while not _answers(self.port):
            if self.broker.poll() is not None or time.monotonic() > until:
                self.kill()
                tail = (self.folder / "broker.log").read_text()[-2000:]
                raise RegionError(f"the broker did not start; the end of its log: {tail}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End the service at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the service in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.broker is not None:
            self.broker.send_signal(number)
            self.broker.wait(timeout=30)
            self.broker = None
        (self.folder / "broker.pid").unlink(missing_ok=True)

    def client_environment(self, person: str) -> dict[str, str]:
        """What a person's shell holds."""
        own = {
            "IDF_COMPUTE_URL": self.url,
            "IDF_COMPUTE_TOKEN_FILE": str(self.token_file(person)),
            "IDF_COMPUTE_CONFIG": str(self.folder / f"{person}.toml"),
        }
        return {**_clean(), **own}

    def cli(self, person: str, *arguments: str) -> str:
        """Type `idf-compute` as a person; returns what it printed.

        Raises:
            RegionError: it failed.
        """
        return _run([_program("idf-compute"), *arguments], self.client_environment(person))

    def enrol(self, award: str = "100h", typed: Callable[[str, Sequence[str]], None] | None = None) -> None:
        """Enter what a first job needs: a GPU class, a programme, projects with members and awards, the site.

        `typed` is told of every command before it runs.
        """
        for person, *arguments in self._first_commands(award):
            if typed is not None:
                typed(person, arguments)
            self.cli(person, *arguments)

    def _first_commands(self, award: str) -> Iterator[tuple[str, ...]]:
        today = paris_today()
        days = ("--from", str(today - timedelta(days=1)), "--to", str(today + timedelta(days=90)))
        yield ("marc", "class", "add", GPU_CLASS, "--weight", "2", "--from", "2026-01-01")
        budget = ("--budget", "30000h", "--default-time", "30", "--from", "2026-01-01", "--to", "2099-12-31")
        yield ("marc", "programme", "open", PROGRAMME, "--kind", "pack-ia", *budget)
        for project, (organisation, person) in PROJECTS.items():
            yield ("marc", "org", "add", organisation)
            about = ("--org", organisation, "--programme", PROGRAMME, "--confidentiality", "public")
            yield ("marc", "project", "add", project, *about)
            yield ("marc", "project", "join", project, person)
            yield ("marc", "award", "grant", project, award, *days)
        yield ("olga", "site", "enrol", str(self.write_site()))
        bought = ("--order", "BC-2026-17", "--price", "9000", "--price-with-tax", "10800")
        yield ("marc", "contract", "add", self.cluster.name, GPU_CLASS, "50000h", *days, *bought)

    def write_site(self) -> Path:
        """Write the site's enrolment as an operator would."""
        cluster = self.cluster
        accounts = ", ".join(json.dumps(account) for account in cluster.pool)
        rest = f'rest_url = "{cluster.slurmrestd}"\n' if self.transport == "rest" else ""
        file = self.folder / "site.toml"
        file.write_text(
            f"""# The site as the broker reaches it; files lie on the broker's machine.
name = "{cluster.name}"
cluster = "{cluster.name}"
host = "{cluster.host}"
port = {self.ssh_port or cluster.ssh_port}
login = "{cluster.login}"
identity_file = "{cluster.identity_file}"
host_key = "{cluster.known_host}"
isolation = "{cluster.isolation}"
accounts = [{accounts}]
gpus_per_job_max = 8
kill_grace_s = 60
transport = "{self.transport}"
{rest}
[gpu_types]
{json.dumps(GPU_CLASS)} = "a100"

[constraints]
"a100-80g" = {json.dumps(GPU_CLASS)}
"""
        )
        return file


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _program(name: str) -> str:
    """The command of this very environment, whatever PATH says."""
    return str(Path(sys.executable).parent / name)


def _clean() -> dict[str, str]:
    """The environment without anything of ours or of Slurm's."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("IDF_", "SLURM_", "SBATCH_"))}


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        words = " ".join([Path(command[0]).name, *command[1:]])
        raise RegionError(f"`{words}` ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
