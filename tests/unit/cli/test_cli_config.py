"""The configuration file: who may read it, which broker a token is for, and where a token may be sent."""

import os
import stat
from pathlib import Path

import pytest

from cli import config
from cli.exits import Exit, Failure


def test_the_file_is_its_owners_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file = config.save(config.Config(url="https://b.example", token="secret"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in file.parent.iterdir()] == ["config.toml"]
    assert config.load() == config.Config(url="https://b.example", token="secret")


def test_a_token_that_others_may_read_is_not_used() -> None:
    file = config.save(config.Config(url="https://b.example", token="secret"))
    file.chmod(0o640)
    with pytest.raises(Failure) as refused:
        config.load()
    assert refused.value.exit_code is Exit.FORBIDDEN
    assert "chmod 600" in str(refused.value.remedy)


def test_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("IDF_COMPUTE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config.path() == tmp_path / "idf-compute" / "config.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert config.path() == tmp_path / "home" / ".config" / "idf-compute" / "config.toml"


def test_a_token_is_not_sent_to_another_broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config.save(config.Config(url="https://b.example", token="secret"))
    monkeypatch.setenv("IDF_COMPUTE_URL", "https://other.example")
    assert config.load().token is None
    (tmp_path / "t").write_text("other\n")
    monkeypatch.setenv("IDF_COMPUTE_TOKEN_FILE", str(tmp_path / "t"))
    assert config.load().token == "other"


@pytest.mark.parametrize(
    "url",
    ["https://b.example/", "http://localhost:8000", "http://127.0.0.2", "http://[::1]:80", "https://b/x"],
)
def test_addresses(url: str) -> None:
    assert config.checked_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://b.example",
        "http://10.0.0.1",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "ftp://b",
        "b.example",
        "https://",
        "https://user:pw@b.example",
        "https://b.example?x=1",
        "https://b:port",
        "",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(Failure) as refused:
        config.checked_url(url)
    assert refused.value.exit_code is Exit.USAGE


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "é", "x" * 600, "a\r\nX: y"])
def test_a_bad_token_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(Failure) as refused:
        config.checked_token(text)
    assert not text or text not in refused.value.sentence


@pytest.mark.parametrize("text", ["url = 5", "x = [", "snapshot = 3", "[snapshot]\nfiles_max = 'many'", "\xff"])
def test_a_broken_file_is_one_sentence(text: str) -> None:
    file = config.path()
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(Failure) as refused:
        config.load()
    assert str(file) in refused.value.sentence


def test_login_keeps_the_bounds_of_snapshots() -> None:
    config.save(config.Config(snapshot_bytes_max=5, snapshot_files_max=6))
    assert config.load()[2:] == (5, 6)
