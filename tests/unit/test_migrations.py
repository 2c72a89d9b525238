"""The tables come and go by Alembic alone, on both engines, and nobody runs on tables of another release."""

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from broker_command import BrokerCommand
from clusters.postgres import PostgresServer
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from world import world

from broker.models import Checkpoint, CheckpointPlace
from broker.schema_version import SchemaNotCurrent, check_current, current, migrate_to
from quotas.ledger import Movement, Posting, open_account, post
from quotas.models import Transfer
from storage.database import Database
from storage.tables import metadata, utcnow

_numbers = count()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.sqlite3"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"empty_{next(_numbers)}"
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    yield server.database_url(name)


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    found = set(inspect(engine).get_table_names()) - {"alembic_version"}
    engine.dispose()
    return found


def test_up_down_up(empty_url: str) -> None:
    assert current(empty_url) is None
    migrate_to(empty_url)
    assert tables(empty_url) == set(metadata.tables)
    check_current(empty_url)
    assert migrate_to(empty_url, "base") == "revision base"
    assert tables(empty_url) == set()
    assert migrate_to(empty_url) == "revision 0010"
    assert tables(empty_url) == set(metadata.tables)
    assert migrate_to(empty_url) == "revision 0010", "a second time changes nothing"


def test_up_down_up_on_a_filled_database(empty_url: str, tmp_path: Path) -> None:
    migrate_to(empty_url)
    with world(empty_url, tmp_path) as region:
        region.submit()
        region.step()
    migrate_to(empty_url, "base")
    migrate_to(empty_url)
    with world(empty_url, tmp_path) as region:
        assert region.submit()["state"] == "held"
        assert region.faults() == []


def test_the_models_and_the_migrated_tables_are_the_same(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_check_constraints_are_the_same_in_models_and_tables(database_url: str) -> None:
    engine = create_engine(database_url)
    for table in metadata.sorted_tables:
        wanted = {str(c.name) for c in table.constraints if type(c).__name__ == "CheckConstraint"}
        assert {str(c["name"]) for c in inspect(engine).get_check_constraints(table.name)} == wanted, table.name
    engine.dispose()


def test_tables_of_another_release_are_refused(empty_url: str) -> None:
    with pytest.raises(SchemaNotCurrent, match="run `idf-compute-broker migrate`"):
        check_current(empty_url)


@pytest.mark.parametrize("what", ["serve", "worker", "token"])
def test_the_service_refuses_tables_of_another_release_in_one_sentence(
    broker_command: BrokerCommand, tmp_path: Path, what: str
) -> None:
    done = broker_command(*((what, "ines", "--file", str(tmp_path / "t")) if what == "token" else (what,)))
    assert done.code == 1
    assert done.err.splitlines() == [
        "idf-compute-broker: the database's tables are not those of this release: run `idf-compute-broker migrate`"
    ]


@pytest.mark.parametrize("what", ["serve", "doctor", "migrate"])
def test_a_database_that_is_away_is_one_sentence(broker_command: BrokerCommand, what: str) -> None:
    done = broker_command(what, DATABASE_URL="postgresql+psycopg://idf@127.0.0.1:1/none")
    assert done.code == 1
    assert len((done.err + done.out).splitlines()) == 1
    assert "the database did not answer" in done.err


def test_doctor_says_what_is_wrong_and_what_is_right(
    broker_command: BrokerCommand, tmp_path: Path, sqlite_template: Path
) -> None:
    file = tmp_path / "broker.sqlite3"
    done = broker_command("doctor")
    assert (done.code, "run `idf-compute-broker migrate`" in done.out) == (1, True)
    shutil.copy(sqlite_template, file)
    done = broker_command("doctor")
    assert (done.code, "in order" in done.out) == (0, True), done
    with Database(f"sqlite:///{file}").write() as session:
        session.execute(text("UPDATE ledger_account SET balance = 7 WHERE id = 'treasury:region'"))
    done = broker_command("doctor")
    assert (done.code, "account treasury:region: balance 7" in done.out) == (1, True)


def test_details_and_checkpoints_come_back_after_a_way_down(empty_url: str) -> None:
    migrate_to(empty_url)
    database = Database(empty_url)
    moves = [
        Movement("fund/1", "fund", "programme:prg-1", "treasury:region", 0, "prg-1"),
        Movement("restore/1", "restore", "programme:prg-1", "treasury:region", 0, "1", "sequence=7"),
    ]
    with database.write() as session:
        open_account(session, "programme", "prg-1")
        post(session.connection(), [Posting(movements=(moves[1],))], utcnow())
        session.add(Checkpoint(sequence=1, hash="0" * 64, at=utcnow(), key_id="k", signature="s"))
        session.add(CheckpointPlace(place="folder:/x", sequence=1, delivered_at=utcnow()))
    with pytest.raises(IntegrityError), database.write() as session:
        post(session.connection(), [Posting(movements=(moves[0],))], utcnow())
    database.close()
    migrate_to(empty_url, "0001")
    migrate_to(empty_url)
    with database.read() as session:
        assert session.exec(select(Transfer.details)).all() == ["sequence=7"]
        assert session.exec(select(Checkpoint.sequence)).all() == [1]
        assert session.exec(select(CheckpointPlace.place)).all() == ["folder:/x"]
    database.close()
