"""Function-preserving rescaling: the same function in exact arithmetic, weights as unruly as a large checkpoint's.

A freshly trained small model hardly notices quantization. Three knobs a part change its weights and nothing else:

- `outliers` (sigma, fraction, low, high): LayerNorm gains times a log-normal factor (`sigma`), a `fraction` of channels
  times another `low`..`high`; the columns of the linears that read them are divided by it.
- `shift`: a random vector, this many mean gains long a channel, added to a LayerNorm's bias and taken back
  in the bias of the linears that read it: activations with a large mean.
- `mix`: an invertible matrix of this condition number a head, between value and output and between query and key.

The Q-Former's LayerNorms also feed its residual stream, so there `outliers` and `shift` act on what its cross-attention
reads: the image encoder's last LayerNorm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Blip2ForConditionalGeneration

from .model import HEADS, WIDTH


@dataclass(frozen=True)
class Knobs:
    """The strength of the rescaling of one part; `outliers` is (sigma, fraction, low, high)."""

    outliers: tuple[float, float, float, float]
    shift: float
    mix: float


Linears = Sequence[nn.Linear]
Rows = tuple[Tensor, Tensor]  # weight (width, in) and bias (width,): a linear, or a third of a fused one
Heads = tuple[Rows, Rows, Rows]  # query, key, value


def draw_gains(knobs: Knobs, generator: torch.Generator) -> Tensor:
    """Positive factors (width,): log-normal, with a few outliers."""
    sigma, fraction, low, high = knobs.outliers
    gains = torch.exp(sigma * torch.randn(WIDTH, generator=generator))
    n = max(1, round(fraction * WIDTH))
    chosen = torch.randperm(WIDTH, generator=generator)[:n]
    spread = torch.rand(n, generator=generator) * math.log(high / low) + math.log(low)
    gains[chosen] = gains[chosen].clamp_min(1.0) * spread.exp()
    return gains


def scale_norm(norm: nn.LayerNorm, readers: Linears, gains: Tensor) -> None:
    """Channel i of the LayerNorm's output times gains[i], undone in the columns of its readers."""
    norm.weight.mul_(gains)
    norm.bias.mul_(gains)
    for linear in readers:
        linear.weight.div_(gains)


def shift_norm(norm: nn.LayerNorm, readers: Linears, shift: Tensor) -> None:
    """LayerNorm output plus `shift`, undone in the biases of its readers."""
    norm.bias.add_(shift)
    for linear in readers:
        linear.bias.sub_(linear.weight @ shift)


def roughen_norm(norm: nn.LayerNorm, readers: Linears, knobs: Knobs, generator: torch.Generator) -> None:
    """Both of the above, with random draws."""
    shift = torch.randn(WIDTH, generator=generator) * norm.weight.abs().mean() * knobs.shift
    shift_norm(norm, readers, shift)
    scale_norm(norm, readers, draw_gains(knobs, generator))


def mixing_blocks(
    condition: float, generator: torch.Generator, heads: int = HEADS
) -> tuple[list[Tensor], list[Tensor]]:
    """Square matrices, one a head, each of the given condition number; and their inverses."""
    size = WIDTH // HEADS
    scale = torch.exp(torch.linspace(-0.5, 0.5, size) * math.log(condition))
    blocks, inverses = [], []
    for _ in range(heads):
        left, right = (torch.linalg.qr(torch.randn(size, size, generator=generator))[0] for _ in range(2))
        blocks.append(left @ (scale[:, None] * right))
        inverses.append(right.T @ (left.T / scale[:, None]))
    return blocks, inverses


def _multiply(rows: Rows, matrix: Tensor) -> None:
    for tensor in rows:
        tensor.copy_(matrix @ tensor)


def mix_heads(heads: Heads, out: nn.Linear, knobs: Knobs, generator: torch.Generator) -> None:
    """value → A value with out → out A⁻¹, and query → B query with key → B⁻ᵀ key: scores and outputs stay."""
    query, key, value = heads
    matrix, inverse = (torch.block_diag(*blocks) for blocks in mixing_blocks(knobs.mix, generator))
    _multiply(value, matrix)
    out.weight.copy_(out.weight @ inverse)
    matrix, inverse = (torch.block_diag(*blocks) for blocks in mixing_blocks(knobs.mix, generator))
    _multiply(query, matrix)
    _multiply(key, inverse.T)


def rows_of(linear: nn.Linear, part: int = 0) -> Rows:
    """The `part`-th WIDTH rows of a linear, as views."""
    chosen = slice(part * WIDTH, (part + 1) * WIDTH)
    return linear.weight[chosen], linear.bias[chosen]


def _rescale_vit(model: Blip2ForConditionalGeneration, knobs: Knobs, generator: torch.Generator) -> None:
    for block in model.vision_model.encoder.layers:
        attention = block.self_attn
        roughen_norm(block.layer_norm1, [attention.qkv], knobs, generator)
        roughen_norm(block.layer_norm2, [block.mlp.fc1], knobs, generator)
        qkv = rows_of(attention.qkv, 0), rows_of(attention.qkv, 1), rows_of(attention.qkv, 2)
        mix_heads(qkv, attention.projection, knobs, generator)


def _rescale_qformer(model: Blip2ForConditionalGeneration, knobs: Knobs, generator: torch.Generator) -> None:
    layers = model.qformer.encoder.layer
    cross = [layer.crossattention for layer in layers if layer.has_cross_attention]
    readers = [linear for module in cross for linear in (module.attention.key, module.attention.value)]
    roughen_norm(model.vision_model.post_layernorm, readers, knobs, generator)
    for module in [layer.attention for layer in layers] + cross:
        inner = module.attention
        qkv = rows_of(inner.query), rows_of(inner.key), rows_of(inner.value)
        mix_heads(qkv, module.output.dense, knobs, generator)


def _rescale_llm(model: Blip2ForConditionalGeneration, knobs: Knobs, generator: torch.Generator) -> None:
    for block in model.language_model.model.decoder.layers:
        attention = block.self_attn
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        roughen_norm(block.self_attn_layer_norm, [query, key, value], knobs, generator)
        roughen_norm(block.final_layer_norm, [block.fc1], knobs, generator)
        mix_heads((rows_of(query), rows_of(key), rows_of(value)), attention.out_proj, knobs, generator)


@torch.no_grad()
def rescale(model: Blip2ForConditionalGeneration, knobs: dict[str, Knobs], seed: int) -> None:
    """Rescale the fp32 `model` in place; `knobs` by part ('vit', 'qformer', 'llm')."""
    steps = {"vit": _rescale_vit, "qformer": _rescale_qformer, "llm": _rescale_llm}
    for k, (part, step) in enumerate(steps.items()):  # a generator a part: tuning one leaves the others alone
        step(model, knobs[part], torch.Generator().manual_seed(10 * seed + k))
