"""The broker: from a submission to a settled job."""
