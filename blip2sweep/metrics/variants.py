"""Variants of metrics: one for each combination of the scoring settings of a kind of task.

A kind declares its settings, such as ``{"rule": ("official", "lavis")}``: of each the values that there are, the default
first. A variant's suffix has the values that are not the default, in the declared order. It is added to the names of
metrics and of statistics; the variant of defaults alone has the plain names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from blip2sweep.metrics.metric import Metric

Declared = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Variant:
    """One combination of scoring settings.

    values: {setting: value}. suffix: empty, or such as `_lavis` or `_evalai_spacy`.
    """

    values: Mapping[str, str]
    suffix: str

    @property
    def words(self) -> str:
        """The values that are not the default, as people read them: `evalai, spacy`."""
        return ", ".join(self.suffix.split("_")[1:])


def variants(declared: Declared, chosen: Mapping[str, Sequence[str]]) -> list[Variant]:
    """The combinations of the chosen values, the first values first. A setting that is not chosen has its default."""
    given = [tuple(chosen.get(name) or values[:1]) for name, values in declared.items()]
    return [_variant(declared, dict(zip(declared, one, strict=True))) for one in itertools.product(*given)]


def _variant(declared: Declared, values: Mapping[str, str]) -> Variant:
    other = [value for name, value in values.items() if value != declared[name][0]]
    return Variant(values, "".join(f"_{value}" for value in other))


def with_variants(metrics: Iterable[Metric], declared: Declared) -> tuple[Metric, ...]:
    """Each metric once for every possible variant: those of the defaults as they are, then those of the others."""
    plain = tuple(metrics)
    return tuple(_of(metric, variant) for variant in variants(declared, declared) for metric in plain)


def _of(metric: Metric, variant: Variant) -> Metric:
    """A metric by a variant; of one that is itself a variant, both sets of values are named together."""
    if not variant.suffix:
        return metric
    name, statistic = metric.name + variant.suffix, metric.statistic + variant.suffix
    told = f"{metric.label[:-1]}, {variant.words})" if metric.plain else f"{metric.label} ({variant.words})"
    return replace(metric, name=name, statistic=statistic, label=told, plain=metric.plain or metric.name)
