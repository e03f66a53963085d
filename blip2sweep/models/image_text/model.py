"""An image-text-to-text model as a worker runs it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from blip2sweep.errors import UserError
from blip2sweep.models.architecture import ImageStage
from blip2sweep.models.checkpoints import shown
from blip2sweep.models.graphs import Graphs
from blip2sweep.models.image_text import no_graphs, stages
from blip2sweep.models.image_text.adapter import Adapter
from blip2sweep.models.image_text.chat import Chat
from blip2sweep.models.image_text.features import FEATURES, without_features
from blip2sweep.models.image_text.language import Decoder
from blip2sweep.models.image_text.over_graphs import graphs
from blip2sweep.models.image_text.pixels import pixel_rows
from blip2sweep.models.image_text.processor import read_processor
from blip2sweep.models.image_text.vision import Connector, Tower, Vision
from blip2sweep.models.part import VISION
from blip2sweep.models.ragged import Rows
from blip2sweep.wire.model_section import ModelSection, StackSection

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin


def check_features(model_class: type[PreTrainedModel], model_type: object) -> None:
    """Raise UserError for a class whose forward pass takes no features of pictures."""
    if FEATURES not in inspect.signature(model_class.forward).parameters:
        raise without_features(model_type)


class ImageText:
    """An `Implementation` (blip2sweep/models/architecture.py) of a composed `model` section.

    config_class, model_class: those that transformers registers for `config.model_type`. Raises UserError where it
    registers none.
    """

    def __init__(self, model: ModelSection) -> None:
        self.section, self.adapter = model, Adapter.of(model)
        model_type = str(model["config"].get("model_type"))
        try:
            self.config_class: type[PreTrainedConfig] = type(AutoConfig.for_model(model_type))
            self.model_class: type[PreTrainedModel] = AutoModelForImageTextToText._model_mapping[self.config_class]
        except (ValueError, KeyError) as error:
            raise UserError(
                f"model.config.model_type={model_type}: no image-text-to-text model of the installed transformers; "
                f"right: the model_type of a config.json that AutoModelForImageTextToText loads"
            ) from error
        kinds = getattr(self.model_class, "input_modalities", ("image",))
        if "image" not in kinds:
            taken = " and ".join([kinds] if isinstance(kinds, str) else kinds)
            raise UserError(
                f"model.config.model_type={model_type}: takes {taken} and no pictures; right: a model of pictures"
            )

    def config_mistakes(self, config: PreTrainedConfig) -> Iterator[str]:
        image = getattr(config, "image_token_id", None)
        if type(image) is not int:
            yield f"config.json: image_token_id is {shown(image)}, not a token"

    def read_processor(self, folder: Path, config: PreTrainedConfig) -> tuple[ProcessorMixin | None, list[str]]:
        return read_processor(folder, config, self.section.get("chat"), self._tower["path"])

    def pixels(self, processor: ProcessorMixin, image: Image) -> Rows:
        return pixel_rows(processor, image)

    def image_stages(self, model: PreTrainedModel, where: torch.device) -> tuple[ImageStage, ...]:
        blocks = model.get_submodule(self._tower["path"])
        n = len(blocks) - int(self._tower.get("unread", 0))
        children = stages(cast("Mapping[str, object]", self.section))[1].children
        behind = [m for path, held in model.named_modules() if path in children
                  for m in (held if isinstance(held, nn.ModuleList) else [held])]  # fmt: skip
        tower = Tower(model, where, list(blocks), n, behind)
        return Vision(tower), Connector(tower)

    @property
    def _tower(self) -> StackSection:
        (stack,) = (s for p in self.section["parts"].values() if p.get("role") == VISION for s in p["stacks"].values())
        return stack

    def language(self, model: PreTrainedModel, processor: ProcessorMixin, family: str) -> Decoder:
        check_features(type(model), model.config.model_type)
        return Decoder(model, processor, Chat(processor, self.section.get("chat")), self.adapter)

    def graphs(self, model: PreTrainedModel, processor: ProcessorMixin, family: str) -> Graphs:
        """See `HasGraphs`."""
        if why := no_graphs({"config": model.config.to_dict()}):
            raise UserError(why)
        return graphs(model, self.language(model, processor, family))
