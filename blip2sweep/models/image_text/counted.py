"""How many features a model has for a picture, without its weights: through the same classes, a few numbers wide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForImageTextToText

from blip2sweep.models.config_file import first_line
from blip2sweep.models.image_text.pixels import Arguments, feature_rows
from blip2sweep.models.stubbed import handed_on

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from blip2sweep.models.ragged import Rows

WIDTH = 8
TEXT = {
    "hidden_size": WIDTH, "intermediate_size": WIDTH, "head_dim": WIDTH, "num_attention_heads": 1,
    "num_key_value_heads": 1, "num_hidden_layers": 1, "vocab_size": WIDTH,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None, "layer_types": None,
}  # fmt: skip


def count_mistakes(config: PreTrainedConfig, blocks: str, row: Rows, placeholders: int) -> Iterator[str]:
    """The mistake of a processor whose placeholders for a picture are not as many as the model's features.

    blocks: the path of the vision tower's blocks. row: the picture as the processor makes it. A model that cannot be
    built narrow is not asked.
    """
    model = None
    with suppress(Exception):
        model = _narrow(config, blocks)
    if model is None:
        return
    try:
        found = _features(model, row)
    except Exception as error:
        yield f"the model fails on what the processor makes of a picture ({first_line(error)})"
        return
    if found != placeholders:
        yield (
            f"the processor writes {placeholders} placeholders for a picture of which the model makes {found} features "
            f"(processor_config.json, preprocessor_config.json: patch_size, image_seq_length, size)"
        )


@torch.inference_mode()
def _features(model: PreTrainedModel, row: Rows) -> int:
    given = Arguments(model, torch.device("cpu"))(row, torch.float32)
    pooled = model.model.get_image_features(**given, return_dict=True).pooler_output
    return feature_rows(pooled, (), row).tokens(0)


def _narrow(config: PreTrainedConfig, blocks: str) -> PreTrainedModel:
    """A model of the same pictures, grids and pooling whose vision blocks hand on what they get."""
    model_class: type[PreTrainedModel] = AutoModelForImageTextToText._model_mapping[type(config)]
    model = model_class(_narrowed(config)).float().eval()  # the config of a checkpoint may say another dtype
    for block in model.get_submodule(blocks):
        block.forward = handed_on
    return model


def _narrowed(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config with other widths."""
    sizes = config.to_dict()
    vision = sizes["vision_config"]
    heads = vision.get("num_attention_heads") or vision["num_heads"]
    own = {"hidden_size": heads * WIDTH, "intermediate_size": WIDTH, "out_hidden_size": WIDTH, "projection_dim": WIDTH}
    text = {**sizes["text_config"], **_known(TEXT, sizes["text_config"])}
    both = {"vision_config": {**vision, **_known(own, vision)}, "text_config": text}
    return type(config)(**{**sizes, **both, **_known({"projection_dim": WIDTH, "pad_token_id": None}, sizes)})


def _known(fields: Mapping[str, object], section: Mapping[str, object]) -> dict[str, object]:
    return {k: v for k, v in fields.items() if k in section}
