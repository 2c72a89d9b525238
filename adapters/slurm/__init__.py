"""Slurm clusters: over SSH, through the gateway that lies at the site."""

from adapters.slurm.scheduler import SlurmSettings, SlurmSsh
from adapters.slurm.ssh import SshSettings
from adapters.slurm.upkeep import SlurmUpkeep

__all__ = ["SlurmSettings", "SlurmSsh", "SlurmUpkeep", "SshSettings"]
