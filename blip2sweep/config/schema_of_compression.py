"""The typed config of compressions: `quant`, `sparsity` and `recover`. Their options are null by default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class QuantConfig:
    """Every option of quantization, null by default. The defaults of a method are in
    blip2sweep/compression/quantize/__init__.py."""

    method: str | None = None
    bits: Any = None  # an integer, or none: left alone
    strategy: str | None = None  # tensor | channel | group
    group_size: int | None = None
    symmetric: bool | None = None
    quantize_bias: bool | None = None  # minmax
    act_order: bool | None = None  # gptq: columns of large inputs first
    static_groups: bool | None = None  # gptq: scales of all groups set before the first column
    damp: float | None = None  # gptq: share of the Hessian's mean diagonal added to it
    block_size: int | None = None  # gptq: columns updated at once
    grid: int | None = None  # mse, awq: how many candidates the search tries
    norm: float | None = None  # mse: the power of the error that is minimised
    clip: bool | None = None  # awq: search the range as well
    alpha: float | None = None  # smoothquant: how much of the difficulty moves into the weights
    packed: Any = None  # true, cpu, cuda: run the library's packed kernel, and measure it
    input: InputConfig = field(default_factory=lambda: InputConfig())


@dataclass
class InputConfig:
    """How the inputs of the quantized layers are quantized. It is simulated."""

    bits: Any = None  # 2-8, or none
    strategy: str | None = None  # token (default) | tensor
    symmetric: bool | None = None  # default true
    dynamic: bool | None = None  # token: true; tensor: false, the range of the calibration samples


@dataclass
class SparsityConfig:
    """Weights that become zero. The layers are those that `part`, `blocks`, `layers` and `keep` select."""

    method: str | None = None  # magnitude | wanda; null: none
    ratio: float | None = None  # of the weights of a row that become zero
    pattern: str | None = None  # unstructured | 2of4: two of each four neighbours
    packed: Any = None  # true, cuda: run the 2:4 kernel, and measure it


@dataclass
class RecoverConfig:
    """Training after compression. Options that a method does not use are null."""

    method: str | None = None  # lora | qlora | full; null: none
    target: str | None = None  # part:blocks:layers, parts joined with +; null: all parts whose role is not vision
    loss: str | None = None  # task | distill: the uncompressed model is the teacher as well
    rank: int | None = None
    alpha: float | None = None
    steps: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    holdout: float | None = None  # share of the training images that choose the step
    temperature: float | None = None  # distill
    distill_weight: float | None = None  # distill: of the teacher's loss beside the task's
    merge: bool | None = None  # adapters added into the weights
    requantize: bool | None = None  # merged weights are quantized again
    processes: int | None = None
    n_samples: int | None = None  # of the training split; null: all
    split: str | None = None  # null: the task's train_split
    data_dir: str | None = None  # of the training split; null: the task's
