"""The data of the caption browser: the distinct outputs of each image, and which of them each cell gave."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from blip2sweep.analysis.cells import headline
from blip2sweep.analysis.recipes import entries
from blip2sweep.analysis.steps import quantizers
from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.files import read_json
from blip2sweep.reporting.queries import lost_queries
from blip2sweep.reporting.source import Source
from blip2sweep.results.predictions import predictions_or_none, read_predictions, stem
from blip2sweep.rows import Id
from blip2sweep.tasks.predictions import Predictions

MOST_CELLS = 2000
THUMBNAILS, SIDE = 400, 192


def packed(data: object) -> str:
    """JSON, gzipped, in base64; the page unpacks it with DecompressionStream."""
    return base64.b64encode(gzip.compress(json.dumps(data, separators=(",", ":")).encode(), 6, mtime=0)).decode()


def captions(source: Source, models: int = 1) -> dict[str, object] | None:
    """`{samples, cells, texts, scores, own, index, sign, queries, left_out}`; None where no cell has outputs.

    texts[i]: the distinct outputs of sample i. scores[i]: their values of the main metric, where it has a meaning for
    one sample. index[c]: for cell c, the number of its text for each sample, null of those that it
    stopped before. sign: 1 where more is better. queries[c]: of
    a retrieval, the captions that lost their picture in cell c. left_out: the number of cells beyond MOST_CELLS; that
    many and THUMBNAILS are shared by the models of a page. A likelihood does not follow from the output: then own[c] has
    the values of cell c, and scores are empty.
    """
    rows = source.cells
    if source.draws is None or "predictions" not in rows:
        return None
    there = rows[rows["key"].isin(list(source.draws.arrays))]
    own = there.iloc[(there["part"] != "none").argsort(kind="stable")].head(MOST_CELLS // models)  # the baseline first
    base = own.iloc[0]
    first = read_predictions(source.output_dir, stem(base["key"], base["predictions"]))
    texts: list[dict[str, int]] = [{} for _ in first.id]
    scores: list[list[float | None]] = [[] for _ in first.id]
    index, known = list[list[int | None]](), dict[str, list[int | None]]()
    of_text = source.draws.metric.of_output
    for key, outputs in zip(own["key"], own["predictions"], strict=True):
        if outputs not in known:
            answers = predictions_or_none(source.output_dir, stem(key, outputs))
            single: Sequence[float | None] = _single_scores(source, key) if of_text else [None] * len(first.id)
            known[outputs] = (
                _indexed(said, single, texts, scores)
                if answers and (said := _of_samples(source.readable_outputs(answers), answers.id, first.id))
                else []
            )
        index.append(known[outputs])
    main = {*headline(rows)["key"], *rows.loc[rows["further"] != "", "key"]}
    main = main or set(own["key"])  # blocks alone: all of them, there is nothing larger
    cells = [{"key": r["key"], "parts": r["parts"] or "none", "width": _number(r["width"]), "recipe": r["recipe"],
              "main": r["key"] in main, **_unquantized(r)} for r in own.to_dict("records")]  # fmt: skip
    values = (
        None if of_text else [_single_scores(source, k) if i else [] for k, i in zip(own["key"], index, strict=True)]
    )
    queries = lost_queries(source, first, list(zip(own["key"], own["predictions"], strict=True)))
    first_shown = [i for lost in queries for q in lost for i in (q["sample"], *q["before"], *q["now"])]
    samples = _samples(source, first, _pictured(first, first_shown, THUMBNAILS // models))
    return {"cells": cells, "queries": queries, "samples": samples, "texts": [list(t) for t in texts], "scores": scores,
            "own": values, "index": index, "sign": source.draws.metric.sign, "left_out": len(there) - len(own)}  # fmt: skip


def _of_samples(outputs: Sequence[str], ids: Sequence[Id], wanted: Sequence[Id]) -> list[str | None]:
    """The output for each of the baseline's samples, None of those that a cell that stopped has not; empty for a cell of
    other samples."""
    own = dict(zip(ids, outputs, strict=True))
    return [own.get(sample) for sample in wanted] if own.keys() <= {*wanted} else []


def _indexed(
    outputs: Sequence[str | None],
    single: Sequence[float | None],
    texts: list[dict[str, int]],
    scores: list[list[float | None]],
) -> list[int | None]:
    """The number of each output among the texts of its sample; new texts and their scores are appended."""
    chosen = list[int | None]()
    for i, text in enumerate(outputs):
        if text is None:
            chosen.append(None)
            continue
        if text not in texts[i]:
            texts[i][text] = len(texts[i])
            scores[i].append(single[i])
        chosen.append(texts[i][text])
    return chosen


def _single_scores(source: Source, key: str) -> list[float | None]:
    assert source.draws is not None
    values = source.draws.by_sample(key)
    return [None if np.isnan(v) else round(float(v), 3) for v in values]


def _unquantized(row: Mapping[Hashable, object]) -> dict[str, bool]:
    """Marks a cell that no step quantizes, so that it has no width at all rather than several."""
    recipe = entries(str(row["recipe_json"]))
    return {"unquantized": True} if recipe and not quantizers(recipe) else {}


def _number(value: float) -> float | None:
    return None if value != value else value


def _pictured(first: Predictions, shown: Sequence[int], most: int) -> set[Id]:
    """The images that get a thumbnail: those of the samples `shown`, then the others in file order."""
    order = dict.fromkeys(first.image_id[i] for i in (*shown, *range(len(first.id))))
    return set(list(order)[:most])


def _samples(source: Source, first: Predictions, pictured: set[Id]) -> list[dict[str, object]]:
    """Id, image, question and references of each sample, as far as they are known, and thumbnails of some images."""
    known = {s.id: s for s in source.task.samples} if source.task else {}
    given = source.folder / "references.json"
    references = _references(given) if given.exists() else {}
    rows, pictures = list[dict[str, object]](), dict[Id, str | None]()
    for own, image in zip(first.id, first.image_id, strict=True):
        sample = known.get(own)
        row: dict[str, object] = {"id": own, "image": image}
        if sample is not None:
            row |= {"question": sample.question, "references": list(sample.references)[:10]}
            row["choices"] = list(sample.choices) or None
            if image in pictured and image not in pictures:
                pictures[image] = thumbnail(sample.image)
            row["thumb"] = pictures.get(image)
        elif image in references:
            row["references"] = references[image]
        rows.append({k: v for k, v in row.items() if v is not None})
    return rows


def _references(path: Path) -> dict[Id, list[str]]:
    """{image: captions} of imported results; a damaged file is left out with a remark."""
    try:
        return {r["image_id"]: r["captions"] for r in read_json(path)}
    except (KeyError, TypeError, UserError) as error:
        remark(f"{path}: references are left out ({error})")
        return {}


def thumbnail(path: Path) -> str | None:
    """The picture as a data URI, at most SIDE pixels a side; None where it cannot be read."""
    from blip2sweep.tasks.content import content_of
    from blip2sweep.tasks.pictures import decode

    try:
        small = decode(content_of(path))
        small.thumbnail((SIDE, SIDE))
    except Exception:  # Pillow raises nearly anything for a broken file
        return None
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=50, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
