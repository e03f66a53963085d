"""`blip2sweep import blip2-coco DIR`: reads the published study (gautomdas/blip2-coco, arXiv 2601.15287).

A config of the study names a part, a third of its blocks and a layer type. The recipe here holds the layers that the
study's quantizer really changed. It looked for these attributes of a block: `mlp.fc1/fc2` or `fc1/fc2`;
`self_attn.qkv/projection`; `attention.attention.query/key/value` and `attention.output.dense`. OPT's `self_attn` has
none of these names. The Q-Former calls its MLP `intermediate_query`/`output_query` and its cross-attention
`crossattention`. Entries that name only such layers changed nothing. `check_duplicates` tests this on the data: configs
that changed the same layers must have the same scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from blip2sweep.canonical import canonical_json, digest
from blip2sweep.errors import UserError
from blip2sweep.importing.rows import Entry, Recipes, Source
from blip2sweep.importing.study_files import NAME, NamedLayers, Row, read_files, read_predictions
from blip2sweep.models.shipped import model_anatomy
from blip2sweep.recipe import Recipe

MODEL = "blip2-opt-2.7b"
PARTS = {"VIT": "vit", "QFORMER": "qformer", "LLM": "llm"}
TYPES = {"MLP": ("mlp",), "ATTENTION": ("attention",), "BOTH": ("attention", "mlp")}
REACHED = {"vit": ("attention", "mlp"), "qformer": ("attention",), "llm": ("mlp",)}
FLOAT_BITS = 32  # bits of an untouched parameter in the study's column of sizes


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
    files = read_files(folder)
    image_ids = [int(r["image_id"]) for r in files.references]
    untouched = int(max(row.size for row in files.rows))
    source = _source(untouched, image_ids)
    recipes = Recipes(source.anatomy)
    configs = [_config(row, files.named[str(row.config)], recipes, untouched) for row in files.rows]
    study = Study(folder, source, configs, [r["captions"] for r in files.references], image_ids)
    check_duplicates(study)
    study.predictions = read_predictions(folder, image_ids)
    return study


def _source(untouched: int, image_ids: Sequence[int]) -> Source:
    """The study as a source. Its number of parameters follows from the size of an untouched model, 32 bits each."""
    generation = canonical_json({"max_new_tokens": 18, "num_beams": 1})
    identity = {
        "dtype": "float32",
        "task": "coco_caption",
        "samples": len(image_ids),
        "data": digest(list(image_ids))[:12],
        "generation": generation,
    }
    return Source(NAME, MODEL, model_anatomy(MODEL), untouched // FLOAT_BITS, identity)


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
