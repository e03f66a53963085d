"""What a training made, as a safetensors file: the tensors of each layer, and how they came about as JSON in its header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

import torch
from safetensors.torch import load, save
from torch import Tensor

from blip2sweep.apply.recovery.trainer import Outcome
from blip2sweep.compression.recover.adapters import Adapter, Trained, Tuned


class _Header(TypedDict):
    step: int
    losses: dict[str, float]
    seconds: float
    reproducible: bool


def to_bytes(outcome: Outcome) -> bytes:
    """The length of a JSON header as 8 little-endian bytes, the header, and a safetensors file."""
    losses = {str(k): v for k, v in outcome.losses.items()}
    header: _Header = {
        "step": outcome.step, "losses": losses, "seconds": outcome.seconds, "reproducible": outcome.reproducible,
    }  # fmt: skip
    head = json.dumps(header).encode()
    named = {name: x.detach().cpu().contiguous() for name, x in tensors(outcome.trained).items()}
    return len(head).to_bytes(8, "little") + head + save(named)


def from_bytes(payload: bytes, device: torch.device) -> Outcome:
    """The inverse of `to_bytes`. device: of the tensors."""
    size = int.from_bytes(payload[:8], "little")
    header = cast("_Header", json.loads(payload[8 : 8 + size]))
    losses = {int(k): v for k, v in header["losses"].items()}
    trained = _layers({name: x.to(device) for name, x in load(payload[8 + size :]).items()})
    return Outcome(trained, header["step"], losses, header["seconds"], header["reproducible"])


def to_file(path: Path, outcome: Outcome) -> None:
    path.write_bytes(to_bytes(outcome))


def from_file(path: Path, device: torch.device) -> Outcome:
    return from_bytes(path.read_bytes(), device)


def adapter_digest(outcome: Outcome) -> str:
    """sha256 over names and bytes of all tensors, twelve hex digits."""
    content = hashlib.sha256()
    for name, x in sorted(tensors(outcome.trained).items()):
        content.update(f"{name} {tuple(x.shape)} {x.dtype}".encode())
        content.update(x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()[:12]


def tensors(trained: Mapping[str, Trained]) -> dict[str, Tensor]:
    """{path:name: tensor}."""
    found: dict[str, Tensor] = {}
    for path, layer in trained.items():
        if isinstance(layer, Adapter):
            found |= {f"{path}:a": layer.a, f"{path}:b": layer.b}
        else:
            found |= {f"{path}:weight": layer.weight, **({} if layer.bias is None else {f"{path}:bias": layer.bias})}
    return found


def _layers(found: Mapping[str, Tensor]) -> dict[str, Trained]:
    by_path: dict[str, dict[str, Tensor]] = {}
    for name, x in found.items():
        path, _, own = name.rpartition(":")
        by_path.setdefault(path, {})[own] = x
    return {path: Adapter(**x) if "a" in x else Tuned(**x) for path, x in by_path.items()}
