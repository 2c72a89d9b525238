"""Letters and the port that takes them away: a log, or a mail server (broker/smtp.py).

PostError
├── PostAway        nothing can be sent at the moment, to nobody: all letters wait
├── LetterPutOff    this one was not taken now; it may be another time
└── LetterRefused   this one will never be taken
"""

import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Protocol
from unicodedata import category

import structlog

SUBJECT_LENGTH_MAX = 200
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
log = structlog.get_logger()


class PostError(Exception):
    """A letter was not taken; the message says why, on one line."""


class PostAway(PostError):
    """Nothing can be sent at the moment: the server is away, or refuses us."""


class LetterPutOff(PostError):
    """This letter was not taken now; whether it went all the same is not known."""


class LetterRefused(PostError):
    """This letter will never be taken."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What one person is told. The same `key` is the same letter, however often it is sent."""

    key: str
    to: str | None
    """An address, None where none is known."""
    addressee: str
    """Opaque id of the person, or the address: for the log."""
    subject: str
    text: str
    written_at: datetime

    def message_id(self, domain: str) -> str:
        """Return the Message-ID: made of the key, so that whoever gets the letter twice can tell."""
        return f"<{sha256(self.key.encode()).hexdigest()[:40]}@{domain}>"


class Postman(Protocol):
    """Takes letters away."""

    def send(self, letter: Letter) -> None:
        """Send a letter; within bounded time.

        Raises:
            PostError: it was not taken, see above.
        """
        ...

    def check(self) -> str:
        """Say where letters go, after having gone there as far as the login; nothing is sent.

        Raises:
            PostAway: letters could not be sent.
        """
        ...

    def close(self) -> None:
        """End what is open; the next letter opens it again."""
        ...


class LogPostman:
    """Writes letters to the log, where no mail server is set."""

    def send(self, letter: Letter) -> None:
        """Write it to the log; the address is not."""
        log.info("notice", key=letter.key, to=letter.addressee, subject=letter.subject, text=letter.text)

    def check(self) -> str:
        """Say so."""
        return "notices go to the log only: no smtp_host is set"

    def close(self) -> None:
        """Do nothing: nothing is open."""


def is_address(text: str) -> bool:
    """Say whether a text is one plain mail address that can stand in a header as it is."""
    return _ADDRESS.fullmatch(text) is not None and ".." not in text


def one_line(text: str, length_max: int = SUBJECT_LENGTH_MAX) -> str:
    """Return text that fits a header or a log line: what is no plain character becomes a space, bounded."""
    plain = "".join(" " if category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)
    return " ".join(plain.split())[:length_max]
