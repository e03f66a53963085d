"""The ledger, and all that is made of it: scores, drops, samples, tables."""
