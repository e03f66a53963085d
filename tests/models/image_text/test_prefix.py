"""A picture is read once for several prompts: as each of them alone, in every model whose tokens see none behind them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from blip2sweep.models.image_text.chat import Chat
from blip2sweep.tasks.generation import Generation
from tests.models.image_text.made import FIRST, Made
from tests.params import quick

BOTH_WAYS = {"paligemma-3b-224", "gemma-3-4b"}
USERS = ["what is this?", "a", "how many cats are there, one or two?", "yes or no", "what", "is it red?"]
ROWS = [0, 1, 2, 3, 2, 0]
REFERENCES = ["a cat", "yes", "two dogs and a bird", "no", "", "it is"]
FORWARD = [name for name in FIRST if name not in BOTH_WAYS]
QUICK = "qwen3-vl-2b"  # pictures of several sizes, with positions and features of their own at several blocks


def whole(m: Made, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Mistral's config has a window unless a checkpoint says none."""
    monkeypatch.setattr(m.loaded.model.config.get_text_config(), "sliding_window", None, raising=False)
    return m


@pytest.mark.parametrize("name", quick(FORWARD, QUICK))
@pytest.mark.parametrize("generation", [Generation(None, 1, 8), Generation(None, 3, 6)], ids=["greedy", "beams"])
def test_prompts_that_share_a_picture_are_read_as_alone(
    name: str, generation: Generation, small: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    m = whole(small(name), monkeypatch)
    language = m.loaded.language
    prompts, references = language.prompt_ids(USERS), language.reference_ids(REFERENCES, True)
    plain = language.prefill(m.features.take(ROWS), prompts)
    expected = [x.nll_sum for x in plain.likelihood(references)], plain.generate(generation)
    assert language.shares  # type: ignore[attr-defined]
    prefix = language.prefix(m.features, ROWS, prompts)  # type: ignore[attr-defined]
    for chosen in ([5, 3, 1], [0, 2, 4]):
        found = prefix.prefill(chosen)
        own = [references[i] for i in chosen]
        assert [x.nll_sum for x in found.likelihood(own)] == pytest.approx([expected[0][i] for i in chosen], rel=1e-5)
        assert found.generate(generation) == [expected[1][i] for i in chosen]
    assert len({t.text for t in expected[1]}) > 1


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(BOTH_WAYS))
def test_a_picture_that_is_read_in_both_directions_is_not_shared(name: str, small: Callable[[str], Made]) -> None:
    assert not small(name).loaded.language.shares  # type: ignore[attr-defined]


def test_a_window_is_not_shared(small: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding behind a picture would move it out of the window."""
    m = small(QUICK)
    monkeypatch.setattr(m.loaded.model.config.get_text_config(), "sliding_window", 16, raising=False)
    assert not m.loaded.language.shares  # type: ignore[attr-defined]


@pytest.mark.parametrize("around", ["{}{image}", "{}{image}:"])
def test_a_picture_behind_its_question_is_not_shared(
    around: str, small: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    m = small(QUICK)
    language = m.loaded.language
    monkeypatch.setattr(language, "chat", Chat(m.loaded.processor, around))
    prompts = language.prompt_ids(USERS)
    assert language.prefix(m.features, ROWS, prompts) is None  # type: ignore[attr-defined]
    same = language.prompt_ids(["what"] * 4)
    prefix = language.prefix(m.features, range(4), same)  # type: ignore[attr-defined]
    assert (prefix is None) == (around == "{}{image}")
