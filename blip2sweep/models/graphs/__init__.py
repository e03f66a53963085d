"""A model as a few graphs of tensors: what back ends outside of torch compile and run, and what is exported for them.

An architecture that has them offers a function `graphs` in its implementation (`HasGraphs`). A graph is a module whose
forward takes and returns tensors alone, so that it can be traced. What is between graphs (prompts, padding, choosing
tokens) stays in Python and is the same for every back end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from blip2sweep.models.architecture import ImageStage, Processor
    from blip2sweep.models.language import Language


class Input(NamedTuple):
    """An input of a graph. example: a tensor of its dtype, with two rows. free: {axis: the name of its length}."""

    name: str
    example: Tensor
    free: Mapping[int, str]


class State(NamedTuple):
    """Keys or values that a graph reads and writes: an input `past`, and an output `present` that holds it and more.

    shape: of one row, such as (heads, 0, width). The axis of 0 grows by the tokens of each call. dtype float32.
    """

    past: str
    present: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """One graph. name: of its file, and of the stage that it computes.

    module: its forward takes the inputs and then the pasts, each in order, and returns a tuple of the outputs and then
    the presents. paths: {path of a submodule inside `module`: its path in the model}, so that a layer of a recipe is
    found again in the graph. What lies below such a submodule has the same path below both.
    """

    name: str
    module: nn.Module
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    paths: Mapping[str, str]
    states: tuple[State, ...] = ()


class Session(Protocol):
    """A compiled graph. Tensors are on the CPU; floats are float32, token ids and masks int64, choices bool."""

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Outputs by name, without the states."""

    def start(self, rows: int) -> None:
        """Empty the states for so many rows. Needed before the first call of a graph that has states."""

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the states, in this order."""

    def unchanged(self) -> AbstractContextManager[None]:
        """Afterwards the states are as before."""


class Stages(NamedTuple):
    """What a worker runs in place of a model's own stages: the fields of `Loaded`."""

    images: tuple[ImageStage, ...]
    language: Language


@dataclass(frozen=True, eq=False)
class Graphs:
    """The graphs of one model. stages: makes, of a session for each graph, what a worker evaluates."""

    graphs: tuple[Graph, ...]
    stages: Callable[[Mapping[str, Session]], Stages]


@runtime_checkable
class HasGraphs(Protocol):
    """An implementation (models/architecture.py) whose model can be graphs."""

    def graphs(self, model: PreTrainedModel, processor: Processor, family: str) -> Graphs:
        """The graphs of a model on the CPU, in float32. Raises UserError for a family that has none."""
