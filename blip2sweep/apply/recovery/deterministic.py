"""Arithmetic that gives the same bits every time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from blip2sweep.compression.quantize.threads import fixed_threads

CUBLAS, WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"  # which cuBLAS needs for it, from its first call on


@dataclass
class Said:
    """reproducible: false once an operation ran that has no deterministic kernel."""

    reproducible: bool = True


@contextmanager
def deterministic(device: torch.device) -> Iterator[Said]:
    """In it a CPU computes on one thread, and CUDA with deterministic algorithms where there are any."""
    said = Said()
    if device.type != "cuda":
        with fixed_threads(1):
            yield said
        return
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            yield said
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        said.reproducible = not any("deterministic" in str(w.message).lower() for w in heard)
        for other in (w for w in heard if "deterministic" not in str(w.message).lower()):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
