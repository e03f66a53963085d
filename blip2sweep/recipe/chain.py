"""The chain of keys that says which work two cells share, and the order that puts sharing cells side by side.

`key_0 = H(start)` and `key_i = H(key_{i-1}, stage, recipe entries of block i)`, through the stages of the architecture
in the order of computation. The language model comes last; its key is joined with the content of its input. Two cells
whose keys agree at a point compute the same thing up to there. For that, `start` must say everything else: weights,
images, preprocessing, dtypes, attention, image processor, device kind and library versions. The keys of cells do not
depend on the chain, so sharing never changes an identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from blip2sweep.canonical import canonical_json, digest
from blip2sweep.compression.step import SpecFields
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.architecture import Stage
from blip2sweep.models.part import Part
from blip2sweep.recipe.compact import expand
from blip2sweep.recipe.recipe import PartRecipe, joined
from blip2sweep.recipe.trained import training_name
from blip2sweep.wire.pack import CellJob

Blocks = tuple[str, ...]  # for each block the digest of its recipe entries, "" where there are none


class Point(NamedTuple):
    """A place on the way from pixels to the language model: before block `block` of stage number `stage`.

    At block 0 it is the input of the stage.
    """

    key: str
    stage: int
    block: int


class Chain(NamedTuple):
    """The keys of one cell.

    points: the places where something may be kept, in the order of computation. The first is the pixels, the last the
    input of the language model. Between them are the states of stages that go by block, and the outputs of other
    stages. language: the key of the language model's recipe, without its input.
    """

    points: tuple[Point, ...]
    language: str

    @property
    def output(self) -> str:
        """The key of the language model's input."""
        return self.points[-1].key

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of everything that may be kept, in the order of computation."""
        return tuple(point.key for point in self.points)


def chain_of(start: object, entries: Mapping[str, Blocks], stages: Sequence[Stage]) -> Chain:
    """The chain of a recipe whose entries are known.

    start: everything but the recipe that determines the features, as JSON. entries: {stage: one for each block}; a
    stage that no part names is left alone. stages: of the architecture.
    """
    *seeing, last = stages
    points, key = [Point(digest(start), 0, 0)], digest(start)
    for i, stage in enumerate(seeing):
        keys = _stage_keys(key, stage.name, entries.get(stage.name, ()))
        if stage.by_block:
            points += [Point(k, i, block) for block, k in enumerate(keys) if block]
        if not stage.by_block or stage is seeing[-1]:  # otherwise the state after the last block says the same
            points.append(Point(digest([keys[-1], stage.name]), i + 1, 0))
        key = keys[-1]
    return Chain(tuple(points), digest([last.name, *entries.get(last.name, ())]))


def by_stage(parts: Iterable[tuple[Part, Blocks]]) -> dict[str, Blocks]:
    """{stage: the entries of its parts}. parts: in the order of computation."""
    found: dict[str, Blocks] = {}
    for part, blocks in parts:
        found[part.stage] = found.get(part.stage, ()) + blocks
    return found


@lru_cache(maxsize=4096)
def _stage_keys(key: str, stage: str, blocks: Blocks) -> tuple[str, ...]:
    keys = [key]
    for entry in blocks:
        keys.append(digest([keys[-1], stage, entry]))
    return tuple(keys)


@lru_cache(maxsize=65536)
def block_entries(part: PartRecipe) -> Blocks:
    """For each block a digest of {path of a site: spec}, of the entries whose first changed block it is."""
    blocks: list[list[tuple[str, dict[str, SpecFields]]]] = [[] for _ in range(part.part.n_blocks)]
    for entries, (kind, specs) in zip(part.steps, part.identities, strict=True):
        own: dict[int, dict[str, SpecFields]] = {}
        for site, spec in entries.pairs:
            own.setdefault(spec.first_block(site), {})[site.path] = specs[site.path]
        for block, there in own.items():
            if block < len(blocks):  # a later one reaches nothing
                blocks[block].append((kind, there))
    return tuple(digest(joined(steps))[:16] if steps else "" for steps in blocks)


class Entries:
    """`block_entries` of recipes in their short form.

    The cells of a grid share their parts, so each part is expanded once.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self._known: dict[str, Blocks] = {}

    def __call__(self, targets: Sequence[Mapping[str, object]]) -> dict[str, Blocks]:
        """{stage: entries} of a list of targets, as `Cell.job()` has it."""
        return by_stage((part, self._part(part, targets)) for part in self.anatomy.parts.values())

    def _part(self, part: Part, targets: Sequence[Mapping[str, object]]) -> Blocks:
        own = [t for t in targets if str(t["target"]).split(":")[0].split(".")[0] == part.name]
        name = part.name + canonical_json(own)
        if name not in self._known:
            self._known[name] = block_entries(expand(own, self.anatomy).parts[part.name])
        return self._known[name]


class Prefixes:
    """Sort keys of cells, as `Cell.job()` gives these. In their order neighbours share the longest prefix.

    What is left alone comes first. A worker then goes through the tree of prefixes depth first, and computes least. Cells
    that share what is trained for them come together, behind those for which nothing is.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entries] = {}

    def __call__(self, job: CellJob) -> tuple[object, ...]:
        model, columns = canonical_json(job["model"]), job["columns"]
        if model not in self._entries:
            self._entries[model] = Entries(anatomy(job["model"]))
        blocks, trained = self._entries[model](job["recipe"]), training_name(job["recipe"], columns)
        data = (columns["weights"], columns["task"], columns["data"])
        return (model, *data, trained, *blocks.values(), columns["generation"])
