"""What an auditor takes away: every transfer as it is hashed, checkpoints, the public key (docs/audit/README.md)."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, Table, select

from broker.checkpoints import SignedHead, key_id
from broker.models import Checkpoint
from quotas.audit import transfer_lines

_checkpoints: Table = Checkpoint.__table__  # type: ignore[attr-defined]
BLOCK = 5000


def write_export(connection: Connection, key: Ed25519PublicKey, file: Path, tell: Callable[[int], None]) -> int:
    """Write a new file, and return how many transfers it has.

    Raises:
        OSError: the file is there already, or cannot be written.
    """
    transfers = 0
    with file.open("xb") as out:
        out.write(f"idf-compute-export|1\nkey|{key_id(key)}|{key.public_bytes_raw().hex()}\n".encode())
        checkpoints = 0
        for head in _signed_heads(connection):
            checkpoints += 1
            out.write(f"checkpoint|{head.sequence}|{head.hash}|{head.at}|{head.key_id}|{head.signature}\n".encode())
        lines = transfer_lines(connection)
        while block := list(islice(lines, BLOCK)):
            out.writelines(b"transfer|" + line + b"\n" for line in block)
            transfers += len(block)
            tell(transfers)
        out.write(f"end|{transfers}|{checkpoints}\n".encode())
    return transfers


def _signed_heads(connection: Connection) -> Iterator[SignedHead]:
    wanted = select(_checkpoints).order_by(_checkpoints.c.sequence)
    for row in connection.execution_options(yield_per=1000).execute(wanted):
        yield SignedHead.of_row(Checkpoint(**row._mapping))
