"""Fixtures for all tests: a migrated database on each engine, and what real parts can be started."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from broker_command import BrokerCommand
from clusters.postgres import PostgresServer, PostgresUnavailable
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine, text

from broker.schema_version import migrate_to
from storage.database import Database

if TYPE_CHECKING:
    from clusters.slurm.cluster import SlurmCluster

    from adapters.slurm import SlurmRest, SlurmSettings, SlurmSsh
    from adapters.slurm.pyslurm_site import SlurmPyslurm

_numbers = count()

settings.register_profile(
    "ledger",
    max_examples=int(os.environ.get("IDF_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
"""Of the tests of the books: `make test` sets their number of examples."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    try:
        server = PostgresServer.start()
    except PostgresUnavailable as reason:
        pytest.skip(str(reason))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    _on_server(postgres, "CREATE DATABASE migrated")
    migrate_to(postgres.database_url("migrated"))
    return "migrated"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "migrated.sqlite3"
    migrate_to(f"sqlite:///{file}")
    with create_engine(f"sqlite:///{file}").connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    return file


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Make migrated databases in one test, on each engine in turn: a name in, an address out."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        return lambda name: f"sqlite:///{shutil.copy(template, tmp_path / f'{name}.sqlite3')}"
    server: PostgresServer = request.getfixturevalue("postgres")
    of = request.getfixturevalue("postgres_template")

    def make(name: str) -> str:
        unique = f"{name}_{next(_numbers)}"
        _on_server(server, f"CREATE DATABASE {unique} TEMPLATE {of}")
        return server.database_url(unique)

    return make


@pytest.fixture
def database_url(fresh_url: Callable[[str], str]) -> str:
    """The address of a fresh, migrated database, on each engine in turn."""
    return fresh_url("broker")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database without any table, on each engine in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/empty.sqlite3"
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"empty_{next(_numbers)}"
    _on_server(server, f"CREATE DATABASE {name}")
    return server.database_url(name)


@pytest.fixture
def broker_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> BrokerCommand:
    """`idf-compute-broker` with a data folder of the test's own and no other setting."""
    for name in [name for name in os.environ if name.startswith("IDF_BROKER_")]:
        monkeypatch.delenv(name)
    return BrokerCommand(tmp_path, monkeypatch, capsys)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


def _on_server(server: PostgresServer, statement: str) -> None:
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


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
def slurm_site(slurm_cluster: "SlurmCluster") -> "Iterator[Callable[..., SlurmSsh]]":
    """Make schedulers for the cluster, with bounds changed as asked; all are closed at the test's end."""
    from adapters.slurm import SlurmSsh

    made: list[SlurmSsh] = []

    def make(**bounds: Any) -> SlurmSsh:
        made.append(SlurmSsh(_slurm_settings(slurm_cluster, bounds)))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


@pytest.fixture
def pyslurm_site(slurm_cluster: "SlurmCluster") -> "Callable[..., SlurmPyslurm]":
    """Make schedulers by pyslurm for the cluster, on whose machine the child runs as the login account."""
    from clusters.slurm import pyslurm

    if reason := pyslurm.missing(slurm_cluster):
        pytest.skip(reason)
    return lambda **bounds: pyslurm.site(slurm_cluster, **bounds)


@pytest.fixture
def slurm_rest_site(slurm_cluster: "SlurmCluster") -> "Iterator[Callable[..., SlurmRest]]":
    """The same through slurmrestd; the bounds named `rest` are those of its own settings."""
    from adapters.slurm import RestSettings, SlurmRest

    if not slurm_cluster.slurmrestd:
        pytest.skip(f"this cluster has no slurmrestd: {slurm_cluster.slurmrestd_reason}")
    made: list[SlurmRest] = []

    def make(*, rest: dict[str, Any] | None = None, **bounds: Any) -> SlurmRest:
        reached = RestSettings(**{"url": slurm_cluster.slurmrestd, **(rest or {})})
        made.append(SlurmRest(_slurm_settings(slurm_cluster, bounds), reached))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


def _slurm_settings(cluster: "SlurmCluster", bounds: dict[str, Any]) -> "SlurmSettings":
    from adapters.slurm import SlurmSettings, SshSettings

    ssh = SshSettings(
        host=cluster.host,
        port=cluster.ssh_port,
        user=cluster.login,
        identity_file=cluster.identity_file,
        known_host=cluster.known_host,
    )
    return SlurmSettings(cluster=cluster.name, ssh=ssh, **bounds)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a database: on SQLite it is quick, and there are more than a thousand of them."""
    for item in items:
        if {"database", "database_url", "empty_url"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.database)
