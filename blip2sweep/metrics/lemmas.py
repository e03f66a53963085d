"""Answers with their nouns and verbs as lemmas, as LAVIS scores OK-VQA, whose own answers are stemmed words.

Follows `apply_lemmatizer` of LAVIS (lavis/models/blip2_models/blip2_t5.py): spaCy splits the stripped answer into tokens;
nouns and verbs become their lemma, and all tokens are joined by one space, so that "u.s." becomes "u.s .".
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from blip2sweep.errors import UserError

MODEL, DEFAULT = "BLIP2SWEEP_SPACY_MODEL", "en_core_web_sm"
LEMMATISED = ("NOUN", "VERB")
SETTING = "task.lemmatize"
NO_SPACY = f"{SETTING}=spacy: no spaCy here; right: pip install 'blip2sweep[spacy]'"


class Token(Protocol):
    pos_: str
    lemma_: str
    text: str


class Tagger(Protocol):
    """A loaded spaCy pipeline. meta: its `lang`, `name` and `version`."""

    meta: dict[str, object]

    def __call__(self, text: str) -> Iterable[Token]: ...


def lemmatised(answer: str) -> str:
    """The answer as LAVIS compares it. Raises UserError where spaCy or its model is not installed."""
    return _lemmatised(_named(), answer.strip())


def lemmatiser_version(setting: str = SETTING) -> str:
    """Model and spaCy with their versions, which decide what a lemma is: `en_core_web_sm-3.8.0/spacy-3.8.18`. setting:
    the config key that asks for it, for errors."""
    try:
        told = tagger().meta
    except UserError as error:
        raise UserError(str(error).replace(SETTING, setting)) from error
    return f"{told['lang']}_{told['name']}-{told['version']}/spacy-{told['spacy']}"


def tagger() -> Tagger:
    """The pipeline that the environment variable MODEL names, or whose folder it is; else DEFAULT."""
    return load(_named())


def check_installed() -> None:
    """Raise UserError where spaCy or its model is not installed. It imports neither, and spaCy takes seconds."""
    if find_spec("spacy") is None:
        raise UserError(NO_SPACY)
    name = _named()
    if not Path(name).exists() and not (name.isidentifier() and find_spec(name)):
        raise UserError(_no_model(name))


def _no_model(name: str) -> str:
    right = f"python -m spacy download {DEFAULT}, or {MODEL}=FOLDER of a pipeline"
    return f"{SETTING}=spacy: no spaCy model {name}; right: {right}"


def _named() -> str:
    return os.environ.get(MODEL) or DEFAULT


@cache
def load(name: str) -> Tagger:
    """A spaCy pipeline by its package or folder. Raises UserError where there is none."""
    try:
        import spacy
    except ImportError:
        raise UserError(NO_SPACY) from None
    try:
        found = spacy.load(name)
    except (OSError, ValueError) as error:
        raise UserError(_no_model(name)) from error
    found.meta["spacy"] = spacy.__version__
    return cast("Tagger", found)


@lru_cache(2**17)
def _lemmatised(model: str, answer: str) -> str:
    """One answer at a time through the whole pipeline, as LAVIS does: without its parser a few lemmas differ."""
    return " ".join(t.lemma_ if t.pos_ in LEMMATISED else t.text for t in load(model)(answer))
