"""When a process looks for garbage: Python's rule has it read all that imports made again and again, and once more at the end.

Imports of a command or of torch make some hundred thousand objects, hardly any of which is garbage.
"""

from __future__ import annotations

import atexit
import gc

OBJECTS = 250_000  # that are made before one looks
USUAL = gc.get_threshold()


def seldom() -> None:
    """Have this process look for garbage seldom, and at its end no more. For the main of a process, before its imports."""
    gc.set_threshold(OBJECTS)
    atexit.register(gc.freeze)  # the interpreter then looks for garbage among nothing


def as_usual() -> None:
    """After `seldom`: what was made so far is kept for good, and among what is made from here on is looked as often as Python
    does. Tensors in a cycle then hold their memory no longer than anywhere. Nothing in another process."""
    if gc.get_threshold()[0] == OBJECTS:
        gc.freeze()
        gc.set_threshold(*USUAL)
