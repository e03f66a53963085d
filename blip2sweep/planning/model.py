"""A model as planning sees it, without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.models import checkpoints
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.architecture import architecture, family, left_out
from blip2sweep.models.block_params import BlockParams, block_params
from blip2sweep.models.checkpoints.headers import Tensor
from blip2sweep.models.dtypes import BITS, agreed, narrowed, part_dtypes, stage_dtypes, stored_dtypes
from blip2sweep.models.linear_share import partial_share
from blip2sweep.models.location import locate
from blip2sweep.models.role_params import role_params, stage_params, unread_params
from blip2sweep.models.shipped import model_config, shipped_models
from blip2sweep.planning.held import Held, held
from blip2sweep.recipe.size import Numbers
from blip2sweep.wire.model_section import ModelSection

CONFIG = "config"  # as model.original: the weights that conf/model names


@dataclass(frozen=True, eq=False)
class Model:
    """A model: its anatomy, dtypes, and the fingerprint of its checkpoint. No weights are read."""

    config: ModelSection
    anatomy: Anatomy
    folder: Path  # of the checkpoint
    revision: str | None
    fingerprint: str  # of the weights
    numbers: Numbers  # of the checkpoint, by stage, and how wide they are stored
    dtypes: dict[str, str]  # {part: name}
    stage_dtypes: dict[str, str]  # {stage: name}
    stored: str  # the dtype in which what is not quantized is written; `part:dtype` for each part where they differ
    narrowed: str | None  # the dtype to which weights are rounded; None where all are stored as computed
    role_params: dict[str, int]  # {role: its parameters}
    unread: dict[str, int]  # {stage: its parameters that graphs leave out}
    linear_share: float | None = None  # of the weights in blocks; None where it is more than half
    held: Held | None = None  # of a checkpoint whose layers are integers already

    @property
    def name(self) -> str:
        """The name of the section `model`."""
        return str(self.config["name"])

    @property
    def params(self) -> int:
        """Its parameters, tied ones once."""
        return self.numbers.total

    @property
    def block_params(self) -> BlockParams:
        """{part: {number of a block: its parameters}}"""
        return self.numbers.blocks

    @cached_property
    def graph_numbers(self) -> Numbers:
        """Its numbers where it is written as graphs."""
        own = self.numbers
        gone = {n: p.unread_blocks for n, p in self.anatomy.parts.items()}
        blocks = {n: {i: x for i, x in found.items() if i not in gone[n]} for n, found in own.blocks.items()}
        return replace(own, blocks=blocks, unwritten=self.unread)

    @property
    def presets(self) -> str:
        """The kind of language model (`opt`, `t5`) whose generation presets apply."""
        return family(self.config).presets or str(self.config["family"])

    @property
    def image_token(self) -> str | None:
        """What stands for a picture in a text. A sample's own text may not hold it."""
        token = (self.config.get("adapter") or {}).get("image_token")
        return None if token is None else str(token)

    @property
    def dtype(self) -> str:
        """The table's column: `float32`, or `part:dtype` for each part when they differ."""
        return agreed(self.dtypes)


def planned_model(config: ModelSection) -> Model:
    """The model of a composed section `model`. Raises UserError, all mistakes at once, for a config or a checkpoint that
    cannot be loaded. Where no installed library could run it, that is the one mistake."""
    _check_library(config)
    layout = anatomy(config)
    dtypes, by_stage = part_dtypes(config, layout), stage_dtypes(config, layout)
    stored, location = stored_dtypes(config, by_stage), locate(config)
    half = [stage for stage, dtype in stored.items() if dtype == "float16"]
    checked = checkpoints.check(location.folder, config, half)
    numbers, quantized = _numbers(checked.tensors, layout, stored), held(checked, layout)
    if quantized is not None:  # its size is that of its files
        numbers = replace(numbers, bits=dict.fromkeys(numbers.bits, quantized.number_bits))
    return Model(
        ModelSection(**config), layout, location.folder, location.revision, checked.fingerprint,
        numbers, dtypes, by_stage,
        agreed({name: stored[part.stage] for name, part in layout.parts.items()}), narrowed(config, by_stage),
        role_params(checked.tensors, layout, layout.tied),
        unread_params(checked.tensors, layout, numbers.blocks, left_out(config)), partial_share(checked.tensors, layout, config),
        quantized,
    )  # fmt: skip


def _check_library(config: ModelSection) -> None:
    """Raise UserError where no installed library can run a model. Its architecture may say so (`check_library`)."""
    own = getattr(architecture(config), "check_library", None)
    if own is not None:
        own(config)


def _numbers(tensors: Mapping[str, Tensor], layout: Anatomy, stored: Mapping[str, str]) -> Numbers:
    """stored: {stage: dtype name}."""
    params = stage_params(tensors, layout, layout.tied)
    return Numbers(params, {s: BITS[name] for s, name in stored.items()}, block_params(tensors, layout, layout.tied))


def original_section(config: ModelSection) -> ModelSection | None:
    """The section of the model that a quantized checkpoint was made from; None where `model.original` is not set.

    `config` means the weights that conf/model names. Raises UserError where there are none.
    """
    told = config.get("original")
    if not told:
        return None
    if told != CONFIG:
        return ModelSection(**{**config, "path": str(told), "original": None})
    if config["name"] not in shipped_models():
        raise UserError(f"model.original={CONFIG}: conf/model has no {config['name']}; right: a folder")
    own = model_config(config["name"])
    return ModelSection(**{**config, "path": own.get("path"), "hub_id": own.get("hub_id"), "original": None})


def check_original(model: Model, original: Model | None) -> None:
    """Raise UserError for an original that means nothing: of a plain checkpoint, or one that is quantized itself."""
    told = f"model.original={model.config.get('original')}"
    if original is not None and model.held is None:
        raise UserError(
            f"{told}: {model.folder} is a plain checkpoint, its own baseline; right: without model.original"
        )
    if original is not None and original.held is not None:
        raise UserError(f"{told}: {original.folder} is quantized itself; right: the checkpoint it was made from")
