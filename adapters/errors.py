"""What can go wrong between us and a site: three answers that must never be mixed up.

    SiteError
    ├── Rejected      the scheduler said no: nothing runs, the hold may be released
    ├── Unreachable   nothing was sent, or nothing was learnt: try again later
    └── Uncertain     it may have been accepted, or may still be: never send again before
                      the site's lock proves that nothing of ours is running there

They are raised by calls about a site as a whole, and returned as values where one call carries many jobs.
"""

from typing import ClassVar


class SiteError(Exception):
    """A site did not do what was asked; `reason` is one sentence fit to be shown to a user."""

    code: ClassVar[str] = "site-error"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.reason == getattr(other, "reason", None)

    def __hash__(self) -> int:
        return hash((type(self), self.reason))


class Rejected(SiteError):
    """The scheduler refused: nothing of this request exists at the site."""

    code = "site-rejected"


class Unreachable(SiteError):
    """The site did not answer, and it is certain that nothing was sent or changed there."""

    code = "site-unreachable"


class Uncertain(SiteError):
    """The site may have done what was asked, or may still do it."""

    code = "site-uncertain"
