"""What the metric tests share: the study's data and pycocoevalcap's own scorers, as the reference to agree with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.metrics.java import java_binary

STUDY = Path(os.environ.get("BLIP2SWEEP_STUDY_DATA", Path(__file__).parents[2].parent / "shared/data/blip2_coco"))


@pytest.fixture(scope="session")
def study() -> Path:
    if not (STUDY / "predictions.parquet").is_file():
        pytest.skip(f"the study's data is not at {STUDY}; set BLIP2SWEEP_STUDY_DATA to its folder")
    return STUDY


@pytest.fixture(scope="session")
def study_references(study: Path) -> list[list[str]]:
    return [record["captions"] for record in json.loads((study / "references.json").read_text())]


class Pycocoevalcap:
    """pycocoevalcap's classes on plain lists. They call `java`, so its folder goes on PATH while they start."""

    def __init__(self) -> None:
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        self._tokenizer, self._meteor = PTBTokenizer(), Meteor()

    def tokenize(self, texts: Sequence[str]) -> list[str]:
        tokens = self._tokenizer.tokenize({0: [{"caption": text} for text in texts]})
        return list(tokens[0])

    def score(self, name: str, references: Sequence[Sequence[str]], candidates: Sequence[str]) -> Any:
        """Tokenised references and candidates in, (corpus score, sample scores) out."""
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge

        gts = {index: list(texts) for index, texts in enumerate(references)}
        res = {index: [text] for index, text in enumerate(candidates)}
        if name == "bleu":
            return Bleu(4).compute_score(gts, res, verbose=0)
        scorer = {"meteor": self._meteor, "rouge_l": Rouge(), "cider": Cider()}[name]
        return scorer.compute_score(gts, res)


@pytest.fixture(scope="session")
def pycocoevalcap() -> Iterator[Pycocoevalcap]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(java_binary()).parent}{os.pathsep}{os.environ['PATH']}")
        yield Pycocoevalcap()
