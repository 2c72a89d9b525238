"""Why money was not moved. Each class has a stable `code`; `remedy` says what would make it pass.

QuotaError
├── AwardTooSmall        the award cannot pay the hold
├── AwardNotActive       before its start, or after its end
├── AwardUnknown
├── AwardStateWrong      the life of an award has no such step from where it stands
├── AwardChangeRefused   the change asked for breaks a rule of changes
├── ApprovedAlready      the same person twice, where two people must
├── ProgrammeTooSmall    the programme's budget cannot fund the award
├── PolicyRefused        the programme's policy does not allow the award
├── NoBudget             the programme has no budget for that day
├── BudgetOverlaps       two budgets of one programme would cover the same day
├── SharesRefused        funding shares that do not make a whole, or begin in the past
├── GpuClassUnknown      no weight is known for the class at that time
├── RateRefused          a weight or tariff that would contradict what was held or charged, or another weight
├── RefundTooLarge       more than the job's charge minus earlier refunds
├── RefundDecided        the refund was posted or refused before
├── RefundTooEarly       tasks of the array are still open
├── NotChargeable        the charging rule has no price for such a job
├── SizeUnknown          the charging rule counts what nobody knows of the job
├── ReclaimUnknown       no reclaim is announced for the award, or it is over
├── ReclaimDecided       the justification of a reclaim cannot be given or decided on (any more)
├── ContractTooSmall     no contract of the site can give the hold's capacity
├── CeilingReached       more would be in use at one time than a quota allows
├── HoldTooSmall         more would be taken out of a hold than it has left
├── NothingLost          a restore is to be recorded, and the chain has what is said to be lost
├── TransferReused       one transfer id for two different movements
└── AidRefused           State aid (docs/mission.md)
    ├── AidIncomplete          the act, its day or the scheme's number is missing
    ├── AidValueUnknown        no tariff is known to value the award at
    ├── AidCeilingUnknown      no ceiling is set for the day
    ├── AidUndeclared          the company's prior declaration is missing or too old
    ├── AidDeclarationRefused  a declaration contradicts itself
    ├── AidAboveCeiling        the single undertaking's sum would pass the ceiling
    └── AidReductionTooLarge   more would be taken back than was counted
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


class AwardStateWrong(QuotaError):
    """An award does not stand where this step begins."""

    code = "award-state-wrong"


class AwardChangeRefused(QuotaError):
    """A supplement, an extension, a transfer or a closure breaks a rule."""

    code = "award-change-refused"


class ApprovedAlready(QuotaError):
    """The same person approved this before, and another must."""

    code = "approved-already"


class ProgrammeTooSmall(QuotaError):
    """The programme has fewer unawarded credits than the award asks for."""

    code = "programme-too-small"


class RateRefused(QuotaError):
    """A weight or tariff would contradict what was held or charged since, or another weight."""

    code = "rate-refused"


class RefundTooLarge(QuotaError):
    """More would be given back than the job was charged, less what was given back before."""

    code = "refund-too-large"


class RefundDecided(QuotaError):
    """The refund was posted or refused before."""

    code = "refund-decided"


class RefundTooEarly(QuotaError):
    """Tasks of the array are still open: what overrun pays of it is not known yet."""

    code = "refund-too-early"


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


class NothingLost(QuotaError):
    """The chain reaches as far as the checkpoint that is said to be lost."""

    code = "nothing-lost"


class NotChargeable(QuotaError):
    """The charging rule has no price for such a job: it would run for nothing."""

    code = "not-chargeable"


class SizeUnknown(QuotaError):
    """The charging rule counts something of which the job's number is not known: unknown is never zero."""

    code = "size-unknown"


class TransferReused(QuotaError):
    """A transfer id came back with another movement behind it."""

    code = "transfer-reused"


class ReclaimUnknown(QuotaError):
    """No reclaim is announced for the award, or it is over."""

    code = "reclaim-unknown"


class ReclaimDecided(QuotaError):
    """The justification of a reclaim cannot be given or decided on as things stand."""

    code = "reclaim-decided"


class AidRefused(QuotaError):
    """State aid: nothing was granted and nothing counted."""

    code = "aid-refused"


class AidIncomplete(AidRefused):
    """The regime needs something that was not given: the act, its day, the scheme's number."""

    code = "aid-incomplete"


class AidValueUnknown(AidRefused):
    """No tariff is known to value the award at; a value is never guessed."""

    code = "aid-value-unknown"


class AidCeilingUnknown(AidRefused):
    """No ceiling is set for the day of the grant."""

    code = "aid-ceiling-unknown"


class AidUndeclared(AidRefused):
    """The organisation's prior declaration of aids is missing or too old."""

    code = "aid-undeclared"


class AidDeclarationRefused(AidRefused):
    """A declaration contradicts itself."""

    code = "aid-declaration-refused"


class AidAboveCeiling(AidRefused):
    """The single undertaking's aids of three years and this one would pass the ceiling."""

    code = "aid-above-ceiling"


class AidReductionTooLarge(AidRefused):
    """More hours would be taken back than the award's lines count."""

    code = "aid-reduction-too-large"
