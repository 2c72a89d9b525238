"""Packing a folder: the same bytes for the same content, and attacks."""

import gzip
import io
import os
import socket
import tarfile
import time
from pathlib import Path

import pytest

from cli import snapshot
from cli.exits import Exit, Failure


def packed(folder: Path, bytes_max: int = 10**8, files_max: int = 1000) -> snapshot.Packed:
    return snapshot.pack(folder, bytes_max, files_max)


def members(folder: Path) -> list[str]:
    with (
        packed(folder).file as file,
        tarfile.open(fileobj=io.BytesIO(gzip.decompress(file.read()))) as archive,
    ):
        return archive.getnames()


def refusal(folder: Path) -> Failure:
    with pytest.raises(Failure) as refused:
        packed(folder)
    return refused.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    (made / "src").mkdir(parents=True)
    (made / "src" / "train.py").write_text("print(1)\n")
    (made / "run.sh").write_text("#!/bin/sh\n")
    (made / "run.sh").chmod(0o750)
    return made


def test_the_digest_depends_on_content_only(folder: Path, tmp_path: Path) -> None:
    first = packed(folder).digest
    other = tmp_path / "elsewhere"
    (other / "src").mkdir(parents=True)
    (other / "run.sh").write_text("#!/bin/sh\n")
    (other / "run.sh").chmod(0o700)
    (other / "src" / "train.py").write_text("print(1)\n")
    os.utime(other / "run.sh", (1, 1))
    assert packed(other).digest == first
    (other / "run.sh").chmod(0o600)
    assert packed(other).digest != first


def test_owners_and_times_are_not_told(folder: Path) -> None:
    with (
        packed(folder).file as file,
        tarfile.open(fileobj=io.BytesIO(gzip.decompress(file.read()))) as archive,
    ):
        for member in archive.getmembers():
            assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
            assert member.mode in (0o644, 0o755)


def test_ignore_files_are_honoured_and_idfignore_has_the_last_word(folder: Path) -> None:
    for name in (
        ".git/config",
        ".venv/bin/python",
        "src/__pycache__/x.pyc",
        "data/a.bin",
        "keep/b.bin",
        "c.bin",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / ".gitignore").write_text("*.bin\n/data/\n")
    (folder / ".idfignore").write_text("!keep/b.bin\n")
    assert members(folder) == [
        ".gitignore",
        ".idfignore",
        "keep",
        "keep/b.bin",
        "run.sh",
        "src",
        "src/train.py",
    ]


@pytest.mark.parametrize("target", ["/etc", "/etc/passwd", "..", "../..", "src/../../x", "src/up/../x"])
def test_links_that_lead_out_are_refused(folder: Path, target: str) -> None:
    (folder / "src" / "up").symlink_to("../..")
    (folder / "link").symlink_to(target)
    assert "leads out of the folder" in refusal(folder).sentence


def test_a_link_that_leads_out_by_way_of_another_is_refused(folder: Path) -> None:
    (folder / "a").symlink_to("b/..")
    (folder / "b").symlink_to("src")
    assert "a" in members(folder)
    (folder / "b").unlink()
    (folder / "b").symlink_to(".")
    assert "leads out" in refusal(folder).sentence


def test_links_inside_stay_links(folder: Path) -> None:
    (folder / "src" / "again").symlink_to("../run.sh")
    (folder / "loop").symlink_to("loop")
    assert "src/again" in members(folder)


def test_an_ignored_link_to_etc_is_not_minded(folder: Path) -> None:
    (folder / "etc").symlink_to("/etc")
    (folder / ".idfignore").write_text("/etc\n")
    assert "etc" not in members(folder)


def test_pipes_and_sockets_are_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert "neither a file nor a folder" in refusal(folder).sentence
    (folder / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
        assert "neither a file nor a folder" in refusal(folder).sentence


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\u202eb", "a\\b", b"a\xff".decode("utf-8", "surrogateescape")])
def test_names_that_deceive_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("x")
    assert "control characters" in refusal(folder).sentence


@pytest.mark.parametrize(("one", "other"), [("Makefile", "makefile"), ("é.py", "e\u0301.py"), ("straße", "STRASSE")])
def test_names_that_collide_elsewhere_are_refused(folder: Path, one: str, other: str) -> None:
    (folder / one).write_text("x")
    (folder / other).write_text("x")
    assert "differ by case only" in refusal(folder).sentence


def test_two_gigabytes_are_refused_without_reading_them(folder: Path) -> None:
    for number in range(4):
        with (folder / f"big{number}").open("wb") as file:
            file.truncate(512 * 1024 * 1024)
    begun = time.monotonic()
    failure = refusal(folder)
    assert time.monotonic() - begun < 1
    assert failure.exit_code is Exit.REFUSED
    assert failure.remedy
    assert "95 MiB" in failure.sentence


def test_too_many_files_and_levels_are_refused(folder: Path) -> None:
    with pytest.raises(Failure, match="more than 2 files"):
        packed(folder, files_max=2)
    (folder / "/".join(["d"] * 70)).mkdir(parents=True)
    assert "deeper" in refusal(folder).sentence


def test_a_file_that_is_swapped_while_it_is_packed_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = snapshot.survey(folder, 10**8, 100)
    (folder / "run.sh").unlink()
    (folder / "run.sh").symlink_to("/etc/passwd")
    monkeypatch.setattr(snapshot, "survey", lambda *_: entries)
    assert refusal(folder).exit_code is Exit.USAGE


def test_no_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").exit_code is Exit.USAGE
    (tmp_path / "file").write_text("x")
    assert "is no folder" in refusal(tmp_path / "file").sentence
