"""The command line of engineers, managers, operators and auditors. It reaches the broker by HTTP only."""

__version__ = "0.1.0"
"""Kept here, not read from the installed metadata, so that `--version` answers without importing anything."""
