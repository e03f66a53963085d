"""Pictures as rows: what the processor makes of each, and how rows become the arguments of `get_image_features`.

A row is the pixels of a picture, or its tiles (tiles, 3, height, width), or its patches (patches, values). `further`
holds what belongs to it besides: the sizes that the model asks for, and the text that the processor puts in place of
the picture's token, as UTF-8 with zeros behind.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2sweep.models.ragged import Rows

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedModel, ProcessorMixin

# Names in `further`: the text of a picture, the shape of one entry of its row, and how many entries its pixels have.
TEXT, ENTRY, ENTRIES = "text", "entry", "entries"
GRID = "image_grid_thw"
SIZES = ("image_sizes", GRID)  # what models ask for besides pixels
TILED = ("num_patches", "num_crops", "rows")  # what a processor says of each picture when it can cut it into tiles


def pixel_rows(processor: ProcessorMixin, image: Image) -> Rows:
    """One row. Raises ValueError for a picture that the processor pads."""
    made, text = _processed(processor, image)
    padding = made.get("pixel_attention_mask")
    if padding is not None and not bool(torch.as_tensor(padding).all()):
        raise ValueError("the image processor pads the picture, which no model here is told")
    values = made["pixel_values"]
    values = values[0] if values.dim() == 5 else values
    dense = values.dim() == 4 and made["pixel_values"].dim() == 4 and len(values) == 1 and not made.keys() & {*TILED}
    further = {name: torch.as_tensor(made[name]).reshape(1, -1) for name in SIZES if name in made}
    further |= {TEXT: encoded(text), ENTRY: torch.tensor([values.shape[1:]]), ENTRIES: torch.tensor([[len(values)]])}
    return Rows(values, None if dense else (len(values),), further)


def _processed(processor: ProcessorMixin, image: Image) -> tuple[dict[str, Tensor], str]:
    """What the processor makes of a picture, with its own settings, and the text that it puts in place of its token."""
    own, texts = processor.valid_processor_kwargs, processor.tokenizer.init_kwargs  # 5.17 wants to be told the first
    settings = processor._merge_kwargs(own, tokenizer_init_kwargs=texts, return_tensors="pt")
    made, (text,) = processor._process_images([image], **settings["images_kwargs"])
    return dict(made), text


def encoded(text: str) -> Tensor:
    """(1, bytes) uint8."""
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)[None]


def decoded(row: Tensor) -> str:
    return bytes(row.cpu().tolist()).rstrip(b"\0").decode()


class Arguments:
    """Makes the arguments of `get_image_features` of a model. where: the device of inputs."""

    def __init__(self, model: PreTrainedModel, where: torch.device) -> None:
        known = inspect.signature(model.model.get_image_features).parameters
        self.where, self.sizes = where, [name for name in SIZES if name in known]
        self.by_picture = "pixel_attention_mask" in known  # (pictures, tiles, 3, height, width), zeros behind

    def __call__(self, rows: Rows, dtype: torch.dtype) -> dict[str, Tensor]:
        """The arguments for rows of pixels."""
        values = rows.mapped(lambda x: x.to(self.where, dtype, non_blocking=True))
        pixels = values.padded()[0] if self.by_picture and rows.lengths is not None else values.values
        sizes = {name: rows.further[name].to(self.where) for name in self.sizes if name in rows.further}
        return {"pixel_values": pixels, **sizes}

    def placeholders(self, rows: Rows, dtype: torch.dtype) -> dict[str, Tensor]:
        """The arguments for pictures whose pixels nobody reads: ones of the same shape."""
        shape = rows.further[ENTRY][0].tolist()
        ones = torch.ones((), dtype=dtype).expand(len(rows.values), *shape)
        return self(Rows(ones, rows.lengths, rows.further), dtype)


def feature_rows(pooled: Tensor | Sequence[Tensor], deeper: Sequence[Sequence[Tensor]], rows: Rows) -> Rows:
    """The features of pictures, one row of tokens for each.

    pooled: a list over pictures of (tokens, width), or (pictures or tiles, tokens, width). deeper: for each further
    block that the features enter a list over pictures; they stand behind the others in the last dimension. rows: the
    pictures' own, for their number of tiles and what is further known of them.
    """
    if isinstance(pooled, Tensor):
        tiles = rows.lengths or (1,) * len(rows)
        pooled = [x.flatten(0, 1) for x in pooled.split(list(tiles))]
    features = [torch.cat([x, *(level[i] for level in deeper)], -1) for i, x in enumerate(pooled)]
    return Rows(torch.cat(features), tuple(map(len, features)), rows.further)
