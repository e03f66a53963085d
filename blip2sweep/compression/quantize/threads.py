"""Arithmetic on a fixed number of CPU threads: another number adds up the same sums in another order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """What torch, MKL and OpenMP compute in it, called from this thread, runs on `threads` of them, whatever the environment
    and `torch.set_num_threads` say. Leaving it, also by an error, the number is what it was."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
