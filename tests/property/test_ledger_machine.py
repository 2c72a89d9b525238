"""A model against the ledger: whatever is granted, held, corrected, ended or replayed, the books are right."""

from hypothesis import settings
from ledger_machine import LedgerMachine

LedgerMachine.TestCase.settings = settings(settings.get_profile("ledger"), stateful_step_count=20)
TestLedgerMachine = LedgerMachine.TestCase
