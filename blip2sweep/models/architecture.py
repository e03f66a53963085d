"""What an architecture is to the rest: one module, named by `model.architecture`, with two faces.

Planning reads the module itself: the stages in the order of computation, and what it must know of
the language model. A worker asks it for its `Implementation`, which may. A new architecture is a module with the names of
`Architecture`, a line in ARCHITECTURES, and a YAML file in conf/model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast, runtime_checkable

from blip2sweep import outside
from blip2sweep.errors import UserError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor, device
    from transformers import PreTrainedConfig, PreTrainedModel

    from blip2sweep.models.ragged import Rows
    from blip2sweep.models.text import Ids, Likelihood, Text
    from blip2sweep.tasks.generation import Generation

ARCHITECTURES = {"blip2": "blip2sweep.models.blip2"}
FIRST = "blip2"  # the architecture of packs that were written before configs named one


# ---- what planning reads


class Stage(NamedTuple):
    """A step of the forward pass: the model's children that compute it, and its lists of blocks in their order.

    children: module paths, so that a parameter belongs to the stage whose child it is or lies in. by_block: a pass may stop
    between two of its blocks and go on from there (`BlockStage`). The last stage is the language model's: all others see
    images alone. A part belongs to the stage that its stacks lie in.
    """

    name: str
    children: tuple[str, ...]
    stacks: tuple[str, ...]
    by_block: bool = False

    def holds(self, path: str) -> bool:
        """Whether a module or parameter path is one of its children, or lies in one."""
        return any(path == child or path.startswith(child + ".") for child in self.children)


class Family(NamedTuple):
    """A kind of language model that an architecture comes with, as planning knows it.

    stacks: its lists of blocks in the order of computation. prompt_alone: a stack of it reads the prompt without the
    reference, so that without a picture and a question it would read the same tokens every time. presets: the family in
    conf/generation whose presets it takes, null where they have its own name.
    """

    stacks: tuple[str, ...]
    prompt_alone: bool = False
    presets: str | None = None


class Architecture(Protocol):
    """The names of an architecture's module, which planning imports: those of this package import no torch.

    MODEL_TYPE: what config.json calls it; FAMILIES: its language models by `model.family`.
    """

    MODEL_TYPE: str
    FAMILIES: Mapping[str, Family]

    def stages(self, family: str) -> tuple[Stage, ...]:
        """In the order of computation; family is one of FAMILIES."""

    def implementation(self) -> Implementation:
        """What a worker runs: another module, or this one where it imports torch all the same."""


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
    """The stages of a model config, in the order of computation. Raises UserError for an unknown family."""
    assert family(model)
    return architecture(model).stages(str(model["family"]))


# ---- what a worker runs


class Processor(Protocol):
    """Tokenizer and image processor. image_processor.to_dict() says how files become pixels."""

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
        """From what the stage before puts out (the first: pixels, on any device) to its own output, a row an image."""


@runtime_checkable
class BlockStage(ImageStage, Protocol):
    """A stage that can be entered and left between blocks: `run` is leave(blocks(enter(rows), 0, n_blocks)).

    A state holds all that the later blocks need, such as grid sizes in `Rows.further`: it may come from another cell.
    """

    @property
    def n_blocks(self) -> int: ...

    def enter(self, rows: Rows) -> Rows:
        """The state before block 0."""

    def blocks(self, state: Rows, start: int, stop: int) -> Rows:
        """From the state before block `start` to that before block `stop`."""

    def leave(self, state: Rows) -> Rows:
        """From the state after the last block to the stage's output."""


class Begun(Protocol):
    """Pictures and prompts that have been read. Likelihoods may be asked for any number of times, before the text."""

    def likelihood(self, references: Sequence[Ids]) -> list[Likelihood]:
        """Of one reference (ids with their end; may be empty) a row, given picture and prompt."""

    def generate(self, generation: Generation) -> list[Text]:
        """One text a row, deterministically. What was read is used up."""


class Language(Protocol):
    """The last stage: what a language model reads, writes and puts out. Pictures are rows of the stage before."""

    def prompt_ids(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids with the special tokens that stand around a prompt."""

    def reference_ids(self, references: Sequence[str], prompted: bool) -> list[Ids]:
        """Token ids of references, each with its end. prompted: there is a text before them."""

    def begin(self, pictures: Rows, prompts: Sequence[Ids]) -> Begun:
        """Read pictures and as many prompts, of any lengths. Raises RuntimeError for pictures that are none."""

    def row_bytes(self, generation: Generation) -> int:
        """Bytes that the keys and values of a row take while it is written, all beams together."""

    # For calibration and error propagation: one forward pass over rows of one length, as the model is trained.

    def as_read(self, prompt: Ids, reference: Ids) -> Ids:
        """The text that stands behind the picture in the stream in which pictures are."""

    def pictured(self, text: Ids, tokens: int) -> list[bool]:
        """Of each token of that stream, whether it is one of the picture's `tokens`."""

    def read(self, pictures: Rows | None, texts: Sequence[Ids], references: Sequence[Ids]) -> object:
        """One pass over rows without padding; texts: from `as_read`. pictures: null leaves them out."""

    def logits(self, output: object) -> Tensor:
        """(rows, tokens, vocabulary) of what `read` gave."""

    def in_stream(self, path: str) -> bool:
        """Whether the inputs of the layer at a module path are tokens of the stream in which pictures are."""


class Implementation(Protocol):
    """What a worker runs of an architecture; a module with these names is one.

    config_class, model_class: of transformers, or with the same from_dict, from_pretrained and constructor.
    """

    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]

    def config_mistakes(self, config: PreTrainedConfig) -> Iterable[str]:
        """What must hold inside config.json, whatever conf/model says."""

    def read_processor(self, folder: Path, config: PreTrainedConfig) -> tuple[Processor | None, list[str]]:
        """(processor, mistakes): None where a piece of it cannot be read. One that would leave the image out is a mistake."""

    def pixels(self, processor: Processor, image: Image) -> Rows:
        """One row: what the first stage reads of an image."""

    def image_stages(self, model: PreTrainedModel, where: device) -> tuple[ImageStage, ...]:
        """The stages before the last, of the names and in the order of `Architecture.stages`. where: of inputs."""

    def language(self, model: PreTrainedModel, processor: Processor, family: str) -> Language:
        """The last stage."""
