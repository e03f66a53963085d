"""The composed `model` section of a config, as conf/model writes it and as packs carry it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

# A number, or numbers and dotted fields of `config` with * and /: `3*vision_config.hidden_size`. A product stands behind a /.
Size = int | str


class StackSection(TypedDict):
    """A list of equal blocks: its module path, and how many there are.

    Without `blocks` the path is one module, the only block. unread: how many of the last blocks nothing reads.
    """

    path: str
    blocks: NotRequired[Size]
    unread: NotRequired[int]


class LayerSection(TypedDict):
    """A linear layer of a block; the fields are those of `models.part.Linear`.

    shape: [out_features, in_features]. every: only every n-th block has it. stacks: those that have it, all by default.
    unread: in how many of the last blocks nothing reads its output.
    """

    shape: Sequence[Size]
    bias: NotRequired[bool]
    every: NotRequired[Size]
    stacks: NotRequired[Sequence[str]]
    clip: NotRequired[bool]
    unpackable: NotRequired[Sequence[str]]
    unread: NotRequired[int]


class FoldSection(TypedDict):
    """The fields of `models.part.Fold`."""

    before: str
    into: Sequence[str]
    piece: NotRequired[Sequence[int]]
    output_of: NotRequired[str | None]
    stacks: NotRequired[Sequence[str]]


class PartSection(TypedDict):
    """A part of the model. layers: {kind: {name inside a block: layer}}."""

    role: NotRequired[str | None]
    stacks: Mapping[str, StackSection]
    layers: Mapping[str, Mapping[str, LayerSection]]
    folds: NotRequired[Sequence[FoldSection] | None]


class ModelSection(TypedDict):
    """A model: where its weights are, its dtypes, its config and its parts (see `config.schema.ModelConfig`).

    config: config.json of the checkpoint, written out. adapter: see `models.image_text.adapter`. tied: groups of parameter names that are one tensor.
    not_addressable: {role: why the model has no part of it}. prompts: {kind of task: the user's text}, with {} for a
    question. chat: what stands around the user's text: `template` is the checkpoint's own chat template, anything else a
    text with {} for the user's and the picture's token; null is nothing. allow_partial: whether a model may be swept
    whose weights are mostly in no linear layer. stored: the dtype in which what is not quantized is written; null: that
    of its stage. original: the folder of what a quantized checkpoint was made from.
    """

    name: str
    family: str
    config: Mapping[str, object]
    parts: Mapping[str, PartSection]
    tied: NotRequired[Sequence[Sequence[str]] | None]
    architecture: NotRequired[str | None]
    path: NotRequired[str | None]
    original: NotRequired[str | None]
    hub_id: NotRequired[str | None]
    revision: NotRequired[str | None]
    dtype: NotRequired[str]
    dtype_per_part: NotRequired[Mapping[str, str | None] | None]
    stored: NotRequired[str | None]
    device_map: NotRequired[str | Mapping[str, int | str] | None]
    adapter: NotRequired[Mapping[str, object] | None]
    not_addressable: NotRequired[Mapping[str, str] | None]
    prompts: NotRequired[Mapping[str, str] | None]
    chat: NotRequired[str | None]
    allow_partial: NotRequired[bool]
