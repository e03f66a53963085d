"""The typed config of compressions: `quant`, `sparsity` and `recover`. Their options are null by default; reference.py says
what each means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class QuantConfig:
    """Every option of quantization, null by default. The defaults of a method are in
    blip2sweep/compression/quantize/__init__.py."""

    method: str | None = None
    bits: Any = None
    strategy: str | None = None
    group_size: int | None = None
    symmetric: bool | None = None
    quantize_bias: bool | None = None
    act_order: bool | None = None
    static_groups: bool | None = None
    damp: float | None = None
    block_size: int | None = None
    grid: int | None = None
    norm: float | None = None
    clip: bool | None = None
    alpha: float | None = None
    packed: Any = None
    input: InputConfig = field(default_factory=lambda: InputConfig())


@dataclass
class InputConfig:
    """How the inputs of the quantized layers are quantized. It is simulated."""

    bits: Any = None
    strategy: str | None = None
    symmetric: bool | None = None
    dynamic: bool | None = None


@dataclass
class SparsityConfig:
    """Weights that become zero. The layers are those that `part`, `blocks`, `layers` and `keep` select."""

    method: str | None = None
    ratio: float | None = None
    pattern: str | None = None
    packed: Any = None


@dataclass
class RecoverConfig:
    """Training after compression. Options that a method does not use are null."""

    method: str | None = None
    target: str | None = None
    loss: str | None = None
    rank: int | None = None
    alpha: float | None = None
    steps: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    holdout: float | None = None
    temperature: float | None = None
    distill_weight: float | None = None
    merge: bool | None = None
    requantize: bool | None = None
    processes: int | None = None
    n_samples: int | None = None
    split: str | None = None
    data_dir: str | None = None
