"""Measures a cell: its metrics, how far each is from the baseline's, and how certain that is.

Whoever scores a cell measures it once and writes a `measured` line into the ledger. A table of a hundred thousand cells
is then made without opening the cells' files. Making tables measures the cells without such a line, and writes it: the
baseline may have come later, the scorer may have been killed, or scorers may have changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from blip2sweep.canonical import digest
from blip2sweep.metrics import Drop, Metric, changed_images, kept, paired_drop, same_as_baseline
from blip2sweep.metrics.prefix import carried, prefix_drop, prefix_kept
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.predictions import second_run, second_runs
from blip2sweep.results.score_folders import SECOND, variants_of
from blip2sweep.results.scored import SCORERS, Scored, scored_or_none
from blip2sweep.wire.lines import Measured, Noise, ResultLine

INTERVALS = 2  # version of `paired_drop` and of what `measure` returns; lines of another version are measured again
MEASURES = digest([SCORERS, INTERVALS])[:8]
EVENT = "measured"


class Baseline:
    """A baseline that cells are compared with, and its noise floor, from its `result` line."""

    def __init__(self, output_dir: Path, result: ResultLine) -> None:
        self.cell = Scored(output_dir, predictions_name(result))
        second = scored_or_none(output_dir, second_run(self.cell.name)) if result.get("noise") else None
        noise_of_line = result.get("noise")
        self.noise = noise(self.cell, second, noise_of_line) if second and noise_of_line else {}
        self.current = self.cell.current and (second is None or second.current)
        self._cut: dict[int, Scored] = {}  # {samples: the baseline on them}, of cells that stopped

    def on_samples_of(self, cell: Scored) -> Scored | None:
        """The baseline on the samples of a cell: whole, or cut to those of a cell that stopped. None where the cell has
        other samples."""
        ids = cell.predictions.id
        if self.cell.predictions.id == ids:
            return self.cell
        found = self._cut.get(len(ids))
        if found is None or found.predictions.id != ids:
            found = self.cell.cut_to(ids)
            if found is not None:
                self._cut[len(ids)] = found
        return found


class Baselines:
    """Reads each baseline once, and again when another variant of it was scored. waiting: also read a baseline again as
    long as its scores are not complete."""

    def __init__(self, output_dir: Path, waiting: bool) -> None:
        self.output_dir, self.waiting = output_dir, waiting
        self._known: dict[tuple[str, ...], Baseline] = {}

    def __call__(self, result: ResultLine | None) -> Baseline | None:
        """The baseline; None without a `result` line, and for an imported one without predictions."""
        if not result or not result["predictions"]:
            return None
        name = predictions_name(result)
        known = (name, *variants_of(self.output_dir, name))
        if known not in self._known:
            baseline = Baseline(self.output_dir, result)
            if self.waiting and not baseline.current:
                return baseline
            self._known[known] = baseline
        return self._known[known]


def source(
    name: str, runs: Mapping[str, int], baseline: ResultLine | None, variants: Callable[[str], Sequence[str]],
    control: ResultLine | None = None,
) -> str:  # fmt: skip
    """Names what a measurement is made from: the predictions `name`, the baseline's predictions, the versions of
    scorers and rules, the second runs of both, the variants that both were scored by, and the control's predictions and
    variants. runs: from `recorded_second_runs` or `existing_second_runs`. variants: gives `variants_of` predictions by
    name.

    A cell that runs again gives the same predictions, but may have second runs now. Were they not part of the name, its
    noise floor would never be measured.
    """
    of_baseline = recorded_second_runs(baseline) if baseline else {}
    all_runs: list[object] = [*sorted({*runs.items(), *of_baseline.items()})]
    of_both = variants(name), variants(predictions_name(baseline)) if baseline and baseline["predictions"] else []
    all_runs += of_both if any(of_both) else []
    if control and control["predictions"]:
        all_runs.append([control["predictions"][:12], *variants(predictions_name(control))])
    text = f"{name} {((baseline and baseline['predictions']) or '')[:12]} {MEASURES}"
    return f"{text} {digest(all_runs)[:8]}" if all_runs else text


def is_current_source(source: str, name: str) -> bool:
    """Whether a `source` names the predictions `name` and today's scorers and rules."""
    parts = source.split(" ")
    return parts[0] == name and parts[2:3] == [MEASURES]


def recorded_second_runs(result: ResultLine) -> dict[str, int]:
    """{second run: time it was written, ns} from a `result` line."""
    files = result.get("files")
    return {k: files[k][1] for k in files if k.startswith(SECOND[1:])} if files else {}


def has_second_runs(files: Iterable[str]) -> bool:
    """Whether second runs are among the files of a result."""
    return any(name.startswith(SECOND[1:]) for name in files)


def existing_second_runs(output_dir: Path, name: str) -> dict[str, int]:
    """{second run: time it was written, ns} of the files that exist."""
    runs = second_runs(output_dir, name).items()
    paths = {second_run("", what)[1:]: output_dir / "predictions" / f"{n}.json" for what, n in runs}
    return {what: path.stat().st_mtime_ns for what, path in paths.items()}


def measure(cell: Scored, baseline: Baseline | None, control: Baseline | None = None) -> Measured:
    """What the ledger keeps of a cell: the number of samples and images, the share of equal outputs, the noise floor,
    and for each metric [value], or with a baseline [value, baseline, drop, low, high, changed images]. low and high are
    the 95 % interval of `paired_drop`, over images; a positive drop is worse. Of the metrics that a table may be about
    the ends of the interval of what is retained too. With a control, of each metric [control, drop, low, high].

    A cell that stopped has some of the baseline's samples. It is compared on these: its values are what it keeps there,
    times the whole baseline's, its intervals have 99.5 % (metrics/prefix.py), and `of` is the number of images there are.

    There are no drops when the baseline is missing, when it was scored on other samples, and when there are no samples;
    nor of a metric that the baseline lacks, or has by another version of what is installed beside this package. So it is
    with the control, which has to be whole.
    """
    found = _against(cell, baseline)
    if control is not None and (seen := _control(control, baseline, cell)) is not None:
        both = cell.comparable(control.cell)
        found["controlled"] = {m.name: _compared(m, cell, control.cell, seen)[1:5] for m in both}
    if control is not None and control.cell.installed:
        found["control_installed"] = control.cell.installed
    return found


def _control(control: Baseline, baseline: Baseline | None, cell: Scored) -> Scored | None:
    """A control on the samples of a cell; None where the cell has other samples, and where the cell stopped and the
    control is not whole, as the baseline is."""
    ids = cell.predictions.id
    stopped = baseline is not None and len(baseline.cell.predictions.id) > len(ids) > 0
    if baseline is not None and stopped:
        whole = control.cell.predictions.id == baseline.cell.predictions.id
        return control.on_samples_of(cell) if whole else None
    return control.cell if ids and control.cell.predictions.id == ids else None


def _against(cell: Scored, baseline: Baseline | None) -> Measured:
    ids = cell.predictions.id
    noise = (baseline.noise if baseline else {}) | calibration_noise(cell)
    scored, samples = cell.scored, len(ids)
    alone = {m.name: [_number(cell.value(m))] for m in cell.metrics}
    seen = baseline.on_samples_of(cell) if baseline is not None and ids else None
    if baseline is None or seen is None:
        return _with_versions({"scored": scored, "samples": samples, "noise": noise, "metrics": alone}, cell, baseline)
    whole, both = baseline.cell, cell.comparable(baseline.cell)
    same = same_as_baseline(cell.predictions.outputs, seen.predictions.outputs)
    metrics = (alone if seen is whole else {}) | {m.name: _compared(m, cell, whole, seen) for m in both}
    ends = {m.name: _retained(m, cell, whole, seen) for m in both if m.order is not None}
    compared: Measured = {"scored": scored, "samples": samples, "noise": noise, "images": cell.images.count,
                          "same": same, "metrics": metrics, "retained": ends}  # fmt: skip
    if seen is not whole:
        compared["of"] = whole.images.count
    return _with_versions(compared, cell, baseline)


def _with_versions(measured: Measured, cell: Scored, baseline: Baseline | None) -> Measured:
    """A measurement with the versions of what was installed beside this package, where some score depends on it."""
    if cell.installed:
        measured["installed"] = cell.installed
    if baseline is not None and baseline.cell.installed:
        measured["baseline_installed"] = baseline.cell.installed
    return measured


def _compared(metric: Metric, cell: Scored, baseline: Scored, seen: Scored) -> list[float | None]:
    """[value, baseline, drop, low, high, changed images] of one metric. The baseline itself has drop 0, with an interval
    of no width. seen: the baseline on the cell's samples."""
    by_image = seen.by_image(metric), cell.by_image(metric)
    value, whole = cell.value(metric), baseline.value(metric)
    zero = value - value  # NaN when the value is NaN
    if seen is not baseline:
        drop = prefix_drop(metric, *by_image, None, whole)
        value = carried(metric, value, seen.value(metric), whole)
    else:
        drop = Drop(zero, zero, zero) if cell.name == baseline.name else paired_drop(metric, *by_image)
    return [*map(_number, (value, whole, *drop)), changed_images(metric, *by_image)]


def _retained(metric: Metric, cell: Scored, baseline: Scored, seen: Scored) -> list[float | None]:
    """The ends of the interval of the ratio of cell and baseline. The baseline keeps all of itself."""
    if cell.name == baseline.name:
        return [1.0, 1.0] if cell.value(metric) > 0 else [None, None]
    how = kept if seen is baseline else prefix_kept
    found = how(metric, seen.by_image(metric), cell.by_image(metric))
    return [_number(found.low), _number(found.high)]


def lacks_retained(line: Measured) -> bool:
    """Whether an earlier version compared a cell with its baseline, and did not say what is retained."""
    return "images" in line and "retained" not in line


def _number(value: float) -> float | None:
    """The value; None, which JSON has, instead of NaN and infinity, which it has not."""
    return value if math.isfinite(value) else None


def complete(cell: Scored, *others: Baseline | None) -> bool:
    """Whether a measurement may be kept: the cell, its baseline and its control have all scores, by today's scorers."""
    second_runs_current = all(second.current for second in cell.recalibrated.values())
    return cell.current and second_runs_current and all(other is None or other.current for other in others)


def noise(first: Scored, second: Scored, result_noise: Noise) -> dict[str, float | None]:
    """The noise floor of half precision, from a baseline's second run at another batch size. result_noise: what its
    `result` line says."""
    return {"flip_rate": result_noise["flip_rate"], **_changes(first, second)}


def calibration_noise(cell: Scored) -> dict[str, float | None]:
    """The noise floor of a calibrated cell (`seed_flip_rate`, `seed_cider`, …), from second runs that were calibrated
    differently."""
    found: dict[str, float | None] = {}
    for what, second in cell.recalibrated.items():
        if second.predictions.id != cell.predictions.id:  # of a cell that went on since
            continue
        same = same_as_baseline(second.predictions.outputs, cell.predictions.outputs)
        changes = {"flip_rate": 1 - same, **_changes(cell, second)}
        found |= {f"{what}_{k}": v for k, v in changes.items()}
    return found


def _changes(first: Scored, second: Scored) -> dict[str, float | None]:
    """{metric: absolute difference of its value} between two runs."""
    return {m.name: _number(abs(first.value(m) - second.value(m))) for m in first.comparable(second)}
