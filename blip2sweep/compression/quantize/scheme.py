"""What one linear layer gets. The field names are those of compressed-tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from blip2sweep.compression.quantize import METHODS, UNCLIPPED


@dataclass(frozen=True)
class Weights:
    """How one layer's weights are quantized. Null: the method does not use it (see blip2sweep/compression/quantize/__init__.py).

    calibration: digest of what the method measured (samples, seed, upstream), null for those that see weights alone.
    """

    method: str
    num_bits: int
    type: str = "int"
    strategy: str = "channel"
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
    packed: str | None = None
    calibration: str | None = None

    def for_row(self, in_features: int) -> Weights:
        """The same thing said once: a group as long as the row, or longer, is a channel."""
        if self.group_size is not None and self.group_size >= in_features:
            return replace(self, strategy="channel", group_size=None, static_groups=None)
        return self

    def said_once(self, in_features: int, bias: bool, name: str, folded: bool = True) -> Weights:
        """What an identity says of a layer of this many inputs, with a bias or without, of this leaf name.

        A knob that the layer has no use for has its default: a `block_size` beyond the row, `quantize_bias` without a
        bias, AWQ's `clip` on queries and keys and its `grid` where nothing can absorb a scale (not `folded`). AWQ that
        neither scales nor clips is round to nearest.
        """
        default = METHODS[self.method].knobs
        same = replace(self.for_row(in_features), **{knob: default[knob] for knob in self.idle(bias, name)})
        if same.block_size is not None:
            same = replace(same, block_size=_block_size(same, in_features, default["block_size"]))
        if self.method != "awq":
            return same
        if (not folded or self.grid == 1) and (name in UNCLIPPED or not self.clip):
            return replace(same, method="rtn", grid=None, clip=None, calibration=None)
        return same if folded else replace(same, grid=default["grid"])

    def idle(self, bias: bool, name: str) -> tuple[str, ...]:
        """Knobs of the method that a layer with a bias or without, of this leaf name, has no use for."""
        biases = ("quantize_bias",) if self.quantize_bias is not None and not bias else ()
        return (*biases, "clip") if self.method == "awq" and name in UNCLIPPED else biases


def _block_size(weights: Weights, in_features: int, default: int) -> int:
    """Columns that GPTQ updates at once, in whole groups where their scales are set on the way; at most the row, which any
    larger number means as well."""
    assert weights.block_size is not None
    size = weights.block_size
    if weights.static_groups is False and weights.group_size:
        size = -(-size // weights.group_size) * weights.group_size
    return size if size < in_features else max(default, in_features)


@dataclass(frozen=True)
class Activations:
    """How a layer's input is quantized: simulated, one scale a token or a tensor.

    dynamic: the range is that of the token at hand; else, per tensor, that of the calibration samples (`calibration`, their
    digest).
    """

    num_bits: int
    type: str = "int"
    strategy: str = "token"
    symmetric: bool = True
    dynamic: bool = True
    calibration: str | None = None


@dataclass(frozen=True)
class Scheme:
    """What one layer gets. Output activations are reserved."""

    weights: Weights
    input_activations: Activations | None = None
    output_activations: None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain dict without the null fields."""
        both = {"weights": self.weights, "input_activations": self.input_activations}
        return {k: {f: v for f, v in asdict(x).items() if v is not None} for k, x in both.items() if x is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scheme:
        inputs = data.get("input_activations")
        return cls(Weights(**data["weights"]), Activations(**inputs) if inputs else None)
