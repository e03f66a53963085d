"""BLIP-2's image-text retrieval on a random checkpoint: its scores against the model's own forward."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from blip2sweep.apply.patch import Patch
from blip2sweep.backends.shares import is_divisible
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.backends.torch.matches import best, cut, short
from blip2sweep.errors import UserError
from blip2sweep.models.blip2.matching import QueryMatcher
from blip2sweep.models.load import Loaded, load
from blip2sweep.planning.cell_builder import CellBuilder
from blip2sweep.recipe.chain import Prefixes
from blip2sweep.tasks import Generation, TaskData, coco, load_task
from blip2sweep.tasks.predictions import RANKED
from blip2sweep.tasks.task import KINDS, LEFT_OUT, candidates
from tests.apply.calibration.test_calibration import made, samples
from tests.checkpoints import TINY, believe, conf, recipe, tiny_config
from tests.composing import jobs as composed
from tests.in_process import run
from tests.miniatures import retrieval_config, write_retrieval

NONE = Generation(None, 1, 1)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "match", "tests.toy.matching")
    monkeypatch.setattr(coco, "KINDS", (*coco.KINDS, "match"))
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(retrieval_config(), write_retrieval(tmp_path_factory.mktemp("mini") / "weights"))


def pictures(n: int) -> TaskData:
    return load_task({**conf("task/shapes_caption"), "limit": n, "kind": "match", "main_metric": "toy_recall"})


def own(loaded: Loaded, data: TaskData, matching_head: bool) -> Tensor:
    """(pictures, texts): the model's own forward, one pair at a time, without padding."""
    rows = []
    for sample in data.samples:
        for text in candidates(data):
            image = Image.open(sample.image).convert("RGB")
            batch = loaded.processor(images=image, text=text, return_tensors="pt")
            out = loaded.model(**batch, use_image_text_matching_head=matching_head).logits_per_image
            rows.append(out[0, 1 if matching_head else 0])
    return torch.stack(rows).reshape(len(data.samples), -1)


def scores(loaded: Loaded, data: TaskData, **settings: Any) -> Tensor:
    return torch.tensor([r["scores"] for r in evaluate(loaded, data, NONE, **settings).records])


def ranked(loaded: Loaded, data: TaskData, k: int, **settings: Any) -> tuple[Tensor, Tensor]:
    """(pictures, texts) of what the pictures ask, and of what the texts ask; LEFT_OUT where a pair was not scored."""
    data = replace(data, settings={"k": k})
    told = [torch.full((len(data.samples), len(candidates(data))), LEFT_OUT) for _ in range(2)]
    for row, record in enumerate(evaluate(loaded, data, NONE, **settings).records):
        assert tuple(record) == ("id", "image_id", *RANKED)
        for side, texts, values in ((0, "texts", "scores"), (1, "asking", "asking_scores")):
            assert record[texts] == sorted(record[texts])
            told[side][row, record[texts]] = torch.tensor(record[values])
    return told[0], told[1]


@torch.inference_mode()
def test_scores_are_those_of_the_models_forward(loaded: Loaded) -> None:
    data = pictures(5)
    contrast, matched = own(loaded, data, False), own(loaded, data, True)
    assert torch.allclose(scores(loaded, data, batch_size=3), contrast, rtol=0, atol=1e-5)
    assert (contrast.std(0) > 1e-3).all()
    for whole in ranked(loaded, data, 7, batch_size=4):  # of five texts and pictures
        assert torch.allclose(whole, matched + contrast, rtol=0, atol=1e-5)
    for side, few in enumerate(ranked(loaded, data, 2)):
        kept = few > LEFT_OUT
        assert (kept.sum(1 - side) == 2).all()
        assert (contrast.masked_fill(~kept, 9).amin(1 - side) >= contrast.masked_fill(kept, -9).amax(1 - side)).all()
        assert torch.allclose(few[kept], (matched + contrast)[kept], rtol=0, atol=1e-5)


def test_the_batch_size_changes_no_score(loaded: Loaded) -> None:
    one, many = (scores(loaded, pictures(9), batch_size=n) for n in (1, 8))
    assert torch.allclose(one, many, rtol=1e-5, atol=1e-5)
    for k in (2, 9):
        few, more = (ranked(loaded, pictures(9), k, batch_size=n) for n in (1, 8))
        assert all(torch.allclose(a, b, rtol=0, atol=1e-5) for a, b in zip(few, more, strict=True))


def test_equal_texts_tie_and_the_later_one_is_kept(loaded: Loaded) -> None:
    """A text is read once, so equal ones have equal scores, whatever stands beside them in a batch."""
    data = pictures(4)
    data = replace(
        data, samples=tuple(replace(s, references=data.samples[i // 2].references) for i, s in enumerate(data.samples))
    )
    whole, _ = ranked(loaded, data, 4, batch_size=3)
    assert torch.equal(whole[:, [0, 2]], whole[:, [1, 3]])
    few, _ = ranked(loaded, data, 1)
    assert (few > LEFT_OUT).sum(0)[[0, 2]].tolist() == [0, 0]
    assert (few > LEFT_OUT).sum() == 4


def test_candidates_are_kept_in_the_order_of_a_reversed_argsort() -> None:
    generator = torch.Generator().manual_seed(0)
    similar = torch.randint(0, 4, (600, 9), generator=generator).float()
    for k in (1, 4, 9, 20):
        assert best(similar, k).tolist() == np.argsort(similar.numpy(), axis=1, kind="stable")[:, ::-1][:, :k].tolist()
    columns = torch.tensor([3, 3, 0])
    assert best(similar, 2, columns).tolist() == best(similar[:, columns], 2).tolist()


def test_a_short_number_is_the_same_float32() -> None:
    numbers = torch.cat([torch.randn(999, generator=torch.Generator().manual_seed(0)), torch.tensor([1e-9, -100.0])])
    told = short(numbers)
    assert torch.equal(torch.tensor(told, dtype=torch.float32), numbers)
    assert len(str(told)) < 0.7 * len(str(numbers.tolist()))


def test_long_texts_keep_their_end() -> None:
    assert cut([[1, 2, 3], [1, 4, 5, 6, 3]], 4) == [[1, 2, 3], [1, 4, 5, 3]]
    assert cut([[1, 2, 3]], None) == [[1, 2, 3]]


def test_a_model_without_numbers_ranks_nothing(loaded: Loaded) -> None:
    head, data = loaded.model.itm_head, pictures(3)
    kept = head.bias.data
    head.bias.data = torch.full_like(kept, float("nan"))
    assert all((side == LEFT_OUT).all() for side in ranked(loaded, data, 2))
    head.bias.data = kept


def test_a_text_is_cut_where_positions_end(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the tokenizer cuts it: the special tokens around it stay. A tokenizer that ends earlier cuts earlier."""
    language, last = loaded.language, loaded.model.config.qformer_config.max_position_embeddings
    texts = ["a photo of " * 100, "a photo"]
    for most in (last, 10):
        monkeypatch.setattr(loaded.processor.tokenizer, "model_max_length", most if most < last else 10**30)
        long, short = language.reference_ids(texts, False)
        whole = loaded.processor.tokenizer(texts[0], return_attention_mask=False).input_ids
        assert len(long) == most < len(whole)
        assert (long[0], long[-1]) == (whole[0], whole[-1])
        assert short == loaded.processor.tokenizer(texts[1]).input_ids
        assert isinstance(language, QueryMatcher)
        assert language.said([long, short]).isfinite().all()


def test_every_layer_acts_on_contrast(loaded: Loaded) -> None:
    """The text's branch of the last block does so on contrast alone, which every task of matches computes."""
    data, generator = pictures(2), torch.Generator().manual_seed(0)
    plain = scores(loaded, data)
    for path in (x.path for part in loaded.anatomy.parts.values() for x in part.linears):
        module = loaded.model.get_submodule(path)
        assert isinstance(module, nn.Linear)
        kept = module.weight.data
        module.weight.data = kept + torch.randn(kept.shape, generator=generator)
        assert not torch.equal(scores(loaded, data), plain), path
        module.weight.data = kept
    assert torch.equal(scores(loaded, data), plain)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_it_calibrates_and_is_itself_again(loaded: Loaded, method: str) -> None:
    before, data = {n: x.clone() for n, x in loaded.model.state_dict().items()}, pictures(3)
    quant = recipe(loaded.anatomy, "all", bits=3, method=method)
    prepared = made(loaded, quant, samples("caption", 8))
    assert prepared.keys() == {x.path for part in loaded.anatomy.parts.values() for x in part.linears}
    plain = scores(loaded, data)
    with Patch(loaded).apply(quant, prepared):
        assert not torch.equal(scores(loaded, data), plain)
    assert all(torch.equal(x, before[n]) for n, x in loaded.model.state_dict().items())


def planned(loaded: Loaded, *words: str) -> list[dict[str, Any]]:
    model, make = {**retrieval_config(), "path": str(loaded.model.name_or_path)}, CellBuilder()
    believe(Path(model["path"]), model)
    jobs = composed("task=shapes_caption", "task.limit=6", *words)
    return sorted((make({**j.config, "model": model}).job() for j in jobs), key=Prefixes())


def test_cells_share_work(loaded: Loaded, tmp_path: Path) -> None:
    words = ("task.kind=match", "task.main_metric=toy_recall", 'generation.prompt="Question: {} Answer:"')
    jobs = planned(loaded, *words, "part=none,vision,connector", "quant.bits=2")
    alone = {key: told[0].scores for key, told in run(jobs, cache="off").items()}
    assert len({str(x) for x in alone.values()}) == 3
    assert not any(map(is_divisible, jobs))  # each picture is compared with the texts of all
    for settings in ({"cache": "memory"}, {"cache": "disk", "cache_dir": str(tmp_path)}):
        for key, (predictions, _) in run(jobs, **settings).items():
            assert predictions.scores == [pytest.approx(row, abs=1e-5) for row in alone[key] or ()]


# ---- what a model does not answer


def test_a_model_that_writes_no_text_is_asked_for_none(loaded: Loaded) -> None:
    said = "task=shapes_caption: requests generate, likelihood, and model mini-blip2-itm-vit-g answers match alone"
    with pytest.raises(UserError, match=said):
        planned(loaded, "part=none")
    with pytest.raises(RuntimeError, match="a retrieval model writes no text"):
        loaded.language.prefill(evaluate(loaded, pictures(2), NONE).features.rows, [[], []])  # type: ignore[arg-type]


def test_a_language_model_is_asked_for_no_match() -> None:
    with pytest.raises(UserError, match="requests match, and model tiny answers generate, likelihood, choose alone"):
        [CellBuilder()(j.config) for j in composed("task.kind=match", "task.main_metric=toy_recall", "part=none")]
    with pytest.raises(UserError, match="asks for a match of pictures and texts, which tiny lacks"):
        evaluate(load(tiny_config(), TINY), pictures(2), NONE)
