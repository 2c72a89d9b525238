"""The money: programmes, awards, holds and the ledger."""
