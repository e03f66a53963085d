"""The config of a small model of the same structure: few blocks, narrow layers, the checkpoint's own tokens and pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from transformers import PreTrainedConfig

BLOCKS = 4  # so that the first and last blocks differ from those in the middle
DEPTH = ("num_hidden_layers", "num_layers", "depth", "n_layers", "num_encoder_layers")
HEADS = ("num_attention_heads", "num_heads", "n_heads", "attention_heads")
WIDTH = ("embed_dim", "d_model", "hidden_size", "n_embd", "width", "dim")  # the first that a section has is its own
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
OF_EXPERTS = {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts_per_tok": 2}
INNER = ("intermediate_size", "ffn_dim", "d_ff", "mlp_dim", "encoder_ffn_dim")
OF_WIDTH = re.compile(r"hidden|embed|width|dim|size|intermediate|ffn")
KEPT = re.compile(r"vocab|image_size|patch|window|token|merge|position|tile|crop|kernel|stride|chunk|buffer|channels")
INDEXES = re.compile(r"(index|indexes|indices|layers?)$")


class Sizes(NamedTuple):
    """What the widths of a section become. head: of each head."""

    width: int
    inner: int
    heads: int
    head: int = 16


TEXT, VISION = (
    Sizes(64, 112, 4),
    Sizes(48, 80, 3),
)  # none is a multiple of another, so that expressions are not mixed up


def narrowed(config: PreTrainedConfig) -> PreTrainedConfig:
    """A config of the same class. Raises what transformers raises where it cannot be made."""
    whole = config.to_dict()
    text = next((k for k, v in vars(config).items() if v is config.get_text_config()), "text_config")
    vision = next((k for k in whole if k.startswith("vision") and isinstance(whole[k], Mapping)), "vision_config")
    known = {**_widths(whole.get(vision), VISION), **_widths(whole.get(text), TEXT)}
    made = {key: _within(key, value, known) for key, value in whole.items()}
    for key, sizes in ((text, TEXT), (vision, VISION)):
        if isinstance(whole.get(key), Mapping):
            made[key] = _section(whole[key], sizes, known)
    depth = _depth(whole.get(vision))
    if depth and "vision_feature_layer" in made:
        made["vision_feature_layer"] = _states(made["vision_feature_layer"], depth)
    return type(config).from_dict({k: v for k, v in made.items() if k != "transformers_version"})


def _widths(section: object, sizes: Sizes) -> dict[int, int]:
    """{width of a section: the narrow one}, for the fields of others that repeat it."""
    if not isinstance(section, Mapping):
        return {}
    found = {section[k]: sizes.inner for k in INNER if isinstance(section.get(k), int)}
    own = _width(section)
    return found | ({section[own]: sizes.width} if own else {})


def _width(section: Mapping[str, object]) -> str | None:
    return next((k for k in WIDTH if isinstance(section.get(k), int)), None)


def _depth(section: object) -> int | None:
    named = [section[k] for k in DEPTH if isinstance(section.get(k), int)] if isinstance(section, Mapping) else []
    return named[0] if named else None


def _within(key: str, value: object, known: Mapping[int, int]) -> object:
    """A field outside the two sections, or one of theirs that has no name of its own here."""
    fits = isinstance(value, int) and not isinstance(value, bool) and OF_WIDTH.search(key) and not KEPT.search(key)
    return known.get(value, value) if fits else value  # type: ignore[call-overload]


def _section(section: Mapping[str, object], sizes: Sizes, known: Mapping[int, int]) -> dict[str, object]:
    depth, heads = _depth(section), next((section[k] for k in HEADS if isinstance(section.get(k), int)), None)
    pairs = section.get("num_key_value_heads")
    named = _width(section)
    width = section[named] if named else None
    before = section.get("head_dim") or (width // heads if isinstance(width, int) and isinstance(heads, int) else None)
    own: dict[str, object] = {}
    for key, value in section.items():
        own[key] = _within(key, value, known)
        if isinstance(value, list) and depth and INDEXES.search(key) and all(isinstance(i, int) for i in value):
            own[key] = sorted({i * BLOCKS // depth for i in value})
        if key == "layer_types" and isinstance(value, list):
            own[key] = [*value[: BLOCKS - 1], value[-1]]
        if key in ("rope_parameters", "rope_scaling") and isinstance(value, Mapping) and isinstance(before, int):
            own[key] = _rope(value, sizes.head / before)
    own |= {k: BLOCKS for k in DEPTH if k in own} | {k: sizes.heads for k in HEADS if k in own}
    own |= {named: sizes.width} if named else {}
    own |= {k: sizes.inner for k in INNER if isinstance(own.get(k), int)}
    own |= {k: 8 for k in EXPERTS if isinstance(own.get(k), int)}
    own |= {k: v for k, v in OF_EXPERTS.items() if isinstance(own.get(k), int)}
    own |= {"head_dim": sizes.head} if isinstance(section.get("head_dim"), int) else {}
    if isinstance(pairs, int):
        own["num_key_value_heads"] = sizes.heads if pairs == heads else 1 if pairs == 1 else sizes.heads // 2
    return own


def _rope(section: Mapping[str, object], scale: float) -> dict[str, object]:
    """With the sections of positions (M-RoPE) in proportion to the width of a head."""
    inner = {k: _rope(v, scale) if isinstance(v, Mapping) else v for k, v in section.items()}
    parts = section.get("mrope_section")
    if not isinstance(parts, list):
        return inner
    total, small = round(sum(parts) * scale), [max(1, int(p * scale)) for p in parts]
    return {**inner, "mrope_section": [*small[:-1], total - sum(small[:-1])]}


def _states(layer: object, depth: int) -> object:
    """The same states of a tower of few blocks: from its end, or in proportion."""
    if isinstance(layer, list | tuple):
        return [_states(i, depth) for i in layer]
    if not isinstance(layer, int) or -BLOCKS < layer < 0:
        return layer
    behind = depth - layer if layer >= 0 else -1 - layer
    return BLOCKS - behind if behind < BLOCKS - 1 and layer >= 0 else max(1, layer % (depth + 1) * BLOCKS // depth)
