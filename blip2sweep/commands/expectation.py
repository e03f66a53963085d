"""What is said of a recommended recipe: what it takes and loses, how sure that is, and every limit that it exceeds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.choice import Choice
from blip2sweep.analysis.dropoff import too_few
from blip2sweep.analysis.keeps import NOT_KNOWN, OnImages, keeps, kept_of_row, kept_on
from blip2sweep.analysis.prices import prices as prices_of
from blip2sweep.analysis.recipes import Entry, entry_text, is_further, text_of
from blip2sweep.analysis.spread import LEVEL
from blip2sweep.analysis.stopped import LEVEL_TEXT, STOPPED_TEXT, is_stopped
from blip2sweep.console.remarks import many
from blip2sweep.metrics import Kept, fewest_images
from blip2sweep.metrics import unseen as unseen_of
from blip2sweep.metrics.intervals import Drop
from blip2sweep.recipe.size import RATIO_BITS
from blip2sweep.reporting.few_images import FEW_CHANGED, unseen_share
from blip2sweep.reporting.figure import label
from blip2sweep.reporting.prices import price_lines
from blip2sweep.reporting.smaller import ratio_text
from blip2sweep.reporting.source import Source

SURE = 0.99  # the share of the baseline that is always asked about


def original(source: Source) -> str:
    """`original: 4,020,224 bytes (float32), ratio 0.50; …`: what the model takes without a recipe."""
    row = _baseline(source)
    size, width = number(row, "model_bytes"), number(row, "bits_per_weight")
    if not (size > 0 and width > 0):
        return "original: its size is not known"
    stored = f" ({row['stored']})" if isinstance(row.get("stored"), str) else ""
    plain = size * RATIO_BITS / width
    told = f"{size:,.0f} bytes{stored}, ratio {ratio_text(RATIO_BITS / width)}"
    return f"original: {told}; ratios are to its numbers at {RATIO_BITS} bits, {plain:,.0f} bytes"


def _baseline(source: Source) -> Row:
    return source.cells[source.cells["part"] == "none"].iloc[0].to_dict()


def exceeded(choice: Choice, max_drop: float | None) -> list[str]:
    """By what a recipe exceeds the limit of its drop; empty where it does not, and where there is none."""
    if max_drop is None:
        return []
    word, told = "" if choice.key else "is predicted to ", list[str]()
    here, there = (" on the images that chose it", " on those that did not") if choice.held_out else ("", "")
    loses = "loses" if choice.key else "lose"
    if choice.chosen_drop > max_drop:
        told.append(f"it {word}{loses} {choice.chosen_drop:.2%}{here}")
    elif not choice.within:
        told.append(f"it may lose {choice.judged:.2%}{here}, by its prediction interval")
    if choice.held_out and (other := choice.drop / choice.baseline) > max_drop:
        told.append(f"it {word}{loses} {other:.2%}{there}")
    return told


def keeps_lines(choice: Choice, max_drop: float | None, source: Source) -> Iterator[str]:
    """`keeps 99 % with 95 % confidence: yes, no or not known`, of the limit that was asked for as well. Of a cell that
    stopped the confidence is 99.5 %."""
    if not choice.entries:
        return
    level = STOPPED_TEXT if is_stopped(source.measured[0], choice.key) else LEVEL_TEXT
    shares = sorted({SURE, *([] if max_drop is None else [round(1 - max_drop, 6)])}, reverse=True)
    found, why = _kept(choice, source)
    for share, told in zip(shares, (f" ({why})", ""), strict=False):
        answer = keeps(found.kept, share, found.images) if found else NOT_KNOWN
        few = _few(found.images, share) if found and answer == NOT_KNOWN else ""
        yield f"keeps {100 * share:g} % with {level} confidence: {answer}{told}{few}"


def _few(images: int, share: float) -> str:
    """That so few images could not know."""
    return (
        f"; {fewest_images(1 - share)} images show a loss of {1 - share:.1%}"
        if 0 < 1 - share < unseen_of(images)
        else ""
    )


def _kept(choice: Choice, source: Source) -> tuple[OnImages | None, str]:
    """What a cell keeps, and in words on which images; None of a recipe that was not run."""
    if choice.key is None:
        return None, "it was not measured"
    cells, draws = source.measured
    if (found := kept_on(choice.key, draws, choice.held_out)) is None:
        row = cells[cells["key"] == choice.key].iloc[0].to_dict()
        of_row = OnImages(kept_of_row(row, source.metric), int(np.nan_to_num(number(row, "images"))), False)
        known = of_row.kept.low == of_row.kept.low
        return of_row, f"{_range(of_row.kept)}, from the drop in the table" if known else "it has no interval"
    whole = kept_on(choice.key, draws, False) if choice.held_out else None
    of_all = "all its" if is_stopped(cells, choice.key) else "all"
    images = f"the {found.images} images that did not choose it" if choice.held_out else f"the {found.images} images"
    also = f"; {_range(whole.kept)} on {of_all} {whole.images}" if whole else ""
    return found, f"{_range(found.kept)} on {images}{also}"


def _range(kept: Kept) -> str:
    return f"{100 * kept.kept:.1f} % [{100 * kept.low:.1f}, {100 * kept.high:.1f}]"


def expected(choice: Choice, source: Source) -> str:
    half = "the half of the images that did not choose it" if choice.held_out else "all images, which also chose it"
    how = f"measured, cell {choice.key}" if choice.key else "predicted, not measured"
    return f"{how}: {_level(choice, source)} (baseline {choice.baseline:.4f}), on {half}"


def _level(choice: Choice, source: Source) -> str:
    """The metric with an interval: of a prediction its own, of a cell that of its drop."""
    value = f"{label(source)} {choice.value:.4f}"
    if choice.key:
        return f"{value}, drop {choice.drop:.4f} {_drop_ends(choice.key, choice, source)}"
    return f"{value}, {LEVEL:.0%} prediction interval [{choice.low:.4f}, {choice.high:.4f}]"


def _drop_ends(key: str, choice: Choice, source: Source) -> str:
    """The paired interval on the images that are reported: 95 %, or 99.5 % of a cell that stopped, which is said."""
    found = _paired(key, choice, source)
    level = f" ({STOPPED_TEXT})" if is_stopped(source.measured[0], key) else ""
    return f"[{found.low:.4f}, {found.high:.4f}]{level}" if found else "without an interval (no outputs)"


def _paired(key: str, choice: Choice, source: Source) -> Drop | None:
    """The drop of a cell on the images that are reported; None where it has no outputs."""
    draws = source.measured[1]
    if draws is None or key not in draws:
        return None
    return (draws.only([key]).on(draws.half(False)) if choice.held_out else draws).paired(key)


def summary(choice: Choice, max_drop: float | None, source: Source) -> Iterator[str]:
    """The recipe, its size, what to expect, and what else to look at."""
    yield from [f"{e['target']}: {_what(e)}" for e in choice.entries] or ["nothing is compressed"]
    times = RATIO_BITS / choice.bits_per_weight
    ratio = f"ratio {ratio_text(times)}" + (f" to {RATIO_BITS} bits a number" if times >= 1 else "")
    whole = number(_baseline(source), "model_bytes")
    share = f", {choice.model_bytes / whole:.2f} of the original's bytes as it is loaded" if whole > 0 else ""
    yield f"{choice.model_bytes:,} bytes, {choice.bits_per_weight:.2f} bits per weight, {ratio}{share}"
    yield expected(choice, source)
    if choice.passed:
        smaller = many(choice.passed, "smaller recipe")
        yield f"{smaller} passed over: within the limit on the images that choose, beyond it on the others"
    yield from _against_control(choice, source)
    if choice.instead and choice.instead.entries:
        yield _other(choice.instead, max_drop, source)


def _what(entry: Entry) -> str:
    return entry_text(entry) if is_further(entry) else f"{entry['method']} {entry['bits']} bits"


def _against_control(choice: Choice, source: Source) -> Iterator[str]:
    """What a recovered cell loses against its control, on all images."""
    cells, m = source.measured[0], source.metric
    own = cells[cells["key"] == choice.key]
    if own.empty or f"drop_control_{m}" not in own or own["control"].iloc[0] == choice.key:
        return
    drop, low, high = (float(own[f"drop_control_{m}{end}"].iloc[0]) for end in ("", "_low", "_high"))
    if drop == drop:
        yield (
            f"it is trained after compression; against the uncompressed model with the same recovery (cell {own['control'].iloc[0]}) "
            f"the drop on all images is {drop:.4f} [{low:.4f}, {high:.4f}], and the limit is not about that one"
        )


def _other(choice: Choice, max_drop: float | None, source: Source) -> str:
    """What else to look at: the best cell, or what a cell does not show yet."""
    text = f"{text_of(choice.entries)}, {choice.model_bytes:,} bytes, {_level(choice, source)}"
    if choice.key is None:
        return f"better, if its prediction holds: {text}"
    over = exceeded(choice, max_drop)
    beyond = f", BEYOND the limit of {max_drop:.1%} ({'; '.join(over)})" if over else ""
    return f"the best measured is cell {choice.key}{beyond}: {text}"


def over_limit(choice: Choice, max_drop: float | None) -> list[str]:
    """A warning where the recipe exceeds the limit, or may exceed it."""
    if max_drop is None:
        return []
    if not choice.within:
        least = f"{choice.chosen_drop:.1%} is the least loss that was found"
        worse = f", and it may be {choice.judged:.1%}" if choice.judged > choice.chosen_drop else ""
        return [f"the limit of {max_drop:.1%} is NOT kept: {least}{worse}; "
                "right: a larger limit or size, or more cells (blip2sweep suggest)"]  # fmt: skip
    held_out, word = choice.drop / choice.baseline, "measured" if choice.key else "predicted"
    warning = f"on the other half {held_out:.1%} is {word}, above the limit of {max_drop:.1%}"
    return [warning] if held_out > max_drop else []


def of_others(choice: Choice, source: Source) -> list[str]:
    """That the cell was run by another sweep."""
    if choice.key is None or choice.key in set(source.cells["key"]):
        return []
    return [f"cell {choice.key} is none of {source.title}: another sweep with the same baseline ran it"]


def reaches(choice: Choice, max_drop: float | None, source: Source) -> list[str]:
    """That the interval of a cell which keeps the limit reaches beyond it."""
    found = _paired(choice.key, choice, source) if choice.key and choice.entries and choice.within else None
    if max_drop is None or found is None or not found.high / choice.baseline > max_drop:
        return []
    return [f"its interval reaches {found.high / choice.baseline:.1%}, beyond the limit of {max_drop:.1%}"]


def unseen(choice: Choice, max_drop: float | None, source: Source) -> list[str]:
    """Notes on what so few images cannot show."""
    draws = source.measured[1]
    if draws is None or not choice.entries:
        return []
    shown = draws.on(draws.half(False)) if choice.held_out else draws
    n, lines = shown.count(choice.key or shown.baseline), []
    if choice.key is not None and choice.key in shown and (few := shown.changed(choice.key)) < FEW_CHANGED:
        lines.append(f"only {few} of these {n} images changed: {unseen_share(n)}")
    if max_drop and n < fewest_images(max_drop):
        lines.append(f"a limit of {max_drop:.1%} is not known to be kept: {too_few(n, max_drop)}")
    return lines


def prices(choice: Choice, source: Source, limit: float | None) -> list[str]:
    """What one width more or less changes, in the choice's setting, at its cell or at the smallest that loses at most 2
    %. A next step is advised from the choice's own cell alone, and within the limit.
    """
    cells, draws = source.measured
    found = prices_of(cells, source.metric, lambda keys: draws, choice.key)
    own = found[found["setting"] == choice.setting]
    shown = own if len(own) else found
    lines = price_lines(source, shown, cells, choice.key or "", limit)
    if not lines or (shown["beside"] == choice.key).any():
        return lines
    why = "these steps are from another recipe" if choice.key else "it was not run: run it first (--verify)"
    return [*lines, f"  no narrower step is advised yet from the recommended recipe, for {why}"]
