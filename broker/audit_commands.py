"""`idf-compute-broker audit`, `checkpoint`, `export`, `restored`: what an auditor asks of whoever runs the service."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.checkpoints import (
    CheckpointWrong,
    SignedHead,
    key_id,
    public_pem,
    read_checkpoint,
    read_public_key,
    signing_key,
)
from broker.schema_version import check_current
from broker.settings import Settings, read_settings
from storage.database import Database

FAULTS_MAX = 100
"""Faults that are shown; one change of an early row can break many sums."""
app = typer.Typer()
checkpoint_app = typer.Typer(help="Signed heads of the ledger's chain.", no_args_is_help=True)
app.add_typer(checkpoint_app, name="checkpoint")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PublicKey = Annotated[
    Path | None, typer.Option(help="The public key in PEM that was kept elsewhere; this machine's own when left out.")
]


@app.command(epilog="Example: idf-compute-broker audit --since checkpoint-0000000000004711-5f3a.json")
def audit(
    since: Annotated[Path | None, typer.Option(help="A checkpoint's file: only rows after it are read.")] = None,
    public_key: PublicKey = None,
    as_json: Json = False,
) -> None:
    """Derive the whole ledger again from its transfers; exit status 1 where a rule does not hold."""
    from quotas.audit import BEGINNING, Audit, Link

    settings, database = _opened()
    start = None if since is None else _signed(settings, since, public_key)
    if start is not None and _was_lost(database, start):
        raise CheckpointWrong(f"the rows of checkpoint {start.sequence} were lost in a restore: give another")
    began = time.monotonic()
    with database.snapshot() as connection, _bar(database, "audit") as tell:
        link = BEGINNING if start is None else Link(start.sequence, start.hash)
        books = Audit(connection, since=link, tell=tell)
        faults = list(islice(books.faults(), FAULTS_MAX))
    found = {
        "ok": not faults,
        "transfers": books.transfers,
        "accounts": books.accounts if start is None else None,
        "sequence": books.last.sequence,
        "hash": books.last.hash,
        "since": None if start is None else start.sequence,
        "seconds": round(time.monotonic() - began, 1),
        "faults": faults,
    }
    typer.echo(json.dumps(found) if as_json else _audit_text(found))
    if faults:
        raise typer.Exit(1)


def _audit_text(found: dict[str, Any]) -> str:
    if not found["ok"]:
        more = ["… there may be more"] if len(found["faults"]) == FAULTS_MAX else []
        return "\n".join([*(f"✗ {fault}" for fault in found["faults"]), *more])
    head = f"head {found['sequence']} {found['hash']}, {found['seconds']} s"
    if found["since"] is None:
        return f"✓ {found['transfers']} transfers and {found['accounts']} accounts are in order: {head}"
    return (
        f"✓ {found['transfers']} transfers after checkpoint {found['since']} follow from it: {head}\n"
        "  Proven: no row after the checkpoint was changed, removed or put in. Not looked at: rows before it, "
        "and balances, which follow from all rows only."
    )


@checkpoint_app.command("key", epilog="Example: idf-compute-broker checkpoint key > checkpoint.pub.pem")
def checkpoint_key(as_json: Json = False) -> None:
    """Print the public key; the key itself is made the first time and stays in data_dir/keys."""
    key = signing_key(read_settings().data_dir).public_key()
    pem = public_pem(key)
    typer.echo(json.dumps({"key_id": key_id(key), "public_key": pem}) if as_json else pem.rstrip("\n"))


@checkpoint_app.command("list", epilog="Example: idf-compute-broker checkpoint list --last 5")
def checkpoint_list(
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 20, as_json: Json = False
) -> None:
    """Show the newest checkpoints, and how far each place has them."""
    from sqlmodel import col, select

    from broker.models import Checkpoint, CheckpointPlace

    _, database = _opened()
    with database.read() as session:
        rows = session.exec(select(Checkpoint).order_by(col(Checkpoint.sequence).desc()).limit(last)).all()
        places = session.exec(select(CheckpointPlace).order_by(col(CheckpointPlace.place))).all()
    heads = [SignedHead.of_row(row) for row in rows]
    if as_json:
        said = [{"place": p.place, "sequence": p.sequence, "failure": p.failure} for p in places]
        typer.echo(json.dumps({"checkpoints": [head.model_dump() for head in heads], "places": said}))
        return
    for head in heads:
        typer.echo(f"{head.sequence}  {head.at}  {head.hash}  key {head.key_id}")
    for place in places:
        typer.echo(f"{place.place}: up to {place.sequence}{', fails: ' + place.failure if place.failure else ''}")


@checkpoint_app.command("verify", epilog="Example: idf-compute-broker checkpoint verify /mnt/notary/*.json")
def checkpoint_verify(
    files: Annotated[list[Path], typer.Argument(help="Files of checkpoints.")],
    public_key: PublicKey = None,
    as_json: Json = False,
) -> None:
    """Check that each file was signed by the key, and that the chain has the row that it signed."""
    settings, database = _opened()
    faults, lost = [], []
    for file in files:
        try:
            head = _signed(settings, file, public_key)
        except CheckpointWrong as error:
            faults.append(str(error))
            continue
        if _was_lost(database, head):
            lost.append(str(file))
        else:
            faults += [f"{file}: {fault}" for fault in _faults_of(database, head)]
    said = {"ok": not faults, "files": len(files), "lost": lost, "faults": faults}
    text = "\n".join(f"✗ {fault}" for fault in faults)
    if not text:
        text = f"✓ signed and in the chain: {len(files) - len(lost)}"
        text += f"; signed, and lost as a restore says: {len(lost)}" if lost else ""
    typer.echo(json.dumps(said) if as_json else text)
    if faults:
        raise typer.Exit(1)


@app.command(epilog="Example: idf-compute-broker export --out ledger-2026.txt")
def export(
    out: Annotated[Path, typer.Option(help="A file that is not there yet; docs/audit/README.md says what it holds.")],
    as_json: Json = False,
) -> None:
    """Write all transfers, the checkpoints and the public key to a file, for a verifier that is not ours."""
    from broker.export import write_export

    settings, database = _opened()
    key = signing_key(settings.data_dir).public_key()
    try:
        with database.snapshot() as connection, _bar(database, "export") as tell:
            transfers = write_export(connection, key, out, tell)
    except OSError as error:
        raise CheckpointWrong(f"{out}: {error.strerror}") from None
    said = {"file": str(out), "transfers": transfers, "key_id": key_id(key)}
    typer.echo(json.dumps(said) if as_json else f"{transfers} transfers written to {out}, key {said['key_id']}")


@app.command(epilog='Example: idf-compute-broker restored --reason "disk lost on 3 May" --lost newest.json')
def restored(
    reason: Annotated[str, typer.Option(help="Why a backup was played back; at most 500 characters.")],
    lost: Annotated[Path | None, typer.Option(help="The newest checkpoint outside that the backup lacks.")] = None,
    public_key: PublicKey = None,
    as_json: Json = False,
) -> None:
    """Say in the chain that a backup was played back, and what was lost; before the service starts again."""
    from quotas.audit import Link
    from quotas.errors import NothingLost
    from quotas.restores import record_restore
    from storage.tables import utcnow

    if not 1 <= len(reason) <= 500 or not reason.isprintable():
        raise CheckpointWrong("the reason must be one line of 1 to 500 characters")
    settings, database = _opened()
    head = None if lost is None else _signed(settings, lost, public_key)
    try:
        with database.write() as session:
            link = None if head is None else Link(head.sequence, head.hash)
            written = record_restore(session, reason, link, utcnow())
    except NothingLost as error:
        raise CheckpointWrong(f"{error.detail}; {error.remedy}") from None
    gone = "nothing that is known outside was"
    if head is not None:
        gone = f"transfers {written.sequence} to {head.sequence} were"
    said = {"sequence": written.sequence, "hash": written.hash, "lost_up_to": None if head is None else head.sequence}
    typer.echo(json.dumps(said) if as_json else f"transfer {written.sequence} says that {gone} lost")


def _opened() -> tuple[Settings, Database]:
    settings = read_settings()
    check_current(settings.full_database_url())
    return settings, Database(settings.full_database_url())


def _faults_of(database: Database, head: SignedHead) -> list[str]:
    from quotas.audit import Link, faults_of_link

    with database.snapshot() as connection:
        return list(faults_of_link(connection, Link(head.sequence, head.hash)))


def _was_lost(database: Database, head: SignedHead) -> bool:
    from quotas.audit import Link
    from quotas.restores import all_lost

    link = Link(head.sequence, head.hash)
    with database.snapshot() as connection:
        return any(lost.accounts_for(link, head.moment()) for lost in all_lost(connection))


def _signed(settings: Settings, file: Path, public_key: Path | None) -> SignedHead:
    head = read_checkpoint(file)
    key = signing_key(settings.data_dir).public_key() if public_key is None else read_public_key(public_key)
    head.verify(key)
    return head


@contextmanager
def _bar(database: Database, what: str) -> Iterator[Callable[[int], None]]:
    """Draw a bar on a terminal's standard error while rows are read."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from sqlmodel import select

    from quotas.models import ChainHead

    with database.read() as session:
        rows = session.exec(select(ChainHead.sequence)).one()
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=rows)
        yield lambda done: progress.update(task, completed=done)
