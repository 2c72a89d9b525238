"""Checkpoints: the key, what is signed, each kind of place, and rounds that outlive a place that is away."""

import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
from books import BEGAN_AT, run_jobs, write_books
from clusters.postgres import PostgresServer
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import ValidationError
from sqlalchemy import create_engine, text
from sqlmodel import select

from broker import checkpoint_rounds
from broker.checkpoint_places import PlaceFailed, sender
from broker.checkpoint_rounds import ChainRewritten, CheckpointRounds, deliver, one_round, problems, sign_head
from broker.checkpoints import (
    CheckpointWrong,
    SignedHead,
    public_pem,
    read_checkpoint,
    read_public_key,
    sign,
    signing_key,
)
from broker.models import Checkpoint, CheckpointPlace
from broker.settings import CheckpointPlaceSetting, Settings
from storage.database import Database

_numbers = count()


def head_of(folder: Path, sequence: int = 9) -> SignedHead:
    return sign(signing_key(folder), sequence, "ab" * 32, BEGAN_AT)


def place(address: str, **more: object) -> CheckpointPlaceSetting:
    return CheckpointPlaceSetting.model_validate({"address": address, **more})


# The key and what is signed


def test_the_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    first = public_pem(signing_key(tmp_path).public_key())
    file = tmp_path / "keys/checkpoint.pem"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert public_pem(signing_key(tmp_path).public_key()) == first
    assert [path.name for path in file.parent.iterdir()] == ["checkpoint.pem"], "no draft is left"


def test_of_processes_that_make_a_key_at_once_all_have_the_same(tmp_path: Path) -> None:
    barrier, keys = threading.Barrier(8), set[str]()

    def make() -> None:
        barrier.wait()
        keys.add(public_pem(signing_key(tmp_path).public_key()))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 1


def test_a_head_that_was_signed_is_checked(tmp_path: Path) -> None:
    key = signing_key(tmp_path).public_key()
    head = head_of(tmp_path)
    head.verify(key)
    assert SignedHead.of_row(head.as_row()) == head
    for false in (
        head.model_copy(update={"sequence": 10}),
        head.model_copy(update={"hash": "cd" * 32}),
        head.model_copy(update={"at": "2026-05-01T08:00:00.000001Z"}),
    ):
        with pytest.raises(CheckpointWrong, match="the signature is not this key's"):
            false.verify(key)
    with pytest.raises(CheckpointWrong, match="names key"):
        head.verify(signing_key(tmp_path / "other").public_key())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("no JSON", "is no checkpoint"),
        ('{"sequence": 1}', "is no checkpoint: hash: Field required"),
        ('{"sequence": 0}', "is no checkpoint: sequence"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_one_sentence(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "checkpoint.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CheckpointWrong, match=said):
        read_checkpoint(file)


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1())
    file = tmp_path / "keys/checkpoint.pem"
    file.parent.mkdir()
    pem = serialization.Encoding.PEM
    file.write_bytes(other.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    with pytest.raises(CheckpointWrong, match="another kind"):
        signing_key(tmp_path)
    file.write_bytes(other.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(CheckpointWrong, match="another kind"):
        read_public_key(file)
    file.write_text("nothing")
    with pytest.raises(CheckpointWrong, match="no private key"):
        signing_key(tmp_path)
    with pytest.raises(CheckpointWrong, match="no public key"):
        read_public_key(file)
    with pytest.raises(CheckpointWrong, match="No such file"):
        read_public_key(tmp_path / "away")
    with pytest.raises(CheckpointWrong, match="Not a directory"):
        signing_key(file)


# Places


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("folder:relative", "must be folder:"),
        ("ftp://host/x", "must be folder:"),
        ("https:///x", "must be folder:"),
        ("https://host:many/x", "Port"),
        ("https://ines:secret@host/x", "no secret"),
        ("https://token@host/x", "no secret"),
        ("https://host/x?token=secret", "no secret"),
        ("postgresql+psycopg://a:secret@host/x", "no secret"),
    ],
)
def test_an_address_that_is_no_place_is_refused(address: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate({"checkpoint_places": [address]})


def test_places_are_read_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"address": "postgresql+psycopg://u@h/d", "password_file": "/run/secret"}
    monkeypatch.setenv("IDF_BROKER_CHECKPOINT_PLACES", json.dumps(["folder:/mnt/notary", table]))
    first, second = Settings().checkpoint_places
    assert (first.address, first.password_file) == ("folder:/mnt/notary", None)
    assert (second.address, second.password_file) == (table["address"], Path("/run/secret"))


def test_a_folder_gets_a_new_file_each_time_and_none_is_written_over(tmp_path: Path) -> None:
    notary = tmp_path / "notary"
    send = sender(place(f"folder:{notary}"), allow_loopback=False)
    head = head_of(tmp_path)
    with pytest.raises(PlaceFailed, match="No such file"):
        send(head)  # a share that is away is not filled in its place
    notary.mkdir()
    send(head)
    send(head)
    [file] = notary.iterdir()
    assert read_checkpoint(file) == head
    assert file.stat().st_mode & 0o777 == 0o444
    file.chmod(0o600)
    file.write_text('{"seq')  # as a crash leaves it
    send(head)
    assert (file.read_text(), len(list(notary.iterdir()))) == ('{"seq', 2)
    for other in notary.iterdir():
        other.chmod(0o600)
        other.write_text("")
    for number in range(3, 10):
        (notary / f"{file.stem}-{number}.json").write_text("")
    with pytest.raises(PlaceFailed, match="9 files of checkpoint 9 are there"):
        send(head)


class Notary(BaseHTTPRequestHandler):
    got: ClassVar[list[bytes]] = []
    status = 201

    def do_POST(self) -> None:
        self.got.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.status)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def notary() -> Iterator[str]:
    Notary.got.clear()
    Notary.status = 201
    server = HTTPServer(("127.0.0.1", 0), Notary)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/checkpoints"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_gets_json_and_any_answer_but_2xx_is_a_failure(tmp_path: Path, notary: str) -> None:
    head = head_of(tmp_path)
    send = sender(place(notary), allow_loopback=True)
    send(head)
    assert SignedHead.model_validate_json(Notary.got[0]) == head
    for status in (302, 500):
        Notary.status = status
        with pytest.raises(PlaceFailed, match=f"it answered {status}"):
            send(head)


def self_signed(folder: Path) -> Path:
    """A certificate for `localhost` with its key, in one file."""
    key, now = generate_private_key(SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file = folder / "certificate.pem"
    secret = key.private_bytes(pem, form, serialization.NoEncryption())
    file.write_bytes(secret + builder.sign(key, SHA256()).public_bytes(pem))
    return file


def test_https_is_trusted_by_its_certificate_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Notary.got.clear()
    Notary.status = 200
    certificate = self_signed(tmp_path)
    server = HTTPServer(("127.0.0.1", 0), Notary)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    send = sender(place(f"https://localhost:{server.server_port}/checkpoints"), allow_loopback=True)
    with pytest.raises(PlaceFailed, match="CERTIFICATE_VERIFY_FAILED"):
        send(head_of(tmp_path))
    assert Notary.got == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    send(head_of(tmp_path))
    assert len(Notary.got) == 1
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("address", "loopback", "said"),
    [
        ("http://127.0.0.1:1/x", False, "this machine itself"),
        ("https://localhost:1/x", False, "this machine itself"),
        ("https://169.254.169.254/x", True, "an address that no site has"),
        ("https://no-such-host.invalid/x", True, "does not resolve"),
        ("http://127.0.0.1:1/x", True, "ConnectionRefusedError"),
        ("https://127.0.0.1:1/x", True, "ConnectionRefusedError"),
        ("http://192.0.2.1/x", False, "http is for the demo"),
        ("postgresql+psycopg://u@127.0.0.1:1/x", False, "this machine itself"),
        ("postgresql+psycopg://u@127.0.0.1:1/x", True, "OperationalError"),
    ],
)
def test_addresses_that_no_place_has_are_failures(tmp_path: Path, address: str, loopback: bool, said: str) -> None:
    with pytest.raises(PlaceFailed, match=said):
        sender(place(address), allow_loopback=loopback)(head_of(tmp_path))


@pytest.mark.postgres
def test_a_table_that_we_may_only_add_to_takes_each_checkpoint_once(postgres: PostgresServer, tmp_path: Path) -> None:
    name = f"notary_{next(_numbers)}"
    columns = "sequence bigint, hash text, at text, key_id text, signature text, PRIMARY KEY (sequence, hash)"
    with create_engine(postgres.url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        connection.execute(text("DROP ROLE IF EXISTS adder"))
        connection.execute(text("CREATE ROLE adder LOGIN"))
    server = create_engine(postgres.database_url(name), isolation_level="AUTOCOMMIT")
    with server.connect() as owner:
        owner.execute(text(f"CREATE TABLE idf_checkpoint ({columns})"))
        owner.execute(text("GRANT INSERT ON idf_checkpoint TO adder"))
        password = tmp_path / "password"
        password.write_text("unused\n")
        address = postgres.database_url(name).replace("idf@", "adder@")
        send = sender(place(address, password_file=str(password)), allow_loopback=True)
        head = head_of(tmp_path)
        send(head)
        send(head)
        send(head_of(tmp_path, 10))
        rows = owner.execute(text("SELECT sequence, hash, at, key_id, signature FROM idf_checkpoint ORDER BY 1")).all()
        assert [SignedHead(**row._mapping) for row in rows] == [head, head_of(tmp_path, 10)]
        password.unlink()
        with pytest.raises(PlaceFailed, match="password_file"):
            send(head)
        for rewriting in ("UPDATE", "DELETE", "TRUNCATE"):
            owner.execute(text(f"GRANT {rewriting} ON idf_checkpoint TO adder"))
            with pytest.raises(PlaceFailed, match="grant INSERT alone"):
                sender(place(address), allow_loopback=True)(head)
            owner.execute(text(f"REVOKE {rewriting} ON idf_checkpoint FROM adder"))
        with pytest.raises(PlaceFailed, match="grant INSERT alone"):
            sender(place(postgres.database_url(name)), allow_loopback=True)(head)
    server.dispose()


# Rounds


def signed(database: Database) -> list[int]:
    with database.read() as session:
        return list(session.exec(select(Checkpoint.sequence).order_by(Checkpoint.sequence)).all())


def settings_of(folder: Path, *addresses: str) -> Settings:
    places = [place(address) for address in addresses]
    return Settings(data_dir=folder, checkpoint_places=places, allow_loopback_sites=True)


def test_a_head_is_signed_once_and_none_where_nothing_moved(database: Database, tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    sign_head(database, key, BEGAN_AT)
    assert signed(database) == [], "an empty ledger has no head to sign"
    award_id = write_books(database)
    sign_head(database, key, BEGAN_AT)
    sign_head(database, key, BEGAN_AT)
    assert signed(database) == [9]
    run_jobs(database, award_id, 4, 4)
    sign_head(database, key, BEGAN_AT)
    assert signed(database) == [9, 10]
    with database.read() as session:
        SignedHead.of_row(session.get_one(Checkpoint, 10)).verify(key.public_key())


def test_nothing_is_signed_on_top_of_a_rewritten_chain(database: Database, tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    write_books(database)
    sign_head(database, key, BEGAN_AT)
    with database.write() as session:
        session.execute(text("UPDATE ledger_transfer SET hash = 'x' WHERE sequence = 9"))
        session.execute(text("UPDATE ledger_head SET sequence = 12"))
    with pytest.raises(ChainRewritten, match="transfer 9 is not the one that was signed"):
        one_round(settings_of(tmp_path), database, BEGAN_AT)
    assert signed(database) == [9]


def test_two_workers_that_sign_at_once_make_one_checkpoint(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_books(database)
    key = signing_key(tmp_path)

    def other_first(*arguments: object) -> SignedHead:
        monkeypatch.setattr(checkpoint_rounds, "sign", sign)
        sign_head(database, key, BEGAN_AT)
        return sign(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint_rounds, "sign", other_first)
    sign_head(database, key, BEGAN_AT)
    assert signed(database) == [9]


def test_a_place_that_is_away_does_not_stop_the_others_and_catches_up(database: Database, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    settings = settings_of(tmp_path, f"folder:{first}", f"folder:{second}")
    award_id = write_books(database)
    one_round(settings, database, BEGAN_AT)
    run_jobs(database, award_id, 4, 4)
    one_round(settings, database, BEGAN_AT + timedelta(minutes=1))
    assert len(list(second.iterdir())) == 2
    wrong, notes = problems(settings, database)
    assert (len(wrong), notes) == (1, [])
    assert wrong[0].startswith(f"checkpoints do not reach folder:{first} since ")
    assert wrong[0].endswith("UTC: No such file or directory")
    first.mkdir()
    one_round(settings, database, BEGAN_AT + timedelta(minutes=2))
    assert sorted(path.name for path in first.iterdir()) == sorted(path.name for path in second.iterdir())
    assert problems(settings, database) == ([], [])


def test_a_round_is_bounded_and_the_next_goes_on(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_rounds, "DELIVER_MAX", 2)
    with database.write() as session:
        session.add_all(head_of(tmp_path, number).as_row() for number in range(1, 6))
    got: list[int] = []
    for _ in range(4):
        deliver(database, "folder:/x", lambda head: got.append(head.sequence))
    assert got == [1, 2, 3, 4, 5]


def test_a_round_ends_where_a_slow_place_took_its_time(database: Database, tmp_path: Path) -> None:
    with database.write() as session:
        session.add_all(head_of(tmp_path, number).as_row() for number in range(1, 6))
    got: list[int] = []
    deliver(database, "folder:/x", lambda head: got.append(head.sequence), lambda: len(got) == 2)
    assert got == [1, 2]
    with database.read() as session:
        assert session.get_one(CheckpointPlace, "folder:/x").sequence == 2


def test_a_round_ends_when_the_worker_stops(database: Database, tmp_path: Path) -> None:
    write_books(database)
    stopping = threading.Event()
    stopping.set()
    (tmp_path / "notary").mkdir()
    one_round(settings_of(tmp_path, f"folder:{tmp_path}/notary"), database, BEGAN_AT, stopping)
    assert signed(database) == [9]
    assert list((tmp_path / "notary").iterdir()) == []


def test_what_a_place_took_before_it_failed_is_not_sent_again(database: Database, tmp_path: Path) -> None:
    with database.write() as session:
        session.add_all(head_of(tmp_path, number).as_row() for number in range(1, 5))
    got: list[int] = []

    def fails_at_three(head: SignedHead) -> None:
        if head.sequence == 3 and got.count(3) == 0:
            got.append(3)
            raise PlaceFailed("full")
        got.append(head.sequence)

    deliver(database, "folder:/x", fails_at_three)
    with database.read() as session:
        row = session.get_one(CheckpointPlace, "folder:/x")
        assert (row.sequence, row.failure) == (2, "full")
    deliver(database, "folder:/x", fails_at_three)
    assert got == [1, 2, 3, 3, 4]


def test_fewer_than_two_places_is_said(database: Database, tmp_path: Path) -> None:
    assert "0 of at least 2 places" in problems(settings_of(tmp_path), database)[1][0]
    twice = settings_of(tmp_path, "folder:/x", "folder:/x")
    assert "1 of at least 2 places" in problems(twice, database)[1][0]


def test_the_worker_s_thread_signs_at_once_and_outlives_faults(database: Database, tmp_path: Path) -> None:
    write_books(database)
    settings = settings_of(tmp_path).model_copy(update={"checkpoint_interval_s": 0.02})
    stopping = threading.Event()
    (tmp_path / "keys").write_text("in the way")
    rounds = CheckpointRounds(settings, database, stopping)
    rounds.start()
    assert not stopping.wait(0.3)
    (tmp_path / "keys").unlink()
    for _ in range(300):
        if signed(database) or stopping.wait(0.02):
            break
    with database.write() as session:
        session.execute(text("UPDATE ledger_transfer SET hash = 'x' WHERE sequence = 9"))
    assert not stopping.wait(0.1), "a rewritten chain is logged, round after round"
    stopping.set()
    rounds.join()
    assert signed(database) == [9]
