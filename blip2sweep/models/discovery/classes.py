"""Whether the one adapter of image-text-to-text models fits what a config.json names. Nothing is built here."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from blip2sweep.errors import UserError
from blip2sweep.models.checkpoints import any_quantization, shown
from blip2sweep.models.config_file import NOT_LOADED, first_line, read_object


def refusal(folder: Path, reasons: list[str]) -> UserError:
    return UserError(
        f"{folder}: no YAML can be proposed: {'; '.join(reasons)}; right: a checkpoint of an image-text-to-text model of "
        f"transformers with one vision tower and one language model, or an architecture of your own (docs/extending.md)"
    )


def read(folder: Path) -> tuple[PreTrainedConfig, type[PreTrainedModel]]:
    """The config of a folder and the class of its model. Raises UserError, all reasons in one line."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; right: one with config.json and *.safetensors")
    data, wrong = read_object(folder / "config.json")
    if data is None:
        raise refusal(folder, wrong)
    name = str(data.get("model_type"))
    if name not in CONFIG_MAPPING:
        code = ", and its own code (auto_map, trust_remote_code) is never run" if data.get("auto_map") else ""
        raise refusal(folder, [f"transformers knows no model_type {shown(data.get('model_type'))}{code}"])
    try:
        config = CONFIG_MAPPING[name].from_dict({k: v for k, v in data.items() if k not in NOT_LOADED})
    except Exception as error:  # anybody may have written the file
        raise refusal(folder, [f"config.json: transformers cannot read it ({first_line(error)})"]) from error
    cls, wrong = _class(config)
    if already := any_quantization(data):
        wrong.append(f"already quantized (config.json says {already})")
    if cls is None or wrong:
        raise refusal(folder, wrong)
    return config, cls


def _class(config: PreTrainedConfig) -> tuple[type[PreTrainedModel] | None, list[str]]:
    mapping = AutoModelForImageTextToText._model_mapping
    if type(config) not in mapping:
        return None, [f"{config.model_type} is no image-text-to-text model of transformers"]
    try:
        cls = mapping[type(config)]
    except ImportError as error:  # a library that is not installed
        return None, [f"{config.model_type} cannot be imported ({first_line(error)})"]
    return cls, list(_unfit(cls, config))


def _unfit(cls: type[PreTrainedModel], config: PreTrainedConfig) -> Iterator[str]:
    if not hasattr(cls, "get_image_features"):
        videos = hasattr(cls, "get_video_features")
        yield f"{cls.__name__} takes only videos" if videos else f"{cls.__name__} has no get_image_features"
    elif "mm_encoder_outputs" not in inspect.signature(cls.forward).parameters:
        yield f"{cls.__name__} takes no features of pictures (mm_encoder_outputs)"
    text = config.get_text_config()
    if getattr(text, "is_encoder_decoder", False) or getattr(config, "is_encoder_decoder", False):
        yield f"its language model ({text.model_type}) has an encoder, which the adapter of these models would leave out"
    if not any(isinstance(getattr(config, name, None), PreTrainedConfig | Mapping) for name in _towers(config)):
        yield "config.json has no vision_config, so no vision tower is known"


def _towers(config: PreTrainedConfig) -> list[str]:
    return [name for name in vars(config) if name.startswith("vision")]
