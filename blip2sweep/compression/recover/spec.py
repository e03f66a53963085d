"""What recovery does to one linear layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from blip2sweep.compression.recover import FULL, LORA, QLORA
from blip2sweep.compression.step import Site, SpecFields, Stored, plain
from blip2sweep.models.part import Linear

TRAINING = "training"


@dataclass(frozen=True)
class Recovery:
    """How a layer is trained. All layers of a recipe are trained together, so they differ in `merged` alone.

    None: the method or the loss does not use the option. holdout: share of the training images whose loss chooses the
    step. processes: that share each batch. merged: whether the adapter is added into the weights; None for `full`, and
    before planning has seen what else is done to the layer. trained_on: the digest of everything else that decides the
    result (see blip2sweep/recipe/trained.py).
    """

    method: str
    loss: str
    steps: int
    learning_rate: float
    batch_size: int
    seed: int
    holdout: float
    processes: int = 1
    rank: int | None = None
    alpha: float | None = None
    temperature: float | None = None
    distill_weight: float | None = None
    merged: bool | None = None
    trained_on: str | None = None

    @property
    def has_adapters(self) -> bool:
        return self.method != FULL

    def fields(self) -> SpecFields:
        """Its fields as a row's recipe has them, without the null ones."""
        return {k: v for k, v in asdict(self).items() if v is not None}

    def as_dict(self) -> SpecFields:
        """Its one canonical form. `qlora` is `lora` there: what else it says is in the quantization before it."""
        return {**self.fields(), "method": LORA if self.method == QLORA else self.method}

    def training(self) -> SpecFields:
        """What decides the trained tensors. Whether they are merged does not."""
        return {k: v for k, v in self.as_dict().items() if k != "merged"}

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({TRAINING})

    def measured_on(self, digest: str) -> Recovery:
        """The same with the digest of what it is trained on."""
        return replace(self, trained_on=digest)

    def first_block(self, site: Site) -> int:
        """The layer's own block. `trained_on` names the other layers that are trained with it."""
        return site.block

    def stored(self, layer: Linear, before: Stored) -> Stored:
        """Unmerged, rank · (in + out) further numbers, and as many more multiplications and additions.

        Merged or trained as a whole, the layer takes what it takes without compression: the result is on no grid, and
        no weight of it is zero.
        """
        if self.has_adapters and not self.merged:
            further = (self.rank or 0) * (layer.in_features + layer.out_features)
            return before._replace(
                extra_bits=before.extra_bits + further * before.number_bits, flops=before.flops + 2 * further
            )
        return plain(layer, before.number_bits)
