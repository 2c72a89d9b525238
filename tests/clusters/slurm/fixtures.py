"""Clusters as pytest fixtures; `tests/conftest.py` imports them by name."""

import shutil
from collections.abc import Iterator

import pytest
from clusters.slurm.cluster import SlurmCluster
from clusters.slurm.layout import ClusterError
from clusters.slurm.startup import require_programs


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """One cluster for the whole run. A test that breaks a daemon of it puts it right again."""
    try:
        require_programs()
    except ClusterError as error:
        pytest.skip(str(error))
    base = tmp_path_factory.mktemp("slurm")
    cluster = SlurmCluster.start("shared-by-tests", base)
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(cluster.folder)
