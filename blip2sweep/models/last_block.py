"""The last block of a decoder computes of a prompt what is read behind it.

A text is written, and scored, from the last token of its prompt on. Later tokens look at the keys and values of those
before it. So the MLP of the last block and what follows it run for the last token, and where a picture is read once for
several prompts the block has to make keys and values, and nothing else. Prompts are padded on the left, so the last token
of each row has the same place.

Everything is computed by the block's own modules: linear layers may be packed, or have adapters. It is done for blocks of
which it is known what they do, and which nobody watches; in others all tokens pass.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Where rounding decides no text: a kernel may be another one for fewer rows (docs/decisions.md#sharing).
DTYPES: tuple[torch.dtype, ...] = (torch.float32,)
# That pass at least. A CPU sums the products of fewer rows in another order, and those of one token of each row.
TOKENS, ROWS = 2, 4


class Kind(NamedTuple):
    """A kind of block. own: its parts besides linear layers and activations.

    before: (block, states) -> what its attention sees. behind: (block, states, outputs of attention) -> its output.
    turned: (its attention, keys (batch, tokens, heads, width of a head), arguments of its forward) -> keys as the cache has
    them, (batch, heads, tokens, width of a head).
    """

    own: tuple[str, ...]
    before: Callable[[Any, Tensor], Tensor]
    behind: Callable[[Any, Tensor, Tensor], Tensor]
    turned: Callable[[Any, Tensor, dict[str, Any]], Tensor]


def last_tokens_alone(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Inside, a pass over tokens puts out a few of the last ones, the very last among them, where its last block allows it.

    The cache gets the keys and values of all.
    """
    return _instead(model, _last_tokens)


def keys_and_values_alone(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Inside, a pass over tokens puts their keys and values into the cache, and its output means nothing."""
    return _instead(model, _keys_and_values)


@contextmanager
def _instead(model: PreTrainedModel, forward: Callable[..., Tensor]) -> Iterator[None]:
    """Inside, a model's last block has another forward, where it is known."""
    block = _last_block(model)
    kind = kind_of(block)
    if kind is None:
        yield
        return
    try:
        block.forward = partial(forward, block, kind)
        yield
    finally:  # whatever a signal interrupts
        vars(block).pop("forward", None)


def _last_block(model: PreTrainedModel) -> Any:
    """None where more follows: Qwen3-VL adds features of pictures behind its first blocks."""
    blocks: Any = getattr(model.get_decoder(), "layers", ())
    pictures = getattr(model.config, "vision_config", None)
    if len(blocks) <= len(getattr(pictures, "deepstack_visual_indexes", ())):
        return None
    return blocks[-1]


def kind_of(block: Any) -> Kind | None:
    """The kind of a block that is as transformers made it but for linear layers, and that nobody watches or trains."""
    kind, home = KINDS.get(type(block).__name__), type(block).__module__
    if kind is None or not home.startswith("transformers.models.") or any(map(watched, block.modules())):
        return None
    own = {type(block.get_submodule(name)).__module__ for name in kind.own}
    known = own <= {home, nn.LayerNorm.__module__} and torch.is_inference_mode_enabled() and not block.training
    return kind if known else None


def watched(module: nn.Module) -> bool:
    """Whether it has hooks, or another forward than its class: a dropped or compiled block, or one that a device_map placed."""
    own = "forward" in vars(module) or module._compiled_call_impl is not None
    return bool(own or module._forward_hooks or module._forward_pre_hooks or _has_any_global_hook())


# ---- forwards of a block


def _last_tokens(block: Any, kind: Kind, states: Tensor, **given: Any) -> Tensor:
    if states.dtype not in DTYPES:
        out: Tensor = type(block).forward(block, states, **given)
        return out
    attended, _ = block.self_attn(hidden_states=kind.before(block, states), **given)
    count = max(TOKENS, -(-ROWS // len(states)))
    return kind.behind(block, states[:, -count:].contiguous(), attended[:, -count:].contiguous())


def _keys_and_values(block: Any, kind: Kind, states: Tensor, **given: Any) -> Tensor:
    attention, seen = block.self_attn, kind.before(block, states)
    keys, values = (
        layer(seen).unflatten(-1, (-1, attention.head_dim)) for layer in (attention.k_proj, attention.v_proj)
    )
    turned = kind.turned(attention, keys, given)
    given["past_key_values"].update(turned, values.transpose(1, 2), attention.layer_idx)
    return states[:, -1:]


# ---- what each kind does


def _before_opt(block: Any, states: Tensor) -> Tensor:
    seen: Tensor = block.self_attn_layer_norm(states) if block.do_layer_norm_before else states
    return seen


def _behind_opt(block: Any, states: Tensor, attended: Tensor) -> Tensor:
    """OPT-350m normalizes sums, all others what is added to them."""
    states, first = states + attended, block.do_layer_norm_before
    states = states if first else block.self_attn_layer_norm(states)
    inner = block.activation_fn(block.fc1(block.final_layer_norm(states) if first else states))
    states = states + block.fc2(inner)
    return states if first else block.final_layer_norm(states)


def _before_llama(block: Any, states: Tensor) -> Tensor:
    seen: Tensor = block.input_layernorm(states)
    return seen


def _behind_llama(block: Any, states: Tensor, attended: Tensor) -> Tensor:
    states = states + attended
    out: Tensor = states + block.mlp(block.post_attention_layernorm(states))
    return out


def _as_they_are(attention: Any, keys: Tensor, given: dict[str, Any]) -> Tensor:
    return keys.transpose(1, 2)


def _rotated(attention: Any, keys: Tensor, given: dict[str, Any]) -> Tensor:
    """Keys at their positions, by the function of their own module. It wants queries too: of no head."""
    normed = attention.k_norm(keys) if hasattr(attention, "k_norm") else keys  # Qwen3's
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    own = normed.transpose(1, 2)
    turned: Tensor = rotate(own[:, :0], own, *given["position_embeddings"])[1]
    return turned


OPT = Kind(("self_attn", "self_attn_layer_norm", "final_layer_norm"), _before_opt, _behind_opt, _as_they_are)
LLAMA = Kind(
    ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm"), _before_llama, _behind_llama, _rotated
)
KINDS = {  # {class of a block of transformers: its kind}
    "OPTDecoderLayer": OPT,
    "LlamaDecoderLayer": LLAMA,
    "MistralDecoderLayer": LLAMA,
    "Qwen2DecoderLayer": LLAMA,
    "Qwen2_5_VLDecoderLayer": LLAMA,
    "Qwen3VLTextDecoderLayer": LLAMA,
}
