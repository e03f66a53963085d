"""How a metric and what it loses are spoken of: an accuracy drops and is kept, a likelihood rises."""

from __future__ import annotations

from dataclasses import dataclass

from blip2sweep.metrics import METRICS


@dataclass(frozen=True)
class Words:
    """name: as people write it. higher: whether more is better. unit: of a difference, with a blank before it."""

    name: str
    higher: bool
    unit: str

    @property
    def worse(self) -> str:
        """What getting worse is called; its numbers are positive."""
        return "drop" if self.higher else "rise"

    @property
    def most(self) -> str:
        return f"The most {self.name}" if self.higher else f"The least {self.name}"

    @property
    def axis(self) -> str:
        """Of what is left, in % of the baseline."""
        return f"{self.name}, % of the baseline" + ("" if self.higher else " (↑ worse)")

    @property
    def gain(self) -> str:
        """Over RTN; positive is better."""
        return f"gain in {self.name} over RTN" if self.higher else f"{self.name} below that of RTN"

    def amount(self, value: float, low: float, high: float) -> str:
        """`1.233 [1.072, 1.393] CIDEr`; without outputs there is no interval."""
        bars = "" if low != low else f" [{low:.3f}, {high:.3f}]"
        return f"{value:.3f}{bars}{self.unit}"


def words_of(metric: str) -> Words:
    known = METRICS[metric]
    return Words(known.label, known.higher_is_better, f" {known.unit}")


def words_of_label(label: str) -> Words:
    """Of a metric as people write it."""
    return words_of(next((m.name for m in METRICS.values() if m.label == label), "cider"))
