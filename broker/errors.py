"""Why the broker said no, and the one place that maps each class to an HTTP status (RFC 9457).

BrokerError
├── NotAuthenticated     no token, or one that is unknown, revoked or past its end
├── NotAllowed           the caller's role does not permit it
├── NotFound             no such thing, or none that the caller may see
├── NameTaken
├── MembershipClash      a person would belong to a project twice at one time
├── LinkClash            two organisations would be linked twice at one time
├── IdentifierClash      an organisation would be known by two identifiers
├── BadRequest           a rule of form that no schema can say
├── IdempotencyKeyMissing, IdempotencyKeyReused, AnswerNotKept
├── TooLarge
├── ImportRefused        a file of awards has rows that are refused; `rows` says why, each of them
├── PlacementRefused     no site may or can run the job
└── Crowded              others took the same thing at the same moment, several times in a row
"""

from collections.abc import Sequence
from typing import ClassVar

from accounting.errors import AccountingError
from adapters.errors import Rejected, SiteError, Uncertain, Unreachable
from broker.schemas.base import RowFault
from quotas.errors import (
    AidAboveCeiling,
    AidCeilingUnknown,
    AidDeclarationRefused,
    AidIncomplete,
    AidReductionTooLarge,
    AidUndeclared,
    AidValueUnknown,
    ApprovedAlready,
    AwardChangeRefused,
    AwardNotActive,
    AwardStateWrong,
    AwardTooSmall,
    AwardUnknown,
    BudgetOverlaps,
    CeilingReached,
    ContractTooSmall,
    GpuClassUnknown,
    NoBudget,
    PolicyRefused,
    ProgrammeTooSmall,
    QuotaError,
    RateRefused,
    ReclaimDecided,
    ReclaimUnknown,
    RefundDecided,
    RefundTooLarge,
    SharesRefused,
)
from storage.database import DatabaseUnavailable


class BrokerError(Exception):
    """A request was refused; nothing was changed. `remedy` says what would make it pass."""

    code: ClassVar[str] = "broker-error"

    def __init__(self, detail: str, remedy: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy


class NotAuthenticated(BrokerError):
    """No token, or one that is unknown, revoked or past its end."""

    code = "not-authenticated"


class NotAllowed(BrokerError):
    """The caller's role does not permit it."""

    code = "not-allowed"


class NotFound(BrokerError):
    """No such thing, or none that the caller may see."""

    code = "not-found"


class NameTaken(BrokerError):
    """The name belongs to another one already."""

    code = "name-taken"


class MembershipClash(BrokerError):
    """A person would belong to a project twice at one time."""

    code = "membership-clash"


class LinkClash(BrokerError):
    """Two organisations would be linked twice at one time."""

    code = "link-clash"


class IdentifierClash(BrokerError):
    """An organisation would be known by two identifiers at once."""

    code = "identifier-clash"


class BadRequest(BrokerError):
    """The request breaks a rule of form."""

    code = "bad-request"


class IdempotencyKeyMissing(BrokerError):
    """A POST came without an Idempotency-Key."""

    code = "idempotency-key-missing"


class IdempotencyKeyReused(BrokerError):
    """The key stands for another request already."""

    code = "idempotency-key-reused"


class AnswerNotKept(BrokerError):
    """The first answer bore a secret and was not kept."""

    code = "answer-not-kept"


class TooLarge(BrokerError):
    """More bytes than a bound allows."""

    code = "too-large"


class PlacementRefused(BrokerError):
    """No site may or can run the job as it was asked for."""

    code = "placement-refused"


class Crowded(BrokerError):
    """Others took the same thing at the same moment, several times in a row."""

    code = "crowded"


class ImportRefused(BrokerError):
    """Rows of a file are refused, and so is the file: all of them or none."""

    code = "import-refused"

    def __init__(self, detail: str, remedy: str, rows: Sequence[RowFault]) -> None:
        super().__init__(detail, remedy)
        self.rows = list(rows)


STATUS: dict[type[Exception], int] = {
    NotAuthenticated: 401,
    NotAllowed: 403,
    NotFound: 404,
    AwardUnknown: 404,
    NameTaken: 409,
    MembershipClash: 409,
    LinkClash: 409,
    IdentifierClash: 422,
    IdempotencyKeyReused: 409,
    AnswerNotKept: 409,
    BadRequest: 400,
    IdempotencyKeyMissing: 400,
    TooLarge: 413,
    PlacementRefused: 422,
    AwardTooSmall: 422,
    AwardNotActive: 422,
    AwardStateWrong: 409,
    AwardChangeRefused: 422,
    ImportRefused: 422,
    ContractTooSmall: 422,
    CeilingReached: 422,
    GpuClassUnknown: 422,
    ProgrammeTooSmall: 422,
    RateRefused: 422,
    RefundTooLarge: 422,
    RefundDecided: 409,
    ApprovedAlready: 409,
    PolicyRefused: 422,
    NoBudget: 422,
    BudgetOverlaps: 422,
    SharesRefused: 422,
    ReclaimUnknown: 404,
    ReclaimDecided: 409,
    AidAboveCeiling: 422,
    AidCeilingUnknown: 422,
    AidDeclarationRefused: 422,
    AidIncomplete: 422,
    AidReductionTooLarge: 422,
    AidUndeclared: 422,
    AidValueUnknown: 422,
    Unreachable: 503,
    Uncertain: 503,
    Crowded: 503,
    Rejected: 422,
    DatabaseUnavailable: 503,
}
KNOWN = (BrokerError, QuotaError, AccountingError, SiteError, DatabaseUnavailable)


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error of ours: 500 for one that should not reach a user."""
    return STATUS.get(type(error), 500)
