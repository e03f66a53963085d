"""Which sparse layers a 2:4 kernel can run: `sparsity.packed=true|cuda`. torch's, on NVIDIA GPUs from Ampere on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from blip2sweep.compression.quantize.kernels import this_device
from blip2sweep.compression.sparsity import TWO_OF_FOUR
from blip2sweep.compression.sparsity.spec import Sparse
from blip2sweep.errors import UserError
from blip2sweep.models.part import Linear

if TYPE_CHECKING:
    from blip2sweep.compression.quantize.options import Option
    from blip2sweep.compression.quantize.scheme import Scheme

DEVICE = "cuda"
CAPABILITY = (8, 0)  # Ampere's, the first with sparse tensor cores
DTYPES = ("float16", "bfloat16")
# Rows and columns that the kernels of torch.sparse.SparseSemiStructuredTensor take whole multiples of (CUTLASS, which
# is always there; cuSPARSELt takes smaller ones).
ROWS, COLUMNS = 32, 64


def resolve_packed(option: Option | None, pattern: str) -> str | None:
    """The kind of device whose kernel is to run, or None. Raises UserError where there is no such kernel."""
    if option is None or option.value in (False, "none"):
        return None
    typed = f"{option.origin}={option.value}"
    if option.value not in (True, "cpu", DEVICE):
        raise UserError(f"{typed}: right: true, false or {DEVICE}")
    if pattern != TWO_OF_FOUR:
        raise UserError(f"{typed}: no kernel skips {pattern} zeros; right: sparsity.pattern={TWO_OF_FOUR}")
    if (this_device() if option.value is True else option.value) != DEVICE:
        raise UserError(
            f"{typed}: 2:4 kernels run on {DEVICE} alone, and this is a cpu; right: packed=false, or packed={DEVICE} to plan "
            f"for a node that has one"
        )
    return DEVICE


def check_packed(
    part: str, layers: Iterable[tuple[Linear, Sparse]], quantized: Mapping[str, Scheme], dtype: str
) -> None:
    """Compare the sparse layers of a part with the model and with quantization.

    quantized: {path: scheme} of the part's layers. dtype: the part's. Raises UserError for a layer that no kernel can
    run.
    """
    for x, sparse in layers:
        if x.path in quantized and quantized[x.path].weights.packed:
            raise UserError(
                f"quant.packed={quantized[x.path].weights.packed}: no packed kernel of {quantized[x.path].weights.method} skips "
                f"zeros, and {x.path} is sparse; right: quant.packed=false, or sparsity=none"
            )
        if sparse.packed:
            _check_layer(part, x, x.path in quantized, dtype)


def _check_layer(part: str, x: Linear, quantized: bool, dtype: str) -> None:
    typed, keep = f"sparsity.packed={DEVICE}", f"keep={part}:all:{x.leaf}"
    if quantized:
        raise UserError(
            f"{typed}: no 2:4 kernel runs quantized weights, and {x.path} is quantized; right: quant.bits=none"
        )
    if dtype not in DTYPES:
        raise UserError(
            f"{typed}: computes in {' or '.join(DTYPES)}, and {x.path} is {dtype}; right: model.dtype=bfloat16"
        )
    if x.out_features % ROWS or x.in_features % COLUMNS:
        raise UserError(
            f"{typed}: takes whole multiples of {ROWS} × {COLUMNS}, and {x.path} is {x.out_features} × {x.in_features}; "
            f"right: {keep}, or packed=false"
        )
