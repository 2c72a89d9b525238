"""The money's tables. Rules live in CHECK constraints too, since table models do not validate."""

from quotas.models.aid import AidDeclaration, AidDeclared, AidLine
from quotas.models.awards import Award
from quotas.models.ledger import BELOW_ZERO_KINDS, Account, ChainHead, Hold, Transfer
from quotas.models.programmes import Programme
from quotas.models.rates import GpuClass

__all__ = [
    "BELOW_ZERO_KINDS",
    "Account",
    "AidDeclaration",
    "AidDeclared",
    "AidLine",
    "Award",
    "ChainHead",
    "GpuClass",
    "Hold",
    "Programme",
    "Transfer",
]
