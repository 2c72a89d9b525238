"""Secrets are random, stored as hashes, shown once and logged nowhere; settings are read in one known order."""

import base64
import logging
import stat
from collections.abc import Iterator, Mapping
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from broker_command import BrokerCommand
from pydantic import ValidationError
from requests_by_route import BODIES
from sqlmodel import select
from world import JOB, World, world

from broker.auth import new_token
from broker.models import ApiToken
from broker.settings import Settings
from storage.tables import metadata

PASSWORD = "correct-horse-battery"


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        yield made


def test_a_token_has_256_random_bits_and_is_kept_as_its_hash() -> None:
    made = [new_token("psn-1", "x", timedelta(days=1)) for _ in range(100)]
    secrets = [base64.urlsafe_b64decode(text.split("_", 2)[2] + "=") for text, _ in made]
    assert {len(secret) for secret in secrets} == {32}
    assert len(set(secrets)) == 100
    for text, row in made:
        assert row.sha256 == sha256(text.encode()).hexdigest()
        assert text.split("_")[1] == row.id
        assert text.split("_", 2)[2] not in repr(row)


def test_no_token_stands_in_the_database_nor_in_a_file(region: World, tmp_path: Path) -> None:
    """On SQLite the files hold what rows were before, too; PostgreSQL's are not ours to read."""
    shown = region.post("ines", "/tokens", {"person": "ines"})["token"]
    secrets = [text.split("_", 2)[2].encode() for text in (*region.tokens.values(), shown)]
    with region.services.database.rows() as connection:
        rows = [repr(connection.execute(table.select()).all()) for table in metadata.sorted_tables]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file()) + "".join(rows).encode()
    assert b"ines" in stored
    assert not [secret for secret in secrets if secret in stored]


def test_a_token_is_shown_once(region: World) -> None:
    made = region.post("ines", "/tokens", {"person": "ines", "label": "laptop"})
    listed = region.call("ines", "GET", "/tokens").text
    assert "laptop" in listed
    assert made["token"].split("_", 2)[2] not in listed
    with region.services.database.read() as session:
        assert session.exec(select(ApiToken.sha256).where(ApiToken.id == made["id"])).one() not in listed


def test_the_first_operators_token_is_a_file_of_its_owner(
    broker_command: BrokerCommand, database_url: str, tmp_path: Path
) -> None:
    for name in ("new", "old"):
        file = tmp_path / f"{name}.token"
        if name == "old":
            file.write_text("")
            file.chmod(0o644)
        done = broker_command("token", "olga", "--role", "operator", "--file", str(file), DATABASE_URL=database_url)
        assert done.code == 0, done.err
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text().strip() not in done.out + done.err
        assert file.read_text().strip().split("_", 2)[2] not in done.out + done.err


@pytest.mark.parametrize("arguments", [("olga", "--role", "king"), ("Olga Ivanova",), ("olga\x1b[31m",)])
def test_a_person_on_the_machine_follows_the_same_rules(
    broker_command: BrokerCommand, database_url: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = broker_command("token", *arguments, "--file", str(tmp_path / "t"), DATABASE_URL=database_url)
    assert done.code != 0
    assert "Traceback" not in done.err
    assert not (tmp_path / "t").exists()


def settings(tmp_path: Path, toml: str, monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    file = tmp_path / "broker.toml"
    file.write_text(toml)
    monkeypatch.setenv("IDF_BROKER_CONFIG", str(file))
    for name, value in environment.items():
        monkeypatch.setenv(f"IDF_BROKER_{name}", value)
    return Settings()


def test_the_environment_stands_over_the_file_and_the_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = settings(tmp_path, 'port = 9001\nhost = "10.0.0.1"\n', monkeypatch, PORT="9002")
    assert (read.port, read.host, read.log_level) == (9002, "10.0.0.1", "info")
    assert Settings(port=9003).port == 9003


@pytest.mark.parametrize(
    ("toml", "environment", "said"),
    [
        ("prot = 1\n", {}, "prot"),
        ("", {"PROT": "1"}, "IDF_BROKER_PROT"),
        ("port = 70000\n", {}, "port"),
        ("", {"PORT": "eighty"}, "port"),
        ("port = \n", {}, "TOML"),
        ("", {"CONFIG": "/nowhere/broker.toml"}, "/nowhere/broker.toml"),
        ("", {"DATABASE_URL": "nonsense"}, "database_url"),
        (
            "",
            {"DATABASE_URL": "postgresql+psycopg://idf@127.0.0.1:1/x", "DATABASE_PASSWORD_FILE": "/no/file"},
            "/no/file",
        ),
    ],
)
def test_a_setting_that_is_wrong_is_refused_in_one_sentence(
    broker_command: BrokerCommand, tmp_path: Path, toml: str, environment: Mapping[str, str], said: str
) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(toml)
    done = broker_command("migrate", **{"CONFIG": str(file), **environment})
    assert done.code == 1, done.out
    assert len(done.err.splitlines()) == 1, done.err
    assert said in done.err


def test_the_passwords_file_is_read_and_its_word_shown_nowhere(broker_command: BrokerCommand, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    read = Settings(database_url="postgresql+psycopg://idf@127.0.0.1:1/x", database_password_file=file)
    assert PASSWORD in read.full_database_url()
    assert PASSWORD not in repr(read) + str(read) + read.model_dump_json()
    environment = {"DATABASE_URL": str(read.database_url), "DATABASE_PASSWORD_FILE": str(file)}
    for what in ("serve", "doctor", "migrate", "worker"):
        done = broker_command(what, **environment)
        assert done.code == 1
        assert PASSWORD not in done.out + done.err


def test_a_password_in_the_address_is_refused_and_not_repeated(broker_command: BrokerCommand) -> None:
    url = f"postgresql+psycopg://idf:{PASSWORD}@127.0.0.1/x"
    with pytest.raises(ValidationError, match="database_password_file"):
        Settings(database_url=url)
    done = broker_command("doctor", DATABASE_URL=url)
    assert (done.code, PASSWORD in done.out + done.err) == (1, False)


def test_no_request_leaves_a_secret_in_the_log(
    region: World, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    made = region.post("ines", "/tokens", {"person": "ines"})
    for person, body in BODIES.values():
        region.call(person, "POST", "/nothing", body)
    monkeypatch.setattr("broker.api.jobs.weigh", _fails)
    secret = {"environment": {"HF_TOKEN": PASSWORD}, "script": f"echo {PASSWORD}", "arguments": [PASSWORD]}
    assert region.call("ines", "POST", "/jobs", {**JOB, **secret}).status_code == 500
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "unforeseen" in logged
    for word in (PASSWORD, made["token"].split("_", 2)[2], *(text.split("_", 2)[2] for text in region.tokens.values())):
        assert word not in logged


def _fails(*_: object, **__: object) -> None:
    raise RuntimeError("a defect of ours")
