"""Arithmetic on a fixed number of CPU threads: another number would add the same sums in another order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """In it torch, MKL and OpenMP run on `threads` threads when they are called from this thread.

    The environment and `torch.set_num_threads` do not matter. The number is restored on leaving, also after an error.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
