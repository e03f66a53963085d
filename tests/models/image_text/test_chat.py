"""What stands around the user's text, with a tokenizer that joins letters: answers begin where the prompt ends."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, ProcessorMixin

from blip2sweep.errors import UserError
from blip2sweep.models.image_text.chat import TEMPLATE, Chat
from tests.image_text import CHAT as TEXTS
from tests.image_text import processor

END = 2
CHAT = TEXTS.replace("IMAGE", "<image>")
JOINED = (("c", "a"), ("ca", "t"), ("Ġ", "cat"), ("?", "a"), ("Ġ", "a"))
WITHOUT_ANSWER = "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] if c['type'] == 'text' else '<image>' }}{% endfor %}{% endfor %}"  # fmt: skip


def joining(*merges: tuple[str, str]) -> ProcessorMixin:
    """LLaVA's processor with a tokenizer that joins these pairs."""
    made = processor("llava-1.5-7b")
    rules = json.loads(made.tokenizer.backend_tokenizer.to_str())
    for pair in merges:
        rules["model"]["vocab"]["".join(pair)] = len(rules["model"]["vocab"]) + 10
    rules["pre_tokenizer"]["use_regex"] = False  # or nothing is joined with a space behind it
    rules["model"]["merges"] = [list(pair) for pair in merges]
    own = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": {"image_token": "<image>"}}  # fmt: skip
    made.tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(rules)), **own)
    return made


@pytest.mark.parametrize(
    "chat", ["{image}{}", "USER: {image} {}", "{image}\n{}", "{image}{} Answer:", "{image}{}\n", TEMPLATE]
)
@pytest.mark.parametrize("template", [None, WITHOUT_ANSWER])
def test_prompt_and_answer_are_the_tokens_of_both(chat: str, template: str | None) -> None:
    made = joining(*JOINED)
    made.chat_template = template or made.chat_template
    own = Chat(made, chat)
    for user in ("what is this?", "a", "is this a cat"):
        space = "" if own.around(user).endswith("\n") else " "
        for text in ("cat", "a cat", "no"):
            (prompt,), (reference,) = own.prompts([user]), own.references([text], END, True)
            assert [*prompt, *reference] == [*own.ids(own.around(user) + space + text), END]


def test_an_answer_to_nothing_begins_where_the_picture_ends() -> None:
    own = Chat(joining(*JOINED), "{image}{}")
    ((alone,), (behind,)) = (own.references(["a cat"], END, prompted) for prompted in (False, True))
    assert [own.tokenizer.decode(ids[:1]) for ids in (alone, behind)] == ["a", " a"]


def test_a_tokenizer_that_joins_a_prompt_with_its_answer() -> None:
    own = Chat(joining(("a", "Ġ")), "{image}{}")
    with pytest.raises(
        UserError, match="the tokenizer joins the end of the prompt '<image>a' with the text ' no' behind"
    ):
        own.references(["no"], END, True)


@pytest.mark.parametrize("named", [False, True])
def test_the_day_of_a_template_is_always_the_same(named: bool) -> None:
    made = joining()
    today = (
        "{%- set today = strftime_now('%Y-%m-%d') %}{{- 'It is ' + today + ', ' + strftime_now('%d %b %Y') + '. ' }}"
    )
    made.chat_template = {"default": today + CHAT} if named else today + CHAT
    plain = Chat(processor("llava-1.5-7b"), TEMPLATE).around("a")
    own = Chat(made, TEMPLATE)
    assert own.around("a") == "It is 2024-07-26, 26 Jul 2024. " + plain
    assert own.end([9, END]) == 9
