"""The stack that this thread's signal handlers run on, kept while a library works that puts its own in the place."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux (man 2 sigaltstack)."""

    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Afterwards this thread's signal stack is the one of before.

    Each CPU plugin of OpenVINO sets a stack and frees it with itself. Where two plugins do not end in the order opposite to
    that in which they began, the stack of the first comes back after it was freed. Python's handlers run on it, so the next
    signal, such as that of a child that ends, would end this process without a word.
    """
    before = signal_stack()
    try:
        yield
    finally:
        if before is not None:
            ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)


def signal_stack() -> _Stack | None:
    """This thread's signal stack; None on systems without one that is known here."""
    if sys.platform != "linux":
        return None
    found = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found
