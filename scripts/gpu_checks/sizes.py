"""What is run: at the size of real models on a GPU, or a rehearsal of the same steps that a CPU does in seconds."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

from scripts.benchmarks.models import model_config

if TYPE_CHECKING:
    from blip2sweep.wire.model_section import ModelSection

BLIP2, LLAVA = "blip2-opt-2.7b", "llava-1.5-7b"


class Sizes(NamedTuple):
    """Numbers of images and cells, and the batches that are decoded. reference_images: captioned one by one for each of
    `reference_cells`. words: of the calibration's samples."""

    images: int
    new_tokens: int
    cells: int
    reference_cells: int
    reference_images: int
    decoded: tuple[int, ...]
    compiles: bool
    samples: int
    llava_images: int
    llava_cells: int


REAL = Sizes(512, 10, 24, 3, 24, (1, 32, 512), True, 32, 48, 6)
REHEARSAL = Sizes(6, 4, 4, 2, 3, (1, 3), False, 4, 3, 3)


def section(name: str, dry: bool) -> ModelSection:
    """The `model` section: real shapes in bfloat16, or few and narrow blocks in float32, where nothing may differ."""
    if not dry:
        return {**model_config(name), "dtype": "bfloat16"}
    return _narrow(model_config("mid" if name == BLIP2 else "llava-mid"))


def _narrow(config: ModelSection) -> ModelSection:
    """The benchmark's mid-size model, many times narrower."""
    own: dict[str, Any] = deepcopy(dict(config["config"]))
    own["vision_config"] |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "image_size": 56}
    own["vision_config"] |= {"num_attention_heads": 2}
    text = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 500}
    if "qformer_config" in own:
        own["qformer_config"] |= {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 4}
        own["qformer_config"] |= {"num_attention_heads": 2, "encoder_hidden_size": 32}
        text |= {"ffn_dim": 128, "word_embed_proj_dim": 64}
    else:
        text |= {"intermediate_size": 96, "num_key_value_heads": 1, "head_dim": 32}
    own["text_config"] |= text
    return {**config, "config": own}
