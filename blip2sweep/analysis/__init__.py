"""From table to insight: pandas in, pandas out. Reads the table and the scores; knows no torch, no Hydra, no pictures."""
