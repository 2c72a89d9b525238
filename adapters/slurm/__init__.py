"""Slurm sites. `SlurmSsh` is the port over SSH; heavy imports are made where they are needed."""

from adapters.slurm.scheduler import SlurmSettings, SlurmSsh
from adapters.slurm.ssh import SshSettings

__all__ = ["SlurmSettings", "SlurmSsh", "SshSettings"]
