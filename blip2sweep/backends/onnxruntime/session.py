"""A graph that onnxruntime has compiled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime
import torch
from onnxruntime import OrtValue
from torch import Tensor

from blip2sweep.errors import UserError
from blip2sweep.exporting.onnx_graphs.saved import STATES

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def compiled(path: Path, provider: str, level: str, threads: int) -> onnxruntime.InferenceSession:
    """A graph in a file, with the weights beside it. provider: of PROVIDERS. level: of LEVELS. threads: of the CPU.

    Raises UserError where the provider is not there, and where onnxruntime cannot read or run the file.
    """
    wanted, there = PROVIDERS[provider], onnxruntime.get_available_providers()
    if wanted not in there:
        raise UserError(f"backend.provider={provider}: onnxruntime has {', '.join(there)} here; right: provider=cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = LEVELS[level]
    options.log_severity_level = 3  # what it would warn of is its own choice of kernels
    # Where it makes MatMulNBits of other operators, inputs stay in float32 too.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[wanted])
    except Exception as error:  # its errors have no class of their own in common
        raise UserError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot run it ({_first_line(error)}); right: a whole folder of "
            f"`blip2sweep export --to onnx` of this version"
        ) from error
    if wanted not in session.get_providers():  # it falls back to the CPU and only logs why
        raise UserError(f"backend.provider={provider}: onnxruntime could not start it; right: provider=cpu")
    return session


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


class OrtSession:
    """A `Session` (models/graphs): tensors go in and come out without a copy where they are on the CPU, and states stay
    on the provider's device."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.device = "cuda" if PROVIDERS["cuda"] in session.get_providers() else "cpu"
        found = json.loads(session.get_modelmeta().custom_metadata_map.get(STATES, "{}"))
        self.states: dict[str, tuple[str, list[int]]] = found  # {past: (present, shape of one row)}
        presents = {present for present, _ in self.states.values()}
        self.outputs = [x.name for x in session.get_outputs() if x.name not in presents]
        self.held: dict[str, OrtValue] = {}  # by the name of the past

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        binding = self.session.io_binding()
        given = {name: OrtValue.ortvalue_from_numpy(x.contiguous().numpy()) for name, x in inputs.items()}
        for name, value in {**given, **self.held}.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, "cpu")
        for present, _ in self.states.values():
            binding.bind_output(present, self.device)
        self.session.run_with_iobinding(binding)
        made = binding.get_outputs()
        found = dict(zip(self.outputs, made, strict=False))
        self.held = dict(zip(self.states, made[len(self.outputs) :], strict=True))
        return {name: torch.from_numpy(found[name].numpy()) for name in self.outputs}

    def start(self, rows: int) -> None:
        self.held = {name: self._put(torch.zeros(rows, *shape)) for name, (_, shape) in self.states.items()}

    def select(self, rows: Tensor) -> None:
        self.held = {name: self._put(torch.from_numpy(x.numpy())[rows]) for name, x in self.held.items()}

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        before = self.held
        yield
        self.held = before

    def _put(self, x: Tensor) -> OrtValue:
        return OrtValue.ortvalue_from_numpy(x.contiguous().numpy(), self.device)
