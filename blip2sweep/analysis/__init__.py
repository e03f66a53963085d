"""From table to insight: pandas in, pandas out. Reads the table and the scores; knows no torch, no Hydra, no pictures."""

from blip2sweep.analysis.paired import Difference, difference

__all__ = ["Difference", "difference"]
