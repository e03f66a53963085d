"""Makes one linear layer of a model sparse."""

from __future__ import annotations

from torch import Tensor, nn

from blip2sweep.compression import zeros
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.sparsity.mask import from_bits, kept_weights
from blip2sweep.compression.sparsity.spec import Sparse
from blip2sweep.compression.undo import Undo
from blip2sweep.errors import UserError


def exchange(path: str, module: nn.Module, sparse: Sparse, undo: Undo, ready: object = None) -> None:
    """Put zeros into a layer's weight, and note that they stay. ready: what calibration made of the layer.

    Raises UserError for a layer that device_map left off the device.
    """
    assert isinstance(module, nn.Linear)
    if module.weight.device.type == "meta":
        raise UserError(f"{path}: left on meta or disk by model.device_map; right: one that holds every touched layer")
    kept = _kept(path, module, sparse, ready).to(module.weight.device)
    undo.data(module.weight, module.weight.data.masked_fill(~kept, 0))
    zeros.mark(module, undo)


def _kept(path: str, module: nn.Linear, sparse: Sparse, ready: object) -> Tensor:
    """(out, in) bool: the weights that stay. Raises RuntimeError for a layer that should have been measured."""
    if not sparse.needs:
        return kept_weights(module.weight, sparse)
    if not isinstance(ready, Prepared) or ready.kept is None:
        raise RuntimeError(f"{path}: {sparse.method} has not measured the layer's inputs")
    return from_bits(ready.kept, module.in_features)
