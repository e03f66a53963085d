"""Checkpoints: which files they are, what is in them, and whether they are what a model config says. No torch here."""

from blip2sweep.models.checkpoints.child import ask, reply
from blip2sweep.models.checkpoints.files import any_quantization, quantization, weight_files
from blip2sweep.models.checkpoints.folder import Weights, inspect
from blip2sweep.models.checkpoints.headers import shown
from blip2sweep.models.checkpoints.verdict import check, listed, refused, versions

__all__ = [
    "Weights",
    "any_quantization",
    "ask",
    "check",
    "inspect",
    "listed",
    "quantization",
    "refused",
    "reply",
    "shown",
    "versions",
    "weight_files",
]
