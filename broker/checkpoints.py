"""Checkpoints: the chain's head, signed with an Ed25519 key that never leaves this machine."""

import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker.models import Checkpoint

HEXADECIMAL = "^[0-9a-f]*$"
FILE_BYTES_MAX = 10_000


class CheckpointWrong(Exception):
    """A checkpoint or a key cannot be used; the message is one sentence."""


class SignedHead(BaseModel):
    """A checkpoint as it stands in a file, goes over the wire and is signed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: int = Field(gt=0, lt=2**63)
    hash: str = Field(pattern=HEXADECIMAL, min_length=64, max_length=64)
    at: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
    """UTC, to the microsecond."""
    key_id: str = Field(pattern=HEXADECIMAL, min_length=16, max_length=16)
    signature: str = Field(pattern=HEXADECIMAL, min_length=128, max_length=128)

    def verify(self, key: Ed25519PublicKey) -> None:
        """Check the signature.

        Raises:
            CheckpointWrong: it is not this key's over this head.
        """
        if self.key_id != key_id(key):
            raise CheckpointWrong(f"checkpoint {self.sequence} names key {self.key_id}, this one is {key_id(key)}")
        try:
            key.verify(bytes.fromhex(self.signature), _signed_text(self.sequence, self.hash, self.at, self.key_id))
        except InvalidSignature:
            raise CheckpointWrong(f"checkpoint {self.sequence}: the signature is not this key's over it") from None

    def moment(self) -> datetime:
        """Return when it was signed."""
        return datetime.strptime(self.at, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)

    def as_row(self) -> Checkpoint:
        """Return the row of it."""
        at = self.moment()
        return Checkpoint(sequence=self.sequence, hash=self.hash, at=at, key_id=self.key_id, signature=self.signature)

    @classmethod
    def of_row(cls, row: Checkpoint) -> "SignedHead":
        """Return what a row says, as it was signed."""
        return cls(sequence=row.sequence, hash=row.hash, at=_moment(row.at), key_id=row.key_id, signature=row.signature)


def sign(key: Ed25519PrivateKey, sequence: int, hash_: str, at: datetime) -> SignedHead:
    """Sign a head."""
    id_ = key_id(key.public_key())
    signature = key.sign(_signed_text(sequence, hash_, _moment(at), id_))
    return SignedHead(sequence=sequence, hash=hash_, at=_moment(at), key_id=id_, signature=signature.hex())


def read_checkpoint(file: Path) -> SignedHead:
    """Read a checkpoint's file.

    Raises:
        CheckpointWrong: it is none.
    """
    try:
        with file.open("rb") as opened:
            return SignedHead.model_validate_json(opened.read(FILE_BYTES_MAX))
    except OSError as error:
        raise CheckpointWrong(f"{file}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointWrong(f"{file} is no checkpoint: {where}: {first['msg']}") from None


def key_id(key: Ed25519PublicKey) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the key's 32 bytes."""
    return sha256(key.public_bytes_raw()).hexdigest()[:16]


def public_pem(key: Ed25519PublicKey) -> str:
    """Return a public key as PEM, which OpenSSL reads too."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def read_public_key(file: Path) -> Ed25519PublicKey:
    """Read a public key from a PEM file.

    Raises:
        CheckpointWrong: it is none of Ed25519.
    """
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise CheckpointWrong(f"{file}: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CheckpointWrong(f"{file} is no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise CheckpointWrong(f"{file} is a key of another kind than Ed25519")
    return key


def signing_key(data_dir: Path) -> Ed25519PrivateKey:
    """Read the broker's own key, or make it the first time.

    Raises:
        CheckpointWrong: the file cannot be read, or is no such key.
    """
    file = data_dir / "keys" / "checkpoint.pem"
    try:
        if not file.exists():
            _make_key(file)
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise CheckpointWrong(f"{file}: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CheckpointWrong(f"{file} is no private key in PEM without a passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise CheckpointWrong(f"{file} is a key of another kind than Ed25519")
    return key


def _make_key(file: Path) -> None:
    """Write a new key, whole or not at all; of two processes that do so at once, one wins."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    draft = file.with_name(f".{file.name}.{token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(pem)
        opened.flush()
        os.fsync(opened.fileno())
    try:
        os.link(draft, file)
    except FileExistsError:
        pass  # another process was quicker: its key is the broker's
    finally:
        draft.unlink()


def _signed_text(sequence: int, hash_: str, at: str, id_: str) -> bytes:
    return f"idf-compute checkpoint|{sequence}|{hash_}|{at}|{id_}".encode()


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
