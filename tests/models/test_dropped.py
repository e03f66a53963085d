"""Dropped blocks in every architecture: the model computes what it would if it had been built without them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.compression.undo import Undo
from blip2sweep.errors import UserError
from blip2sweep.models import dropped, shorter
from blip2sweep.models.config_file import read_object
from blip2sweep.models.language import Matcher
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.own_config import OwnConfig
from blip2sweep.models.own_folder import _made
from blip2sweep.models.ragged import joined
from blip2sweep.models.written_out import answer
from blip2sweep.tasks import Generation, TaskData, load_task
from tests.checkpoints import conf
from tests.compression.test_step import snapshot
from tests.models.image_text.made import FIRST
from tests.params import quick
from tests.ragged_pictures import pictures
from tests.small_models import RETRIEVAL, small

thorough = pytest.mark.thorough
VIT, QFORMER, OPT = "vision_model.encoder.layers", "qformer.encoder.layer", "language_model.model.decoder.layers"
ENCODER, DECODER = "language_model.encoder.block", "language_model.decoder.block"
TOWER, LAYERS = "model.vision_tower.encoder.layers", "model.language_model.layers"
VISUAL = "model.visual.blocks"
BLIP_DECODER, BLIP_ENCODER = "text_decoder.bert.encoder.layer", "text_encoder.encoder.layer"
Blocks = Mapping[str, Iterable[int]]  # {path of a list: numbers}

# Sets that a checkpoint can hold: the first block that is left is another one, blocks in the middle, the last one.
SHORTER: dict[str, Blocks] = {
    "blip2-opt-2.7b": {VIT: (0, 3), QFORMER: (5,), OPT: (0, 2)},
    "blip2-flan-t5-xl": {VIT: (5,), QFORMER: (4, 5), ENCODER: (0,), DECODER: (0,)},
    "instructblip-vicuna-7b": {VIT: (1,), QFORMER: (3,), "language_model.model.layers": (0,)},
    "instructblip-flan-t5-xl": {VIT: (0,), QFORMER: (0, 1), ENCODER: (1,)},
    "blip-image-captioning-base": {VIT: (2,), BLIP_DECODER: (0,)},
    "blip-vqa-base": {VIT: (0,), BLIP_ENCODER: (2,), BLIP_DECODER: (0,)},
    "llava-1.5-7b": {TOWER: (0, 3), LAYERS: (0,)},  # 3 is behind the state that is read
    "llava-v1.6-mistral-7b": {TOWER: (1, 2), LAYERS: (1,)},
    "llava-onevision-0.5b": {TOWER: (3,), LAYERS: (0,)},
    "smolvlm-256m": {"model.vision_model.encoder.layers": (0,), "model.text_model.layers": (0,)},
    "paligemma-3b-224": {TOWER: (1,), LAYERS: (0,)},
    "internvl3-1b": {"model.vision_tower.encoder.layer": (0,), LAYERS: (2,)},
    "gemma-3-4b": {TOWER: (2,), LAYERS: (0,)},  # the first one that is left sees everything, the next one a window
    "qwen2.5-vl-3b": {VISUAL: (1, 2), LAYERS: (0,)},  # 1 and 3 see the whole picture
    "qwen3-vl-2b": {VISUAL: (3,), LAYERS: (3,)},
    RETRIEVAL: {VIT: (0,), QFORMER: (3,)},
}
# Sets that it cannot hold, and why.
REFUSED: dict[str, tuple[Blocks, str]] = {
    "blip2-opt-2.7b": ({QFORMER: (1,)}, "layer.2.crossattention.attention.key.bias would be drawn at random"),
    "instructblip-vicuna-7b": ({QFORMER: (0,)}, "layer.0.crossattention.attention.key.bias would be drawn at random"),
    "blip-vqa-base": ({BLIP_ENCODER: (2,)}, "which would be 2 and 3"),
    "qwen3-vl-2b": ({LAYERS: (0,)}, "features of a picture enter behind blocks 0-2"),
    "tower of qwen3-vl-2b": ({VISUAL: (1,)}, "reads the states behind blocks 0, 1, 2, some of which are one"),
}


class Small(NamedTuple):
    section: dict[str, Any]
    loaded: Loaded
    folder: Path


@pytest.fixture(scope="module")
def of_name(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Small]:
    @functools.cache
    def one(name: str) -> Small:
        section, write = small(name)
        folder = tmp_path_factory.mktemp(name)
        write(folder / "whole")
        return Small(dict(section), load(section, folder / "whole"), folder)  # type: ignore[arg-type]

    return one


@functools.cache
def questions() -> TaskData:
    return load_task({**conf("task/shapes_vqa"), "limit": 3})


def said(loaded: Loaded) -> list[Any]:
    """Texts, written greedily and with beams, or scores of pairs; likelihoods to five digits."""
    if isinstance(loaded.language, Matcher):
        return scores(loaded, loaded.language)
    found = []
    for generation in (Generation("Question: {} Answer:", 1, 5), Generation("Question: {} Answer:", 2, 4)):
        records = evaluate(loaded, questions(), generation, batch_size=4, nll_references=1).records
        found += [(r["text"], pytest.approx(r["nll_sum"], rel=1e-5)) for r in records]
    return found


def scores(loaded: Loaded, language: Matcher) -> list[Any]:
    rows = joined([loaded.pixels(image) for image in pictures(2)])
    for stage in loaded.images:
        rows = stage.run(rows)
    texts = language.reference_ids(["a cat", "two dogs"], False)
    alone = language.similarity(language.seen(rows), language.said(texts)).flatten().tolist()
    return [pytest.approx(x, rel=1e-4) for x in (*language.matched(rows, texts).tolist(), *alone)]


def paths(blocks: Blocks) -> set[str]:
    return {f"{path}.{i}" for path, numbers in blocks.items() for i in numbers}


@contextmanager
def without(loaded: Loaded, blocks: Blocks) -> Iterator[None]:
    with Undo() as undo:
        for change in dropped.changes(loaded.model, paths(blocks)):
            undo.attribute(*change)
        yield


def written(m: Small, folder: Path) -> None:
    """The checkpoint of a model whose blocks are dropped."""
    with Undo() as undo:
        for change in shorter.changes(m.loaded.model, m.section):  # type: ignore[arg-type]
            undo.attribute(*change)
        m.loaded.model.save_pretrained(folder)
        m.loaded.processor.save_pretrained(folder)


def built_shorter(m: Small, folder: Path) -> Loaded:
    """The checkpoint of a model whose blocks are dropped, loaded as a user's folder is."""
    written(m, folder)
    known = {m.section["name"]: m.section}
    told = answer(folder, known)  # type: ignore[arg-type]  # what planning asks of a child process
    own = OwnConfig(read_object(folder / "config.json")[0] or {}, told["config"], told["classes"])  # type: ignore[arg-type]
    section = _made(folder, own, known, known)  # type: ignore[arg-type]
    return load(section, folder)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", quick(SHORTER))
def test_dropping_is_the_same_model_built_shorter(of_name: Callable[[str], Small], name: str, tmp_path: Path) -> None:
    m, blocks = of_name(name), SHORTER[name]
    whole, before = said(m.loaded), snapshot(m.loaded)
    with without(m.loaded, blocks):
        found, n = said(m.loaded), sum(p.numel() for p in m.loaded.model.parameters())
        again = built_shorter(m, tmp_path / "shorter")
    assert said(again) == found != whole
    assert sum(p.numel() for p in again.model.parameters()) == n
    for path, numbers in blocks.items():
        assert len(list(m.loaded.model.get_submodule(path))) - len(list(again.model.get_submodule(path))) == len([*numbers])  # type: ignore[arg-type]  # fmt: skip
    assert snapshot(m.loaded) == before
    assert said(m.loaded) == whole


def test_every_kind_of_model_is_among_them() -> None:
    assert {*FIRST} <= SHORTER.keys()


@pytest.mark.parametrize("name", quick(REFUSED))
def test_a_set_that_transformers_would_load_otherwise_is_refused(of_name: Callable[[str], Small], name: str) -> None:
    m, (blocks, why) = of_name(name.removeprefix("tower of ")), REFUSED[name]
    before = snapshot(m.loaded)
    with pytest.raises(UserError, match="drop_blocks: a checkpoint of Hugging Face cannot hold", check=lambda e: "\n" not in str(e)) as told:  # fmt: skip
        shorter.check(m.folder / "whole", m.section, paths(blocks))  # type: ignore[arg-type]
    assert why in str(told.value)
    with without(m.loaded, blocks), pytest.raises(UserError, match=why):
        written(m, m.folder / "refused")
    assert not (m.folder / "refused").exists()
    assert snapshot(m.loaded) == before
    shorter.check(m.folder / "whole", m.section, paths(SHORTER[name.removeprefix("tower of ")]))  # type: ignore[arg-type]


# ---- against blocks that add nothing


def silent(model: nn.Module, path: str, last: Iterable[str]) -> Iterator[Tensor]:
    """The weights and biases of the layers of a block that write to what is handed on."""
    for name in last:
        yield from model.get_submodule(f"{path}.{name}").parameters()


ADDS_LAST = ("attn.proj", "mlp.linear_fc2"), ("self_attn.o_proj", "mlp.down_proj")


@thorough
@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("qwen3-vl-2b", {VISUAL: (0, 1), LAYERS: (0, 2)}),  # features enter behind a block that is dropped
        ("gemma-3-4b", {LAYERS: (0, 1)}),  # the one that is left sees a window
    ],
)
def test_what_goes_by_the_number_of_a_block_goes_by_its_own(
    of_name: Callable[[str], Small], name: str, blocks: Blocks
) -> None:
    """A block before whose additions stands a norm hands on what it gets where its last layers are zero."""
    m = of_name(name)
    with without(m.loaded, blocks):
        found = said(m.loaded)
    with Undo() as undo:
        for path in paths(blocks):
            for parameter in silent(m.loaded.model, path, ADDS_LAST[not path.startswith(VISUAL)]):
                undo.data(parameter, torch.zeros_like(parameter))
        assert said(m.loaded) == found


@thorough
def test_a_qformer_without_some_blocks_keeps_the_cross_attention_of_the_others(of_name: Callable[[str], Small]) -> None:
    """Against a list that is shorter, with the number of blocks that its loop reads."""
    m = of_name("blip2-opt-2.7b")
    encoder = m.loaded.model.get_submodule("qformer.encoder")
    with without(m.loaded, {QFORMER: (1, 2)}):
        found = said(m.loaded)
    with Undo() as undo:
        kept = [block for i, block in enumerate(encoder.layer) if i not in (1, 2)]  # type: ignore[arg-type]
        undo.attribute(encoder, "_modules", {**encoder._modules, "layer": nn.ModuleList(kept)})
        undo.attribute(encoder.config, "num_hidden_layers", 4)
        assert said(m.loaded) == found


@thorough
def test_position_biases_of_t5_go_on(of_name: Callable[[str], Small]) -> None:
    """The first block that is left takes over what the first block computes for all: without it other texts are written."""
    m = of_name("blip2-flan-t5-xl")
    with without(m.loaded, {DECODER: (0,)}):
        found = said(m.loaded)
        attention = m.loaded.model.get_submodule(f"{DECODER}.1.layer.0.SelfAttention")
        with Undo() as undo:
            undo.attribute(attention, "has_relative_attention_bias", False)
            assert said(m.loaded) != found
