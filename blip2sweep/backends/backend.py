"""What runs cells: the protocol of a back end, its answers, and the names of the back ends.

A worker makes one back end from its pack's settings, tells it which cells will come, and has it run them one by one. A
back end other than torch is part of a cell's identity, so its rows never count as torch's. Its module is imported while
a sweep is planned, so it imports its library only when it is made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypedDict, cast, runtime_checkable

from blip2sweep import outside
from blip2sweep.cache.listing import listed_before
from blip2sweep.errors import UserError, nearest
from blip2sweep.machine.unprobed import EXTRAS, unprobed
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.latency import Latency
from blip2sweep.wire.lines import Cost, Provenance
from blip2sweep.wire.pack import BackendChoice, CellJob, JsonObject, Settings
from blip2sweep.wire.stopping import Stopped

if TYPE_CHECKING:
    from blip2sweep.recipe import Recipe
    from blip2sweep.tasks.generation import Generation
    from blip2sweep.wire.model_section import ModelSection

TORCH = "torch"  # its cells have no back end in their identity
BACKENDS: Mapping[str, str] = {
    TORCH: "blip2sweep.backends.torch.backend:TorchBackend",
    "dummy": "blip2sweep.backends.dummy:Dummy",
    "openvino": "blip2sweep.backends.openvino.backend:OpenVino",
    "onnxruntime": "blip2sweep.backends.onnxruntime.backend:OnnxRuntime",
}
# Their names in packs of version 0.1 (`runner` in their settings). To be removed on 2027-06-01.
RUNNERS: Mapping[str, str] = {
    "blip2sweep.sweep.runner:Runner": TORCH,
    "blip2sweep.backends.torch.backend:Runner": TORCH,
    "blip2sweep.sweep.dummy:Dummy": "dummy",
    "blip2sweep.backends.dummy:Dummy": "dummy",
}


class NoImage(UserError):
    """None of a job's images could be read. Where several processes share a cell, the others may have some."""


class Artifacts(TypedDict, total=False):
    """What is too long for a line of the ledger, by the folder it goes to."""

    layers: JsonObject  # {layer: what calibration measured of it}
    propagation: Sequence[Mapping[str, object]]  # how far activations moved, block by block


@dataclass(frozen=True)
class SecondRun:
    """A second run of the same cell: its predictions, and what the result line says of it (how many outputs differ)."""

    predictions: Predictions
    summary: JsonObject


@dataclass(frozen=True)
class Answered:
    """The result of one cell. cost: seconds, `batch_size` and other costs, by column."""

    predictions: Predictions
    cost: Cost
    layers_changed: int = 0
    provenance: Provenance = field(default_factory=lambda: Provenance())
    noise: SecondRun | None = None  # a baseline in half precision, at another batch size
    calibration_noise: Mapping[str, SecondRun] = field(default_factory=dict)  # by what was calibrated otherwise
    artifacts: Artifacts = field(default_factory=lambda: Artifacts())
    stopped: Stopped | None = None  # of a cell that did not see all images


class Backend(Protocol):
    """Runs the cells of a pack one after the other in one process."""

    def __init__(self, settings: Settings) -> None: ...

    @classmethod
    def identity(cls, choice: BackendChoice) -> JsonObject:
        """What enters the identity of its cells: name, version, and the options that change predictions.

        choice: the composed section `backend`. Raises UserError where the back end cannot be used here.
        """
        ...

    @property
    def warning(self) -> str | None:
        """What the user of the sweep should hear even if every cell is well; None where there is nothing."""
        ...

    def expect(self, jobs: Sequence[CellJob]) -> None:
        """Set the jobs that will come, in their order. What they share is kept while a later job wants it."""
        ...

    def __call__(self, job: CellJob, batch_size: int | None = None) -> Answered:
        """Run one cell. batch_size: replaces that of the settings. Any exception is the cell's failure.

        Its samples are those of `tasks.planned_task(job["task"])`: a process that shares the cell has some of them.
        """
        ...


class Times(Protocol):
    """What a back end may have besides: it measures latency. Of one without no cell is timed (`analysis.latency`).

    RUNS_ALL: whether the kernels of every recipe really run, as where the back end compiles them. torch's run where they
    are not simulated (blip2sweep/recipe/simulated.py).
    """

    RUNS_ALL: bool

    @property
    def device_name(self) -> str:
        """The name of the device it runs on, by which latencies are kept."""
        ...

    def measure(self, job: CellJob) -> Sequence[Latency]:
        """Time a cell and its baseline in turns, at batch 1 and at the largest batch. Any exception is told, and the
        cell stays done."""
        ...


class Rounds(Protocol):
    """What a back end may have besides: it is asked for a cell in rounds, each of some of its images, so that the cell
    may stop before it has seen all (`evaluation.stop`). Of one without, cells see all images.

    ROUNDS: true where what the back end made of the model for a cell is still there in the cell's next round.
    """

    ROUNDS: bool


@runtime_checkable
class SideBySide(Protocol):
    """What a back end with `Rounds` may have besides: it computes rounds of several cells at once, where it knows which
    ones are asked for next. Each has the answers that it has by itself."""

    def alike(self, job: CellJob) -> str | None:
        """What cells have in common whose rounds are computed at once. None for one that is always alone."""
        ...

    def fills(self, job: CellJob) -> bool:
        """Whether a round is long enough by itself, so that nothing is gained by others."""
        ...

    def comes(self, jobs: Sequence[CellJob]) -> None:
        """Set the rounds that are asked for next, in their order; none where each is alone."""
        ...


class Asked(NamedTuple):
    """A cell as it is planned. requests: what its task asks of a model."""

    recipe: Recipe
    model: ModelSection
    generation: Generation
    requests: Collection[str]


@runtime_checkable
class Refuses(Protocol):
    """What a back end may have besides: it cannot run every cell, and says so while a sweep is planned."""

    @classmethod
    def mistakes(cls, choice: BackendChoice, asked: Asked) -> Iterable[str]:
        """Why it cannot run a cell, each in one sentence."""
        ...


def backend_class(name: str) -> type[Backend]:
    """The class of a back end. Raises UserError for an unknown name."""
    if name not in BACKENDS:
        return _from_outside(name)
    module, _, attribute = BACKENDS[name].partition(":")
    return cast("type[Backend]", getattr(import_module(module), attribute))


def in_rounds(name: str | None) -> bool:
    """Whether a back end answers a cell in rounds of some of its images (`Rounds`); None is torch."""
    return name is None or bool(getattr(backend_class(name), "ROUNDS", False))


def _from_outside(name: str) -> type[Backend]:
    """The class that the module of a name calls BACKEND."""
    found = outside.find("backends", name)
    if found is None:
        raise UserError(f"backend={name}: no such back end; {nearest(name, [*BACKENDS, *outside.names('backends')])}")
    made = getattr(found.having(("BACKEND",)), "BACKEND")  # noqa: B009
    lacking = [n for n in ("identity", "expect") if not hasattr(made, n)]
    if lacking or not callable(made):
        raise UserError(
            f"{found.where}: its BACKEND lacks {', '.join(lacking) or 'a class'}; right: every name of {outside.PAGE}"
        )
    return cast("type[Backend]", made)


def identity_of(choice: BackendChoice) -> JsonObject | None:
    """What a back end adds to a cell's identity. None for torch, whose library is then not imported."""
    options = choice.get("options") or {}
    if choice["name"] == TORCH:
        if options:
            raise UserError(f"backend.options.{min(options)}: torch has no such option; right: leave it out")
        return None
    own = backend_class(choice["name"]).identity(choice)
    return {"options": options, **own} if options else own


def choice_of(settings: Settings) -> BackendChoice:
    """The back end of a pack, also of a pack that version 0.1 wrote."""
    if "backend" in settings:
        return settings["backend"]
    runner = settings.get("runner")
    if runner is None:
        return BackendChoice(name=TORCH)
    if runner not in RUNNERS:
        raise UserError(
            f"settings.runner={runner}: no back end of this version; right: the command again, with backend=…"
        )
    return BackendChoice(name=RUNNERS[runner])


def load_backend(settings: Settings) -> Backend:
    """The back end of a pack, ready for its cells. Its library is imported here."""
    name = choice_of(settings)["name"]
    with listed_before(), unprobed(*(EXTRAS if name == TORCH else ())):  # 2 s of every worker, which few use
        made = backend_class(name)
    return made(settings)
