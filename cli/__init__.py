"""The command line that engineers, managers and operators type."""
