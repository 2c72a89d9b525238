"""Fixtures shared by all tests. The real cluster is started once, and only when a test asks for it."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from clusters.slurm.cluster import SlurmCluster

    from adapters.slurm.scheduler import SlurmScheduler


@pytest.fixture(scope="session")
def slurm_cluster() -> "Iterator[SlurmCluster]":
    """A throwaway Slurm; IDF_TEST_CLUSTER names the folder of one that runs already, to spare the start."""
    from clusters.slurm.cluster import SlurmCluster

    if running := os.environ.get("IDF_TEST_CLUSTER"):
        yield SlurmCluster.load(Path(running))
        return
    with tempfile.TemporaryDirectory(prefix="idf-") as base:
        cluster = SlurmCluster.start("tests", Path(base))
        yield cluster
        cluster.stop()


@pytest.fixture
def slurm_site(slurm_cluster: "SlurmCluster") -> "Iterator[Callable[..., SlurmScheduler]]":
    """Make schedulers for the cluster, with settings changed as asked; all are closed at the test's end."""
    from adapters.slurm import SlurmSettings, SlurmScheduler, SshSettings

    made: list[SlurmScheduler] = []

    def make(**changes: object) -> SlurmScheduler:
        ssh = SshSettings(
            host=slurm_cluster.host, port=slurm_cluster.ssh_port, user=slurm_cluster.login,
            identity_file=slurm_cluster.identity_file, known_host=slurm_cluster.known_host,
        )  # fmt: skip
        made.append(SlurmScheduler(SlurmSettings(cluster=slurm_cluster.name, ssh=ssh, **changes)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()
