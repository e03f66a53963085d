"""Loads a checkpoint: safetensors only, each stage in its dtype and rounded to what is stored, anatomy and processor
checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME, logging

from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.architecture import ImageStage, Processor, Stage, implementation, stage_of
from blip2sweep.models.block_params import names_in_files
from blip2sweep.models.checkpoints import Weights, inspect, listed, refused
from blip2sweep.models.config_file import read_config
from blip2sweep.models.dtypes import STORED, narrowed, stage_dtypes, stored_dtypes
from blip2sweep.models.language import Language
from blip2sweep.models.processor import load_processor
from blip2sweep.models.tensors import report_mistakes
from blip2sweep.models.tree import verify
from blip2sweep.models.unpack import state_dict
from blip2sweep.wire.model_section import ModelSection

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedConfig, PreTrainedModel

    from blip2sweep.models.ragged import Rows

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model ready to evaluate.

    device: of its inputs. dtypes, attention: {stage: name}. stored: the dtype to which weights were rounded; None where
    they are as their dtype has them. pixels: turns an image into one row for the first stage.
    images: the stages before the last. language: the last stage.
    """

    model: PreTrainedModel
    processor: Processor
    anatomy: Anatomy
    device: torch.device
    dtypes: dict[str, str]
    image_processor_backend: str
    attention: dict[str, str]
    family: str
    pixels: Callable[[Image], Rows]
    images: tuple[ImageStage, ...]
    language: Language
    stored: str | None = None


def load(model_config: ModelSection, folder: Path, device: str = "cpu") -> Loaded:
    """Load the checkpoint in `folder` as `model_config` describes it.

    It uses `dtype`, `dtype_per_part` ({part: dtype}), `stored` and `device_map` (through accelerate; otherwise `device`). Raises
    UserError for a folder without safetensors, a config.json or module tree that differs from conf/model, an unknown
    dtype, a processor that would leave the image out, tensors that are missing, unknown or of another shape, and
    weights with NaN or Inf. Planning has checked all of it, but a folder may have changed since.
    """
    logging.set_verbosity(logging.CRITICAL)  # what it would report is an error of ours
    logging.disable_progress_bar()
    name, weights = str(model_config["name"]), inspect(folder)
    parts = anatomy(model_config)
    dtypes = stage_dtypes(model_config, parts)
    config, wrong = read_config(folder, model_config)
    if wrong or config is None:
        raise refused(folder, name, wrong)
    model = _read(weights, config, dtypes, model_config)
    cast(model, dtypes, parts.stages)
    round_to(model, stored_dtypes(model_config, dtypes), parts.stages, _of_integers(weights, parts))
    _check_finite(model, folder, name)
    if not model_config.get("device_map"):
        model.to(device)
    return ready(model, folder, model_config)


def ready(model: PreTrainedModel, folder: Path, model_config: ModelSection) -> Loaded:
    """A model that is in its dtypes and on its device, with the processor of `folder`.

    Raises UserError for a module tree that differs from conf/model, and for a processor that does not fit.
    """
    parts, own = anatomy(model_config), implementation(model_config)
    verify(model, parts)
    model, family = model.eval().requires_grad_(False), str(model_config["family"])
    processor = load_processor(own, folder, model.config, str(model_config["name"]))
    dtypes = stage_dtypes(model_config, parts)
    return Loaded(
        model=model,
        processor=processor,
        anatomy=parts,
        device=model.device,
        dtypes=dtypes,
        image_processor_backend="pil",
        attention=_attention(model, parts.stages),
        family=family,
        pixels=partial(own.pixels, processor),
        images=own.image_stages(model, model.device),
        language=own.language(model, processor, family),
        stored=narrowed(model_config, dtypes),
    )


def _attention(model: nn.Module, stages: tuple[Stage, ...]) -> dict[str, str]:
    modules = dict(model.named_modules())
    configs = [(s.name, getattr(modules.get(child), "config", None)) for s in stages for child in s.children]
    return {stage: config._attn_implementation for stage, config in configs if config is not None}


# ---- dtypes


def _read(
    weights: Weights, config: PreTrainedConfig, dtypes: Mapping[str, str], model_config: ModelSection
) -> PreTrainedModel:
    """Read in the common dtype, or in float32 where stages differ: a cast through a narrower dtype would round twice.

    Raises UserError unless the tensors of the files are exactly the model's.
    """
    names, device_map = set(dtypes.values()), model_config.get("device_map")
    common = DTYPES[names.pop()] if len(names) == 1 else torch.float32
    placed = {"device_map": device_map} if device_map else {}
    unpacked = {"state_dict": state_dict(weights, common)} if weights.packed else {}
    model, report = implementation(model_config).model_class.from_pretrained(
        None if unpacked else weights.folder, config=config, dtype=common, use_safetensors=True, local_files_only=True,
        output_loading_info=True, ignore_mismatched_sizes=True, **unpacked, **placed,
    )  # fmt: skip
    wrong = report_mistakes(report, weights.tensors, model, model_config)
    if wrong:
        raise refused(weights.folder, str(model_config["name"]), wrong)
    if unpacked and (weights.folder / GENERATION_CONFIG_NAME).is_file():  # else read with the folder's weights
        model.generation_config = GenerationConfig.from_pretrained(weights.folder, local_files_only=True)
    return model


def _check_finite(model: nn.Module, folder: Path, name: str) -> None:
    """Raise UserError naming the tensors that hold NaN or Inf, from the file or from the cast."""
    held = [
        (n, p) for n, p in model.named_parameters() if p.is_floating_point() and p.device.type != "meta" and p.numel()
    ]
    broken = [n for n, p in held if not all(torch.isfinite(x) for x in torch.aminmax(p))]
    if broken:
        raise refused(folder, name, [f"NaN or Inf in {held[0][1].dtype} in {len(broken)} tensors: {listed(broken)}"])


def cast(model: nn.Module, dtypes: Mapping[str, str], stages: tuple[Stage, ...]) -> None:
    """Cast every stage and check the result: transformers keeps the Q-Former and T5's wo in float32 under float16."""
    for _, tensor, dtype in _floating(model, dtypes, stages):
        if tensor.dtype != dtype:
            tensor.data = tensor.data.to(dtype)
    for name, tensor, dtype in _floating(model, dtypes, stages):
        if tensor.dtype != dtype:
            raise RuntimeError(f"{name} is {tensor.dtype} and not the {dtype} that was asked for")


def _of_integers(weights: Weights, parts: Anatomy) -> set[str]:
    """The names of the model's parameters that are stored as integers."""
    paths = names_in_files(weights.tensors, parts) if weights.packed else {}
    return {f"{paths.get(name, name)}.weight" for name in weights.packed}


def round_to(
    model: nn.Module, stored: Mapping[str, str], stages: tuple[Stage, ...], integers: Collection[str] = ()
) -> None:
    """Round every parameter to the dtype in which its stage is stored. It keeps the dtype it is computed in, and its module
    has the other one as an attribute.

    integers: names of those that are stored as integers and scales, which mean what they mean.
    """
    for name, tensor, dtype in _floating(model, stored, stages):
        if tensor.dtype != dtype and name not in integers:
            if tensor.is_meta:
                raise UserError(
                    f"model.stored: {name} lies on no device; right: a model.device_map that holds all of it"
                )
            tensor.data = tensor.data.to(dtype).to(tensor.dtype)
            setattr(model.get_submodule(name.rpartition(".")[0]), STORED, dtype)


def _floating(
    model: nn.Module, dtypes: Mapping[str, str], stages: tuple[Stage, ...]
) -> Iterator[tuple[str, torch.Tensor, torch.dtype]]:
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            yield name, parameter, DTYPES[dtypes[stage_of(name, stages).name]]
