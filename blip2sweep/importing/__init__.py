"""Results of others as ledger rows: the published BLIP-2 study, and any CSV file. No torch, no Hydra."""
