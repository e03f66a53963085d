"""`blip2sweep import blip2-coco DIR`: reads the published study (gautomdas/blip2-coco, arXiv 2601.15287).

A config of the study names a part, a third of its blocks and a layer type. The recipe here holds the layers that the
study's quantizer really changed. It looked for these attributes of a block: `mlp.fc1/fc2` or `fc1/fc2`;
`self_attn.qkv/projection`; `attention.attention.query/key/value` and `attention.output.dense`. OPT's `self_attn` has
none of these names. The Q-Former calls its MLP `intermediate_query`/`output_query` and its cross-attention
`crossattention`. Entries that name only such layers changed nothing. `check_duplicates` tests this on the data: configs
that changed the same layers must have the same scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

import pandas as pd

from blip2sweep.errors import UserError
from blip2sweep.importing.rows import Entry, Recipes, Source
from blip2sweep.models.shipped import model_anatomy
from blip2sweep.recipe import Recipe

NAME = "gautomdas/blip2-coco"
MODEL = "blip2-opt-2.7b"
COLUMNS = ("config", "METEOR", "CIDEr", "quantized_size")  # of scores.csv; Row has them in this order
FILES = ("configs.json", "scores.csv", "references.json")
PARTS = {"VIT": "vit", "QFORMER": "qformer", "LLM": "llm"}
TYPES = {"MLP": ("mlp",), "ATTENTION": ("attention",), "BOTH": ("attention", "mlp")}
REACHED = {"vit": ("attention", "mlp"), "qformer": ("attention",), "llm": ("mlp",)}
FLOAT_BITS = 32  # bits of an untouched parameter in the study's column of sizes
CELLS = 1500  # number of cells in the published table


class NamedLayers(TypedDict):
    """One entry of a config in configs.json."""

    model_part: str
    layer_group: str
    layer_type: str
    num_bits: int


class Reference(TypedDict):
    """One image in references.json."""

    image_id: int
    captions: list[str]


@dataclass
class Config:
    """One numbered config: what it named, what it changed, and its published scores."""

    number: int
    named: list[NamedLayers]
    recipe: Recipe
    noop: bool  # some entry names a kind of layers that the quantizer did not find
    scores: dict[str, float]
    size: int  # bits, as published
    right_size: int  # bits of what was really changed, by the same rule

    @property
    def nothing(self) -> bool:
        return self.recipe.empty


@dataclass
class Study:
    """The study: configs in order, references by image, and the captions of every fifth config."""

    folder: Path
    source: Source
    configs: list[Config]
    references: list[list[str]]
    image_ids: list[int]
    predictions: dict[int, list[str]] = field(default_factory=dict)


class Row(NamedTuple):
    """One row of scores.csv. size: bits."""

    config: int
    meteor: float
    cider: float
    size: int


class Counts(NamedTuple):
    """Counts of the study's configs, in the order in which they are printed."""

    configs: int
    noop: int
    nothing: int
    distinct: int
    distinct_16_untouched: int
    wrong_sizes: int
    with_predictions: int
    empty_outputs: int


def read_study(folder: Path) -> Study:
    """Read and check a copy of the study. Raises UserError, one line, when the copy is not whole."""
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: {name} is missing, so this is no whole copy of {NAME}; right: {', '.join(FILES)}"
            )
    named = cast("dict[str, list[NamedLayers]]", _json(folder / "configs.json"))
    scores = _scores(folder / "scores.csv")
    _check_scores(folder, named, scores)
    references = cast("list[Reference]", _json(folder / "references.json"))
    image_ids = [int(r["image_id"]) for r in references]
    source = _source(scores, image_ids)
    recipes = Recipes(source.anatomy)
    columns = (scores[name].tolist() for name in COLUMNS)
    largest = int(scores["quantized_size"].max())
    configs = [_config(Row(*row), named[str(row[0])], recipes, largest) for row in zip(*columns, strict=True)]
    study = Study(folder, source, configs, [r["captions"] for r in references], image_ids)
    check_duplicates(study)
    study.predictions = _predictions(study)
    return study


def _json(path: Path) -> object:
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


def _check_scores(folder: Path, named: Mapping[str, object], scores: pd.DataFrame) -> None:
    if missing := set(COLUMNS) - set(scores):
        raise UserError(f"{folder}/scores.csv: no column {', '.join(sorted(missing))}; right: the published scores")
    if len(scores) != CELLS or scores["config"].nunique() != CELLS:
        raise UserError(
            f"{folder}/scores.csv: {len(scores)} rows of {scores['config'].nunique()} configs; right: the whole file, one row "
            f"for each of the {CELLS} cells"
        )
    unknown = [c for c in scores["config"] if str(c) not in named]
    if unknown:
        raise UserError(f"{folder}/scores.csv: config {unknown[0]} is not in configs.json; right: files of one copy")
    numbers = scores[[*COLUMNS[1:]]].apply(pd.to_numeric, errors="coerce")
    bad = scores.loc[numbers.isna().any(axis=1), "config"]
    if len(bad):
        raise UserError(
            f"{folder}/scores.csv: config {bad.iloc[0]} has no score or size that is a number; right: the whole file"
        )


def _source(scores: pd.DataFrame, image_ids: Sequence[int]) -> Source:
    """The study as a source. Its number of parameters follows from the size of an untouched model, 32 bits each."""
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


def _config(row: Row, named: list[NamedLayers], recipes: Recipes, untouched: int) -> Config:
    """The config of one row. untouched: bits of the untouched model."""
    recipe = recipes([e for entry in named for e in honest_entries(entry)])
    touched = [(x.weights + x.out_features, s.weights.num_bits) for x, s in recipe.touched()]
    right = untouched - sum(n * (FLOAT_BITS - bits) for n, bits in touched)
    noop = any(set(TYPES[e["layer_type"]]) - set(REACHED[PARTS[e["model_part"]]]) for e in named)
    published = {"meteor": float(row.meteor), "cider": float(row.cider)}
    return Config(int(row.config), named, recipe, noop, published, int(row.size), right)


def honest_entries(entry: NamedLayers) -> list[Entry]:
    """The recipe entries of the layers that one entry of a config really changed. [] where it changed nothing."""
    part = PARTS[entry["model_part"]]
    scheme = {"method": "minmax", "bits": entry["num_bits"], "strategy": "tensor", "quantize_bias": True}
    kinds = [k for k in TYPES[entry["layer_type"]] if k in REACHED[part]]
    return [{"target": f"{part}:{str(entry['layer_group']).lower()}:{kind}", **scheme} for kind in kinds]


def check_duplicates(study: Study) -> None:
    """Raise UserError where two configs changed the same layers and have other scores.

    Greedy decoding in fp32 is deterministic, so equal models have equal scores.
    """
    first: dict[str, Config] = {}
    for config in study.configs:
        other = first.setdefault(config.recipe.hash, config)
        if other.scores != config.scores:
            raise UserError(
                f"{study.folder}/scores.csv: configs {other.number} and {config.number} changed the same layers but "
                f"have other scores; right: the published scores"
            )


def _predictions(study: Study) -> dict[int, list[str]]:
    """Captions by config, in the order of the references. {} without the file."""
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
