"""Why an attempt could not be metered.

AccountingError
└── Unmeterable    the source does not tell what was allocated
"""

from typing import ClassVar


class AccountingError(Exception):
    """An observation was not turned into an amount; nothing was charged."""

    code: ClassVar[str] = "accounting-error"


class Unmeterable(AccountingError):
    """The source does not tell what was allocated: unknown is not zero, so nothing is charged yet."""

    code = "unmeterable"
