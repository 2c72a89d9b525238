"""`idf-compute-broker audit`, `checkpoint`, `export` and `restored`, as a shell would see them, on both engines."""

import json
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from books import BEGAN_AT, run_jobs, write_books
from broker_command import BrokerCommand
from sqlalchemy import text

from broker.audit_commands import FAULTS_MAX
from broker.checkpoint_rounds import one_round
from broker.checkpoints import public_pem, read_checkpoint, signing_key
from broker.settings import CheckpointPlaceSetting, Settings
from storage.database import Database


@pytest.fixture
def notary(database: Database, tmp_path: Path) -> Path:
    """A folder with checkpoints of transfers 9 and 16 of the books."""
    folder = tmp_path / "notary"
    folder.mkdir()
    settings = Settings(data_dir=tmp_path, checkpoint_places=[CheckpointPlaceSetting(address=f"folder:{folder}")])
    award_id = write_books(database)
    one_round(settings, database, BEGAN_AT + timedelta(hours=4))
    run_jobs(database, award_id, 4, 6)
    one_round(settings, database, BEGAN_AT + timedelta(hours=8))
    return folder


def test_an_audit_that_is_clean_is_one_line(broker_command: BrokerCommand, notary: Path, database_url: str) -> None:
    done = broker_command("audit", DATABASE_URL=database_url)
    assert (done.code, done.err) == (0, "")
    [line] = done.out.splitlines()
    assert line.startswith("✓ 16 transfers and 8 accounts are in order: head 16 ")
    assert line.endswith(" s")
    found = json.loads(broker_command("audit", "--json", DATABASE_URL=database_url).out)
    assert (found["ok"], found["transfers"], found["accounts"], found["faults"]) == (True, 16, 8, [])


def test_an_audit_names_the_first_broken_row_and_fails(
    broker_command: BrokerCommand, notary: Path, database: Database, database_url: str
) -> None:
    with database.write() as session:
        session.execute(text("UPDATE ledger_transfer SET amount = amount + 1 WHERE sequence = 4"))
    done = broker_command("audit", DATABASE_URL=database_url)
    assert done.code == 1
    assert done.out.splitlines()[0] == "✗ transfer 4: its hash does not follow from the row before it"
    done = broker_command("audit", "--json", DATABASE_URL=database_url)
    assert (done.code, json.loads(done.out)["ok"]) == (1, False)
    with database.write() as session:
        session.execute(text("UPDATE ledger_transfer SET hash = 'x'"))
        session.execute(text("DELETE FROM ledger_head"))
    assert len(broker_command("audit", DATABASE_URL=database_url).out.splitlines()) < FAULTS_MAX


def test_very_many_faults_are_cut_off_and_it_is_said(
    broker_command: BrokerCommand, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_books(database)
    with database.write() as session:
        session.execute(text("UPDATE ledger_transfer SET at = at + 1"))
    monkeypatch.setattr("broker.audit_commands.FAULTS_MAX", 3)
    lines = broker_command("audit", DATABASE_URL=database_url).out.splitlines()
    assert (len(lines), lines[-1]) == (4, "… there may be more")


def test_an_audit_since_a_checkpoint(
    broker_command: BrokerCommand, notary: Path, database: Database, database_url: str, tmp_path: Path
) -> None:
    first, second = sorted(notary.iterdir())
    done = broker_command("audit", "--since", str(first), DATABASE_URL=database_url)
    assert (done.code, "✓ 7 transfers after checkpoint 9 follow from it" in done.out) == (0, True), done
    assert "balances, which follow from all rows only" in done.out
    said = json.loads(broker_command("audit", "--since", str(second), "--json", DATABASE_URL=database_url).out)
    assert (said["transfers"], said["since"], said["accounts"]) == (0, 16, None)
    key = tmp_path / "public.pem"
    key.write_text(public_pem(signing_key(tmp_path / "another").public_key()))
    done = broker_command("audit", "--since", str(first), "--public-key", str(key), DATABASE_URL=database_url)
    assert (done.code, "names key" in done.err) == (1, True), done
    with database.write() as session:
        session.execute(text("UPDATE ledger_transfer SET amount = amount + 1 WHERE sequence = 12"))
    done = broker_command("audit", "--since", str(first), DATABASE_URL=database_url)
    assert (done.code, done.out.splitlines()[0].startswith("✗ transfer 12:")) == (1, True), done


def test_the_public_key_is_printed(broker_command: BrokerCommand, tmp_path: Path) -> None:
    done = broker_command("checkpoint", "key")
    assert done.out == public_pem(signing_key(tmp_path).public_key())
    assert json.loads(broker_command("checkpoint", "key", "--json").out)["public_key"] == done.out


def test_checkpoints_are_listed_and_verified(
    broker_command: BrokerCommand, notary: Path, database: Database, database_url: str
) -> None:
    files = sorted(notary.iterdir())
    done = broker_command("checkpoint", "list", DATABASE_URL=database_url)
    assert [line.split()[0] for line in done.out.splitlines()] == ["16", "9", f"folder:{notary}:"]
    done = broker_command("checkpoint", "list", "--last", "1", "--json", DATABASE_URL=database_url)
    listed = json.loads(done.out)
    assert listed["checkpoints"] == [read_checkpoint(files[1]).model_dump()]
    assert listed["places"] == [{"place": f"folder:{notary}", "sequence": 16, "failure": None}]
    done = broker_command("checkpoint", "verify", *map(str, files), DATABASE_URL=database_url)
    assert (done.code, done.out) == (0, "✓ signed and in the chain: 2\n")
    (notary / "none.json").write_text("{}")
    with database.write() as session:
        session.execute(text("UPDATE ledger_transfer SET hash = 'x' WHERE sequence = 9"))
    everything = map(str, sorted(notary.iterdir()))
    done = broker_command("checkpoint", "verify", *everything, "--json", DATABASE_URL=database_url)
    said = json.loads(done.out)
    assert (done.code, said["files"], len(said["faults"])) == (1, 3, 2)
    assert "transfer 9: its hash is not the one that was signed" in said["faults"][0]
    assert "is no checkpoint" in said["faults"][1]


def test_an_export_is_a_new_file(
    broker_command: BrokerCommand, notary: Path, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "ledger.txt"
    done = broker_command("export", "--out", str(file), DATABASE_URL=database_url)
    assert (done.code, done.out.startswith("16 transfers written to ")) == (0, True), done
    lines = file.read_text().splitlines()
    assert lines[0] == "idf-compute-export|1"
    assert lines[-1] == "end|16|2"
    assert [line.split("|")[0] for line in lines[1:-1]] == ["key", "checkpoint", "checkpoint"] + ["transfer"] * 16
    done = broker_command("export", "--out", str(file), "--json", DATABASE_URL=database_url)
    assert (done.code, "File exists" in done.err) == (1, True), done


def test_a_restore_is_written_once_it_is_known_what_was_lost(
    broker_command: BrokerCommand, notary: Path, database: Database, database_url: str
) -> None:
    first, second = sorted(notary.iterdir())
    done = broker_command("restored", "--reason", "disk lost", "--lost", str(second), DATABASE_URL=database_url)
    assert (done.code, "nothing up to transfer 16 was lost" in done.err) == (1, True), done
    with database.write() as session:  # what a backup of the time of the first checkpoint would have
        session.execute(text("DELETE FROM ledger_transfer WHERE sequence > 9"))
        session.execute(text("DELETE FROM checkpoint WHERE sequence > 9"))
        head = read_checkpoint(first)
        session.execute(text("UPDATE ledger_head SET sequence = 9, hash = :hash"), {"hash": head.hash})
    done = broker_command("restored", "--reason", "disk\nlost", DATABASE_URL=database_url)
    assert (done.code, "must be one line" in done.err) == (1, True), done
    done = broker_command("restored", "--reason", "disk lost", "--lost", str(second), DATABASE_URL=database_url)
    assert (done.code, done.out) == (0, "transfer 10 says that transfers 10 to 16 were lost\n")
    done = broker_command("restored", "--reason", "again", "--json", DATABASE_URL=database_url)
    assert json.loads(done.out)["lost_up_to"] is None
    done = broker_command("restored", "--reason", "again", DATABASE_URL=database_url)
    assert done.out == "transfer 12 says that nothing that is known outside was lost\n"
    done = broker_command("checkpoint", "verify", str(first), str(second), DATABASE_URL=database_url)
    said = "✓ signed and in the chain: 1; signed, and lost as a restore says: 1\n"
    assert (done.code, done.out) == (0, said)
    done = broker_command("audit", "--since", str(second), DATABASE_URL=database_url)
    assert (done.code, "checkpoint 16 were lost in a restore: give another" in done.err) == (1, True), done


def test_a_bar_is_drawn_on_a_terminal_only(
    broker_command: BrokerCommand, notary: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert broker_command("audit", DATABASE_URL=database_url).err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    done = broker_command("audit", DATABASE_URL=database_url)
    assert (done.code, "16/16" in done.err) == (0, True), done


def test_doctor_notes_what_places_are_missing_and_which_fail(
    broker_command: BrokerCommand, notary: Path, database: Database, database_url: str, tmp_path: Path
) -> None:
    done = broker_command("doctor", DATABASE_URL=database_url)
    assert (done.code, "! checkpoints go to 0 of at least 2 places" in done.out) == (0, True), done
    away = f"folder:{tmp_path}/away"
    settings = Settings(data_dir=tmp_path, checkpoint_places=[CheckpointPlaceSetting(address=away)])
    one_round(settings, database, BEGAN_AT)
    places = json.dumps([f"folder:{notary}", away])
    done = broker_command("doctor", DATABASE_URL=database_url, CHECKPOINT_PLACES=places)
    assert (done.code, f"✗ checkpoints do not reach {away} since" in done.out) == (1, True), done
    assert "! " not in done.out
