"""Where checkpoints go: a folder on another machine, an address, a table of another server. Each only adds."""

import os
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from ssl import create_default_context
from urllib.parse import SplitResult, urlsplit

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from broker.addresses import check_address
from broker.checkpoints import SignedHead
from broker.errors import BadRequest
from broker.settings import CheckpointPlaceSetting

SEND_S_MAX = 10
"""How long a place may take to answer."""
NAMES_MAX = 9
"""How many names a folder is tried with, where a file of a name is there and was cut off in the middle."""


class PlaceFailed(Exception):
    """A place did not take a checkpoint; the message says why and bears no secret."""


Send = Callable[[SignedHead], None]
"""Hands a checkpoint over, and raises PlaceFailed where that did not work. A repeat does no harm."""


def sender(place: CheckpointPlaceSetting, *, allow_loopback: bool) -> Send:
    """Return how a place of the settings is sent to."""
    parts = urlsplit(place.address)
    if parts.scheme == "folder":
        return lambda head: _to_folder(Path(parts.path), head)
    if parts.scheme == "postgresql+psycopg":
        return lambda head: _to_table(place, parts, head, allow_loopback=allow_loopback)
    return lambda head: _to_address(parts, head, allow_loopback=allow_loopback)


def _to_folder(folder: Path, head: SignedHead) -> None:
    """Write a new file; the folder must be there, so that a share that is away is not filled in its place."""
    wanted = head.model_dump_json().encode() + b"\n"
    for number in range(1, NAMES_MAX + 1):
        again = "" if number == 1 else f"-{number}"
        file = folder / f"checkpoint-{head.sequence:016}-{head.hash[:16]}{again}.json"
        try:
            _write_new(file, wanted)
        except FileExistsError:
            if not _holds(file, wanted):
                continue
        except OSError as error:
            raise PlaceFailed(error.strerror or str(error)) from None
        return
    raise PlaceFailed(f"{NAMES_MAX} files of checkpoint {head.sequence} are there and none is it")


def _write_new(file: Path, wanted: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as opened:
        opened.write(wanted)
        opened.flush()
        os.fsync(opened.fileno())
    descriptor = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _holds(file: Path, wanted: bytes) -> bool:
    """Say whether a file is what would be written; one that may not be read is taken as another."""
    try:
        with file.open("rb") as opened:
            return opened.read(len(wanted) + 1) == wanted
    except OSError:
        return False


def _to_address(parts: SplitResult, head: SignedHead, *, allow_loopback: bool) -> None:
    """POST it as JSON; any answer but 2xx is a failure, a redirect too."""
    host = parts.hostname or ""
    check(host, allow_loopback=allow_loopback)
    if parts.scheme == "https":
        connection: HTTPConnection = HTTPSConnection(
            host, parts.port, timeout=SEND_S_MAX, context=create_default_context()
        )
    elif allow_loopback:
        connection = HTTPConnection(host, parts.port, timeout=SEND_S_MAX)
    else:
        raise PlaceFailed("http is for the demo and tests: use https")
    try:
        with closing(connection):
            connection.connect()
            check(connection.sock.getpeername()[0], allow_loopback=allow_loopback, only_loopback=parts.scheme == "http")
            body = head.model_dump_json()
            connection.request("POST", parts.path or "/", body, {"Content-Type": "application/json"})
            status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise PlaceFailed(f"{type(error).__name__}: {error}") from None
    if not 200 <= status < 300:
        raise PlaceFailed(f"it answered {status}")


def _to_table(place: CheckpointPlaceSetting, parts: SplitResult, head: SignedHead, *, allow_loopback: bool) -> None:
    """Add a row to `idf_checkpoint`, which must be somebody else's: a table that we may rewrite proves nothing."""
    check(parts.hostname or "", allow_loopback=allow_loopback)
    url = make_url(place.address)
    if place.password_file is not None:
        try:
            url = url.set(password=place.password_file.read_text().strip())
        except (OSError, ValueError) as error:
            raise PlaceFailed(f"password_file {place.password_file}: {error}") from None
    options = f"-c statement_timeout={SEND_S_MAX}s"
    engine = create_engine(url, connect_args={"connect_timeout": SEND_S_MAX, "options": options})
    try:
        with engine.begin() as connection:
            if connection.execute(text(_MAY_REWRITE)).scalar_one():
                raise PlaceFailed("its user may change or delete rows of idf_checkpoint: grant INSERT alone")
            connection.execute(text(_ADD), head.model_dump())
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise PlaceFailed(f"{type(cause).__name__}: {' '.join(str(cause).split())}") from None
    finally:
        engine.dispose()


_MAY_REWRITE = (
    "SELECT has_table_privilege('idf_checkpoint', 'UPDATE') OR has_table_privilege('idf_checkpoint', 'DELETE')"
    " OR has_table_privilege('idf_checkpoint', 'TRUNCATE')"
    " OR has_any_column_privilege('idf_checkpoint', 'UPDATE')"
)
_ADD = (
    "INSERT INTO idf_checkpoint (sequence, hash, at, key_id, signature)"
    " VALUES (:sequence, :hash, :at, :key_id, :signature) ON CONFLICT DO NOTHING"
)


def check(host: str, *, allow_loopback: bool, only_loopback: bool = False) -> None:
    """Refuse an address that no place has.

    Raises:
        PlaceFailed: it is link-local, this machine itself, or does not resolve.
    """
    try:
        check_address(host, allow_loopback=allow_loopback)
    except BadRequest as error:
        raise PlaceFailed(error.detail) from None
    if only_loopback and not host.startswith("127.") and host != "::1":
        raise PlaceFailed("http is for this machine alone: use https")
