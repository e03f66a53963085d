"""One cell's predictions with their statistics, from which everything about it is measured."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blip2sweep.canonical import digest
from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS, Images, Metric, images
from blip2sweep.metrics.statistics import CORE
from blip2sweep.results.predictions import (
    NOTHING,
    installed_for,
    key_of,
    read_predictions,
    read_variants,
    second_runs,
    together,
)
from blip2sweep.results.score_folders import variants_read
from blip2sweep.rows import Id
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.lines import Measured

# Core metrics alone, so that what other metrics are added to this package measures nothing again. METRICS gets those of
# an outside task only when one of its tasks is read.
SCORERS = digest([[name, METRICS[name].version] for name in CORE])[:8]


class Scored:
    """One cell's predictions and statistics; sums by image are computed once.

    current: whether there are statistics and all of them are of today's scorers. variants: those that were read; none
    where that is the default alone. installed: {statistic: version} of what was installed beside this package and changes
    it. Raises UserError when the predictions are missing or damaged.
    """

    def __init__(self, output_dir: Path, name: str) -> None:
        self.output_dir, self.name, self.key = output_dir, name, key_of(name)
        self.predictions = read_predictions(output_dir, name)
        files = read_variants(output_dir, name)
        self.statistics, self.current = together(files.values())
        self.variants, self.installed = variants_read(files), installed_for(files.values())
        self._by_image: dict[str, NDArray[np.float64]] = {}

    @functools.cached_property
    def recalibrated(self) -> dict[str, Scored]:
        """{what differs: second run} of the cell's second runs, calibrated differently, that can be read."""
        names = second_runs(self.output_dir, self.name)
        found = {what: scored_or_none(self.output_dir, name) for what, name in names.items() if what}
        return {what: second for what, second in found.items() if second}

    @property
    def scored(self) -> str:
        """A digest of the versions of the cell's scorers; empty for a cell without statistics."""
        return scorers(self.metrics, self.statistics, self.installed) if self.statistics else ""

    @property
    def metrics(self) -> list[Metric]:
        """The metrics whose statistics exist."""
        return [m for m in METRICS.values() if m.statistic in self.statistics]

    def value(self, metric: Metric) -> float:
        """The metric over all samples."""
        return metric.value(self.statistics[metric.statistic])

    def comparable(self, other: Scored) -> list[Metric]:
        """The metrics that another run has too, scored with the same version of what is installed beside this
        package."""
        shared = [m for m in self.metrics if m.statistic in other.statistics]
        return [m for m in shared if self.installed.get(m.statistic) == other.installed.get(m.statistic)]

    def by_image(self, metric: Metric) -> NDArray[np.float64]:
        """The metric's statistic summed by image, (m, k) for m images. Computed once for all metrics that share the
        statistic."""
        name = metric.statistic
        if name not in self._by_image:
            self._by_image[name] = self.images.by_image(self.statistics[name])
        return self._by_image[name]

    def cut_to(self, ids: Sequence[Id]) -> Scored | None:
        """The cell as if only these samples had been run, in their order: what a cell that stopped is compared with.
        None unless they are some of its samples, once each, with all that belong to their images."""
        place = {sample: i for i, sample in enumerate(self.predictions.id)}
        if not len(ids) < len(place) or not place.keys() >= {*ids} or len({*ids}) < len(ids):
            return None
        rows = [place[sample] for sample in ids]
        own = {self.predictions.image_id[i] for i in rows}
        if sum(image in own for image in self.predictions.image_id) > len(rows):
            return None
        cut = copy.copy(self)
        vars(cut).pop("images", None)
        columns = {name: [column[i] for i in rows] for name, column in self.predictions.columns.items()}
        cut.predictions = Predictions(**columns)  # type: ignore[arg-type]
        cut.statistics = {name: array[rows] for name, array in self.statistics.items()}
        cut._by_image = {}
        return cut

    @functools.cached_property
    def images(self) -> Images:
        """The samples grouped by image."""
        return images(self.predictions.image_id)


def scorers(metrics: Iterable[Metric], statistics: Iterable[str], installed: Mapping[str, str] = NOTHING) -> str:
    """A digest of the versions of these metrics, and of what is installed beside this package and changes some. Of core
    metrics it has all, whichever a cell has."""
    others: list[object]
    others = [[m.name, m.version] for m in metrics if m.name not in CORE]
    others += [dict(installed)] if installed else []
    return digest([SCORERS, sorted(statistics), *others])[:8]


def is_todays(line: Measured) -> bool:
    """Whether a measurement is of today's scorers, as far as its metrics are known here. What is installed beside this
    package may have changed since: only who reads the task knows it."""
    return _is_todays(line["scored"], tuple(line["metrics"]), tuple(line.get("installed", {}).items()))


@functools.lru_cache(maxsize=1000)
def _is_todays(scored: str, names: tuple[str, ...], installed: tuple[tuple[str, str], ...]) -> bool:
    known = [m for m in METRICS.values() if m.name in names]
    return len(known) < len(names) or scored == scorers(known, {m.statistic for m in known}, dict(installed))


def scored_or_none(output_dir: Path, name: str) -> Scored | None:
    """The scored run; None, after a remark, when its predictions cannot be read."""
    try:
        return Scored(output_dir, name)
    except UserError as error:
        remark(str(error))
        return None
