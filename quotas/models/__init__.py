"""The money's tables. Rules live in CHECK constraints too, since table models do not validate."""

from quotas.models.awards import Award
from quotas.models.ceilings import Ceiling
from quotas.models.charging import ChargingRule
from quotas.models.contracts import Contract
from quotas.models.ledger import BELOW_ZERO_KINDS, DETAILS_MAX, Account, ChainHead, Hold, Restore, Transfer
from quotas.models.programmes import FundingShare, Programme, ProgrammeBudget, ProgrammePolicyVersion
from quotas.models.rates import GpuClass

__all__ = [
    "BELOW_ZERO_KINDS",
    "DETAILS_MAX",
    "Account",
    "Award",
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
    "Restore",
    "Transfer",
]
