"""The study as ledger rows: duplicates are merged, predictions are scored again, sizes follow our own rule."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from blip2sweep.files import write_json
from blip2sweep.importing.rows import Remarks, Result, result, write_rows
from blip2sweep.importing.study import Config, Counts, Study, count, read_study
from blip2sweep.importing.study_files import NAME
from blip2sweep.metrics import METRICS, CaptionScorer, health_statistics
from blip2sweep.metrics.captions import FloatArray
from blip2sweep.results.predictions import stem, write_predictions, write_statistics
from blip2sweep.results.sweeps import Sweep
from blip2sweep.tasks.predictions import Predictions

SWEEP = "blip2-coco"


def import_blip2_coco(folder: Path, output_dir: Path, metrics: Sequence[str] = ("cider",)) -> Counts:
    """Import a copy of the study. A second import replaces the first.

    metrics: those that are scored again per image.
    """
    study = read_study(folder)
    groups: dict[str, list[Config]] = {}
    for config in study.configs:
        groups.setdefault(config.recipe.hash, []).append(config)
    ordered = sorted(groups.values(), key=lambda g: not g[0].nothing)  # the baseline first
    write = _Writer(study, output_dir, metrics)
    rows = [_row(study, group, write) for group in ordered]
    counts = count(study)
    keys = [r["key"] for r in rows]
    skipped = [{"overrides": f"config {c.number}", "reason": "does nothing"} for c in study.configs if c.nothing]
    sweep = Sweep(SWEEP, f"import {SWEEP}", time.time(), keys, keys[:1], skipped, counts.configs - counts.distinct)
    write_rows(output_dir, sweep, rows)
    given = zip(study.image_ids, study.references, strict=True)
    write_json(sweep.folder(output_dir) / "references.json", [{"image_id": i, "captions": c} for i, c in given])
    return counts


class _Writer:
    """Writes predictions and their statistics. Captions that several cells share are scored once."""

    def __init__(self, study: Study, output_dir: Path, metrics: Sequence[str]) -> None:
        self.study, self.output_dir = study, output_dir
        self._scorer: CaptionScorer | None = None
        self._known: dict[str, dict[str, FloatArray]] = {}  # hash of predictions -> statistics
        if study.predictions:
            self._scorer = CaptionScorer(study.references, [m for m in metrics if m in METRICS])
            self._scorer.prepare([t for texts in study.predictions.values() for t in texts])

    def __call__(self, key: str, texts: list[str]) -> Remarks:
        """Write the predictions of a cell. Returns what its `result` line says of them."""
        assert self._scorer is not None
        n = len(texts)
        ids = self.study.image_ids
        nothing: list[float | None] = [None] * n
        predictions = Predictions([*ids], [*ids], texts, [0] * n, nothing, [0] * n)
        name = stem(key, predictions.hash)
        if predictions.hash not in self._known:
            self._known[predictions.hash] = self._scorer.statistics(texts) | health_statistics(texts)
        noted = write_predictions(self.output_dir, name, predictions)
        write_statistics(self.output_dir, name, self._known[predictions.hash])
        return {"predictions": predictions.hash, "files": {"predictions": noted}}


def _row(study: Study, group: list[Config], write: _Writer) -> Result:
    """The row of all configs that ran the same model."""
    first = group[0]
    texts = next((study.predictions[c.number] for c in group if c.number in study.predictions), None)
    remarks = write(study.source.key(first.recipe), texts) if texts else Remarks(predictions=None)
    remarks["configs"] = [c.number for c in group]
    remarks["noop_configs"] = sum(c.noop for c in group)
    return result(study.source, first.recipe, first.scores, **remarks)


def summary(counts: Counts) -> list[str]:
    """The lines that the command prints: what a reader must know of the data."""
    return [
        f"{NAME}: {counts.configs} cells",
        f"  {counts.noop} have an entry that did nothing (OPT attention, Q-Former MLP)",
        f"  {counts.nothing} do nothing at all",
        f"  {counts.distinct} distinct models were run ({counts.distinct_16_untouched} counting 16-bit min-max as "
        f"untouched); {counts.configs - counts.distinct} runs were redundant",
        f"  {counts.wrong_sizes} published sizes are wrong and were computed again",
        f"  {counts.with_predictions} cells come with captions (paired intervals), {counts.empty_outputs} of them all "
        f"empty; the others keep their published scores, without intervals",
    ]
