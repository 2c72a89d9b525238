"""The money's tables. Rules live in CHECK constraints too, since table models do not validate."""

from quotas.models.aid import AidDeclaration, AidDeclared, AidLine
from quotas.models.awards import Approval, Award, AwardChange, AwardEvent, AwardOutcome
from quotas.models.ceilings import Ceiling
from quotas.models.charging import ChargingRule
from quotas.models.contracts import Contract
from quotas.models.ledger import BELOW_ZERO_KINDS, DETAILS_MAX, Account, ChainHead, Hold, Restore, Transfer
from quotas.models.programmes import FundingShare, Programme, ProgrammeBudget, ProgrammePolicyVersion
from quotas.models.rates import GpuClass, Tariff
from quotas.models.reclaims import ReclaimNotice
from quotas.models.refunds import Refund

__all__ = [
    "BELOW_ZERO_KINDS",
    "DETAILS_MAX",
    "Account",
    "AidDeclaration",
    "AidDeclared",
    "AidLine",
    "Approval",
    "Award",
    "AwardChange",
    "AwardEvent",
    "AwardOutcome",
    "Ceiling",
    "ChainHead",
    "ChargingRule",
    "Contract",
    "FundingShare",
    "GpuClass",
    "Hold",
    "Programme",
    "ProgrammeBudget",
    "ProgrammePolicyVersion",
    "ReclaimNotice",
    "Refund",
    "Restore",
    "Tariff",
    "Transfer",
]
