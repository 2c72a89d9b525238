"""Slurm clusters: over SSH, through the gateway that lies at the site."""
