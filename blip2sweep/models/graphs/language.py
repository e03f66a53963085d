"""What the last stages over sessions have from the model's own: how texts become tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from blip2sweep.models.language import Language, Prefilled
from blip2sweep.models.ragged import Rows
from blip2sweep.models.text import Ids
from blip2sweep.tasks.generation import Generation


class GraphLanguage(ABC):
    """A `Language` whose `prefill` runs sessions. own: the model's last stage in torch, of the same tokenizer."""

    def __init__(self, own: Language) -> None:
        self.own, self.tokens = own, own.tokens

    @abstractmethod
    def prefill(self, pictures: Rows, prompts: Sequence[Ids]) -> Prefilled: ...

    def prompt_ids(self, texts: Sequence[str]) -> list[Ids]:
        return self.own.prompt_ids(texts)

    def reference_ids(self, references: Sequence[str], prompted: bool) -> list[Ids]:
        return self.own.reference_ids(references, prompted)

    def row_bytes(self, generation: Generation) -> int:
        return self.own.row_bytes(generation)

    def as_read(self, prompt: Ids, reference: Ids) -> Ids:
        return self.own.as_read(prompt, reference)

    def pictured(self, picture: Rows, text: Ids) -> list[bool]:
        return self.own.pictured(picture, text)

    def in_stream(self, path: str) -> bool:
        return self.own.in_stream(path)

    def read(self, pictures: Rows | None, texts: Sequence[Ids], references: Sequence[Ids]) -> object:
        """Raises RuntimeError: nothing is measured inside of a compiled graph."""
        raise RuntimeError("a graph has no pass that calibration could watch")

    def logits(self, output: object) -> Tensor:
        raise RuntimeError("a graph has no pass that calibration could watch")
