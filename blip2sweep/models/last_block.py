"""The last block of a decoder reads a prompt for its last token alone: of the others nothing is read behind it.

A text is written, and scored, from the last token of its prompt on. Later tokens look at the keys and values of those
before it. So the last block computes keys and values of all tokens, and attention, MLP and what follows of one.

The block's own forward does so, as it does for a token that is written: a hook puts keys and values of the others into
the cache and hands the block the last one. Its linear layers may therefore be packed, or have adapters. Prompts are padded
on the left, so the last token of each row has the same place.

It is done for blocks of which it is known what they make of keys and values, and in float32: with half the digits, other
shapes decide near-ties (docs/decisions.md#sharing). Who watches a block or something in it sees all tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES: tuple[torch.dtype, ...] = (torch.float32,)
ATTENTION = ("eager", "sdpa")  # the others want masks of other shapes

Given = Mapping[str, Any]  # the arguments of a block by name
Pair = tuple[Tensor, Tensor]  # keys and values, each (batch, heads, tokens, width of a head)


class Kind(NamedTuple):
    """A kind of block. own: its parts besides linear layers and activations. pair: its keys and values of states (batch,
    tokens, width)."""

    own: tuple[str, ...]
    pair: Callable[[Any, Tensor, Given], Pair]


@contextmanager
def last_token_alone(model: PreTrainedModel) -> Iterator[None]:
    """Inside, a pass over further tokens puts out the last of them alone, where the model's last block allows it.

    All of them are in the cache, as without it.
    """
    block = _last_block(model)
    if block is None or not _allows(block):
        yield
        return
    hook = block.register_forward_pre_hook(_handed_the_last, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _last_block(model: PreTrainedModel) -> Any:
    """None where it is not the last one to see the stream: Qwen3-VL adds features of pictures behind its first blocks."""
    blocks = getattr(model.get_decoder(), "layers", ())
    pictures = getattr(model.config, "vision_config", None)
    if len(blocks) <= len(getattr(pictures, "deepstack_visual_indexes", ())):
        return None
    return blocks[-1]


def _allows(block: Any) -> bool:
    """Whether a block is of a known kind, as transformers made it but for linear layers, and nobody watches it."""
    kind, home = KINDS.get(type(block).__name__), type(block).__module__
    if kind is None or not home.startswith("transformers.models.") or any(map(_watched, block.modules())):
        return False
    own = {type(block.get_submodule(name)).__module__ for name in kind.own}
    return own <= {home, nn.LayerNorm.__module__} and block.self_attn.config._attn_implementation in ATTENTION


def _watched(module: nn.Module) -> bool:
    """Whether it has hooks, or another forward than its class: a dropped block, or one that a device_map placed."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _handed_the_last(block: Any, args: tuple[Any, ...], given: Given) -> tuple[tuple[Any, ...], Given] | None:
    """A forward pre-hook. None leaves the arguments as they are."""
    if len(args) != 1 or not _fits(args[0], given):
        return None
    keys, values = KINDS[type(block).__name__].pair(block, args[0], given)
    given["past_key_values"].update(keys[:, :, :-1], values[:, :, :-1], block.self_attn.layer_idx)
    return (args[0][:, -1:],), {**given, **_of_the_last(given)}


def _fits(states: Tensor, given: Given) -> bool:
    """Whether the arguments of a block are several tokens, of a pass that is no training, in the shapes that are known."""
    n, mask, angles = states.shape[1], given.get("attention_mask"), given.get("position_embeddings") or ()
    return (
        n > 1
        and states.dtype in DTYPES
        and torch.is_inference_mode_enabled()
        and type(given.get("past_key_values")) is DynamicCache
        and (mask is None or (mask.dim() == 4 and mask.shape[2] == n))
        and all(x.dim() == 3 and x.shape[1] == n for x in angles)
    )


def _of_the_last(given: Given) -> Given:
    """What is said of each token, of the last one."""
    found: dict[str, Any] = {}
    if (mask := given.get("attention_mask")) is not None:
        found["attention_mask"] = mask[:, :, -1:]
    if (places := given.get("position_ids")) is not None:
        found["position_ids"] = places[..., -1:]
    if (angles := given.get("position_embeddings")) is not None:
        found["position_embeddings"] = tuple(x[:, -1:] for x in angles)
    return found


# ---- keys and values, as the attention of each kind makes them


def _of_opt(block: Any, states: Tensor, given: Given) -> Pair:
    return _projected(block, block.self_attn_layer_norm(states) if block.do_layer_norm_before else states)


def _of_llama(block: Any, states: Tensor, given: Given) -> Pair:
    """Keys are rotated by the function of its own module. It wants queries too: there are none."""
    keys, values = _projected(block, block.input_layernorm(states))
    rotated = sys.modules[type(block.self_attn).__module__].apply_rotary_pos_emb  # type: ignore[attr-defined]
    return rotated(keys[:, :0], keys, *given["position_embeddings"])[1], values


def _projected(block: Any, states: Tensor) -> Pair:
    attention = block.self_attn
    keys, values = (
        layer(states).unflatten(-1, (-1, attention.head_dim)) for layer in (attention.k_proj, attention.v_proj)
    )
    normed = attention.k_norm(keys) if hasattr(attention, "k_norm") else keys  # Qwen3's
    return normed.transpose(1, 2), values.transpose(1, 2)


OPT = Kind(("self_attn", "self_attn_layer_norm", "final_layer_norm"), _of_opt)
LLAMA = Kind(("self_attn", "mlp", "input_layernorm", "post_attention_layernorm"), _of_llama)
KINDS = {  # {class of a block of transformers: its kind}
    "OPTDecoderLayer": OPT,
    "LlamaDecoderLayer": LLAMA,
    "MistralDecoderLayer": LLAMA,
    "Qwen2DecoderLayer": LLAMA,
    "Qwen2_5_VLDecoderLayer": LLAMA,
    "Qwen3VLTextDecoderLayer": LLAMA,
}
