"""Plain quantizers for the model card: dequantized weights, in place. The package has its own; this is the check."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Blip2ForConditionalGeneration

PARTS = ("vit", "qformer", "llm")
STRATEGIES = ("tensor", "channel", "group")
GROUP_SIZE = 32


def blocks(model: Blip2ForConditionalGeneration, part: str) -> nn.ModuleList:
    """The transformer blocks of a part."""
    if part == "vit":
        return model.vision_model.encoder.layers
    return model.qformer.encoder.layer if part == "qformer" else model.language_model.model.decoder.layers


def linears(model: nn.Module, part: str, third: str = "all") -> list[nn.Linear]:
    """The linears inside a part's blocks, or inside its 'first', 'middle' or 'last' third (n//3, 2n//3)."""
    stack = list(blocks(model, part))
    a, b = len(stack) // 3, 2 * len(stack) // 3
    chosen = {"all": stack, "first": stack[:a], "middle": stack[a:b], "last": stack[b:]}[third]
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
    """`tensor`: min-max of weight and bias each; `channel`, `group`: RTN of the weight alone."""
    for linear in layers:
        if strategy == "tensor":
            linear.weight.copy_(minmax(linear.weight, num_bits))
            linear.bias.copy_(minmax(linear.bias, num_bits))
        else:
            group_size = GROUP_SIZE if strategy == "group" else linear.in_features
            linear.weight.copy_(rtn(linear.weight, num_bits, group_size))
