"""Scheduled scoring: slots of a table, each scored exactly once, as a ledger tells."""
