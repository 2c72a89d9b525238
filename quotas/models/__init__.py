"""The money's tables. Rules live in CHECK constraints too, since table models do not validate."""

from quotas.models.awards import Award
from quotas.models.ledger import BELOW_ZERO_KINDS, DETAILS_MAX, Account, ChainHead, Hold, Transfer
from quotas.models.programmes import Programme
from quotas.models.rates import GpuClass, Tariff

<<<<<<< HEAD
__all__ = ["BELOW_ZERO_KINDS", "Account", "Award", "ChainHead", "GpuClass", "Hold", "Programme", "Tariff", "Transfer"]
=======
__all__ = [
    "BELOW_ZERO_KINDS",
    "DETAILS_MAX",
    "Account",
    "Award",
    "ChainHead",
    "GpuClass",
    "Hold",
    "Programme",
    "Transfer",
]
>>>>>>> h-audit
