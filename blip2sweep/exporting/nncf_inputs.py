"""The inputs of each graph on the calibration samples, row by row, as NNCF measures them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2sweep.machine.signal_stack import signal_stack_kept
from blip2sweep.models.graphs import Graph, Graphs, Session
from blip2sweep.models.graphs.decoder import GraphDecoder
from blip2sweep.models.images import load_pixels
from blip2sweep.models.load import Loaded
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.tasks.question_text import prompts

if TYPE_CHECKING:
    import numpy as np
    import openvino as ov

Item = dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"]  # {input: array} of one call

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


class Recorder:
    """A `Session` of a graph whose states are inputs and outputs. It remembers what it is called with while it is asked to.

    model: inputs and outputs are named as in the graph, pasts and presents too. threads: of the CPU.
    """

    def __init__(self, graph: Graph, model: ov.Model, threads: int) -> None:
        self.graph, self.threads = graph, threads
        self.items: list[Item] | None = None
        self._states: list[Tensor] = []
        self.run_with(model)

    def run_with(self, model: ov.Model) -> None:
        """Another model for the graph from now on."""
        import openvino as ov

        options = {**EXACT, "INFERENCE_NUM_THREADS": self.threads}
        with signal_stack_kept():
            self._compiled = ov.Core().compile_model(model.clone(), "CPU", options)

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        pasts = {s.past: x for s, x in zip(self.graph.states, self._states, strict=True)}
        item: Item = {name: x.numpy() for name, x in {**inputs, **pasts}.items()}
        if self.items is not None:
            self.items.append({name: x.copy() for name, x in item.items()})
        names = [*self.graph.outputs, *(s.present for s in self.graph.states)]
        found = self._compiled(item)
        outputs = {name: torch.from_numpy(found[name].copy()) for name in names}
        self._states = [outputs.pop(s.present) for s in self.graph.states]
        return outputs

    def start(self, rows: int) -> None:
        self._states = [torch.zeros(rows, *s.shape) for s in self.graph.states]

    def select(self, rows: Tensor) -> None:
        self._states = [x[rows] for x in self._states]

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        before = self._states
        yield
        self._states = before


class GraphInputs:
    """What the graphs of a model read on the calibration samples.

    Stages are run one after the other: where a graph is exchanged by `exchange`, those behind it see what it puts out.
    """

    def __init__(
        self, loaded: Loaded, graphs: Graphs, models: Mapping[str, ov.Model], calibration: Calibration
    ) -> None:
        self.loaded, self.calibration, self.graphs = loaded, calibration, graphs
        self._sessions = {g.name: Recorder(g, models[g.name], calibration.threads) for g in graphs.graphs}
        sessions: dict[str, Session] = {**self._sessions}
        self._images, self._language = graphs.stages(sessions)
        self._rows: list[list[Rows]] = []  # of each image stage, image by image

    def exchange(self, name: str, model: ov.Model) -> None:
        """Run a graph with another model from now on."""
        self._sessions[name].run_with(model)

    def of(self, name: str) -> list[Item]:
        """The calls of a graph: one for each image, or for each text that the last stage reads."""
        recorder = self._sessions[name]
        found: list[Item] = []
        recorder.items = found
        stage = next((i for i, s in enumerate(self._images) if s.name == name), None)
        if stage is None:
            self._read_all()
        else:
            for rows in self._into(stage):
                self._images[stage].run(rows)
        recorder.items = None
        return found

    def _into(self, stage: int) -> list[Rows]:
        """The inputs of image stage number `stage`."""
        if not self._rows:
            pixels = load_pixels(self.loaded, self.calibration.data, batch_size=self.calibration.batch).rows
            assert pixels is not None
            self._rows.append(pixels.split(1))
        while len(self._rows) <= stage:
            before = self._images[len(self._rows) - 1]
            self._rows.append([before.run(rows) for rows in self._rows[-1]])
        return self._rows[stage]

    def _read_all(self) -> None:
        chosen, data = self.calibration, self.calibration.data
        pictures = dict(zip((i for i in data.images), self._into(len(self._images)), strict=True))
        asked = self._language.prompt_ids(prompts(data.rules, data.samples, chosen.prompt, chosen.question))
        answers = [data.rules.targets(s, 1)[0] for s in data.samples]
        references = self._language.reference_ids(answers, bool(chosen.prompt))
        for sample, prompt, reference in zip(data.samples, asked, references, strict=True):
            self._read(pictures[sample.image_id], prompt, reference)

    def _read(self, picture: Rows, prompt: Ids, reference: Ids) -> None:
        """A decoder reads prompt and reference at once, as while it is trained. Others read them one after the other."""
        language = self._language
        if isinstance(language, GraphDecoder) and language.one_stream:
            language.prefill(picture, [language.as_read(prompt, reference)])
        else:
            language.prefill(picture, [prompt]).likelihood([reference])
