"""Slurm clusters: over SSH, through the gateway that lies at the site, or through slurmrestd as well."""

from adapters.slurm.rest import SlurmRest
from adapters.slurm.rest_client import RestSettings
from adapters.slurm.scheduler import SlurmSettings, SlurmSsh
from adapters.slurm.ssh import SshSettings

__all__ = ["RestSettings", "SlurmRest", "SlurmSettings", "SlurmSsh", "SshSettings"]
