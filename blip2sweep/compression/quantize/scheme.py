"""What one linear layer gets. The field names are those of compressed-tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.quantize.stored import quantized
from blip2sweep.compression.step import Site, SpecFields, Stored
from blip2sweep.models.part import Linear


class Traits(NamedTuple):
    """What of a linear layer decides which options it can use.

    in_features: the length of its rows. leaf: the last word of its name. clip: whether the model's YAML lets its range
    be clipped.
    """

    in_features: int
    bias: bool
    leaf: str
    clip: bool = True


@dataclass(frozen=True)
class Weights:
    """How the weights of one layer are quantized.

    None: the method does not use the option (see `compression.quantize.METHODS`).

    calibration: the digest of what the method measured (samples, seed, upstream). None for methods that see weights
    alone.
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
        """The scheme in its one form: a group that is as long as the row, or longer, is a channel."""
        if self.group_size is not None and self.group_size >= in_features:
            return replace(self, strategy="channel", group_size=None, static_groups=None)
        return self

    def canonical(self, layer: Traits, folded: bool = True) -> Weights:
        """The form that identities have. Two schemes that make the same weights of a layer have one form.

        An option that the layer cannot use has its default: a `block_size` beyond the row, `quantize_bias` without a bias,
        `clip` on a layer that the method never clips, `grid` where nothing can absorb a scale (not `folded`). A method
        that neither scales nor clips becomes the one whose range it searches. A layer that only the model's YAML
        excepts from clipping has `clip=false`, because another model's layer of that name is clipped.
        """
        method = METHODS[self.method]
        same = replace(self.for_row(layer.in_features), **{k: method.options[k] for k in self.idle(layer)})
        if same.block_size is not None:
            same = replace(same, block_size=_block_size(same, layer.in_features, method.options["block_size"]))
        if self._excepted(layer):
            same = replace(same, clip=False)
        if not method.folds:
            return same
        if (not folded or self.grid == 1) and not self.clips(layer):
            return replace(same, method=str(method.searches), grid=None, clip=None, calibration=None)
        return same if folded else replace(same, grid=method.options["grid"])

    def clips(self, layer: Traits) -> bool:
        """Whether the range of this layer is searched."""
        return bool(self.clip) and layer.clip and layer.leaf not in METHODS[self.method].unclipped

    def idle(self, layer: Traits) -> tuple[str, ...]:
        """The options of the method that the layer cannot use."""
        biases = ("quantize_bias",) if self.quantize_bias is not None and not layer.bias else ()
        unclipped = self._excepted(layer) or layer.leaf in METHODS[self.method].unclipped
        return (*biases, "clip") if unclipped else biases

    def _excepted(self, layer: Traits) -> bool:
        """Whether the model's YAML alone keeps the method from clipping the layer."""
        method = METHODS[self.method]
        return "clip" in method.options and not layer.clip and layer.leaf not in method.unclipped


def _block_size(weights: Weights, in_features: int, default: int) -> int:
    """The columns that GPTQ updates at once.

    They are whole groups where scales are set on the way. They are at most the row, because any larger number means the
    same.
    """
    assert weights.block_size is not None
    size = weights.block_size
    if weights.static_groups is False and weights.group_size:
        size = -(-size // weights.group_size) * weights.group_size
    return size if size < in_features else max(default, in_features)


@dataclass(frozen=True)
class Activations:
    """How a layer's input is quantized: simulated, with one scale for each token or tensor.

    dynamic: the range is that of the token itself. Otherwise it is the range of the calibration samples, per tensor.
    calibration: their digest.
    """

    num_bits: int
    type: str = "int"
    strategy: str = "token"
    symmetric: bool = True
    dynamic: bool = True
    calibration: str | None = None


@dataclass(frozen=True)
class Scheme:
    """How one layer is quantized. Output activations are reserved."""

    weights: Weights
    input_activations: Activations | None = None
    output_activations: None = None

    def as_dict(self) -> SpecFields:
        """A plain dict without the null fields."""
        return {**self.fields()}

    def fields(self) -> dict[str, dict[str, Any]]:
        """`as_dict` with the type of each part's fields."""
        return {part: {**own} for part, own in self._fields.items()}

    @cached_property
    def _fields(self) -> dict[str, dict[str, Any]]:
        """Of this object, not of its equals: 1 and 1.0 are other JSON."""
        both = {"weights": self.weights, "input_activations": self.input_activations}
        return {k: {f: v for f, v in asdict(x).items() if v is not None} for k, x in both.items() if x is not None}

    # ---- as the spec of a step (blip2sweep/compression/step.py)

    @property
    def needs(self) -> frozenset[str]:
        """What calibration measures for this scheme: `hessian` or `ranges` for the method, and `ranges` for a static
        range of the inputs."""
        own, inputs = METHODS[self.weights.method].calibrates, self.input_activations
        static = {"ranges"} if inputs is not None and not inputs.dynamic else set()
        return frozenset({own} | static if own else static)

    def measured_on(self, digest: str) -> Scheme:
        """The same scheme with the digest of the calibration samples, wherever something is measured."""
        weights, inputs = self.weights, self.input_activations
        if METHODS[weights.method].calibrates:
            weights = replace(weights, calibration=digest)
        if inputs is not None and not inputs.dynamic:
            inputs = replace(inputs, calibration=digest)
        return replace(self, weights=weights, input_activations=inputs)

    def first_block(self, site: Site) -> int:
        """The layer's own block."""
        return site.block

    def stored(self, layer: Linear, before: Stored) -> Stored:
        """Codes in the place of numbers, with their scales."""
        return quantized(layer, self.weights, before)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scheme:
        inputs = data.get("input_activations")
        return cls(Weights(**data["weights"]), Activations(**inputs) if inputs else None)
