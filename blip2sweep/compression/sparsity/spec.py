"""What one linear layer gets: how its weights are scored, and how many of them become zero."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from blip2sweep.compression.sparsity import GROUP, TWO_OF_FOUR, UNSTRUCTURED, WANDA
from blip2sweep.compression.step import Site, SpecFields, Stored
from blip2sweep.errors import UserError
from blip2sweep.models.part import Linear

NORMS = "norms"  # what has to be measured
INDEX_BITS = 2  # of each weight that 2:4 keeps: its place among four


@dataclass(frozen=True)
class Sparse:
    """How one layer is made sparse.

    method: `magnitude`, by |w|, or `wanda`, by |w|·‖x‖₂. pattern: `unstructured`, or `2of4`: two of each four weights
    along a row become zero. ratio: the share of a row that becomes zero; None for 2of4. packed: the kind of device
    whose 2:4 kernel runs the layer; None where a dense kernel multiplies by the zeros. calibration: the digest of what
    the norms are measured on; None for magnitude.
    """

    method: str
    pattern: str = UNSTRUCTURED
    ratio: float | None = None
    packed: str | None = None
    calibration: str | None = None

    @property
    def structured(self) -> bool:
        return self.pattern == TWO_OF_FOUR

    def zeros(self, in_features: int) -> int:
        """How many weights of a row of this length become zero: the whole part of ratio times its length.

        The ratio counts as the decimal that was typed: 0.29 of 100 are 29, where floats would give 28.
        """
        share = Fraction(1, 2) if self.ratio is None else Fraction(repr(self.ratio))
        return int(share * in_features)

    def check_row(self, x: Linear, typed: str) -> None:
        """Raise UserError for a row that the pattern does not fit, or of which no weight would become zero.

        typed: what asked for the zeros, for the message.
        """
        if self.structured and x.in_features % GROUP:
            raise UserError(
                f"{typed}: {x.path} has rows of {x.in_features}, which {GROUP} does not divide; right: "
                f"sparsity.pattern={UNSTRUCTURED}, or keep= the layers {x.leaf}"
            )
        if not self.zeros(x.in_features):
            right = f"from {1 / x.in_features:.2g} up"
            raise UserError(f"{typed}: leaves all {x.in_features} weights in a row of {x.path}; right: {right}")

    # ---- as the spec of a step (blip2sweep/compression/step.py)

    def as_dict(self) -> SpecFields:
        return {k: v for k, v in vars(self).items() if v is not None}

    @property
    def needs(self) -> frozenset[str]:
        """`norms` of the layer's inputs, for Wanda."""
        return frozenset({NORMS} if self.method == WANDA else ())

    def measured_on(self, digest: str) -> Sparse:
        return replace(self, calibration=digest) if self.needs else self

    def first_block(self, site: Site) -> int:
        """The layer's own block."""
        return site.block

    def stored(self, layer: Linear, before: Stored) -> Stored:
        """The weights that stay, and where they are: one bit for each weight of the layer, or two for each that 2:4 keeps.

        A later quantizer says how many bits each of them has. So b bits at 2:4 are (2b + 4) / 4 bits a weight.
        """
        values = layer.out_features * (layer.in_features - self.zeros(layer.in_features))
        places = values * INDEX_BITS if self.structured else layer.weights
        return before._replace(values=values, extra_bits=before.extra_bits + places)
