"""A graph that OpenVINO runs on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from torch import Tensor

from blip2sweep.machine.signal_stack import signal_stack_kept


class OpenVinoSession:
    """A `Session` (blip2sweep/models/graphs) of an IR file. properties: of the CPU plugin."""

    def __init__(self, xml: Path, properties: Mapping[str, object]) -> None:
        with signal_stack_kept():
            model = ov.Core().read_model(xml)
            self.request = ov.Core().compile_model(model, "CPU", dict(properties)).create_infer_request()
        self.shapes = {v.get_info().variable_id: v.get_info().data_shape for v in model.get_variables()}

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        found = self.request.infer({name: x.contiguous().numpy() for name, x in inputs.items()}, share_inputs=True)
        return {port.get_any_name(): torch.from_numpy(x) for port, x in found.items()}

    def start(self, rows: int) -> None:
        for state in self.request.query_state():
            sizes = [0 if d.is_dynamic else d.get_length() for d in self.shapes[state.name]]
            state.state = ov.Tensor(np.zeros([rows, *sizes[1:]], np.float32))

    def select(self, rows: Tensor) -> None:
        chosen = rows.numpy()
        for state in self.request.query_state():
            state.state = ov.Tensor(state.state.data[chosen])

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        before = {state.name: ov.Tensor(state.state.data.copy()) for state in self.request.query_state()}
        yield
        for state in self.request.query_state():
            state.state = before[state.name]
