"""The ledger, and everything that is made from it: scores, drops, samples and tables."""
