"""The check for GPUs: what a rehearsal of it does not reach."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from scripts.benchmarks.models import draw_model
from scripts.benchmarks.ties import NEAR_TIE, disagreement
from scripts.gpu_checks import layers
from scripts.gpu_checks.decoding import Step, _pictures, would_decide
from scripts.gpu_checks.older import taking_features
from scripts.gpu_checks.running import Deadline, Found
from scripts.gpu_checks.sizes import BLIP2, LLAVA, section
from scripts.gpu_checks.subject import UNTOUCHED, Subject
from scripts.gpu_checks.sweep import agreement
from scripts.gpu_checks.targets import mistakes


def test_captions_that_part_have_their_gap(tmp_path: Path) -> None:
    """One token of the model's own against one that is unlikely: no near-tie, and no rounding apart from itself."""
    subject = Subject(section(BLIP2, dry=True), tmp_path, "cpu", 2, 4)
    text = subject.backend(subject.job(UNTOUCHED)).predictions.text
    assert text is not None
    other = " ".join(["word7", *text[0].split()[1:]])
    assert other != text[0]
    found: Found = {"captions": 0, "differing": 0, "gaps": []}
    agreement(subject, subject.loaded.model, [s.image for s in subject.data.samples], text, [other, text[1]], found)
    assert (found["captions"], found["differing"]) == (2, 1)
    assert found["gaps"][0] > 4


def test_half_precision_is_told_what_rounding_explains(tmp_path: Path) -> None:
    """The same two texts: in bfloat16 the gap stands beside what float32 says of the logits."""
    section_of = {**section(BLIP2, dry=True), "dtype": "bfloat16"}
    subject = Subject(section_of, tmp_path, "cpu", 2, 4)
    text = subject.backend(subject.job(UNTOUCHED)).predictions.text
    assert text is not None
    other = " ".join(["word7", *text[0].split()[1:]])
    found: Found = {"captions": 0, "differing": 0, "gaps": []}
    agreement(subject, subject.loaded.model, [s.image for s in subject.data.samples], text, [other, text[1]], found)
    assert len(found["explained"]) == 1
    assert found["explained"][0] >= NEAR_TIE
    assert subject.loaded.model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("gaps", "explained", "wrong"),
    [([3.9], None, False), ([5.0], None, True), ([5.0, 1.0], [6.5, 4.0], False), ([7.0, 1.0], [6.5, 4.0], True),
     ([float("nan")], [6.5], True)],
)  # fmt: skip
def test_a_gap_is_wrong_beyond_what_rounding_explains(
    gaps: list[float], explained: list[float] | None, wrong: bool
) -> None:
    found = {"captions": 9, "differing": 1, "gaps": gaps, **({"explained": explained} if explained else {})}
    assert bool(disagreement("bfloat16", found)) == wrong


@torch.inference_mode()
def test_a_step_never_waits_for_the_device(tmp_path: Path) -> None:
    """What reads a number back cannot be part of a CUDA graph: the back end's own decoding does, and a step does not."""
    subject = Subject(section(BLIP2, dry=True), tmp_path, "cpu", 2, 4)
    language, rows = subject.loaded.language, _pictures(subject)
    prefilled = cast("Any", language.prefill(rows, language.prompt_ids([""] * len(rows))))
    step = Step(prefilled, 4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        step()
        with pytest.raises(DataDependentOutputException):
            prefilled.greedy(subject.generation)


@pytest.mark.thorough
def test_a_kernel_that_fails_costs_no_other_and_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def broken(*given: object) -> Iterator[None]:
        raise RuntimeError("no kernel image")
        yield

    subject = Subject(section(BLIP2, dry=True), tmp_path, "cpu", 2, 4)
    simulated = subject.recipe({**layers.PART, "quant": {"method": "rtn", "bits": 8}})
    monkeypatch.setattr(layers, "packed_layers", broken)
    monkeypatch.setattr(layers, "split", lambda recipe: (recipe, simulated))
    monkeypatch.setattr(layers, "PACKED", {"one": {"method": "rtn", "bits": 8}, "two": {"method": "rtn", "bits": 4}})
    monkeypatch.setattr(subject, "recipe", lambda config: simulated)
    found: Found = {}
    layers.packed(subject, found, Deadline(60))
    assert found["one"]["error"] == found["two"]["error"] == "RuntimeError: no kernel image"
    assert mistakes({"packed": found}) == ["packed: one, two: see there"]


@pytest.mark.parametrize(
    ("ratio", "said"), [(1.1, "eager steps: at 512 rows graph is 1.10"), (1.5, "graph: 1.50 times as fast at 512 rows")]
)
def test_the_largest_batch_decides(ratio: float, said: str) -> None:
    batches = {
        "1": {"graph_ratio": 9.0, "graph_differing": 0},
        "512": {"static_ratio": 0.9, "static_differing": 1, "graph_ratio": ratio, "graph_differing": 2},
    }
    assert would_decide(batches).startswith(said)


class Older(LlavaForConditionalGeneration):
    """As of transformers 5.17: its forward pass does not know features."""

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, **kwargs):  # type: ignore[no-untyped-def]
        assert "mm_encoder_outputs" not in kwargs
        return super().forward(input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs)


@torch.inference_mode()
def test_an_older_llava_is_given_its_features_as_embeddings(tmp_path: Path) -> None:
    config = section(LLAVA, dry=True)
    model = draw_model(config, tmp_path, "cpu").eval()
    ids = torch.tensor([[7, *[model.config.image_token_id] * 16, 8, 9]])
    features = list(torch.randn(1, 16, config["config"]["text_config"]["hidden_size"]))
    asked = lambda: {"image": BaseModelOutputWithPooling(pooler_output=features)}  # noqa: E731
    plain, blind = model(input_ids=ids, mm_encoder_outputs=asked()).logits, model(input_ids=ids).logits
    assert not taking_features(model)
    model.__class__ = Older
    assert taking_features(model)
    assert torch.equal(model(input_ids=ids, mm_encoder_outputs=asked()).logits, plain)
    assert torch.equal(model(input_ids=ids).logits, blind)
    assert not torch.equal(plain, blind)
