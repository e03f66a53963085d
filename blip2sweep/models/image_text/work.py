"""What an image-text-to-text model computes of a sample: its tower by tiles or patches, its connector, its decoder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from blip2sweep.models.fields import field, size
from blip2sweep.models.part import CONNECTOR, LANGUAGE, VISION
from blip2sweep.models.work import Asked, Blocks, Product, Sizes, Work, decoder, linear, written
from blip2sweep.wire.model_section import PartSection, StackSection

# By `model_type`: what was held to torch's counter. Of other models nothing is said, because they may compute more than
# linear layers of their blocks, such as experts or convolutions.
MODELS = frozenset({"llava", "llava_next", "llava_onevision", "idefics3", "paligemma", "internvl", "gemma3", "qwen2_5_vl",
                    "qwen3_vl"})  # fmt: skip
TEXTS = frozenset({"llama", "mistral", "qwen2", "gemma", "gemma3_text", "qwen2_5_vl_text", "qwen3_vl_text"})
# Towers, and the tokens of a tile beside its patches.
TOWERS = {"clip_vision_model": 1, "internvl_vision": 1, "siglip_vision_model": 0, "idefics3_vision": 0,
          "qwen2_5_vl_vision": 0, "qwen3_vl_vision": 0}  # fmt: skip
WINDOW, WHOLE = "vision_config.window_size", "vision_config.fullatt_block_indexes"


def work(model: Mapping[str, object], config: Sizes, asked: Asked) -> Iterator[Work]:
    """See `models.architecture.work`. The prompt's length is that of the whole stream."""
    if not _known(config):
        return
    parts = cast("Mapping[str, PartSection]", model["parts"])
    kept = _class_tokens(config) if field("vision_feature_select_strategy", config) == "full" else 0
    yield from _tower(_stacks(parts, VISION)[0], config, asked)
    yield from _connector(parts, config, asked.entries * (_patches(config, asked) + kept))
    n, width = asked.prompt[0], size("text_config.hidden_size", config)
    behind = written(asked, n)
    for stack in _stacks(parts, LANGUAGE):
        yield decoder(str(stack["path"]), n, behind)
    yield Product(LANGUAGE, linear(behind.heads, width, size("text_config.vocab_size", config)))


def _known(config: Sizes) -> bool:
    known = ("model_type", MODELS), ("vision_config.model_type", TOWERS), ("text_config.model_type", TEXTS)
    return all(field(name, config) in types for name, types in known)


def _stacks(parts: Mapping[str, PartSection], role: str) -> list[StackSection]:
    return [stack for part in parts.values() if part.get("role") == role for stack in part["stacks"].values()]


# ---- vision


def _patches(config: Sizes, asked: Asked) -> int:
    """The patches of one entry of a picture's pixels, which may itself be a patch."""
    if len(asked.entry) == 1:
        return 1
    rows, columns = sides(config, "patch_size")
    height, width = asked.entry[1:] or sides(config, "image_size")
    return (height // rows) * (width // columns)


def sides(config: Sizes, name: str) -> tuple[int, int]:
    """(height, width) of a field of the tower's config, which may be one number for both."""
    found = field(f"vision_config.{name}", config)
    rows, columns = found if isinstance(found, Sequence) else (found, found)
    return int(str(rows)), int(str(columns))


def _tower(stack: StackSection, config: Sizes, asked: Asked) -> Iterator[Work]:
    patches, width = _patches(config, asked), size("vision_config.hidden_size", config)
    values = asked.entry[0] if len(asked.entry) == 1 else 3 * math.prod(sides(config, "patch_size"))
    yield Product(VISION, linear(asked.entries * patches, values, width))
    if asked.grid is not None:  # the patches of a picture are one row, of whatever length
        frames, rows, columns = asked.grid
        yield Blocks(str(stack["path"]), math.prod(asked.grid), frames * (rows * columns) ** 2, {}, 0,
                     _windowed(stack, config, asked.grid))  # fmt: skip
        return
    tokens = patches + _class_tokens(config)
    yield Blocks(str(stack["path"]), asked.entries * tokens, asked.entries * tokens**2)


def _class_tokens(config: Sizes) -> int:
    return TOWERS[str(field("vision_config.model_type", config))]


def _windowed(stack: StackSection, config: Sizes, grid: tuple[int, int, int]) -> dict[int, int]:
    """{block: pairs} of the blocks that attend in windows, which are smaller at the right and lower edges."""
    if field(WINDOW, config) is None:
        return {}
    whole = cast("Sequence[int]", field(WHOLE, config))
    merged = size("vision_config.spatial_merge_size", config)
    side = size(WINDOW, config) // merged // sides(config, "patch_size")[0] * merged
    frames, *lengths = grid
    rows, columns = (_cut(n, side) for n in lengths)
    pairs = frames * sum(r**2 for r in rows) * sum(c**2 for c in columns)
    return {i: pairs for i in range(size(stack["blocks"], config)) if i not in whole}


def _cut(length: int, side: int) -> list[int]:
    """A length in pieces of `side`, and what is left."""
    return [side] * (length // side) + ([length % side] if length % side else [])


# ---- what is behind it


def _connector(parts: Mapping[str, PartSection], config: Sizes, patches: int) -> Iterator[Work]:
    """The connector reads runs of patches that stand beside each other as one token.

    How many is what its first layer reads, in states of the tower. Gemma 3 has a parameter and no layer: it projects what is
    left of pooled patches.
    """
    pooled = field("mm_tokens_per_image", config)
    if pooled is not None:
        own, text = (size(f"{name}.hidden_size", config) for name in ("vision_config", "text_config"))
        per_picture = math.prod(
            a // b for a, b in zip(*(sides(config, x) for x in ("image_size", "patch_size")), strict=True)
        )
        yield Product(CONNECTOR, linear(patches // per_picture * int(str(pooled)), own, text))
    states = size("vision_config.hidden_size", config) * _levels(config)
    for part in parts.values():
        if part.get("role") == CONNECTOR:
            first = next(iter(next(iter(part["layers"].values())).values()))
            tokens = patches * states // size(first["shape"][1], config)
            for stack in part["stacks"].values():
                yield Blocks(str(stack["path"]), tokens, 0)


def _levels(config: Sizes) -> int:
    """How many states of the tower stand side by side."""
    chosen = field("vision_feature_layer", config)
    return len(chosen) if isinstance(chosen, Sequence) else 1
