"""What stands around the user's text: the checkpoint's chat template, or a text that the model config gives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from blip2sweep.errors import UserError
from blip2sweep.models.text import Ids, Prompt

if TYPE_CHECKING:
    from transformers import ProcessorMixin

TEMPLATE = "template"
ANSWER = "ANSWER"  # of an assistant, to see what a template sets behind it
SOME = "a"  # a user's text; where nothing stands behind it, an answer begins with a space
IMAGE, USER = "{image}", "{}"  # in a text: the picture's token, and the user's text

# What a template asks for the day with. Predictions of one key are the same on every day, so it is always this one.
CLOCK, DAY = "strftime_now", datetime(2024, 7, 26)
PIECES = ("%d", "%b", "%B", "%Y", "%m", "%y", "%a", "%A", "%H", "%M", "%S")
ON_A_DAY = (
    f"{{% macro {CLOCK}(form) %}}{{{{ form"
    + "".join(f".replace('{piece}', '{DAY.strftime(piece)}')" for piece in PIECES)
    + " }}{% endmacro %}"
)
Turn = dict[str, object]


class Chat:
    """Turns the user's text into the text and tokens that the model reads.

    chat: `template`, a text with {image} and {}, or None: the picture's token and the user's text.
    """

    def __init__(self, processor: ProcessorMixin, chat: str | None) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.chat = chat or IMAGE + USER

    def around(self, user: str) -> str:
        """The text that the model reads, with the picture's token where the picture is.

        Raises UserError where a user's text holds that token.
        """
        token = self.processor.image_token
        if token in user:
            raise UserError(
                f"a text holds {token}, which stands for the picture: {user[:80]!r}; right: a text without it"
            )
        if self.chat != TEMPLATE:
            return self.chat.replace(IMAGE, token).replace(USER, user)
        content = [{"type": "image"}, *([{"type": "text", "text": user}] if user else [])]
        return self._by_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def _by_template(self, turns: list[Turn], add_generation_prompt: bool = False) -> str:
        """The turns in the checkpoint's template, in which the day is always the same one."""
        named = self.processor.chat_template
        own = named.get("default") if isinstance(named, dict) else named
        pinned = {"chat_template": ON_A_DAY + own} if isinstance(own, str) and CLOCK in own else {}
        return self.processor.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, **pinned)

    def prompts(self, users: Sequence[str]) -> list[Ids]:
        """One `Prompt` for each user's text. Its ids have one token for the picture, whatever the picture."""
        return [Prompt(self.ids(text), text) for text in map(self.around, users)]

    def ids(self, text: str) -> Ids:
        """Token ids, with the special tokens that the tokenizer sets unless the text begins with BOS itself."""
        bos = self.tokenizer.bos_token
        return self.tokenizer(text, add_special_tokens=not (bos and text.startswith(bos))).input_ids

    def with_picture(self, prompt: Prompt, picture: str) -> Ids:
        """The token ids with a picture. picture: the text that the processor puts in place of its token."""
        return self.ids(prompt.text.replace(self.processor.image_token, picture))

    def without_picture(self, prompt: Prompt) -> Ids:
        return self.ids(prompt.text.replace(self.processor.image_token, ""))

    def end(self, ends: Sequence[int]) -> int:
        """The token that ends an answer: the first of `ends` that the template sets behind one.

        Where it sets none, the first. Gemma's list begins with the end of a document.
        """
        asked, said = ([{"type": "text", "text": text}] for text in ("a", ANSWER))
        turns: list[Turn] = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        try:
            text = self._by_template(turns) if self.chat == TEMPLATE else ""
        except Exception:  # a template that has no words for answers
            text = ""
        behind = self.tokenizer(text.rpartition(ANSWER)[2], add_special_tokens=False).input_ids
        return next((token for token in behind if token in ends), ends[0])

    def references(self, texts: Sequence[str], end: int, prompted: bool) -> list[Ids]:
        """Token ids of texts behind a prompt, each with its end. prompted: whether the user's text is not empty.

        They are cut out of the tokens of both, because many tokenizers write the first word of a text otherwise.
        Raises UserError where the first token would begin inside the prompt.
        """
        before = self.around(SOME if prompted else "").rstrip(" ")
        at_start = before[-1:].isspace() or before.endswith(tuple(self.tokenizer.all_special_tokens))
        space, alone = "" if at_start else " ", self.ids(before)
        return [[*self._behind(before, alone, space + text), end] for text in texts]

    def _behind(self, before: str, alone: Ids, text: str) -> Ids:
        both = self.ids(before + text)
        if both[: len(alone)] != alone:
            raise UserError(
                f"the tokenizer joins the end of the prompt {before[-20:]!r} with the text {text[:20]!r} behind it; "
                "right: a chat template, or model.chat, that ends in a special token or a line break"
            )
        return both[len(alone) :]
