"""Function-preserving rescaling of the tiny LLaVA: what `scripts.tiny.rescale` does, as CLIP and Llama allow it.

The tower has LayerNorms and biases, so outliers, shift and mix apply as they stand. Llama has neither: RMSNorm knows no
shift, a rotary embedding turns channels i and i + half of a query or key together, and query heads share a value head.

- `axes`: the norms' gains are folded into the linears, and the residual stream is turned to the principal axes of what
  the norms read. RMSNorm of a turned vector is the turned RMSNorm. A few channels now hold most of the stream.
- `outliers`: gains in the norms, undone in the columns of the linears that read them.
- `mix`: an invertible matrix a key/value head on the value, its inverse in the output for every query head of the group.
- `pairs`: log-normal factors, one a rotary pair, on the key; undone on the queries of the group.
- `hidden`: log-normal factors, one a hidden unit, on `up`; undone in `down`. SwiGLU is linear in `up`.
- `offset`: this many spreads of the tower's stream on every channel that the projector reads. The tower's LayerNorms
  take a constant away, the projector's bias takes it back: activations with a large mean. GELU allows no more there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

from scripts.tiny.losses import WIDTH
from scripts.tiny.rescale import Knobs, draw_gains, mix_heads, mixing_blocks, roughen_norm, rows_of

from .model import HEADS, KV_HEADS
from .runner import LlavaRunner

SIZE, PER_KEY = WIDTH // HEADS, HEADS // KV_HEADS  # channels a head, query heads a key/value head


@dataclass(frozen=True)
class LlavaKnobs:
    """The strength of the rescaling; `language.shift` is not used."""

    vision: Knobs
    offset: float
    language: Knobs
    pairs: float
    hidden: float


Readers = tuple[LlamaRMSNorm, list[nn.Linear]]  # a norm and the linears that read it


def _log_normal(sigma: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.exp(sigma * torch.randn(shape, generator=generator))


def _rescale_tower(model: LlavaForConditionalGeneration, knobs: Knobs, generator: torch.Generator) -> None:
    for block in model.model.vision_tower.encoder.layers:
        a = block.self_attn
        roughen_norm(block.layer_norm1, [a.q_proj, a.k_proj, a.v_proj], knobs, generator)
        roughen_norm(block.layer_norm2, [block.mlp.fc1], knobs, generator)
        mix_heads((rows_of(a.q_proj), rows_of(a.k_proj), rows_of(a.v_proj)), a.out_proj, knobs, generator)


def _offset_connector(model: LlavaForConditionalGeneration, offset: Tensor) -> None:
    """`offset` (a scalar) on all channels after the last block that is read."""
    model.model.vision_tower.encoder.layers[model.config.vision_feature_layer].mlp.fc2.bias.add_(offset)
    first = model.model.multi_modal_projector.linear_1
    first.bias.sub_(offset * first.weight.sum(1))


def _readers(model: LlavaForConditionalGeneration) -> Iterator[Readers]:
    """The norms of the language model's blocks."""
    for block in model.model.language_model.layers:
        a, m = block.self_attn, block.mlp
        yield block.input_layernorm, [a.q_proj, a.k_proj, a.v_proj]
        yield block.post_attention_layernorm, [m.gate_proj, m.up_proj]


def _all_readers(model: LlavaForConditionalGeneration) -> list[Readers]:
    return [*_readers(model), (model.model.language_model.norm, [model.lm_head])]


def principal_axes(model: LlavaForConditionalGeneration, inputs: dict[str, Tensor]) -> Tensor:
    """Columns: eigenvectors (width, width) of the second moment of what the language model's norms read."""
    moment = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)

    def look(norm: LlamaRMSNorm, given: tuple[Tensor]) -> None:
        rows = given[0].flatten(0, 1).double()
        moment.add_(rows.T @ rows)

    hooks = [norm.register_forward_pre_hook(look) for norm, _ in _all_readers(model)]
    model.model.language_model(**inputs)
    for hook in hooks:
        hook.remove()
    return torch.linalg.eigh(moment).eigenvectors


def _turn(model: LlavaForConditionalGeneration, axes: Tensor) -> None:
    """Fold the norms' gains and turn the residual stream by `axes` (fp64)."""

    def times(left: Tensor, right: Tensor, into: Tensor) -> None:
        into.copy_(left.double() @ right.double())

    for norm, linears in _all_readers(model):
        for linear in linears:
            times(linear.weight.double() * norm.weight, axes, linear.weight)
        norm.weight.fill_(1)
    core = model.model
    times(core.language_model.embed_tokens.weight, axes, core.language_model.embed_tokens.weight)
    last = core.multi_modal_projector.linear_2
    times(axes.T, last.bias, last.bias)
    for linear in [last] + [x for b in core.language_model.layers for x in (b.self_attn.o_proj, b.mlp.down_proj)]:
        times(axes.T, linear.weight, linear.weight)


def _mix_values(attention: LlamaAttention, mix: float, generator: torch.Generator) -> None:
    blocks, inverses = mixing_blocks(mix, generator, KV_HEADS)
    attention.v_proj.weight.copy_(torch.block_diag(*blocks) @ attention.v_proj.weight)
    each = [inverse for inverse in inverses for _ in range(PER_KEY)]
    attention.o_proj.weight.copy_(attention.o_proj.weight @ torch.block_diag(*each))


def _scale_pairs(attention: LlamaAttention, sigma: float, generator: torch.Generator) -> None:
    pair = _log_normal(sigma, (KV_HEADS, SIZE // 2), generator).repeat(1, 2)  # channels i and i + half of a head
    attention.k_proj.weight.div_(pair.reshape(-1, 1))
    attention.q_proj.weight.mul_(pair.repeat_interleave(PER_KEY, 0).reshape(-1, 1))


def _scale_hidden(mlp: LlamaMLP, sigma: float, generator: torch.Generator) -> None:
    hidden = _log_normal(sigma, (len(mlp.up_proj.weight),), generator)
    mlp.up_proj.weight.mul_(hidden[:, None])
    mlp.down_proj.weight.div_(hidden)


def _rescale_llama(model: LlavaForConditionalGeneration, knobs: LlavaKnobs, generator: torch.Generator) -> None:
    for norm, linears in _readers(model):
        gains = draw_gains(knobs.language, generator)
        norm.weight.mul_(gains)
        for linear in linears:
            linear.weight.div_(gains)
    for block in model.model.language_model.layers:
        _mix_values(block.self_attn, knobs.language.mix, generator)
        _scale_pairs(block.self_attn, knobs.pairs, generator)
        _scale_hidden(block.mlp, knobs.hidden, generator)


@torch.no_grad()
def rescale(runner: LlavaRunner, knobs: LlavaKnobs, seed: int) -> None:
    """Rescale the runner's fp32 model in place; its split says where the stream's spread and axes lie."""
    model = runner.model
    spread, axes = runner.vision().std(), principal_axes(model, runner.read(range(len(runner.split.questions))))
    _rescale_tower(model, knobs.vision, torch.Generator().manual_seed(10 * seed))
    _offset_connector(model, knobs.offset * spread)
    _turn(model, axes)
    _rescale_llama(model, knobs, torch.Generator().manual_seed(10 * seed + 1))
