"""The money's tables. Rules live in CHECK constraints too, since table models do not validate."""

from quotas.models.awards import Approval, Award, AwardChange, AwardEvent, AwardOutcome
from quotas.models.ceilings import Ceiling
from quotas.models.contracts import Contract
from quotas.models.ledger import BELOW_ZERO_KINDS, Account, ChainHead, Hold, Transfer
from quotas.models.programmes import FundingShare, Programme, ProgrammeBudget, ProgrammePolicyVersion
from quotas.models.rates import GpuClass
from quotas.models.reclaims import ReclaimNotice

__all__ = [
    "BELOW_ZERO_KINDS",
    "Account",
    "Approval",
    "Award",
    "AwardChange",
    "AwardEvent",
    "AwardOutcome",
    "Ceiling",
    "ChainHead",
    "Contract",
    "FundingShare",
    "GpuClass",
    "Hold",
    "Programme",
    "ProgrammeBudget",
    "ProgrammePolicyVersion",
    "ReclaimNotice",
    "Transfer",
]
