"""A step of writing through an OPT's own modules, without what transformers does around them for every token.

It makes masks and positions, looks up how attention is computed, and gathers outputs, of blocks too. The same products
and sums are made here, in the same order, so logits are equal to the last bit.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from blip2sweep.models.last_block import OPT, kind_of, watched

if TYPE_CHECKING:
    from transformers import DynamicCache

    from blip2sweep.models.decoder import Step

HOME = "transformers.models.opt.modeling_opt"
CLASSES = ("OPTForCausalLM", "OPTModel", "OPTDecoder", "OPTLearnedPositionalEmbedding")


def own_step(model: Any, cache: DynamicCache) -> Step | None:
    """The logits behind further tokens, whose keys and values join the cache. None for a model that it is not known of."""
    return partial(_step, model, cache) if _known(model) else None


def _known(model: Any) -> bool:
    """Whether it is an OPT in float32 on a CPU, as transformers made it but for linear layers, that nobody watches."""
    inner: Any = getattr(model, "model", None)
    decoder: Any = getattr(inner, "decoder", None)
    parts = (model, inner, decoder, getattr(decoder, "embed_positions", None))
    if [(type(x).__module__, type(x).__name__) for x in parts] != [(HOME, name) for name in CLASSES]:
        return False
    weight, attention = decoder.embed_positions.weight, decoder.config._attn_implementation
    if (weight.dtype, weight.device.type, attention) != (torch.float32, "cpu", "sdpa"):
        return False
    if ALL_ATTENTION_FUNCTIONS["sdpa"] is not sdpa_attention_forward:
        return False
    if not all(kind_of(block) is OPT for block in decoder.layers):
        return False
    trained = any(x.training for x in (*parts, *(block.self_attn for block in decoder.layers)))
    return not trained and not any(map(watched, model.modules()))


def _step(model: Any, cache: DynamicCache, tokens: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
    decoder = model.model.decoder
    seen = None if mask.all() else mask.bool()[:, None, None]
    states = decoder.embed_tokens(tokens)
    if decoder.project_in is not None:
        states = decoder.project_in(states)
    states = states + decoder.embed_positions(mask, position_ids=mask.sum(1, keepdim=True) - 1)
    for block in decoder.layers:
        states = OPT.behind(block, states, _attended(block.self_attn, OPT.before(block, states), seen, cache))
    for last in (decoder.final_layer_norm, decoder.project_out):
        states = states if last is None else last(states)
    logits: Tensor = model.get_output_embeddings()(states[:, -1])
    return logits


def _attended(attention: Any, states: Tensor, seen: Tensor | None, cache: DynamicCache) -> Tensor:
    """What attention puts out of one token of each row. states (batch, 1, width). seen (batch, 1, 1, tokens) of bool."""
    heads = (len(states), 1, attention.num_heads, attention.head_dim)
    queries, keys, values = (
        x.view(heads).transpose(1, 2)
        for x in (attention.q_proj(states) * attention.scaling, attention.k_proj(states), attention.v_proj(states))
    )
    keys, values = cache.update(keys, values, attention.layer_idx)
    found = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, scale=1.0)
    out: Tensor = attention.out_proj(found.transpose(1, 2).reshape(states.shape))
    return out
