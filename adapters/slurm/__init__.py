"""Slurm clusters through the gateway that lies at the site: over SSH, with slurmrestd beside it, or by pyslurm."""

from adapters.slurm.pyslurm_site import PyslurmSettings, SlurmPyslurm
from adapters.slurm.rest import SlurmRest
from adapters.slurm.rest_client import RestSettings
from adapters.slurm.scheduler import SlurmSettings, SlurmSsh
from adapters.slurm.ssh import SshSettings
from adapters.slurm.upkeep import SlurmUpkeep

__all__ = [
    "PyslurmSettings", "RestSettings", "SlurmPyslurm", "SlurmRest", "SlurmSettings", "SlurmSsh", "SlurmUpkeep",
    "SshSettings",
]  # fmt: skip
