"""The tables come and go by Alembic alone, on both engines, and nobody runs on tables of another release."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from broker_command import BrokerCommand
from money import TARIFF, ran, reports
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from world import World, world

from adapters.fake import FakeScheduler
from broker.auth import new_token
from broker.models import Checkpoint, CheckpointPlace, Person
from broker.recheck import recheck
from broker.schema_version import SchemaNotCurrent, check_current, current, migrate_to
from quotas.ledger import Movement, Posting, open_account, post
from quotas.models import Transfer
from storage.database import Database
from storage.tables import metadata, utcnow


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
    assert migrate_to(empty_url) == "revision 0018"
    assert tables(empty_url) == set(metadata.tables)
    assert migrate_to(empty_url) == "revision 0018", "a second time changes nothing"


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


def test_the_way_down_to_the_first_release_and_back_loses_nothing(empty_url: str, tmp_path: Path) -> None:
    migrate_to(empty_url)
    with world(empty_url, tmp_path) as region:
        region.set_rule(cpus_per_gpu=10, cpu_weight_thousandths=50)
        region.enter_contract(gpu_class="cpu")
        for job in ({"gpus": 2, "cpus_per_gpu": 12}, {"gpus": 0, "cpus": 4}, {"gpus": 0, "cpus": 8}):
            region.submit(**job)
        region.step()
    before = {table: rows(empty_url, table) for table in KEPT}
    migrate_to(empty_url, "0001")
    assert [row["gpus"] for row in rows(empty_url, "job")] == [2], "a job without GPU has no place there"
    migrate_to(empty_url)
    assert {table: rows(empty_url, table) for table in KEPT} == before
    with world(empty_url, tmp_path, made_before=True) as region:
        assert region.faults() == []


def test_arrays_go_aside_and_come_back_to_go_on(empty_url: str, tmp_path: Path) -> None:
    """To an older release an open array would look like one job: it sees those only that are settled."""
    migrate_to(empty_url)
    site = FakeScheduler(now=utcnow())
    with world(empty_url, tmp_path, site, made_before=False) as region:
        settled, opened = region.submit(array="0-1")["id"], region.submit(array="3,5")["id"]
        _steps(region, 60)
        _finish(site, f"idf-{settled}_0", f"idf-{settled}_1", f"idf-{opened}_3")
        region.step()
        before = region.job(settled)
        held = region.award()["held_credits"]
    kept = (*KEPT, "job_event", "job_task", "site")
    tables_before = {table: rows(empty_url, table) for table in kept}
    migrate_to(empty_url, "0011")
    assert [row["id"] for row in rows(empty_url, "job")] == [settled]
    migrate_to(empty_url)
    for table in kept:
        assert _uncounted(rows(empty_url, table)) == _uncounted(tables_before[table]), table
    with world(empty_url, tmp_path, site, made_before=True) as region:
        region.tokens |= _fresh_tokens(region)
        assert (region.job(settled), region.award()["held_credits"]) == (before, held)
        _finish(site, f"idf-{opened}_5")
        region.step()
        assert region.job(opened)["state"] == "succeeded"
        assert region.award()["held_credits"] == 0
        assert region.faults() == []


def _steps(region: World, seconds: int) -> None:
    assert isinstance(region.scheduler, FakeScheduler)
    for passed in (0, seconds):
        region.step()
        region.scheduler.advance(passed)
    region.step()


def _finish(site: FakeScheduler, *names: str) -> None:
    for name in names:
        site.finish(name)


def _fresh_tokens(region: World) -> dict[str, str]:
    with region.services.database.write() as session:
        made = {}
        for person in session.exec(select(Person)).all():
            made[person.name], row = new_token(person.id, "tests", timedelta(days=1))
            session.add(row)
        return made


def _uncounted(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what counts the rows of a table, which are counted anew where they come back."""
    bare = [{k: v for k, v in row.items() if not (k == "id" and isinstance(v, int))} for row in found]
    return sorted(bare, key=str)


KEPT_BY_0004 = (
    *("kept_charging_rule", "kept_job", "kept_job_event", "kept_job_payload"),
    *("kept_job_gpus_taken", "kept_usage_record_cpus"),
)


def test_jobs_and_usage_of_the_first_release_keep_their_price(empty_url: str, tmp_path: Path) -> None:
    migrate_to(empty_url)
    with world(empty_url, tmp_path) as region:
        ended = region.submit(gpus=3)
        region.step()
        region.scheduler.advance(0)  # type: ignore[attr-defined]
        region.scheduler.finish(f"idf-{ended['id']}")  # type: ignore[attr-defined]
        region.step()
        region.enrol_site(name="second", partition="gpu")
        region.enter_contract("second")
        region.submit(site="second")
    migrate_to(empty_url, "0003")
    engine = create_engine(empty_url)
    with engine.begin() as connection:  # as if nothing newer had ever been there
        for table in [name for name in inspect(engine).get_table_names() if name in KEPT_BY_0004]:
            connection.execute(text(f"DROP TABLE {table}"))
    engine.dispose()
    migrate_to(empty_url)
    for row in (*rows(empty_url, "job"), *rows(empty_url, "usage_record")):
        assert row["rate_credits_per_s"] == row["gpus"] * row["weight_thousandths"] > 0
        assert not row["exclusive"]
        assert row.get("gpus_taken", row["gpus"]) == row["gpus"]
    assert sorted(str(row["partition"]) for row in rows(empty_url, "job")) == ["None", "gpu"]


KEPT = ("charging_rule", "job", "job_payload", "usage_record", "hold", "ledger_transfer")


def rows(url: str, table: str) -> list[dict[str, Any]]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2")).mappings().all()
    engine.dispose()
    return [dict(row) for row in found]


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
    broker_command: BrokerCommand, empty_url: str, tmp_path: Path, what: str
) -> None:
    arguments = (what, "ines", "--file", str(tmp_path / "t")) if what == "token" else (what,)
    done = broker_command(*arguments, DATABASE_URL=empty_url)
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


def test_doctor_says_what_is_wrong_and_what_is_right(broker_command: BrokerCommand, empty_url: str) -> None:
    done = broker_command("doctor", DATABASE_URL=empty_url)
    assert (done.code, "run `idf-compute-broker migrate`" in done.out) == (1, True)
    migrate_to(empty_url)
    done = broker_command("doctor", DATABASE_URL=empty_url)
    assert (done.code, "in order" in done.out) == (0, True), done
    database = Database(empty_url)
    with database.write() as session:
        session.execute(text("UPDATE ledger_account SET balance = 7 WHERE id = 'treasury:region'"))
    database.close()
    done = broker_command("doctor", DATABASE_URL=empty_url)
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


def test_values_revisions_and_refunds_survive_a_way_down(empty_url: str, tmp_path: Path) -> None:
    migrate_to(empty_url)
    with world(empty_url, tmp_path) as region:
        region.post("marc", "/tariffs", TARIFF)
        job_id = ran(region, 600)
        reports(region, job_id, 900)
        recheck(region.desk())
        region.post("marc", "/refunds", {"job_id": job_id, "reason": "other", "evidence": "ticket 1"})
    tables_of = ("tariff", "charge_value", "refund", "usage_record")
    before = [rows(empty_url, table) for table in tables_of]
    assert [len(some) for some in before] == [1, 2, 1, 2]
    migrate_to(empty_url, "0007")
    assert len(rows(empty_url, "usage_record")) == 1, "the release before knows one record of an attempt"
    migrate_to(empty_url)
    assert [rows(empty_url, table) for table in tables_of] == before


def test_charges_of_before_tariffs_have_an_unknown_value(empty_url: str, tmp_path: Path) -> None:
    migrate_to(empty_url)
    with world(empty_url, tmp_path) as region:
        job_id = ran(region, 600)
    migrate_to(empty_url, "0007")
    engine = create_engine(empty_url)
    with engine.begin() as connection:  # as if nothing newer had ever been there
        for table in [name for name in inspect(engine).get_table_names() if name.startswith("kept_")]:
            connection.execute(text(f"DROP TABLE {table}"))
    engine.dispose()
    migrate_to(empty_url)
    [record], [value] = rows(empty_url, "usage_record"), rows(empty_url, "charge_value")
    assert (record["attempt_id"], record["revision"]) == (record["id"], 1)
    assert (value["value_micro_euros"], value["unknown_reason"]) == (None, "it was charged before tariffs were kept")
    assert job_id == record["job_id"]
