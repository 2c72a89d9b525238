"""A cluster and a broker in this process for the benches: jobs are held through the ledger as in production."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters.region import Region
from clusters.slurm.cluster import SlurmCluster
from sqlalchemy import Table
from sqlmodel import col, select

from broker.accounts import open_accounts
from broker.api.edge import Question, kept_answers
from broker.auth import Caller
from broker.bootstrap import Services, bootstrap
from broker.dispatch import Desk, dispatch
from broker.models import Person, Site
from broker.schemas import JobIn, SiteIn
from broker.settings import Settings
from broker.submit import hold, plan
from storage.tables import utcnow

REST_S = 3
SCRIPT = "#!/bin/bash\n" + "# a line of an ordinary training script\n" * 20 + "python train.py\n"


@dataclass(frozen=True)
class BenchSite:
    """What a bench works with; no worker runs by itself."""

    cluster: SlurmCluster
    region: Region
    services: Services

    def desk(self) -> Desk:
        with self.services.database.read() as session:
            site = session.exec(select(Site)).one()
        settings = SiteIn.model_validate(site.settings)
        return Desk(self.services, site.id, settings, self.services.schedulers.at(site.id, settings))

    def hold_jobs(self, count: int) -> None:
        """Let so many jobs be held, as submissions do it."""
        with self.services.database.read() as session:
            person = session.exec(select(Person).where(col(Person.name) == "ines")).one()
        caller = Caller(person.id, person.name, frozenset(person.roles))
        wanted = JobIn(project="vision", script=SCRIPT, gpus=1, time_limit_s=600)
        for _ in range(count):
            with self.services.database.rows() as connection:
                decided = plan(connection, caller, wanted, utcnow())
            hold(self.services, caller, decided, lambda answer: _record(caller, answer.id))

    def close_queue(self) -> None:
        """Let jobs wait: a bench of submissions must not measure jobs that run."""
        self.cluster.run(["scontrol", "update", "PartitionName=gpu", "State=DOWN"]).check_returncode()

    def dispatch_rate(self, desk: Desk, count: int) -> float:
        """Send so many held jobs into the closed queue, and empty it; return the jobs per second until all are sent."""
        self.hold_jobs(count)
        open_accounts(desk.services, desk.site_id, desk.settings)  # once in the life of a project
        began, sent = time.perf_counter(), 0
        while sent < count:
            sent += dispatch(desk)
        rate = count / (time.perf_counter() - began)
        queued = len(self.cluster.run(["squeue", "--noheader"]).stdout.splitlines())
        if queued != count:
            raise RuntimeError(f"{queued} jobs are queued where {count} were sent")
        self.empty_queue()
        return rate

    def empty_queue(self) -> None:
        """Cancel all jobs and wait until controller and accounting are at rest, so that each side begins alike."""
        self.cluster.run(["scancel", "--quiet", "--state=PENDING"])
        while self.cluster.run(["squeue", "--noheader"]).stdout.strip():
            time.sleep(0.2)
        while b"DBD Agent queue size: 0" not in self.cluster.run(["sdiag"]).stdout:
            time.sleep(0.2)
        time.sleep(REST_S)


def _record(caller: Caller, job_id: str) -> tuple[Table, Mapping[str, Any]]:
    """The kept answer of a submission, as the service writes it."""
    question = Question(caller.person_id, "POST", "/v1/jobs", job_id, "0" * 64)
    return kept_answers, question.record(201, "{}", job_id)


@contextmanager
def _cluster(max_jobs: int = 20_000) -> Iterator[SlurmCluster]:
    """Start a cluster in a folder of its own; both are ended and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="idf-bench-"))
    folder.chmod(0o755)
    cluster = SlurmCluster.start("bench", folder, max_jobs=max_jobs)
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def bench_region() -> Iterator[Region]:
    """Start a cluster and a region that works by itself; everything is ended and removed afterwards."""
    with _cluster() as cluster, Region.running(cluster.folder.parent / "region", cluster) as region:
        yield region


def follow(region: Region, script: Path) -> "subprocess.Popen[bytes]":
    """Let ines submit a job and follow its log."""
    program = str(Path(sys.executable).parent / "idf-compute")
    command = [program, "submit", "--follow", "--time", "1", str(script)]
    environment = region.client_environment("ines")
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


@contextmanager
def bench_site(award: str = "9000h", max_jobs: int = 20_000, transport: str = "ssh") -> Iterator[BenchSite]:
    """Start a cluster and enrol it; everything is ended and removed afterwards."""
    with _cluster(max_jobs) as cluster:
        how = {"award": award, "transport": transport, "IDF_BROKER_EMBEDDED_WORKER": "false"}
        with Region.running(cluster.folder.parent / "region", cluster, **how) as region:
            pass  # enrolled by the service; the bench goes on without it
        services = bootstrap(Settings(data_dir=region.folder / "broker", allow_loopback_sites=True))
        yield BenchSite(cluster, region, services)
        services.close()
