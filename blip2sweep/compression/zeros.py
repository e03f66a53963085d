"""In a layer that was made sparse a weight that is zero stays zero, whatever later steps make of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from blip2sweep.compression.undo import Undo

MARK = "zeros_stay"  # an attribute of a sparse layer's module


def mark(module: nn.Module, undo: Undo) -> None:
    """From now on the zeros of the module's weight stay."""
    undo.attribute(module, MARK, True)


def kept(module: nn.Module) -> Tensor | None:
    """(out, in) bool: the weights of a sparse layer that may differ from zero. None for any other layer."""
    return module.get_parameter("weight").detach() != 0 if getattr(module, MARK, False) else None


def with_zeros(module: nn.Module, values: Tensor) -> Tensor:
    """New values (out, in) for the module's weight, with its zeros where they have to stay."""
    there = kept(module)
    return values if there is None else values.masked_fill(~there, 0)
