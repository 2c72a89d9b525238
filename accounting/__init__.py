"""From what was observed to what it cost, and the reports over it."""
