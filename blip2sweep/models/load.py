"""Load a checkpoint: safetensors only, every part in the dtype asked for, anatomy and processor checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
)
from transformers.utils import logging

from blip2sweep.anatomy import Anatomy, anatomy
from blip2sweep.architecture import stage_of
from blip2sweep.dtypes import stage_dtypes
from blip2sweep.errors import UserError
from blip2sweep.models.tree import check_config, verify
from blip2sweep.weights import weight_files

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model ready to evaluate. `device` is where its inputs go; `dtypes` and `attention`: {stage: name}."""

    model: Blip2ForConditionalGeneration
    processor: Blip2Processor
    anatomy: Anatomy
    device: torch.device
    dtypes: dict[str, str]
    image_processor_backend: str
    attention: dict[str, str]
    family: str


def load(model_config: Mapping[str, Any], folder: Path, device: str = "cpu") -> Loaded:
    """Load the checkpoint in `folder` as `model_config` describes it.

    Uses `dtype`, `dtype_per_part` ({vit|qformer|llm: dtype}), and `device_map` (through accelerate; else `device`).
    Raises UserError for a folder without safetensors, a config.json or module tree that differs from conf/model, an
    unknown dtype, and a processor that would leave the image out.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    weight_files(folder)
    parts = anatomy(model_config)
    dtypes, family = stage_dtypes(model_config, parts), str(model_config["family"])
    check_config(model_config, read_config(folder))
    model = _read(folder, dtypes, model_config.get("device_map"))
    cast(model, dtypes, family)
    if not model_config.get("device_map"):
        model.to(device)
    verify(model, parts)
    return Loaded(
        model=model.eval().requires_grad_(False),
        processor=load_processor(folder, model.config),
        anatomy=parts,
        device=model.device,
        dtypes=dtypes,
        image_processor_backend="pil",
        attention=_attention(model, family),
        family=family,
    )


def _attention(model: nn.Module, family: str) -> dict[str, str]:
    children = ((name, getattr(m, "config", None)) for name, m in model.named_children())
    return {stage_of(name, family): config._attn_implementation for name, config in children if config is not None}


def read_config(folder: Path) -> Blip2Config:
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); right: the checkpoint's own config.json") from error
    if data.get("model_type") != "blip-2":
        raise UserError(f"{path}: model_type is {data.get('model_type')}; right: a blip-2 checkpoint")
    return Blip2Config.from_pretrained(folder, local_files_only=True)


# ---- dtypes


def _read(folder: Path, dtypes: Mapping[str, str], device_map: Any) -> Blip2ForConditionalGeneration:
    """Read in the common dtype, or in float32 where parts differ: a cast through a narrower dtype would round twice."""
    names = set(dtypes.values())
    common = DTYPES[names.pop()] if len(names) == 1 else torch.float32
    placed = {"device_map": device_map} if device_map else {}
    return Blip2ForConditionalGeneration.from_pretrained(
        folder, dtype=common, use_safetensors=True, local_files_only=True, **placed
    )


def cast(model: nn.Module, dtypes: Mapping[str, str], family: str) -> None:
    """Cast every stage itself, and assert it: float16 keeps the Q-Former (and T5's wo) in float32 behind one's back."""
    for _, tensor, dtype in _floating(model, dtypes, family):
        if tensor.dtype != dtype:
            tensor.data = tensor.data.to(dtype)
    for name, tensor, dtype in _floating(model, dtypes, family):
        if tensor.dtype != dtype:
            raise RuntimeError(f"{name} is {tensor.dtype} and not the {dtype} that was asked for")


def _floating(
    model: nn.Module, dtypes: Mapping[str, str], family: str
) -> Iterator[tuple[str, torch.Tensor, torch.dtype]]:
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            yield name, parameter, DTYPES[dtypes[stage_of(name.partition(".")[0], family)]]


# ---- processor


def load_processor(folder: Path, config: Blip2Config) -> Blip2Processor:
    """Tokenizer and image processor; always the PIL one, so that pixels do not depend on torchvision being installed.

    Raises UserError where its number of query tokens is not the model's: the image would silently be left out.
    """
    queries = _num_query_tokens(folder)
    if queries != config.num_query_tokens:
        raise UserError(
            f"{folder / 'processor_config.json'}: num_query_tokens is {queries}, the model has "
            f"{config.num_query_tokens}; right: a current snapshot of the checkpoint"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    image_processor = BlipImageProcessorPil.from_pretrained(folder, local_files_only=True)
    size, found = config.vision_config.image_size, dict(image_processor.size)
    if found != {"height": size, "width": size}:
        raise UserError(f"{folder}: the image processor resizes to {found}; right: {size} x {size}, as the model takes")
    return Blip2Processor(image_processor, tokenizer, num_query_tokens=queries)


def _num_query_tokens(folder: Path) -> int | None:
    path = folder / "processor_config.json"
    return json.loads(path.read_text()).get("num_query_tokens") if path.is_file() else None
