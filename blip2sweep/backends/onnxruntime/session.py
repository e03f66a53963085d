"""A graph that onnxruntime has compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import onnxruntime
import torch
from onnxruntime import OrtValue
from torch import Tensor

from blip2sweep.errors import UserError
from blip2sweep.models.graphs import State

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class How(NamedTuple):
    """provider: `cpu` or `cuda`. level: of graph optimization, `none`, `basic`, `extended` or `all`. threads: of the CPU."""

    provider: str = "cpu"
    level: str = "all"
    threads: int = 1


def compiled(path: Path, how: How) -> onnxruntime.InferenceSession:
    """A graph in a file, with the weights beside it. Raises UserError where onnxruntime cannot read or run it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = how.threads, 1
    options.graph_optimization_level = LEVELS[how.level]
    options.log_severity_level = 3  # what it would warn of is its own choice of kernels
    # Where it makes MatMulNBits of other operators, inputs stay in float32 too.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[PROVIDERS[how.provider]])
    except Exception as error:  # its errors have no common class but this
        raise UserError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot run it ({_first_line(error)}); right: a whole folder that "
            "`blip2sweep export --to onnx` of this version wrote"
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


class OrtSession:
    """A `Session` (models/graphs): tensors go in and come out without a copy where they are on the CPU, and states stay
    on the provider's device."""

    def __init__(
        self, session: onnxruntime.InferenceSession, outputs: Sequence[str], states: Sequence[State] = ()
    ) -> None:
        self.session, self.outputs, self.states = session, outputs, states
        self.device = "cuda" if PROVIDERS["cuda"] in session.get_providers() else "cpu"
        self.held: dict[str, OrtValue] = {}  # by the name of the past

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        binding = self.session.io_binding()
        given = {name: OrtValue.ortvalue_from_numpy(x.contiguous().numpy()) for name, x in inputs.items()}
        for name, value in {**given, **self.held}.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, "cpu")
        for state in self.states:
            binding.bind_output(state.present, self.device)
        self.session.run_with_iobinding(binding)
        found = dict(zip([*self.outputs, *(s.present for s in self.states)], binding.get_outputs(), strict=True))
        self.held = {s.past: found[s.present] for s in self.states}
        return {name: torch.from_numpy(found[name].numpy()) for name in self.outputs}

    def start(self, rows: int) -> None:
        self.held = {s.past: self._put(torch.zeros(rows, *s.shape)) for s in self.states}

    def select(self, rows: Tensor) -> None:
        self.held = {name: self._put(torch.from_numpy(x.numpy())[rows]) for name, x in self.held.items()}

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        before = self.held
        yield
        self.held = before

    def _put(self, x: Tensor) -> OrtValue:
        return OrtValue.ortvalue_from_numpy(x.contiguous().numpy(), self.device)
