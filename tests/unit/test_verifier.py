"""docs/audit/verify.py as an auditor runs it: exports of both engines, and every way in which one can be false."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from books import BEGAN_AT, run_jobs, write_books

from broker.checkpoint_rounds import sign_head
from broker.checkpoints import SignedHead, public_pem, sign, signing_key
from broker.export import write_export
from quotas.audit import Link
from quotas.restores import record_restore
from storage.database import Database

VERIFIER = Path(__file__).parents[2] / "docs/audit/verify.py"
Lines = list[str]


@pytest.fixture
def lines(database: Database, tmp_path: Path) -> Lines:
    """An export of 16 transfers, signed at 9 and at 16."""
    award_id = write_books(database)
    sign_head(database, signing_key(tmp_path), BEGAN_AT + timedelta(hours=4))
    run_jobs(database, award_id, 4, 6)
    sign_head(database, signing_key(tmp_path), BEGAN_AT + timedelta(hours=8))
    return exported(database, tmp_path)


def exported(database: Database, folder: Path) -> Lines:
    file = folder / "export.txt"
    file.unlink(missing_ok=True)
    with database.snapshot() as connection:
        write_export(connection, signing_key(folder).public_key(), file, lambda _: None)
    return file.read_text().splitlines()


def verify(folder: Path, lines: Lines, *outside: Path) -> tuple[int, str]:
    (folder / "export.txt").write_text("\n".join(lines) + "\n")
    (folder / "key.pem").write_text(public_pem(signing_key(folder).public_key()))
    command = [sys.executable, VERIFIER, "export.txt", "--key", "key.pem"]
    if outside:
        command += ["--checkpoints", *outside]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def number_of(line: str) -> int:
    return int(line.split("|")[2]) if line.startswith("transfer") else 0


def rehashed(lines: Lines) -> Lines:
    """Chain the rows anew, as somebody would who changed one and knows how the chain is made."""
    previous, made = "0" * 64, []
    for line in lines:
        body = line.split("|", 2)[2] if number_of(line) else ""
        previous = sha256(f"{previous}|{body}".encode()).hexdigest() if body else previous
        made.append(f"transfer|{previous}|{body}" if body else line)
    return made


def changed(lines: Lines, sequence: int, old: str, new: str) -> Lines:
    made = [re.sub(old, new, line) if number_of(line) == sequence else line for line in lines]
    assert made != lines
    return made


def swapped(lines: Lines) -> Lines:
    index = next(index for index, line in enumerate(lines) if number_of(line) == 4)
    return [*lines[:index], lines[index + 1], lines[index], *lines[index + 2 :]]


def test_the_verifier_is_short_and_shares_no_code_with_us() -> None:
    text = VERIFIER.read_text()
    assert len(text.splitlines()) <= 150
    assert not re.search(r"^\s*(from|import) (broker|quotas|storage|accounting|adapters|cli)", text, re.M)


def test_an_export_is_accepted(tmp_path: Path, lines: Lines) -> None:
    code, said = verify(tmp_path, lines)
    assert code == 0, said
    assert re.search(r"✓ 16 rows, 5 accounts; head [0-9a-f]{64}; signed up to row 16", said), said
    assert "compare with those kept outside" in said


def hold_up(lines: Lines) -> Lines:
    return rehashed(changed(lines, 3, r"\|36000000\|", "|36000001|"))


FALSE: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "amount changed": (
        lambda lines: changed(lines, 4, r"\|14400000\|", "|14400001|"),
        "row 4: its hash does not follow",
    ),
    "details changed": (lambda lines: changed(lines, 4, "region=700", "region=800"), "row 4: its hash does not follow"),
    "row removed": (lambda lines: [line for line in lines if number_of(line) != 4], "row 4 is missing: row 5 is in"),
    "rows swapped": (swapped, "row 4 is missing: row 5 is in its place"),
    "chained anew after an edit": (hold_up, "row 9: signed at 2026-05-01T12:00:00.000000Z, and another row"),
    "tail cut off": (lambda lines: [line for line in lines if number_of(line) < 16], "row 16: signed at .* is missing"),
    "file cut off": (lambda lines: lines[:-1], "row 17: the file is cut off here"),
    "unreadable row": (lambda lines: changed(lines, 4, r"\|settle\|", "|"), "row 4: the line does not read as a row"),
    "below zero": (
        lambda lines: rehashed(changed(lines, 2, r"\|360000000\|", "|1|")),
        "row 3: it takes account available:.* below zero",
    ),
    "an amount below zero": (
        lambda lines: rehashed(changed(lines, 3, r"\|36000000\|", "|-36000000|")),
        "row 3: it moves -36000000",
    ),
    "nothing moved": (lambda lines: rehashed(changed(lines, 3, r"\|36000000\|", "|0|")), "row 3: it moves 0"),
    "signature forged": (
        lambda lines: [re.sub(r"^(checkpoint\|9\|.*\|).{8}", r"\g<1>00000000", line) for line in lines],
        "checkpoint of row 9: its signature is false",
    ),
    "key of another": (
        lambda lines: [re.sub(r"^(checkpoint\|9\|[^|]*\|[^|]*\|).{16}", r"\g<1>" + "0" * 16, line) for line in lines],
        "checkpoint of row 9: signed by key 0000000000000000, which was not given",
    ),
}


@pytest.mark.parametrize("what", FALSE)
def test_a_false_export_is_refused_and_the_row_named(tmp_path: Path, lines: Lines, what: str) -> None:
    change, said_wanted = FALSE[what]
    code, said = verify(tmp_path, change(lines))
    assert code == 1
    assert re.search(said_wanted, said), said


def test_what_is_kept_outside_shows_a_chain_that_was_signed_anew(tmp_path: Path, lines: Lines) -> None:
    """Who has the broker's key too can sign a rewritten chain, and not what the places hold already."""
    outside = tmp_path / "notary"
    outside.mkdir()
    kept = next(line for line in lines if line.startswith("checkpoint|9|")).split("|")[1:]
    names = ("sequence", "hash", "at", "key_id", "signature")
    head = SignedHead(**dict(zip(names, kept, strict=True)))  # type: ignore[arg-type]
    (outside / "checkpoint-9.json").write_text(head.model_dump_json())
    (outside / "checkpoint-8.json").write_text('{"sequence": 8')
    code, said = verify(tmp_path, lines, outside)
    assert (code, "checkpoint-8.json is no checkpoint (cut off?) and was passed over" in said) == (0, True), said
    false = hold_up(lines)
    ninth = next(line.split("|")[1] for line in false if number_of(line) == 9)
    signed = sign(signing_key(tmp_path), 9, ninth, BEGAN_AT + timedelta(hours=4))
    again = f"checkpoint|9|{ninth}|{signed.at}|{signed.key_id}|{signed.signature}"
    false = [again if line.startswith("checkpoint|9|") else line for line in false if "checkpoint|16|" not in line]
    assert verify(tmp_path, false)[0] == 0, "the export alone cannot show it"
    code, said = verify(tmp_path, false, outside)
    assert (code, "row 9: signed at" in said) == (1, True), said


def test_a_restore_says_what_was_lost_and_nothing_more_is_forgiven(
    database: Database, tmp_path: Path, lines: Lines
) -> None:
    """The backup had 16 rows; 17 to 27 came after it, were signed outside at 22 and 27, and are lost."""
    key = signing_key(tmp_path)
    outside = tmp_path / "notary"
    outside.mkdir()
    lost = [sign(key, number, f"{number:064x}", BEGAN_AT + timedelta(hours=9)) for number in (22, 27)]
    for head in lost:
        (outside / f"{head.sequence}.json").write_text(head.model_dump_json())
    code, said = verify(tmp_path, lines, outside)
    assert (code, "row 22: signed at" in said) == (1, True), said
    with database.write() as session:
        record_restore(session, "disk", Link(27, lost[1].hash), BEGAN_AT + timedelta(hours=10))
    code, said = verify(tmp_path, exported(database, tmp_path), outside)
    assert (code, "! row 17: a backup was played back; transfers 17 to 27 as they were" in said) == (0, True), said
    for number, hours, hash_ in ((22, 11, "aa" * 32), (28, 9, "bb" * 32), (27, 9, "cc" * 32)):
        head = sign(key, number, hash_, BEGAN_AT + timedelta(hours=hours))
        file = tmp_path / "more.json"
        file.write_text(head.model_dump_json())
        code, said = verify(tmp_path, exported(database, tmp_path), outside, file)
        assert (code, f"row {number}: signed at" in said) == (1, True), said
