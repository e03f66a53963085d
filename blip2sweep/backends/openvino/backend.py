"""The OpenVINO back end: IR files on a CPU. Planning imports this module, and no OpenVINO with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.backends.backend import Asked
from blip2sweep.backends.graphs.backend import GraphBackend
from blip2sweep.compression.quantize import installed
from blip2sweep.errors import MissingExtra, UserError, nearest
from blip2sweep.exporting import openvino as form
from blip2sweep.machine.devices import cpu_name
from blip2sweep.wire.pack import BackendChoice, JsonObject

if TYPE_CHECKING:
    from blip2sweep.backends.graphs.worker import GraphWorker
    from blip2sweep.models.graphs import Session

NAME, NNCF = "openvino", "nncf"
EXACT: Mapping[str, str] = {
    "INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}  # fmt: skip
# `default` is what the plugin chooses: on CPUs that have them bfloat16 arithmetic, keys and values of 8 bits, and inputs
# that are quantized on the way.
HINTS: Mapping[str, Mapping[str, str]] = {"exact": EXACT, "default": {}}
NOT_BY_DEFAULT = 2  # bits whose kernel has no bfloat16


class OpenVino(GraphBackend):
    """Its options: `hints`, one of HINTS."""

    @classmethod
    def identity(cls, choice: BackendChoice) -> JsonObject:
        """Name, version of the library, and hints with the properties that they stand for."""
        hints = hints_of(choice)
        if not installed(NAME):
            raise MissingExtra(
                "backend=openvino: needs openvino, which is not installed; right: pip install 'blip2sweep[openvino]'",
                frozenset({"backend", "backend.name"}),
            )
        return {"name": NAME, "version": version(NAME), "options": {"hints": hints}, "properties": dict(HINTS[hints])}

    @classmethod
    def mistakes(cls, choice: BackendChoice, asked: Asked) -> Iterator[str]:
        yield from cls.of_graphs(asked)
        yield from form.mistakes(asked.recipe, asked.model, None)
        two = [x.path for x, scheme in asked.recipe.touched() if scheme.weights.num_bits == NOT_BY_DEFAULT]
        if two and hints_of(choice) == "default":
            yield f"no kernel of {NOT_BY_DEFAULT} bits in bfloat16 ({two[0]}); right: backend.hints=exact"

    def make(self) -> GraphWorker:
        from blip2sweep.backends.graphs.worker import GraphWorker

        libraries: JsonObject = {NAME: version(NAME), "ir": form.VERSION}
        libraries |= {NNCF: version(NNCF)} if installed(NNCF) else {}
        return GraphWorker(self.settings, form, self._compiled, libraries, cpu_name())

    def _compiled(self, folder: Path, names: Sequence[str]) -> Mapping[str, Session]:
        from blip2sweep.backends.graphs.worker import threads_of
        from blip2sweep.backends.openvino.session import OpenVinoSession

        properties = {**HINTS[hints_of(self.settings["backend"])], "INFERENCE_NUM_THREADS": threads_of(self.settings)}
        return {name: OpenVinoSession(folder / f"{name}.xml", properties) for name in names}


def hints_of(choice: BackendChoice) -> str:
    """The hints of a choice. Raises UserError for options that OpenVINO does not have here."""
    options = choice.get("options") or {}
    if others := options.keys() - {"hints"}:
        raise UserError(f"backend.options.{min(others)}: {nearest(min(others), ('hints',))}")
    hints = str(options.get("hints") or "exact")
    if hints not in HINTS:
        raise UserError(f"backend.hints={hints}: {nearest(hints, HINTS)}")
    return hints
