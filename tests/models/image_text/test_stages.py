"""The stages of every image-text model against transformers' own processor, `generate` and forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from blip2sweep.apply.patch import Patch
from blip2sweep.models import pieces
from blip2sweep.models.architecture import BlockStage
from blip2sweep.models.image_text.chat import Chat
from blip2sweep.models.load import load
from blip2sweep.models.part import ROLES
from blip2sweep.models.ragged import Rows, joined
from blip2sweep.models.text import Text
from blip2sweep.tasks.generation import Generation
from tests.checkpoints import recipe
from tests.image_text import SMALL
from tests.models.image_text.made import FIRST, USERS, Made, features, own_batch, plain_nll
from tests.ragged_pictures import pictures

pytestmark = pytest.mark.thorough

ALL = range(len(USERS))
REFERENCES = ["a cat", "yes", "two dogs and a bird", "no"]
RAGGED = {"llava-v1.6-mistral-7b", "llava-onevision-0.5b", "internvl3-1b", "qwen2.5-vl-3b", "qwen3-vl-2b"}


@pytest.fixture(params=FIRST)
def m(request: pytest.FixtureRequest, small: Callable[[str], Made]) -> Made:
    return small(request.param)


@pytest.mark.parametrize("name", SMALL)
def test_texts_are_those_of_transformers(name: str, small: Callable[[str], Made]) -> None:
    """Prompts and pictures of different sizes; features made picture by picture; greedily and with beams."""
    m = small(name)
    language, batch = m.loaded.language, own_batch(m, ALL)
    prompts = language.prompt_ids(USERS)
    ids = [language._ids(m.features, i, p) for i, p in enumerate(prompts)]  # type: ignore[attr-defined]
    own = [row[mask.bool()].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    assert ids == own
    for beams, most in ((1, 12), (3, 6)):
        written = m.loaded.model.generate(**batch, do_sample=False, num_beams=beams, max_new_tokens=most)
        expected = written[:, batch["input_ids"].shape[1] :].tolist()
        found = language.prefill(m.features, prompts)._written(Generation(None, beams, most))  # type: ignore[attr-defined]
        assert [row[: len(expected[0])] for row in found] == expected
        assert len(set(map(tuple, expected))) > 1


def test_pictures_are_ragged_where_the_model_keeps_their_shape(m: Made) -> None:
    lengths = m.features.lengths
    assert lengths is not None
    assert (len(set(lengths)) > 2) == (m.name in RAGGED)


def test_the_tower_may_be_entered_anywhere(m: Made) -> None:
    vision, connector = m.loaded.images
    assert isinstance(vision, BlockStage)
    pixels = joined([m.loaded.pixels(image) for image in m.images])
    state = vision.enter(pixels)
    whole = connector.run(vision.run(pixels)).values
    for k in range(vision.n_blocks):
        rest = vision.leave(vision.blocks(state, k, vision.n_blocks))
        assert torch.equal(connector.run(rest).values, whole)
        state = vision.blocks(state, k, k + 1)
    assert (whole - m.features.values).abs().max() < 1e-4


def test_a_batch_changes_nothing(m: Made) -> None:
    """One row, and eight at once: eight pictures of other shapes and eight prompts of other lengths."""
    language, generation = m.loaded.language, Generation(None, 1, 8)
    pixels = [m.loaded.pixels(image) for image in pictures(8)]
    users, said = [*USERS, *(f"{text} again" for text in USERS)], [*REFERENCES, *reversed(REFERENCES)]
    prompts, references = language.prompt_ids(users), language.reference_ids(said, True)
    many = language.prefill(features(m.loaded, joined(pixels)), prompts)
    likelihoods, texts = many.likelihood(references), many.generate(generation)
    for i, picture in enumerate(pixels):
        one = language.prefill(features(m.loaded, picture), [prompts[i]])
        assert one.likelihood([references[i]])[0].nll_sum == pytest.approx(likelihoods[i].nll_sum, rel=1e-5)
        assert one.generate(generation) == [texts[i]]


def test_likelihoods_are_those_of_a_plain_forward(m: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "ROWS", 1)  # references are read in several passes
    language = m.loaded.language
    prompts, references = language.prompt_ids(USERS), language.reference_ids(REFERENCES, True)
    for i, found in enumerate(language.prefill(m.features, prompts).likelihood(references)):
        assert found.nll_sum == pytest.approx(plain_nll(m, i, references[i]), rel=1e-5)
        assert found.nll_tokens == len(references[i])


def test_an_answer_ends_as_the_template_ends_it(small: Callable[[str], Made]) -> None:
    m = small("gemma-3-4b")
    processor, own = m.loaded.processor, m.loaded.processor.chat_template
    chat = Chat(processor, "template")
    assert chat.end([2, 5]) == 2
    processor.chat_template = "{% for m in messages %}{{ m['content'][0]['text'] }}<end_of_image>\n{% endfor %}"
    try:
        assert (chat.end([2, 5]), chat.end([2]), Chat(processor, "{image}{}").end([2, 5])) == (5, 2, 2)
    finally:
        processor.chat_template = own


def test_one_pass_over_prompt_and_reference_is_that_of_the_likelihood(m: Made) -> None:
    """What calibration runs: the logits at the reference's tokens."""
    language = m.loaded.language
    prompt, reference = language.prompt_ids(USERS[:1])[0], language.reference_ids(REFERENCES[:1], True)[0]
    picture, text = m.features.take([0]), language.as_read(prompt, reference)
    output = language.read(picture, [text], [reference])
    logits = language.logits(output)[0, -len(reference) :].double().log_softmax(-1)
    nll = float(-logits[range(len(reference)), reference].sum())
    assert nll == pytest.approx(plain_nll(m, 0, reference), rel=1e-5)
    pictured = language.pictured(picture, text)
    assert (len(pictured), sum(pictured)) == (language.logits(output).shape[1], picture.tokens(0))
    alone = language.logits(language.read(None, [text], [reference]))
    assert alone.shape[1] < len(pictured)
    assert alone.isfinite().all()


def test_beams_leave_the_features_as_they_are(m: Made) -> None:
    language, before, generation = m.loaded.language, m.features.values.clone(), Generation(None, 3, 6)
    prompts = language.prompt_ids(USERS)
    texts: list[list[Text]] = [language.prefill(m.features, prompts).generate(generation) for _ in range(2)]
    assert texts[0] == texts[1]
    assert torch.equal(m.features.values, before)


def test_another_number_of_features_is_an_error(m: Made) -> None:
    language, rows = m.loaded.language, m.features
    assert rows.lengths is not None
    less = Rows(rows.values[:-1], (*rows.lengths[:-1], rows.lengths[-1] - 1), rows.further)
    for wrong in (less, replace(rows, values=rows.values[:0], lengths=(0,) * len(USERS))):
        with pytest.raises(RuntimeError, match="placeholders for"):
            language.prefill(wrong, language.prompt_ids(USERS))


def test_what_can_be_addressed_reaches_the_answer_and_nothing_else_does(m: Made) -> None:
    """Change the weights of each layer and look whether any bit behind the prompt moves."""
    language, pixels = m.loaded.language, m.loaded.pixels(m.images[0])
    prompt, torch_seed = language.prompt_ids(USERS[:1]), torch.Generator().manual_seed(0)

    def answer() -> torch.Tensor:
        return language.prefill(features(m.loaded, pixels), prompt).first  # type: ignore[attr-defined]

    plain = answer()
    assert torch.equal(answer(), plain)
    for part in m.loaded.anatomy.parts.values():
        for layer in (*part.linears, *part.unread):
            weight = m.loaded.model.get_submodule(layer.path).weight
            before = weight.data
            weight.data = before + torch.randn(before.shape, generator=torch_seed)
            assert torch.equal(answer(), plain) == (layer in part.unread), layer.path
            weight.data = before


@pytest.mark.parametrize(
    "dtypes", [("bfloat16",) * 3, ("bfloat16", "float32", "bfloat16"), ("float32", "bfloat16", "float32")]
)
def test_parts_may_have_dtypes_of_their_own(m: Made, dtypes: tuple[str, str, str]) -> None:
    roles = [(role, d) for role, d in zip(ROLES, dtypes, strict=True) if m.loaded.anatomy.role(role)]
    section = {**m.section, "dtype": dtypes[1], "dtype_per_part": dict(roles)}
    other = load(section, Path(m.section["path"]))
    found = features(other, other.pixels(m.images[0]))
    prompts, references = other.language.prompt_ids(USERS[:1]), other.language.reference_ids(REFERENCES[:1], True)
    (likelihood,) = other.language.prefill(found, prompts).likelihood(references)
    assert likelihood.nll_sum == pytest.approx(plain_nll(m, 0, references[0]), rel=0.1)


def test_a_recipe_is_taken_back_bit_for_bit(m: Made) -> None:
    before = {name: p.clone() for name, p in m.loaded.model.named_parameters()}
    with Patch(m.loaded).apply(recipe(m.loaded.anatomy, bits=3)) as applied:
        assert applied.layers_changed == len(applied.layers) > 20
    assert all(torch.equal(p, before[name]) for name, p in m.loaded.model.named_parameters())
