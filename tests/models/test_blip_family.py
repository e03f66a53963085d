"""BLIP's family on random checkpoints: the staged path against transformers' own, sharing, restoring, layers that act."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from blip2sweep.apply.calibration.batches import CalibrationBatches
from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch import propagation
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.errors import UserError
from blip2sweep.models import pieces
from blip2sweep.models.architecture import family
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.text import Ids
from blip2sweep.planning.cell_builder import CellBuilder
from blip2sweep.recipe.chain import Prefixes
from blip2sweep.tasks import Generation, TaskData, load_task
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.tasks.generation import resolve_generation
from blip2sweep.tasks.sample import Sample
from tests.apply.calibration.folding import fold
from tests.apply.calibration.test_calibration import made, samples
from tests.checkpoints import believe, conf, recipe
from tests.composing import jobs as composed
from tests.in_process import run
from tests.miniatures import DEC, blip_config, instructblip_config, write_blip, write_instructblip

pytestmark = pytest.mark.thorough

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


def blip_caption_own(loaded: Loaded, sample: Sample, prompt: str, settings: dict[str, Any]) -> Ids:
    batch = loaded.processor(images=picture(sample), text=prompt, return_tensors="pt")
    length = batch["input_ids"].shape[1] - 1  # `generate` cuts the end off
    return loaded.model.generate(**batch, **settings)[0, length:].tolist()


def blip_caption_logits(loaded: Loaded, sample: Sample, prompt: str, reference: Ids) -> Tensor:
    batch = loaded.processor(images=picture(sample), text=prompt, return_tensors="pt")
    before = [DEC, *batch["input_ids"][0, 1:-1].tolist()]
    ids = torch.tensor([[*before, *reference[:-1]]])
    return loaded.model(pixel_values=batch["pixel_values"], input_ids=ids).logits[0, len(before) - 1 :]


def blip_vqa_own(loaded: Loaded, sample: Sample, prompt: str, settings: dict[str, Any]) -> Ids:
    batch = loaded.processor(images=picture(sample), text=prompt, return_tensors="pt")
    return loaded.model.generate(**batch, **settings)[0, 1:].tolist()


def blip_vqa_logits(loaded: Loaded, sample: Sample, prompt: str, reference: Ids) -> Tensor:
    batch = loaded.processor(images=picture(sample), text=prompt, return_tensors="pt")
    seen = loaded.model.vision_model(pixel_values=batch["pixel_values"]).last_hidden_state
    read = loaded.model.text_encoder(input_ids=batch["input_ids"], encoder_hidden_states=seen).last_hidden_state
    ids = torch.tensor([[DEC, *reference[:-1]]])
    return loaded.model.text_decoder(input_ids=ids, encoder_hidden_states=read).logits[0]


CASES = {
    f"instructblip-{family}": Case(
        instructblip_config(family),
        partial(write_instructblip, family=family),
        instructblip_own,
        instructblip_logits,
    )
    for family in ("llama", "t5")
}
OF_BLIP = {
    "blip-image-captioning-base": (blip_caption_own, blip_caption_logits),
    "blip-vqa-base": (blip_vqa_own, blip_vqa_logits),
}
for name, (own, logits) in OF_BLIP.items():
    CASES[name] = Case(blip_config(name), partial(write_blip, name=name), own, logits)


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


def test_the_likelihood_is_that_of_plain_forwards(case: Case, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "ROWS", 2)  # references are read in several passes
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
    data = questions(12)
    one, many = (evaluate(loaded, data, GREEDY, batch_size=n).records for n in (1, 8))
    assert [(r["text"], r["tokens"]) for r in one] == [(r["text"], r["tokens"]) for r in many]
    assert [r["nll_sum"] for r in one] == pytest.approx([r["nll_sum"] for r in many], rel=1e-5)


# ---- layers


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
    data, generation = questions(1), Generation("Question: {} Answer:", 1, 1)
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


# ---- cells: planned, shared, calibrated


@pytest.fixture
def planned(case: Case, loaded: Loaded) -> Callable[..., list[dict[str, Any]]]:
    """Jobs of a command for the miniature, in the order of a pack."""
    folder = Path(loaded.model.name_or_path)

    def jobs(*words: str) -> list[dict[str, Any]]:
        model, make = {**case.config, "path": str(folder)}, CellBuilder()
        believe(folder, model)
        said = (
            "task=shapes_vqa",
            "task.limit=6",
            'generation.prompt="Question: {} Answer:"',
            "generation.max_new_tokens=4",
            "calibration.n_samples=12",
            *words,
        )
        cells = [make({**job.config, "model": model}) for job in composed(*said)]
        return sorted((cell.job() for cell in cells), key=Prefixes())

    return jobs


def test_cells_that_share_work_give_the_same(planned: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    jobs = planned("part=none,vision,language,all", "quant.bits=2")
    alone = {key: told[0] for key, told in run(jobs, cache="off").items()}
    assert len({tuple(p.text) for p in alone.values()}) > 3
    for settings in ({"cache": "memory"}, {"cache": "disk", "cache_dir": str(tmp_path)}):
        for key, (predictions, _) in run(jobs, **settings).items():
            assert predictions.text == alone[key].text
            assert predictions.nll_sum == pytest.approx(alone[key].nll_sum, rel=1e-5)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_every_part_calibrates(loaded: Loaded, method: str) -> None:
    quant = recipe(loaded.anatomy, "all", bits=4, method=method)
    prepared = made(loaded, quant, samples("vqa", 5, image_token_weight=2.0))
    assert prepared.keys() == addressable(loaded)
    assert all(p.has_weight for p in prepared.values())


@torch.no_grad()
def test_folds_keep_the_function(loaded: Loaded) -> None:
    data, generator = questions(4), torch.Generator().manual_seed(0)
    plain, before = evaluate(loaded, data, GREEDY).records, {n: x.clone() for n, x in loaded.model.state_dict().items()}
    for part in loaded.anatomy.parts.values():
        places = [(s, f"{s.path}.{i}") for s in part.stacks for i in range(s.n)]
        for f, (stack, path) in itertools.product(part.folds, places):
            block, modules = loaded.model.get_submodule(path), dict(loaded.model.get_submodule(path).named_modules())
            into = [modules[n] for n in f.into if n in modules]
            if into and f.before in modules and (not f.stacks or stack.name in f.stacks):
                s = 0.5 + 1.5 * torch.rand(into[0].in_features, generator=generator)
                fold(block.get_submodule(f.before), into, s, f.piece)
    folded = evaluate(loaded, data, GREEDY).records
    loaded.model.load_state_dict(before)
    assert [r["nll_sum"] for r in folded] != [r["nll_sum"] for r in plain]
    assert [r["nll_sum"] for r in folded] == pytest.approx([r["nll_sum"] for r in plain], rel=1e-4)


def test_padding_is_never_measured(loaded: Loaded) -> None:
    """Texts of one length for the language model may have several for another reader of the question."""
    calibration = Calibration({}, questions(30), "test", 30, 0, "part", 1.0, False, GREEDY.prompt)
    masks: list[Tensor] = []
    names = ("qformer", "text_encoder", "text_decoder.bert", "language_model.encoder", "language_model.model")
    hooks = [
        module.register_forward_pre_hook(
            lambda m, args, kw: masks.extend(x for k, x in kw.items() if k.endswith("attention_mask")), with_kwargs=True
        )
        for name, module in loaded.model.named_modules()
        if name in names
    ]
    batches = CalibrationBatches(loaded, calibration).batches(loaded.anatomy.last_stage)
    for batch in batches:
        batch.run()
    for hook in hooks:
        hook.remove()
    assert len(batches) > 5
    assert len(masks) >= len(batches)
    assert all(mask.all() for mask in masks)


def test_texts_without_pictures_measure_no_layer_that_reads_pictures(
    planned: Callable[..., list[dict[str, Any]]], loaded: Loaded
) -> None:
    words = ("quant=gptq", "quant.bits=4", "calibration=shapes_vqa", "calibration.text_only=true")
    if "qformer" not in loaded.anatomy.parts:
        with pytest.raises(UserError, match="has no images, which llm needs; right: calibration=task"):
            planned("part=language", *words)
        return
    assert planned("part=language", *words)
    with pytest.raises(UserError, match="has no images, which qformer needs; right: part=llm, or calibration=task"):
        planned("part=connector", *words)


def test_errors_propagate_to_the_logits_once(loaded: Loaded) -> None:
    task = conf("task/shapes_vqa")
    chosen = propagation.first_samples(load_task(task), task, GREEDY.prompt, 4)
    plain = propagation.states(loaded, chosen)
    with Patch(loaded).apply(recipe(loaded.anatomy, "vision", "1", bits=2)):
        rows = propagation.compare(plain, propagation.states(loaded, chosen))
    assert [r["part"] for r in rows if r["block"] is None] == ["llm"]
    assert {r["part"] for r in rows if r["snr_db"] is None} == {"vit"}  # its blocks before the change


def test_image_tokens_are_told_apart_where_a_stream_has_them(loaded: Loaded) -> None:
    """The Q-Former and BERT read pictures by cross-attention: none of their own tokens is a picture's."""
    parts = loaded.anatomy.parts
    assert [part.name for part in parts.values() if part.reads_text] == (["llm"] if "qformer" in parts else [])


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("instructblip-vicuna-7b", "caption", Generation("A short image caption.", 5, 80, 10, 1.0)),
        ("instructblip-flan-t5-xl", "vqa", Generation("Question: {} Short Answer:", 5, 10, 1, -1.0)),
        ("blip-image-captioning-large", "caption", Generation("a picture of", 3, 16, 1, 1.0)),
        ("blip-vqa-base", "vqa", Generation("{}", 3, 9, None, 1.0)),
    ],
)
def test_released_models_are_asked_as_their_authors_ask(name: str, kind: str, expected: Generation) -> None:
    model = conf(f"model/{name}")
    found, _ = resolve_generation(conf("generation/paper"), kind, str(family(model).presets), model["prompts"])
    assert found == expected
