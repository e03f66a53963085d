"""What an architecture is to the rest: one module, named by `model.architecture`, with two faces.

Planning reads the module itself: the stages in the order of computation, and its language models. A worker asks it for
its `Implementation`, which imports torch. A new architecture is a module with the names of `Architecture`, a line in
ARCHITECTURES, and a YAML file in conf/model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast, runtime_checkable

from blip2sweep import outside
from blip2sweep.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from PIL.Image import Image
    from torch import device
    from transformers import PreTrainedConfig, PreTrainedModel

    from blip2sweep.models.language import Language
    from blip2sweep.models.ragged import Rows
    from blip2sweep.models.work import Asked, Work
    from blip2sweep.tasks.task import RequestType

ARCHITECTURES = {
    "blip2": "blip2sweep.models.blip2",
    "blip2_retrieval": "blip2sweep.models.blip2.retrieval",
    "blip_caption": "blip2sweep.models.blip.caption",
    "blip_vqa": "blip2sweep.models.blip.vqa",
    "image_text": "blip2sweep.models.image_text",
    "instructblip": "blip2sweep.models.instructblip",
}
WRITES: tuple[RequestType, ...] = ("generate", "likelihood", "choose")  # what a language model answers
FIRST = "blip2"  # the architecture of packs that were written before configs named one


# ---- what planning reads


class Stage(NamedTuple):
    """A step of the forward pass.

    children: paths of the modules that compute it. A parameter belongs to the stage whose child it is or lies in, and
    to the one of the longest path where several hold it (`stage_of`). The path "" holds all that no other does.
    stacks: paths of its lists of blocks, in their order. A part belongs to the stage that its stacks lie in. by_block:
    a pass may stop between two of its blocks and go on from there (`BlockStage`). residual: its blocks add to what they
    get, so a block can be left out. The last stage is the language model's; the others see images alone.
    """

    name: str
    children: tuple[str, ...]
    stacks: tuple[str, ...]
    by_block: bool = False
    residual: bool = True

    def holds(self, path: str) -> bool:
        """Whether a module or parameter path is one of its children, or lies in one."""
        return self.depth(path) >= 0

    def depth(self, path: str) -> int:
        """The length of its longest child that holds a path; -1 where none does."""
        held = (child for child in self.children if not child or path == child or path.startswith(child + "."))
        return max(map(len, held), default=-1)


def stage_of(path: str, stages: Sequence[Stage]) -> Stage:
    """The stage that computes a module or parameter."""
    return max(stages, key=lambda stage: stage.depth(path))


class Family(NamedTuple):
    """A kind of language model of an architecture, as planning knows it.

    stacks: its lists of blocks in the order of computation. prompt_alone: one of its stacks reads the prompt without
    the reference. Without a picture and a question that stack would read the same tokens every time. presets: the
    family in conf/generation whose presets it takes; None where they have its own name. behind_pictures: lists of
    blocks in the last stage that read pictures by cross-attention: they cannot run without one, and none of their own
    tokens is a picture's (`Part.reads_text`).
    """

    stacks: tuple[str, ...]
    prompt_alone: bool = False
    presets: str | None = None
    behind_pictures: tuple[str, ...] = ()


class Architecture(Protocol):
    """The names of an architecture's module. Planning imports it, so those of this package import no torch.

    MODEL_TYPE: the `model_type` of config.json; None where the model config names one in its `config`. FAMILIES: its
    language models by `model.family`. A model is a composed `model` section. An architecture that answers other
    requests than WRITES names them in REQUESTS; its last stage is then a `Matcher` where `match` is among them. One whose
    FLOPs are known has a function `work` (see below). One that needs more of a library than this package has a function
    `check_library` of the same argument, which raises UserError where that is not here.
    """

    MODEL_TYPE: str | None
    FAMILIES: Mapping[str, Family]

    def stages(self, model: Mapping[str, object]) -> tuple[Stage, ...]:
        """The stages in the order of computation. The model's family is one of FAMILIES."""

    def implementation(self, model: Mapping[str, object]) -> Implementation:
        """What a worker runs: another module, this one, or an object."""


def architecture(model: Mapping[str, object]) -> Architecture:
    """The architecture of a model config. Raises UserError for an unknown one."""
    name = str(model.get("architecture") or FIRST)
    unknown = f"model.architecture={name}: unknown"
    return cast(Architecture, outside.module_of("architectures", name, ARCHITECTURES, Architecture, unknown))


def family(model: Mapping[str, object]) -> Family:
    """The language model of a model config. Raises UserError for an unknown one."""
    known, name = architecture(model).FAMILIES, str(model["family"])
    if name not in known:
        raise UserError(f"model.family={name}: unknown; {nearest(name, known)}")
    return known[name]


def stages(model: Mapping[str, object]) -> tuple[Stage, ...]:
    """The stages of a model config in the order of computation. Raises UserError for an unknown family."""
    assert family(model)
    return architecture(model).stages(model)


def asked_as(model: Mapping[str, object]) -> dict[str, object]:
    """How a model config has a model asked: what stands around a text, and what its forward wants otherwise.

    It belongs to whatever the model computes of texts. Empty where the config says nothing, or what is usual.
    """
    from blip2sweep.models.image_text.adapter import Adapter

    given, usual = cast("Mapping[str, object]", model.get("adapter") or {}), Adapter._field_defaults
    adapter = {k: v for k, v in given.items() if k != "image_token" and v != usual.get(k)}
    return {**({"chat": model["chat"]} if model.get("chat") else {}), **({"adapter": adapter} if adapter else {})}


def implementation(model: Mapping[str, object]) -> Implementation:
    """What a worker runs of a model config. Raises UserError for an unknown architecture."""
    return architecture(model).implementation(model)


def requests(model: Mapping[str, object]) -> Collection[RequestType]:
    """The types of requests that a model answers."""
    found: Collection[RequestType] = getattr(architecture(model), "REQUESTS", WRITES)
    return found


def work(model: Mapping[str, object], config: Mapping[str, object], asked: Asked) -> tuple[Work, ...] | None:
    """What a model computes of one sample (models/work.py); None where its architecture does not say.

    config: the whole config, with all defaults. A model config has only the fields that it needs. An architecture says it by
    a function `work` of the same arguments.
    """
    own = getattr(architecture(model), "work", None)
    return None if own is None else tuple(own(model, config, asked)) or None


def no_graphs(model: Mapping[str, object]) -> str | None:
    """Why a model cannot be graphs (models/graphs), in one sentence; None where it can.

    An architecture whose models can has a function `no_graphs` of the same argument.
    """
    own = getattr(architecture(model), "no_graphs", None)
    name = str(model.get("architecture") or FIRST)
    found: str | None = f"no graphs of architecture {name}; right: backend=torch" if own is None else own(model)
    return found


def left_out(model: Mapping[str, object]) -> Mapping[str, Sequence[str]]:
    """What no graph of a model reads beside the blocks whose outputs nothing reads: {stage: words of the names of modules}.

    An architecture with such modules has a function `left_out` of the same argument.
    """
    own = getattr(architecture(model), "left_out", None)
    found: Mapping[str, Sequence[str]] = {} if own is None else own(model)
    return found


# ---- what a worker runs


class Processor(Protocol):
    """A tokenizer and an image processor. image_processor.to_dict() says how files become pixels."""

    @property
    def image_processor(self) -> ImageProcessor: ...

    def save_pretrained(self, folder: Path) -> object: ...


class ImageProcessor(Protocol):
    def to_dict(self) -> dict[str, object]: ...


@runtime_checkable
class ImageStage(Protocol):
    """A stage before the language model's, over rows of images."""

    name: str

    def run(self, rows: Rows) -> Rows:
        """From the output of the stage before to its own output, one row for each image.

        The first stage gets pixels, on any device.
        """


@runtime_checkable
class BlockStage(ImageStage, Protocol):
    """A stage that can be entered and left between blocks: `run` is leave(blocks(enter(rows), 0, n_blocks)).

    A state holds all that the later blocks need, such as grid sizes in `Rows.further`, because it may come from another
    cell.
    """

    @property
    def n_blocks(self) -> int: ...

    def enter(self, rows: Rows) -> Rows:
        """The state before block 0."""

    def blocks(self, state: Rows, start: int, stop: int) -> Rows:
        """From the state before block `start` to that before block `stop`."""

    def leave(self, state: Rows) -> Rows:
        """From the state after the last block to the stage's output."""


class Implementation(Protocol):
    """What a worker runs of an architecture. A module with these names is one.

    config_class, model_class: of transformers, or with the same from_dict, from_pretrained and constructor.
    """

    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]

    def config_mistakes(self, config: PreTrainedConfig) -> Iterable[str]:
        """The mistakes inside config.json, whatever conf/model says."""

    def read_processor(self, folder: Path, config: PreTrainedConfig) -> tuple[Processor | None, list[str]]:
        """(processor, mistakes). The processor is None where a piece of it cannot be read.

        A processor that would leave the image out is a mistake.
        """

    def pixels(self, processor: Processor, image: Image) -> Rows:
        """One row: the pixels of an image as the first stage reads them."""

    def image_stages(self, model: PreTrainedModel, where: device) -> tuple[ImageStage, ...]:
        """The stages before the last, with the names and in the order of `Architecture.stages`.

        where: the device of inputs.
        """

    def language(self, model: PreTrainedModel, processor: Processor, family: str) -> Language:
        """The last stage."""
