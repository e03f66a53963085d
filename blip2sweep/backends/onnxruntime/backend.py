"""The onnxruntime back end: ONNX files on a CPU or a GPU. Planning imports this module, and no onnxruntime with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from blip2sweep.backends.backend import Answered, Asked, choice_of
from blip2sweep.backends.graphs.backend import GraphBackend
from blip2sweep.canonical import canonical_json
from blip2sweep.compression.quantize import installed, version_of
from blip2sweep.errors import MissingExtra, UserError, nearest
from blip2sweep.exporting import onnx as form
from blip2sweep.wire.pack import BackendChoice, CellJob, JsonObject

if TYPE_CHECKING:
    from blip2sweep.backends.graphs.worker import GraphWorker
    from blip2sweep.models.graphs import Session

NAME, EXTRA, CUDA_PACKAGE = "onnxruntime", "onnx", "onnxruntime-gpu"
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
ALONE = '"ort_int8"'  # a method with inputs of 8 bits, as it stands in a recipe
PROVIDERS = ("cpu", "cuda")
LEVELS = ("none", "basic", "extended", "all")


class Options(NamedTuple):
    """provider: what computes. level: of onnxruntime's graph optimization, which changes roundings."""

    provider: str = "cpu"
    level: str = "all"


class OnnxRuntime(GraphBackend):
    """Its options: those of `Options`. Arithmetic is float32 whatever they are."""

    @classmethod
    def identity(cls, choice: BackendChoice) -> JsonObject:
        """Name, version of the library, and all options."""
        options = options_of(choice)
        if lacking := [name for name in LIBRARIES if not installed(name)]:
            raise MissingExtra(
                f"backend={NAME}: needs {', '.join(lacking)}, which is not installed; right: pip install "
                f"'blip2sweep[{EXTRA}]'",
                frozenset({"backend", "backend.name"}),
            )
        return {"name": NAME, "version": version_of(NAME), "options": options._asdict()}

    @classmethod
    def mistakes(cls, choice: BackendChoice, asked: Asked) -> Iterator[str]:
        yield from cls.of_graphs(asked)
        yield from form.mistakes(asked.recipe, asked.model, None)

    def __call__(self, job: CellJob, batch_size: int | None = None) -> Answered:
        """Run one cell. Where inputs have the range of their tensor, each sample is a batch: its neighbours would change it."""
        alone = ALONE in canonical_json(job["recipe"])
        return self.worker(job, 1 if alone else batch_size)

    def make(self) -> GraphWorker:
        from blip2sweep.backends.graphs.worker import GraphWorker
        from blip2sweep.backends.torch.timing import device_name

        provider = options_of(choice_of(self.settings)).provider
        libraries: JsonObject = {**{name: version_of(name) for name in LIBRARIES}, "graphs": form.VERSION}
        return GraphWorker(self.settings, form, self._compiled, libraries, device_name(provider))

    def _compiled(self, folder: Path, names: Sequence[str]) -> Mapping[str, Session]:
        from blip2sweep.backends.graphs.worker import threads_of
        from blip2sweep.backends.onnxruntime.session import OrtSession, compiled

        options, threads = options_of(choice_of(self.settings)), threads_of(self.settings)
        return {
            name: OrtSession(compiled(folder / f"{name}.onnx", options.provider, options.level, threads))
            for name in names
        }


def has_cuda() -> bool:
    """Whether the package that is installed has kernels for GPUs."""
    try:
        return bool(version(CUDA_PACKAGE))
    except PackageNotFoundError:
        return False


def options_of(choice: BackendChoice) -> Options:
    """The options of a choice. Raises UserError for options that onnxruntime does not have here."""
    given = choice.get("options") or {}
    if others := given.keys() - set(Options._fields):
        raise UserError(f"backend.options.{min(others)}: {nearest(min(others), Options._fields)}")
    options = Options(**{name: str(value) for name, value in given.items() if value})
    for name, known in (("provider", PROVIDERS), ("level", LEVELS)):
        value = getattr(options, name)
        if value not in known:
            raise UserError(f"backend.{name}={value}: {nearest(value, known)}")
    if options.provider == "cuda" and not has_cuda():
        raise UserError(
            f"backend.provider=cuda: the onnxruntime that is installed has the CPU's kernels alone; right: pip install "
            f"{CUDA_PACKAGE} in place of onnxruntime, or provider=cpu"
        )
    return options
