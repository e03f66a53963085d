"""Analyses of a sweep's table and scores: pandas in, pandas out. No torch, no Hydra and no pictures here."""

from blip2sweep.analysis.paired import Difference, difference

__all__ = ["Difference", "difference"]
