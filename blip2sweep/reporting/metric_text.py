"""How a metric and a change of it are written: an accuracy drops and is kept, a likelihood rises."""

from __future__ import annotations

from dataclasses import dataclass

from blip2sweep.metrics import METRICS


@dataclass(frozen=True)
class MetricText:
    """label: as people write it. unit: of a difference, with a blank before it."""

    label: str
    higher_is_better: bool
    unit: str

    @property
    def worse(self) -> str:
        """The noun for getting worse; its numbers are positive."""
        return "drop" if self.higher_is_better else "rise"

    @property
    def most(self) -> str:
        """The best value, as the beginning of a sentence."""
        return f"The most {self.label}" if self.higher_is_better else f"The least {self.label}"

    @property
    def axis(self) -> str:
        """The label of an axis of values in % of the baseline."""
        return f"{self.label}, % of the baseline" + ("" if self.higher_is_better else " (↑ worse)")

    @property
    def gain(self) -> str:
        """The label of a gain over RTN; positive is better."""
        return f"gain in {self.label} over RTN" if self.higher_is_better else f"{self.label} below that of RTN"

    def amount(self, value: float, low: float, high: float) -> str:
        """A difference with its interval: `1.233 [1.072, 1.393] CIDEr`. There is no interval where low is NaN."""
        bars = "" if low != low else f" [{low:.3f}, {high:.3f}]"
        return f"{value:.3f}{bars}{self.unit}"


def metric_text(name: str) -> MetricText:
    """The text of a metric by its name in METRICS."""
    metric = METRICS[name]
    return MetricText(metric.label, metric.higher_is_better, f" {metric.unit}")


def text_of_label(label: str) -> MetricText:
    """The text of a metric by its label; that of CIDEr where no metric has the label."""
    return metric_text(next((m.name for m in METRICS.values() if m.label == label), "cider"))
