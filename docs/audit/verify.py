#!/usr/bin/env python3
"""Proves that an exported ledger is whole and unchanged: chain, balances, signed checkpoints, restores.

It shares no code with what wrote the ledger. It needs Python 3.10 and the package `cryptography` (Debian:
python3-cryptography), which checks 5,000 and more signatures a second; a process of `openssl` for each of the
half million checkpoints of a year would take an hour.

    python3 verify.py EXPORT --key checkpoint.pub.pem [--checkpoints FOLDER ...]
"""

import argparse
import hashlib
import json
import pathlib
import sys
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

FIELDS = ("sequence", "hash", "at", "key_id", "signature")


class Broken(Exception):
    """The ledger is not what was signed."""


def check_signature(checkpoint, keys):
    """Refuse a checkpoint that none of the given keys signed."""
    where = f"checkpoint of row {checkpoint['sequence']}"
    if checkpoint["key_id"] not in keys:
        raise Broken(f"{where}: signed by key {checkpoint['key_id']}, which was not given")
    text = "idf-compute checkpoint|{sequence}|{hash}|{at}|{key_id}".format(**checkpoint)
    try:
        keys[checkpoint["key_id"]].verify(bytes.fromhex(checkpoint["signature"]), text.encode())
    except (InvalidSignature, ValueError):
        raise Broken(f"{where}: its signature is false") from None


def read_keys(files):
    """Return the public keys of PEM files by their ids: 16 digits of the SHA-256 of the 32 bytes."""
    keys = [load_pem_public_key(pathlib.Path(file).read_bytes()) for file in files]
    return {hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]: key for key in keys}


def outside_checkpoints(paths):
    """Yield the checkpoints in files and folders that the places kept."""
    for path in map(pathlib.Path, paths):
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            try:
                yield {name: json.loads(file.read_text())[name] for name in FIELDS}
            except (ValueError, KeyError, TypeError):
                print(f"! {file} is no checkpoint (cut off?) and was passed over", file=sys.stderr)


class Ledger:
    """What the rows come to, row by row."""

    def __init__(self):
        self.sequence, self.hash, self.balances, self.restores = 0, "0" * 64, {}, []

    def add(self, stored, body):
        """Check one row: its place, its hash, and that no account but two kinds goes below zero."""
        try:
            sequence, _, kind, debit, credit, amount, _, at, *details = body.split("|")
            sequence, amount, at = int(sequence), int(amount), int(at)
        except ValueError:
            raise Broken(f"row {self.sequence + 1}: the line does not read as a row") from None
        if sequence != self.sequence + 1:
            raise Broken(f"row {self.sequence + 1} is missing: row {sequence} is in its place")
        if hashlib.sha256(f"{self.hash}|{body}".encode()).hexdigest() != stored:
            raise Broken(f"row {sequence}: its hash does not follow from the row before it")
        self.sequence, self.hash = sequence, stored
        if amount < 0 or (amount == 0 and kind != "restore"):
            raise Broken(f"row {sequence}: it moves {amount}")
        self.balances[debit] = self.balances.get(debit, 0) - amount
        self.balances[credit] = self.balances.get(credit, 0) + amount
        if self.balances[debit] < 0 and debit.split(":")[0] not in ("treasury", "overrun"):
            raise Broken(f"row {sequence}: it takes account {debit} below zero")
        if kind == "restore":
            said = dict(pair.split("=", 1) for pair in ";".join(details).split(";") if pair)
            when = (datetime(1970, 1, 1) + timedelta(microseconds=at)).isoformat(timespec="microseconds") + "Z"
            self.restores.append((sequence, int(said.get("lost_sequence", 0)), said.get("lost_hash"), when))


def lost_in_restore(checkpoint, restores):
    """Say whether a restore accounts for a checkpoint whose row is gone: signed before, of a row that it names."""
    return any(
        first <= checkpoint["sequence"] <= last
        and checkpoint["at"] < when
        and (checkpoint["sequence"] < last or checkpoint["hash"] == last_hash)
        for first, last, last_hash, when in restores
    )


def verify(export, keys, outside):
    """Check a whole export against keys and checkpoints; return what was found."""
    ledger, wanted, unmet, ended, signed = Ledger(), {}, [], False, 0

    def expect(checkpoint):
        check_signature(checkpoint, keys)
        wanted.setdefault(checkpoint["sequence"], []).append(checkpoint)

    for checkpoint in outside:
        expect(checkpoint)
    for line in export:
        kind, _, rest = line.rstrip("\n").partition("|")
        if kind == "checkpoint":
            sequence, *others = rest.split("|")
            expect(dict(zip(FIELDS, (int(sequence), *others), strict=True)))
        elif kind == "transfer":
            ledger.add(*rest.split("|", 1))
            here = wanted.pop(ledger.sequence, [])
            unmet += [checkpoint for checkpoint in here if checkpoint["hash"] != ledger.hash]
            signed = ledger.sequence if any(checkpoint["hash"] == ledger.hash for checkpoint in here) else signed
        ended = kind == "end" and rest.split("|")[0] == str(ledger.sequence)
    lost = [checkpoint for late in wanted.values() for checkpoint in late]
    for checkpoint in sorted(unmet + lost, key=lambda c: c["sequence"]):
        if not lost_in_restore(checkpoint, ledger.restores):
            what = "another row has its place" if checkpoint["sequence"] <= ledger.sequence else "the row is missing"
            raise Broken(f"row {checkpoint['sequence']}: signed at {checkpoint['at']}, and {what}")
    if not ended:
        raise Broken(f"row {ledger.sequence + 1}: the file is cut off here")
    return ledger, signed


def main():
    """Read the arguments, verify, say it in a few lines; exit status 1 where the ledger is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export")
    parser.add_argument("--key", action="append", required=True, help="public key in PEM, had from the Region itself")
    parser.add_argument("--checkpoints", nargs="*", default=[], help="files and folders kept outside the broker")
    arguments = parser.parse_args()
    try:
        with pathlib.Path(arguments.export).open(encoding="utf-8") as export:
            keys = read_keys(arguments.key)
            ledger, signed = verify(export, keys, outside_checkpoints(arguments.checkpoints))
    except (Broken, OSError, ValueError) as error:
        sys.exit(f"✗ {error}")
    for first, last, *_ in ledger.restores:
        what = f"transfers {first} to {last} as they were before it are lost" if last else "nothing known was lost"
        print(f"! row {first}: a backup was played back; {what}")
    if not arguments.checkpoints:
        print("! all checkpoints came with the rows: compare with those kept outside by --checkpoints")
    print(f"✓ {ledger.sequence} rows, {len(ledger.balances)} accounts; head {ledger.hash}; signed up to row {signed}")


if __name__ == "__main__":
    main()
