"""Turns results of others into ledger rows: the published BLIP-2 study, and any CSV file. No torch, no Hydra."""
