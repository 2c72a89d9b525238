"""Why money was not moved. Each class has a stable `code`; `remedy` says what would make it pass.

QuotaError
├── AwardTooSmall        the award cannot pay the hold
├── AwardNotActive       before its start, or after its end
├── AwardUnknown
├── ProgrammeTooSmall    the programme's budget cannot fund the award
├── PolicyRefused        the programme's policy does not allow the award
├── NoBudget             the programme has no budget for that day
├── BudgetOverlaps       two budgets of one programme would cover the same day
├── SharesRefused        funding shares that do not make a whole, or begin in the past
├── GpuClassUnknown      no weight is known for the class at that time
├── NotChargeable        the charging rule has no price for such a job
├── SizeUnknown          the charging rule counts what nobody knows of the job
├── ContractTooSmall     no contract of the site can give the hold's capacity
├── CeilingReached       more would be in use at one time than a quota allows
├── HoldTooSmall         more would be taken out of a hold than it has left
├── NothingLost          a restore is to be recorded, and the chain has what is said to be lost
└── TransferReused       one transfer id for two different movements
"""

from typing import ClassVar


class QuotaError(Exception):
    """A movement was refused; nothing was moved."""

    code: ClassVar[str] = "quota-error"

    def __init__(self, detail: str, remedy: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy


class AwardTooSmall(QuotaError):
    """The award's available credits are below what the hold needs."""

    code = "award-too-small"


class AwardNotActive(QuotaError):
    """The award does not run at this time."""

    code = "award-not-active"


class AwardUnknown(QuotaError):
    """No such award, or none that the caller may use."""

    code = "award-unknown"


class ProgrammeTooSmall(QuotaError):
    """The programme has fewer unawarded credits than the award asks for."""

    code = "programme-too-small"


class PolicyRefused(QuotaError):
    """A rule of the programme does not allow the award."""

    code = "policy-refused"


class NoBudget(QuotaError):
    """No budget of the programme covers the day."""

    code = "no-budget"


class BudgetOverlaps(QuotaError):
    """Another budget of the programme covers a part of the period."""

    code = "budget-overlaps"


class SharesRefused(QuotaError):
    """The funding shares do not make a whole, or would change what is charged already."""

    code = "shares-refused"


class ContractTooSmall(QuotaError):
    """The site's contracts have less capacity left than the hold needs."""

    code = "contract-too-small"


class CeilingReached(QuotaError):
    """More would be in use at one time than a quota allows."""

    code = "ceiling-reached"


class GpuClassUnknown(QuotaError):
    """No weight is known for the GPU class at that time."""

    code = "gpu-class-unknown"


class HoldTooSmall(QuotaError):
    """More would be settled or released than the hold still has."""

    code = "hold-too-small"


class NotChargeable(QuotaError):
    """The charging rule has no price for such a job: it would run for nothing."""

    code = "not-chargeable"


class SizeUnknown(QuotaError):
    """The charging rule counts something of which the job's number is not known: unknown is never zero."""

    code = "size-unknown"


class NothingLost(QuotaError):
    """The chain reaches as far as the checkpoint that is said to be lost."""

    code = "nothing-lost"


class TransferReused(QuotaError):
    """A transfer id came back with another movement behind it."""

    code = "transfer-reused"
