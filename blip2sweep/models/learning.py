"""Passes through a model without gradients, except where something of it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")
_LEARNING: ContextVar[bool] = ContextVar("learning", default=False)


def inference(run: Callable[P, T]) -> Callable[P, T]:
    """Decorates a pass through a model: it runs in inference mode, except inside of `learning`."""

    @wraps(run)
    def running(*args: P.args, **kwargs: P.kwargs) -> T:
        if _LEARNING.get():
            return run(*args, **kwargs)
        with torch.inference_mode():
            return run(*args, **kwargs)

    return running


@contextmanager
def learning() -> Iterator[None]:
    """In it passes make plain tensors, which gradients go through where something requires one."""
    before = _LEARNING.set(True)
    try:
        yield
    finally:
        _LEARNING.reset(before)
