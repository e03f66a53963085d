"""Plain quantizers for the model card: dequantized weights, in place. The package has its own; this is the check."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STRATEGIES = ("tensor", "channel", "group")
GROUP_SIZE = 32


def linears(blocks: list[nn.Module], third: str = "all") -> list[nn.Linear]:
    """The linears of all blocks, or of their 'first', 'middle' or 'last' third (n//3, 2n//3)."""
    a, b = len(blocks) // 3, 2 * len(blocks) // 3
    chosen = {"all": blocks, "first": blocks[:a], "middle": blocks[a:b], "last": blocks[b:]}[third]
    return [module for block in chosen for module in block.modules() if isinstance(module, nn.Linear)]


def minmax(x: Tensor, num_bits: int) -> Tensor:
    """2^bits evenly spaced values from the tensor's minimum to its maximum; a constant tensor stays."""
    low, high = x.min(), x.max()
    if low == high:
        return x
    steps = 2**num_bits - 1
    return ((x - low) / (high - low) * steps).round() / steps * (high - low) + low


def rtn(weight: Tensor, num_bits: int, group_size: int) -> Tensor:
    """Asymmetric round-to-nearest with an integer zero point, one scale for `group_size` inputs of an output."""
    x = weight.reshape(-1, group_size)
    low, high = x.amin(1, True).clamp_max(0), x.amax(1, True).clamp_min(0)
    steps = 2**num_bits - 1
    scale = (high - low).clamp_min(1e-12) / steps
    zero_point = (-low / scale).round()
    q = (x / scale).round().add(zero_point).clamp(0, steps)
    return ((q - zero_point) * scale).reshape(weight.shape)


@torch.no_grad()
def quantize(layers: list[nn.Linear], num_bits: int, strategy: str) -> None:
    """`tensor`: min-max of weight and of bias where there is one; `channel`, `group`: RTN of the weight alone."""
    for linear in layers:
        if strategy == "tensor":
            linear.weight.copy_(minmax(linear.weight, num_bits))
            if linear.bias is not None:
                linear.bias.copy_(minmax(linear.bias, num_bits))
        else:
            group_size = GROUP_SIZE if strategy == "group" else linear.in_features
            linear.weight.copy_(rtn(linear.weight, num_bits, group_size))
