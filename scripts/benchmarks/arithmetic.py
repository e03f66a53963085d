"""What a whole run cannot do without, stage by stage, where everything that cells share is computed once.

Image stages: a block runs once for each recipe up to it where its stage can be entered between blocks, else the stage runs
once for each recipe up to its end (blip2sweep/recipe/chain.py). Language: once for each cell that is no copy of another. What
the prompts of one picture begin with, the picture included, is read once; behind the last token of a prompt alone something is
written, so of the last block the others need only keys and values; each token of a text is read once, but for its end; the
vocabulary is scored behind the last token of a prompt once, for likelihood and text together.
Attention is counted where it looks, which is half of a square in a decoder. Norms and activations are not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.architecture import work
from blip2sweep.models.part import Linear, Part
from blip2sweep.models.work import Asked, Blocks, Product
from blip2sweep.planning.plan import Plan
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.chain import Entries, chain_of
from blip2sweep.recipe.compact import expand
from blip2sweep.recipe.flops import stack_costs
from scripts.benchmarks.ours import Setting
from scripts.benchmarks.worker import BEGIN, GREEDY

Shape = tuple[int, int, int]  # rows of a batch, in, out


@dataclass
class Need:
    """Of one stage, over all cells. products: {shape: FLOPs} of linear layers. attention: FLOPs. moved: bytes that have to
    come from memory or go there, however fast it is computed."""

    products: Counter[Shape] = field(default_factory=Counter)
    attention: float = 0.0
    moved: float = 0.0

    def add(self, rows: float, n_in: int, n_out: int, tokens: float) -> None:
        """A layer that sees tokens, rows of them at once."""
        if tokens:
            self.products[max(1, round(rows)), n_in, n_out] += round(2 * tokens * n_in * n_out)

    @property
    def flops(self) -> float:
        return sum(self.products.values()) + self.attention


class Prompts(NamedTuple):
    """The tokens of what is read before texts. distinct: those that have to be read. pairs: of these and the tokens that they
    look at. last_pairs: the same of the last tokens alone. lengths: of each prompt with its picture."""

    distinct: int
    pairs: int
    last_pairs: int
    lengths: Sequence[int]


def read_prompts(images: Sequence[object], prompts: Sequence[Sequence[int]], picture: int) -> Prompts:
    """images: the image of each prompt. picture: tokens of a picture, which stand before its prompts or in their midst."""
    tree: dict[object, set[tuple[int, ...]]] = {}
    for image, ids in zip(images, prompts, strict=True):
        tree.setdefault(image, set()).update(tuple(ids[: i + 1]) for i in range(len(ids)))
    depths = [picture + len(start) for starts in tree.values() for start in starts]
    lengths = [picture + len(ids) for ids in prompts]
    pairs = len(tree) * picture * (picture + 1) // 2 + sum(depths)
    return Prompts(len(tree) * picture + len(depths), pairs, sum(lengths), lengths)


class Batches(NamedTuple):
    """How many images, and how many samples, are at once in a pass."""

    images: int
    samples: int


class Model(NamedTuple):
    """A model and the sizes that its config.json says. bytes: of a number."""

    given: Setting
    config: Mapping[str, Any]
    bytes: int

    @property
    def anatomy(self) -> Anatomy:
        return anatomy(self.given.model)

    @property
    def picture(self) -> int:
        """Tokens of a picture in the language model, less a placeholder that stands for it among the ids of a prompt."""
        if "num_query_tokens" in self.config:
            return int(self.config["num_query_tokens"])
        vision = self.config["vision_config"]
        return int((vision["image_size"] // vision["patch_size"]) ** 2) - 1

    def works(self) -> tuple[Blocks | Product, ...]:
        """What one picture costs before the language model, and that beside its own blocks."""
        size = self.config["vision_config"]["image_size"]
        found = work(self.given.model, self.config, Asked((0,), entry=(3, size, size)))
        assert found is not None
        return found

    def parts(self, stage: str) -> Iterator[Part]:
        return (part for part in self.anatomy.parts.values() if part.stage == stage)


# ---- stages that see images alone


def image_stages(model: Model, plan: Plan, images: int, batches: Batches) -> dict[str, Need]:
    """{stage: need} of the stages before the language model's."""
    runs = block_runs(model, plan)
    return {s.name: _image_stage(model, s.name, runs[s.name], images, batches) for s in model.anatomy.stages[:-1]}


def block_runs(model: Model, plan: Plan) -> dict[str, list[int]]:
    """{stage: how often each of its blocks has to see every image}."""
    entries, stages, keys = Entries(model.anatomy), model.anatomy.stages, dict[tuple[int, int], set[str]]()
    for cell in plan.cells.values():
        for point in chain_of("", entries(cell.job()["recipe"]), stages).points:
            keys.setdefault((point.stage, point.block), set()).add(point.key)
    found = {}
    for i, stage in enumerate(stages[:-1]):
        blocks = sum(part.n_blocks for part in model.parts(stage.name))
        found[stage.name] = [len(keys[(i, b + 1) if stage.by_block else (i + 1, 0)]) for b in range(blocks)]
    return found


def _image_stage(model: Model, stage: str, runs: Sequence[int], images: int, batches: Batches) -> Need:
    need, batch = Need(), min(images, batches.images)
    for part in model.parts(stage):
        costs = stack_costs(Recipe.untouched(model.anatomy.parts).parts[part.name])
        for passes in (w for w in model.works() if isinstance(w, Blocks) and w.stack in costs):
            cost = costs[passes.stack]
            for x in part.linears:
                tokens = passes.others.get(x.name, passes.tokens)
                need.add(batch * tokens, x.in_features, x.out_features, runs[x.block] * images * tokens)
            pairs = Counter({b: passes.pairs * width for b, width in cost.own.items()})
            pairs.update({b: passes.crossed * width for b, width in cost.cross.items()})
            need.attention += 4 * images * sum(runs[b] * n for b, n in pairs.items())
    patches = sum(w.flops for w in model.works() if isinstance(w, Product) and w.stage == stage)
    need.attention += patches * images * bool(runs)  # tokens out of pixels: once, whatever the recipes
    return need


# ---- the language model


def language(model: Model, prompts: Prompts, references: Sequence[int], written: Iterable[Sequence[int]],
             images: int, batches: Batches) -> dict[str, Need]:  # fmt: skip
    """{begin, likelihood, greedy: need}. references: tokens of each sample's reference with its end; empty where none is
    measured. written: of each cell that is computed the tokens of each text with its end, in the order of the prompts."""
    found = {name: Need() for name in (BEGIN, "likelihood", GREEDY)}
    for texts in written:
        _begin(model, found[BEGIN], prompts, images, batches)
        _texts(model, found[GREEDY], prompts.lengths, texts, steps=max(texts, default=1) - 1)
        _likelihood(model, found["likelihood"], prompts.lengths, references, batches)
    return found


def _begin(model: Model, need: Need, prompts: Prompts, images: int, batches: Batches) -> None:
    samples = len(prompts.lengths)
    at_once = min(1.0, batches.samples / samples)
    for x in _layers(model):
        ahead = x.leaf in ("k_proj", "v_proj") or x.block < _last(model)
        tokens = prompts.distinct if ahead else samples
        need.add(at_once * tokens, x.in_features, x.out_features, tokens)
    *blocks, last = _widths(model)
    need.attention += 4 * (sum(blocks) * prompts.pairs + last * prompts.last_pairs)
    if "qformer_config" in model.config:
        tokens, own = images * model.picture, model.config["text_config"]["hidden_size"]
        need.add(at_once * tokens, model.config["qformer_config"]["hidden_size"], own, tokens)
    need.moved += _weights(model)


def _likelihood(model: Model, need: Need, before: Sequence[int], lengths: Sequence[int], batches: Batches) -> None:
    if lengths:
        at_once = min(1.0, batches.samples / len(lengths))
        _read(model, need, sum(lengths) - len(lengths), at_once * (sum(lengths) - len(lengths)), heads=0)
        pairs = sum(sum(range(b + 1, b + n)) for b, n in zip(before, lengths, strict=True))
        need.attention += 4 * sum(_widths(model)) * pairs
        need.moved += _weights(model)


def _texts(model: Model, need: Need, before: Sequence[int], lengths: Sequence[int], steps: int) -> None:
    """Token by token: each step reads the weights once, and keys and values of all that is before its tokens."""
    tokens = sum(lengths) - len(lengths)
    _read(model, need, tokens, tokens / max(1, steps), heads=len(lengths))
    pairs = sum(sum(range(b + 1, b + n)) for b, n in zip(before, lengths, strict=True))
    need.attention += 4 * sum(_widths(model)) * pairs
    states = sum(x.out_features for x in _layers(model) if x.leaf in ("k_proj", "v_proj"))
    need.moved += steps * _weights(model) + pairs * states * model.bytes


def _read(model: Model, need: Need, tokens: int, rows: float, heads: int) -> None:
    """Tokens through all blocks and the vocabulary. heads: tokens before them behind which it is scored, too."""
    for x in _layers(model):
        need.add(rows, x.in_features, x.out_features, tokens)
    text = model.config["text_config"]
    need.add(rows, text["hidden_size"], text["vocab_size"], tokens + heads)


def _layers(model: Model) -> list[Linear]:
    return [x for part in model.parts(model.anatomy.last_stage) for x in part.linears]


def _last(model: Model) -> int:
    return max(x.block for x in _layers(model))


def _widths(model: Model) -> list[int]:
    """What attention multiplies in each block: all heads side by side."""
    parts = Recipe.untouched(model.anatomy.parts).parts
    costs = [c for p in model.parts(model.anatomy.last_stage) for c in stack_costs(parts[p.name]).values()]
    return [width for cost in costs for _, width in sorted(cost.own.items())]


def _weights(model: Model) -> int:
    return model.bytes * sum(x.weights for x in _layers(model))


# ---- quantizing


def quantizing(model: Model, plan: Plan) -> Need:
    """Each layer once for each way in which it is quantized, read and written."""
    own = model.anatomy
    recipes = [expand(cell.job()["recipe"], own) for cell in plan.cells.values()]
    made = {(path, scheme) for recipe in recipes for path, scheme in recipe.schemes.items()}
    sizes = {x.path: x.weights for part in own.parts.values() for x in part.linears}
    return Need(moved=2 * model.bytes * sum(sizes[path] for path, _ in made))
