"""Towers of image-text-to-text models as graphs: tiles of pictures -> features.

How the features of tiles become those of a picture depends on the picture's size, so it stays in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blip2sweep.models.graphs import Graph, Input
from blip2sweep.models.graphs.causal import paths_in
from blip2sweep.models.part import VISION

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OUTPUT = -1  # of the states of a tower: its output, behind the last norm


class Seeing(nn.Module):
    """Tiles (tiles, 3, height, width) -> features (tiles, tokens, width of the language model).

    The projector reads the states of a tile one by one, as LLaVA's, or all together.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        own, self.config = model.model, model.config
        self.tower, self.projector = own.vision_tower, own.multi_modal_projector
        layer = getattr(self.config, "vision_feature_layer", OUTPUT)
        self.read = [layer] if isinstance(layer, int) else list(layer)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.projector(self.states(pixels)),)

    def states(self, pixels: Tensor) -> Tensor:
        """What is read of the tower, without its class token where the model leaves that out."""
        out = self.tower(pixels, output_hidden_states=True, return_dict=True)
        values = torch.cat([out.hidden_states[i] for i in self.read], -1)
        return values[:, 1:] if self.config.vision_feature_select_strategy == "default" else values


class OfOutput(Seeing):
    """Of models that read the output of the tower."""

    def states(self, pixels: Tensor) -> Tensor:
        output: Tensor = self.tower(pixels, return_dict=True).last_hidden_state
        return output


class Shuffled(Seeing):
    """InternVL: patches that stand together become one token."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self.shuffle, vision = model.model.pixel_shuffle, self.config.vision_config
        self.sides = [n // size for n, size in zip(vision.image_size, vision.patch_size, strict=True)]

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        states = self.states(pixels)
        square = states.reshape(-1, *self.sides, states.shape[-1])
        return (self.projector(self.shuffle(square, scale_factor=self.config.downsample_ratio).flatten(1, 2)),)

    def states(self, pixels: Tensor) -> Tensor:
        if self.read != [OUTPUT]:
            return super().states(pixels)
        states: Tensor = self.tower(pixels, return_dict=True).last_hidden_state
        return states[:, 1:] if self.config.vision_feature_select_strategy == "default" else states


class Connected(OfOutput):
    """Idefics 3 and SmolVLM."""

    def __init__(self, model: PreTrainedModel) -> None:
        nn.Module.__init__(self)
        self.tower, self.projector = model.model.vision_model, model.model.connector


# By `model_type`; planning has the same names (IN_GRAPHS).
SEEING: dict[str, type[Seeing]] = {
    "llava": Seeing,
    "llava_next": Seeing,
    "llava_onevision": Seeing,
    "paligemma": OfOutput,
    "gemma3": OfOutput,
    "internvl": Shuffled,
    "idefics3": Connected,
}


def vision(model: PreTrainedModel) -> Graph:
    size = model.config.vision_config.image_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    module = SEEING[model.config.model_type](model)
    pixels = Input("pixels", torch.zeros(2, 3, height, width), {0: "rows"})
    return Graph(VISION, module, (pixels,), ("features",), paths_in(model, module))
