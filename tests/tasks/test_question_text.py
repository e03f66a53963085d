"""Questions as LAVIS rewrites them, and where the setting counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2sweep.errors import UserError
from blip2sweep.tasks import resolve_generation
from blip2sweep.tasks.question_text import lavis_question, prompts
from blip2sweep.tasks.sample import Sample
from blip2sweep.tasks.task import task_of

# What `BlipQuestionProcessor` of salesforce-lavis 1.0.2 returned for each.
FROZEN = {
    "What color is the dog?": "what color is the dog?",
    'Is this "A.M." or P.M.?': "is this am or pm?",
    "How many (big) dogs: #1; ~2*!   ": "how many big dogs 1 2",
    "WHAT’S THIS,  then -- a/b?  ": "what’s this,  then -- a/b?",
    "...": "",
    " Leading? ": " leading?",
    "tab\tstays.\t": "tab\tstays\t",
    "ÉTÉ İ": "été i̇",
    "a " * 60: " ".join(["a"] * 50),
    "a  " * 30: "a  " * 24 + "a ",
}


@pytest.mark.parametrize(("text", "expected"), FROZEN.items())
def test_equals_the_processor(text: str, expected: str) -> None:
    assert lavis_question(text) == expected


def test_a_prompt_has_the_question_as_the_setting_says() -> None:
    sample = Sample(1, 1, Path("a.jpg"), "Is it RED?!", ("yes",))
    own = task_of("vqa")
    assert prompts(own, [sample], "Question: {} Answer:") == ["Question: Is it RED?! Answer:"]
    assert prompts(own, [sample], "Question: {} Answer:", "lavis") == ["Question: is it red? Answer:"]
    caption = Sample(1, 1, Path("a.jpg"), None, ("yes",))
    assert prompts(task_of("caption"), [caption], "a Photo!", "lavis") == ["a Photo!"]


PRESETS = {"name": "x", "presets": {k: {"any": {"prompt": p, "num_beams": 1, "max_new_tokens": 9}}
                                    for k, p in (("vqa", "{}"), ("caption", ""))}}  # fmt: skip


def test_it_is_in_the_settings_only_where_it_rewrites_something() -> None:
    raw, used = resolve_generation({**PRESETS, "question": "raw"}, "vqa", "opt")
    assert "question" not in raw.as_dict()
    assert "generation.question" in used
    rewritten, _ = resolve_generation({**PRESETS, "question": "lavis"}, "vqa", "opt")
    assert rewritten.as_dict()["question"] == "lavis"
    captions, used = resolve_generation({**PRESETS, "question": "lavis"}, "caption", "opt")
    assert "question" not in captions.as_dict()
    assert "generation.question" not in used


def test_an_unknown_value_is_refused() -> None:
    with pytest.raises(UserError, match=r"question=blip: right: raw or lavis"):
        resolve_generation({**PRESETS, "question": "blip"}, "vqa", "opt")
