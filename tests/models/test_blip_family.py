"""BLIP's family on random checkpoints: the staged path against transformers' own, sharing, restoring, layers that act."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.text import Ids
from blip2sweep.tasks import Generation, TaskData, load_task
from blip2sweep.tasks.sample import Sample
from tests.checkpoints import conf, recipe
from tests.miniatures import instructblip_config, write_instructblip

GREEDY, BEAMS = Generation("Question: {} Answer:", 1, 6), Generation("Question: {} Answer:", 3, 6, 2, -1.0)


class Case(NamedTuple):
    """A miniature. own: tokens as transformers writes them for one sample. logits: of a plain forward."""

    config: dict[str, Any]
    write: Callable[[Path], Path]
    own: Callable[[Loaded, Sample, str, dict[str, Any]], Ids]
    logits: Callable[[Loaded, Sample, str, Ids], Tensor]


def picture(sample: Sample) -> Image.Image:
    return Image.open(sample.image).convert("RGB")


# ---- what transformers computes


def instructblip_own(loaded: Loaded, sample: Sample, prompt: str, settings: dict[str, Any]) -> Ids:
    batch = loaded.processor(images=picture(sample), text=prompt, return_tensors="pt")
    out = loaded.model.generate(**batch, **settings)[0]
    return out[1 if loaded.family == "t5" else batch["input_ids"].shape[1] :].tolist()


def instructblip_logits(loaded: Loaded, sample: Sample, prompt: str, reference: Ids) -> Tensor:
    batch = loaded.processor(images=picture(sample), text=prompt, return_tensors="pt")
    if loaded.family == "t5":
        return loaded.model(**batch, decoder_input_ids=torch.tensor([[1, *reference[:-1]]])).logits[0]
    ids = torch.cat([batch["input_ids"], torch.tensor([reference[:-1]], dtype=torch.long)], 1)
    out = loaded.model(**{**batch, "input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return out.logits[0, batch["input_ids"].shape[1] - 1 :]


CASES = {
    f"instructblip-{family}": Case(
        instructblip_config(family),
        lambda folder, family=family: write_instructblip(folder, family),  # type: ignore[misc]
        instructblip_own,
        instructblip_logits,
    )
    for family in ("llama", "t5")
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def loaded(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(case.config, case.write(tmp_path_factory.mktemp("mini") / "weights"))


def questions(n: int) -> TaskData:
    return load_task({**conf("task/shapes_vqa"), "limit": n})


def asked(sample: Sample) -> str:
    return f"Question: {sample.question} Answer:"


# ---- against transformers


@pytest.mark.parametrize("generation", [GREEDY, BEAMS], ids=["greedy", "beams"])
def test_texts_are_those_of_model_generate(case: Case, loaded: Loaded, generation: Generation) -> None:
    data = questions(8)
    settings = {"do_sample": False, "num_beams": generation.num_beams, "max_new_tokens": generation.max_new_tokens}
    settings |= {"min_new_tokens": generation.min_new_tokens}
    settings |= {} if generation.num_beams == 1 else {"length_penalty": generation.length_penalty}
    found = [r["text"] for r in evaluate(loaded, data, generation, batch_size=8).records]
    ids = [case.own(loaded, s, asked(s), settings) for s in data.samples]
    assert found == [x.strip() for x in loaded.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    assert len(set(found)) > 2
    assert len({len(p) for p in loaded.language.prompt_ids([asked(s) for s in data.samples])}) > 1


def test_the_likelihood_is_that_of_plain_forwards(case: Case, loaded: Loaded) -> None:
    data = questions(6)
    records = evaluate(loaded, data, GREEDY, batch_size=6, nll_references=1).records
    for sample, record in zip(data.samples, records, strict=True):
        [reference] = loaded.language.reference_ids(data.rules.targets(sample, 1), True)
        with torch.inference_mode():
            logits = case.logits(loaded, sample, asked(sample), reference).double()
        own = nn.functional.cross_entropy(logits, torch.tensor(reference), reduction="sum")
        assert record["nll_tokens"] == len(reference)
        assert record["nll_sum"] == pytest.approx(float(own), rel=1e-5)


def test_the_batch_size_changes_no_token(loaded: Loaded) -> None:
    data = questions(20)
    one, many = (evaluate(loaded, data, GREEDY, batch_size=n).records for n in (1, 8))
    assert [(r["text"], r["tokens"]) for r in one] == [(r["text"], r["tokens"]) for r in many]
    assert [r["nll_sum"] for r in one] == pytest.approx([r["nll_sum"] for r in many], rel=1e-5)


# ---- layers


def changed(loaded: Loaded, data: TaskData) -> Callable[[], list[float | None]]:
    known = evaluate(loaded, data, GREEDY).features  # vision features of the model as it is
    def likelihoods(alone: bool = False) -> list[float | None]:
        again = evaluate(loaded, data, GREEDY, features=known if alone else None)
        return [r["nll_sum"] for r in again.records]
    return likelihoods


def addressable(loaded: Loaded) -> set[str]:
    return {x.path for part in loaded.anatomy.parts.values() for x in part.linears}


def linears(loaded: Loaded) -> Iterator[tuple[str, nn.Linear]]:
    for part in loaded.anatomy.parts.values():
        for stack in part.stacks:
            for name, module in loaded.model.get_submodule(stack.path).named_modules():
                if isinstance(module, nn.Linear):
                    yield f"{stack.path}.{name}", module


def test_every_addressable_layer_acts_and_no_other(loaded: Loaded) -> None:
    """Change each layer, and look whether any output bit moves."""
    data = questions(2)
    generation = Generation("Question: {} Answer:", 1, 1)
    plain, generator = evaluate(loaded, data, generation).records, torch.Generator().manual_seed(0)
    acting = set()
    for path, module in linears(loaded):
        kept = module.weight.data
        module.weight.data = kept + torch.randn(kept.shape, generator=generator)
        acting |= {path} if evaluate(loaded, data, generation).records != plain else set()
        module.weight.data = kept
    assert acting == addressable(loaded)


def test_a_quantized_model_is_itself_again_bit_for_bit(loaded: Loaded) -> None:
    before = {name: x.clone() for name, x in loaded.model.state_dict().items()}
    data = questions(4)
    plain = evaluate(loaded, data, GREEDY).records
    with Patch(loaded).apply(recipe(loaded.anatomy, "all", bits=2)):
        assert evaluate(loaded, data, GREEDY).records != plain
    assert all(torch.equal(x, before[name]) for name, x in loaded.model.state_dict().items())
    assert evaluate(loaded, data, GREEDY).records == plain
