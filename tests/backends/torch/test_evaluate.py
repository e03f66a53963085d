"""The staged path against the model's own, batches, broken images, memory, and likelihoods."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from blip2sweep.apply.patch import apply
from blip2sweep.backends.torch.batching import Batches
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.errors import UserError
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.models.blip2.forward import Bridge, Vision
from blip2sweep.models.images import Features, Images, load_pixels
from blip2sweep.models.load import Loaded, load
from blip2sweep.models.opt import Opt, Prefilled
from blip2sweep.models.ragged import Rows, joined
from blip2sweep.tasks import Generation, TaskData, load_task
from blip2sweep.tasks.captions import caption_as_trained
from tests.checkpoints import TINY, conf, recipe, t5_config, tiny_config, write_t5
from tests.in_process import own_text
from tests.params import quick

CAPTION = Generation(None, 1, 32)
VQA = Generation("Question: {} Answer:", 1, 10)
CUDA_OOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU_OOM = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried …"
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(t5_config(), write_t5(tmp_path_factory.mktemp("t5")))


@pytest.fixture(params=quick(["opt", "t5"]))
def loaded(request: pytest.FixtureRequest) -> Loaded:
    return request.getfixturevalue(request.param)


def task(kind: str, n: int) -> TaskData:
    return load_task({**conf(f"task/shapes_{kind}"), "limit": n})


def texts(evaluation: Any) -> list[str]:
    return [r["text"] for r in evaluation.records]


# ---- against the model's own path


@pytest.mark.parametrize(
    "generation",
    [
        CAPTION,
        replace(CAPTION, prompt="a photo of"),
        Generation(None, 3, 12, 4, -1.0),
        Generation(None, 3, 30, None, 1.0, early_stopping=True),
    ],
)
def test_captions_are_those_of_model_generate(loaded: Loaded, generation: Generation) -> None:
    data = task("caption", 6)
    found = evaluate(loaded, data, generation, batch_size=6)
    assert texts(found) == [own_text(loaded, s.image, generation.prompt or "", generation) for s in data.samples]


def test_answers_are_those_of_model_generate(loaded: Loaded) -> None:
    data = task("vqa", 12)
    found = evaluate(loaded, data, VQA, batch_size=5)
    assert texts(found) == [own_text(loaded, s.image, f"Question: {s.question} Answer:", VQA) for s in data.samples]
    assert len(set(texts(found))) > 2


@pytest.mark.parametrize("kind", ["caption", "vqa"])
def test_the_batch_size_changes_no_token(loaded: Loaded, kind: str) -> None:
    data, generation = task(kind, 70), CAPTION if kind == "caption" else VQA
    one, many = (evaluate(loaded, data, generation, batch_size=n) for n in (1, 64))
    assert (one.cost["batch_size"], many.cost["batch_size"]) == (1, 64)
    for a, b in zip(one.records, many.records, strict=True):
        assert {k: a[k] for k in ("id", "text", "tokens", "nll_tokens")} == {
            k: b[k] for k in ("id", "text", "tokens", "nll_tokens")
        }
        assert a["nll_sum"] == pytest.approx(b["nll_sum"], rel=1e-4, abs=1e-4)


def test_records_are_in_task_order_with_what_the_ledger_wants(opt: Loaded) -> None:
    data = task("vqa", 30)
    found = evaluate(opt, data, VQA)
    assert [(r["id"], r["image_id"]) for r in found.records] == [(s.id, s.image_id) for s in data.samples]
    assert set(found.records[0]) == {"id", "image_id", "text", "tokens", "nll_sum", "nll_tokens"}
    assert set(found.cost["seconds"]) == {"images", "vision", "bridge", "language", "likelihood"}
    assert found.cost["device"] == "cpu"
    assert found.cost["peak_memory_bytes"] > 2**20
    assert (found.cost["batch_size"], found.cost["oom_halvings"], found.cost["bad_images"]) == (64, 0, [])
    tokenizer = opt.processor.tokenizer
    for r in found.records:
        assert r["tokens"] == len(tokenizer(" " + r["text"], add_special_tokens=False).input_ids)


def test_an_image_is_encoded_once_for_all_its_questions(opt: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    embeddings = opt.model.vision_model.embeddings
    real = embeddings.forward
    monkeypatch.setattr(embeddings, "forward", lambda pixels: seen.append(len(pixels)) or real(pixels))
    data = task("vqa", 30)
    evaluate(opt, data, VQA, batch_size=4)
    assert sum(seen) == len(data.images) == 10


def test_the_picture_is_what_is_described(opt: Loaded) -> None:
    data = task("caption", 40)
    seen = texts(evaluate(opt, data, CAPTION))
    blind = load_pixels(opt, data)
    assert blind.rows is not None
    unseen = texts(evaluate(opt, data, CAPTION, features=replace(blind, rows=blind.rows.mapped(torch.zeros_like))))
    assert len(set(unseen)) == 1
    assert len(set(seen)) > 20


def test_a_quantized_model_writes_other_texts_and_is_itself_again_afterwards(opt: Loaded) -> None:
    data = task("caption", 20)
    before = evaluate(opt, data, CAPTION)
    with apply(opt, recipe(opt.anatomy, "all", bits=2)):
        assert texts(evaluate(opt, data, CAPTION)) != texts(before)
    assert evaluate(opt, data, CAPTION).records == before.records


# ---- what is known beforehand


def test_features_of_any_stage_may_be_given(loaded: Loaded) -> None:
    data = task("vqa", 24)
    plain = evaluate(loaded, data, VQA)
    pixels = load_pixels(loaded, data, batch_size=3)
    vision, bridge = loaded.images
    image_features = vision.run(pixels.rows)
    query_features = bridge.run(image_features)
    assert query_features.values.shape == (8, 12, loaded.model.config.qformer_config.hidden_size)
    given = {
        "vision": pixels,
        "bridge": Features(pixels.ids, image_features, "vision"),
        "language": Features(pixels.ids[::-1], query_features.take(range(7, -1, -1)), "bridge"),
    }
    for first, features in given.items():
        found = evaluate(loaded, data, VQA, features=features)
        assert found.records == plain.records
        assert next(iter(found.cost["seconds"])) == first
    assert evaluate(loaded, data, VQA, features=plain.features).records == plain.records


def test_features_of_other_images_are_refused(opt: Loaded) -> None:
    few = load_pixels(opt, task("caption", 3))
    with pytest.raises(ValueError, match="without 2 images of task shapes_caption"):
        evaluate(opt, task("caption", 5), CAPTION, features=few)


def test_query_features_have_to_be_there(loaded: Loaded) -> None:
    prompts = loaded.language.prompt_ids(["a", "b"])
    width = loaded.model.config.qformer_config.hidden_size
    for shape in [(2, 0, width), (2, 11, width), (1, 12, width)]:
        with pytest.raises(RuntimeError, match="query features"):
            loaded.language.prefill(Rows(torch.zeros(shape)), prompts)


def test_padding_stands_where_each_family_needs_it(loaded: Loaded) -> None:
    prompts = loaded.language.prompt_ids(["Question: What color is the circle? Answer:", "a"])
    mask = loaded.language.prefill(
        Rows(torch.zeros(2, 12, loaded.model.config.qformer_config.hidden_size)), prompts
    ).mask
    gap = len(prompts[0]) - len(prompts[1])
    short = mask[1].tolist()
    assert mask[0].all()
    expected = {
        "opt": [1] * 12 + [0] * gap + [1] * len(prompts[1]),
        "t5": [1] * (12 + len(prompts[1])) + [0] * gap,
    }
    assert short == expected[loaded.family]


# ---- likelihood


def test_the_likelihood_is_that_of_the_models_own_loss(loaded: Loaded) -> None:
    sample = task("vqa", 1).samples[0]
    pixels = loaded.processor(images=Image.open(sample.image).convert("RGB"), return_tensors="pt")["pixel_values"]
    vision, bridge = loaded.images
    queries = bridge.run(vision.run(Rows(pixels)))
    prompt = loaded.language.prompt_ids([f"Question: {sample.question} Answer:"])
    target = loaded.language.reference_ids([sample.majority], prompted=True)[0]
    with torch.inference_mode():
        loss = own_loss(loaded, queries, prompt, target)
    assert loaded.language.prefill(queries, prompt).likelihood([target])[0].nll_sum == pytest.approx(
        float(loss) * len(target), rel=1e-5
    )
    record = evaluate(loaded, task("vqa", 1), VQA).records[0]
    assert (record["nll_sum"], record["nll_tokens"]) == (
        pytest.approx(float(loss) * len(target), rel=1e-5),
        len(target),
    )


def own_loss(loaded: Loaded, queries: Rows, prompt: list[list[int]], target: list[int]) -> Tensor:
    """Mean cross-entropy as the language model itself computes it from labels. One row, so nothing is padded."""
    model, labels, encoder = (
        loaded.model.language_model,
        torch.tensor([target]),
        {"opt": False, "t5": True}[loaded.family],
    )
    text = prompt if encoder else [prompt[0] + target]
    embeds, mask = loaded.language.base.inputs.embed(queries, text, left=False)
    ignored = torch.full((1, 0 if encoder else embeds.shape[1] - len(target)), -100)
    return model(inputs_embeds=embeds, attention_mask=mask, labels=torch.cat([ignored, labels], 1)).loss


def test_references_are_scored_as_the_model_was_trained_and_summed(opt: Loaded) -> None:
    assert caption_as_trained(' A "small" circle, and (two) more.\n') == "a small circle, and two more"
    data = task("caption", 8)
    one, two, none = (evaluate(opt, data, CAPTION, nll_references=n).records for n in (1, 2, 0))
    for a, b, c in zip(one, two, none, strict=True):
        assert b["nll_sum"] > a["nll_sum"] > 0
        assert b["nll_tokens"] > a["nll_tokens"]
        assert (c["nll_sum"], c["nll_tokens"]) == (None, 0)
    nll = sum(r["nll_sum"] for r in one) / sum(r["nll_tokens"] for r in one)
    assert nll < 2  # nats a token; on raw references it is above 5


def test_a_likelihood_that_is_not_finite_is_null(opt: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Prefilled.likelihood
    monkeypatch.setattr(Prefilled, "likelihood", lambda *args: [type(x)(float("nan"), 3) for x in plain(*args)])
    assert {r["nll_sum"] for r in evaluate(opt, task("caption", 3), CAPTION).records} == {None}


# ---- images


@pytest.fixture
def broken(tmp_path: Path) -> TaskData:
    """Six captions; the second image is cut short, the fourth is no image."""
    data = task("caption", 6)
    samples = [replace(s, image=Path(shutil.copy(s.image, tmp_path))) for s in data.samples]
    samples[1].image.write_bytes(samples[1].image.read_bytes()[:300])
    samples[3].image.write_text("<html>not found</html>")
    return TaskData(data.name, data.kind, tuple(samples), data.fingerprint)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_or_skipped_and_counted(opt: Loaded, broken: TaskData, workers: int) -> None:
    with pytest.raises(
        UserError, match=r"000000000\d+.jpg: not a readable image .*right: an intact file, or task.on_bad_image=skip"
    ):
        evaluate(opt, broken, CAPTION, workers=workers)
    ids = [s.id for s in broken.samples]
    found = evaluate(opt, broken, CAPTION, workers=workers, on_bad_image="skip", batch_size=2)
    assert found.cost["bad_images"] == [ids[1], ids[3]]
    assert [r["id"] for r in found.records] == [ids[i] for i in (0, 2, 4, 5)]
    whole = evaluate(opt, task("caption", 6), CAPTION)
    assert texts(found) == [texts(whole)[i] for i in (0, 2, 4, 5)]


def test_images_are_read_once_and_mapped_where_memory_is_short(opt: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    data, opened = task("caption", 10), []
    monkeypatch.setattr("blip2sweep.models.images.content_of", lambda path: opened.append(path) or path.read_bytes())
    monkeypatch.setattr("blip2sweep.models.pixel_store.free_host_bytes", lambda: 0)
    images = Images(opt, data)
    first, second = (list(images.batches(4)) for _ in range(2))
    assert len(opened) == 10
    assert [len(part.ids) for part in first] == [4, 4, 2]
    assert len(second) == 1
    assert torch.equal(joined([part.rows for part in first]).values, second[0].rows.values)


def test_a_task_of_broken_images_only_is_an_error(opt: Loaded, broken: TaskData) -> None:
    bad = TaskData(broken.name, broken.kind, broken.samples[1:2], broken.fingerprint)
    with pytest.raises(UserError, match="none of its 1 images could be read"):
        evaluate(opt, bad, CAPTION, on_bad_image="skip")


# ---- memory


def failing(real: Callable[..., Any], above: int, error: RuntimeError) -> Callable[..., Any]:
    """`real`, out of memory for more than `above` rows."""

    def step(self: Any, rows: Rows, *rest: Any) -> Any:
        if len(rows) > above:
            raise error
        return real(self, rows, *rest)

    return step


STEPS = {"vision": (Vision, "enter"), "bridge": (Bridge, "run"), "language": (Opt, "prefill")}


@pytest.mark.parametrize(
    ("stage", "error"), list(itertools.product(STEPS, [CUDA_OOM, CPU_OOM])), ids=lambda x: type(x).__name__
)
def test_the_batch_is_halved_when_memory_runs_out(
    opt: Loaded, monkeypatch: pytest.MonkeyPatch, stage: str, error: RuntimeError
) -> None:
    data = task("caption", 20)
    expected = texts(evaluate(opt, data, CAPTION))
    owner, name = STEPS[stage]
    monkeypatch.setattr(owner, name, failing(getattr(owner, name), 5, error))
    found = evaluate(opt, data, CAPTION, batch_size=16)
    assert texts(found) == expected
    assert (found.cost["batch_size"], found.cost["oom_halvings"]) == (4, 2)


@pytest.mark.parametrize("step", ["generate", "likelihood"])
def test_the_batch_is_halved_when_memory_runs_out_while_writing(
    opt: Loaded, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real = getattr(Prefilled, step)

    def narrow(prefilled: Prefilled, what: Any) -> Any:
        if len(prefilled.mask) > 5:
            raise CUDA_OOM
        return real(prefilled, what)

    data = task("caption", 20)
    expected = evaluate(opt, data, CAPTION, batch_size=4).records
    monkeypatch.setattr(Prefilled, step, narrow)
    found = evaluate(opt, data, CAPTION, batch_size=16)
    assert found.records == expected
    assert (found.cost["batch_size"], found.cost["oom_halvings"]) == (4, 2)


def test_out_of_memory_at_one_sample_propagates(opt: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Opt, "prefill", failing(Opt.prefill, 0, CUDA_OOM))
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(opt, task("caption", 3), CAPTION)


def test_other_errors_are_not_taken_for_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        Batches(4).run(8, lambda rows: (_ for _ in ()).throw(RuntimeError("shapes cannot be multiplied")))
    assert Batches(4).run(10, lambda rows: rows.stop - rows.start) == [4, 4, 2]
    assert Batches(4).run(0, lambda rows: rows) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_through_all_stages(dtype: str) -> None:
    half = load(tiny_config(dtype=dtype, dtype_per_part={"qformer": "float32"}), TINY)
    found = evaluate(half, task("vqa", 6), VQA)
    assert all(r["nll_sum"] is not None for r in found.records)
    with pytest.raises(UserError, match="batch_size=0"):
        evaluate(half, task("vqa", 6), VQA, batch_size=0)
