"""`blip2sweep import blip2-coco DIR`: the published study (gautomdas/blip2-coco, arXiv 2601.15287) with honest recipes.

A config of the study names a part, a third of its blocks and a layer type. What its quantizer then really changed follows
from the attribute names it asks a block for: `mlp.fc1/fc2` or `fc1/fc2`; `self_attn.qkv/projection`; `attention.attention.
query/key/value` and `attention.output.dense`. OPT's attention has none of these names inside `self_attn`, the Q-Former's
MLP is called `intermediate_query`/`output_query`, its cross-attention `crossattention`: those entries changed nothing.
`check_duplicates` holds this against the data: configs that changed the same layers must have the same scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from blip2sweep.errors import UserError
from blip2sweep.importing.rows import Recipes, Source
from blip2sweep.models.shipped import model_anatomy
from blip2sweep.recipe import Recipe

NAME = "gautomdas/blip2-coco"
MODEL = "blip2-opt-2.7b"
FILES = ("configs.json", "scores.csv", "references.json")
PARTS = {"VIT": "vit", "QFORMER": "qformer", "LLM": "llm"}
TYPES = {"MLP": ("mlp",), "ATTENTION": ("attention",), "BOTH": ("attention", "mlp")}
REACHED = {"vit": ("attention", "mlp"), "qformer": ("attention",), "llm": ("mlp",)}
FLOAT_BITS = 32  # of the study's own size column
CELLS = 1500  # of the published table


@dataclass
class Config:
    """One numbered config: what it named, what it changed, and the scores published for it."""

    number: int
    named: list[dict[str, Any]]
    recipe: Recipe
    noop: bool  # some entry names layers of which none was reached
    scores: dict[str, float]
    size: int  # bits, as published
    right_size: int  # bits of what was really changed, by the same rule

    @property
    def nothing(self) -> bool:
        return self.recipe.empty


@dataclass
class Study:
    """The study as read: configs in order, references and predictions by config (every fifth)."""

    folder: Path
    source: Source
    configs: list[Config]
    references: list[list[str]]
    image_ids: list[int]
    predictions: dict[int, list[str]] = field(default_factory=dict)


class Counts(NamedTuple):
    """What was found in the data; FACTS of the study in the order they are printed."""

    configs: int
    noop: int
    nothing: int
    distinct: int
    distinct_16_untouched: int
    wrong_sizes: int
    with_predictions: int
    empty_outputs: int


def read_study(folder: Path) -> Study:
    """Read and check the files of a copy of the study. Raises UserError, one line, when it is not whole."""
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: {name} is missing, so this is no whole copy of {NAME}; right: {', '.join(FILES)}"
            )
    named, scores = _json(folder / "configs.json"), _scores(folder / "scores.csv")
    _check_scores(folder, named, scores)
    references = _json(folder / "references.json")
    image_ids = [int(r["image_id"]) for r in references]
    source = _source(scores, image_ids)
    recipes = Recipes(source.anatomy)
    configs = [_config(row, named[str(row["config"])], recipes, scores) for row in scores.to_dict("records")]
    study = Study(folder, source, configs, [r["captions"] for r in references], image_ids)
    check_duplicates(study)
    study.predictions = _predictions(study)
    return study


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not whole JSON ({error}); right: copy it again") from error


def _scores(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except ValueError as error:
        raise UserError(
            f"{path}: not a whole CSV file ({' '.join(str(error).split())}); right: copy it again"
        ) from error


def _check_scores(folder: Path, named: Mapping[str, Any], scores: pd.DataFrame) -> None:
    wanted = {"config", "METEOR", "CIDEr", "quantized_size"}
    if missing := wanted - set(scores):
        raise UserError(f"{folder}/scores.csv: no column {', '.join(sorted(missing))}; right: the published scores")
    if len(scores) != CELLS or scores["config"].nunique() != CELLS:
        raise UserError(
            f"{folder}/scores.csv: {len(scores)} rows of {scores['config'].nunique()} configs; right: the whole file, one row "
            f"for each of the {CELLS} cells"
        )
    unknown = [c for c in scores["config"] if str(c) not in named]
    if unknown:
        raise UserError(f"{folder}/scores.csv: config {unknown[0]} is not in configs.json; right: files of one copy")
    numbers = scores[["METEOR", "CIDEr", "quantized_size"]].apply(pd.to_numeric, errors="coerce")
    bad = scores.loc[numbers.isna().any(axis=1), "config"]
    if len(bad):
        raise UserError(
            f"{folder}/scores.csv: config {bad.iloc[0]} has no score or size that is a number; right: the whole file"
        )


def _source(scores: pd.DataFrame, image_ids: Sequence[int]) -> Source:
    """The parameter count comes from the study itself: the size it gives for an untouched model, 32 bits each."""
    from blip2sweep.canonical import canonical_json, digest

    generation = canonical_json({"max_new_tokens": 18, "num_beams": 1})
    identity = {
        "dtype": "float32",
        "task": "coco_caption",
        "samples": len(image_ids),
        "data": digest(list(image_ids))[:12],
        "generation": generation,
    }
    params = int(scores["quantized_size"].max()) // FLOAT_BITS
    return Source(NAME, MODEL, model_anatomy(MODEL), params, identity)


def _config(row: Mapping[Any, Any], named: list[dict[str, Any]], recipes: Recipes, scores: pd.DataFrame) -> Config:
    recipe = recipes([e for entry in named for e in honest_entries(entry)])
    touched = [(x.weights + x.out_features, s.weights.num_bits) for x, s in recipe.touched()]
    right = int(scores["quantized_size"].max()) - sum(n * (FLOAT_BITS - bits) for n, bits in touched)
    noop = any(set(TYPES[e["layer_type"]]) - set(REACHED[PARTS[e["model_part"]]]) for e in named)
    published = {"meteor": float(row["METEOR"]), "cider": float(row["CIDEr"])}
    return Config(int(row["config"]), named, recipe, noop, published, int(row["quantized_size"]), right)


def honest_entries(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What one entry of a config really changed, as recipe entries; none where it reached nothing."""
    part = PARTS[entry["model_part"]]
    scheme = {"method": "minmax", "bits": entry["num_bits"], "strategy": "tensor", "quantize_bias": True}
    kinds = [k for k in TYPES[entry["layer_type"]] if k in REACHED[part]]
    return [{"target": f"{part}:{str(entry['layer_group']).lower()}:{kind}", **scheme} for kind in kinds]


def check_duplicates(study: Study) -> None:
    """Greedy decoding in fp32 is deterministic: equal models must have equal scores, or our recipes are not honest."""
    first: dict[str, Config] = {}
    for config in study.configs:
        other = first.setdefault(config.recipe.hash, config)
        if other.scores != config.scores:
            raise UserError(
                f"{study.folder}/scores.csv: configs {other.number} and {config.number} changed the same layers but "
                f"have other scores; right: the published scores"
            )


def _predictions(study: Study) -> dict[int, list[str]]:
    """Captions by config, in the order of the references; nothing where the file is not there."""
    path = study.folder / "predictions.parquet"
    if not path.is_file():
        return {}
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["config", "image_id", "caption"]).to_pydict()
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are kinds of ValueError and KeyError
        raise UserError(
            f"{path}: not a whole parquet file of captions ({' '.join(str(error).split())[:120]}); right: copy it again"
        ) from error
    found: dict[int, list[str]] = {}
    images: dict[int, list[int]] = {}
    for config, image, caption in zip(table["config"], table["image_id"], table["caption"], strict=True):
        found.setdefault(config, []).append(caption)
        images.setdefault(config, []).append(image)
    for config, ids in images.items():
        if ids != study.image_ids:
            raise UserError(
                f"{path}: config {config} has {len(ids)} captions, not one for each image of references.json in order; "
                f"right: the whole file"
            )
    return found


def count(study: Study) -> Counts:
    """The counts that the import prints."""
    return Counts(
        configs=len(study.configs),
        noop=sum(c.noop for c in study.configs),
        nothing=sum(c.nothing for c in study.configs),
        distinct=len({c.recipe.hash for c in study.configs}),
        distinct_16_untouched=len({_without_16(c.recipe) for c in study.configs}),
        wrong_sizes=sum(c.size != c.right_size for c in study.configs),
        with_predictions=len(study.predictions),
        empty_outputs=sum(not any(t.strip() for t in texts) for texts in study.predictions.values()),
    )


def _without_16(recipe: Recipe) -> frozenset[tuple[str, int]]:
    return frozenset((x.path, s.weights.num_bits) for x, s in recipe.touched() if s.weights.num_bits < 16)
