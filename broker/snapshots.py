"""Folders that engineers sent with their jobs: kept once per digest, written through a temporary file."""

import os
import secrets
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

from broker.errors import BadRequest, NotFound, TooLarge
from broker.settings import Settings


def snapshot_path(settings: Settings, digest: str) -> Path:
    """Return where a snapshot lies; a digest is 64 hexadecimal digits, checked by the schema."""
    return settings.data_dir / "snapshots" / digest


def require_snapshot(settings: Settings, digest: str | None) -> None:
    """Refuse a job whose snapshot was not sent before.

    Raises:
        NotFound: says how to send it.
    """
    if digest is not None and not snapshot_path(settings, digest).is_file():
        raise NotFound(f"no snapshot {digest} was sent", f"PUT /v1/snapshots/{digest} first")


async def keep(settings: Settings, digest: str, stream: AsyncIterator[bytes]) -> int:
    """Write a snapshot under its digest and return its size in bytes; nothing stays of one that is refused.

    Raises:
        TooLarge: it passes `snapshot_bytes_max`.
        BadRequest: its bytes have another digest.
    """
    path = snapshot_path(settings, digest)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{digest}.{secrets.token_hex(4)}.part")
    try:
        size_bytes = await _write(temporary, digest, stream, settings.snapshot_bytes_max)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    return size_bytes


async def _write(path: Path, digest: str, stream: AsyncIterator[bytes], bytes_max: int) -> int:
    actual, size_bytes = sha256(), 0
    with path.open("xb") as file:
        async for chunk in stream:
            size_bytes += len(chunk)
            if size_bytes > bytes_max:
                raise TooLarge(
                    f"a snapshot may have at most {bytes_max} bytes", "leave large files out with .idfignore"
                )
            actual.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if actual.hexdigest() != digest:
        raise BadRequest("the snapshot's bytes do not have the digest it was sent under", "send it again")
    return size_bytes
