"""How text is generated: presets per kind of task and family of language model, with single settings overridden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from blip2sweep.errors import UserError, nearest
from blip2sweep.tasks.question_text import QUESTIONS, RAW
from blip2sweep.tasks.task import task_of

ANY = "any"  # the family in presets that fits a family without presets of its own
OPTIONS = ("prompt", "num_beams", "max_new_tokens", "min_new_tokens", "length_penalty", "early_stopping", "question")
LATER = {"question": RAW, "repetition_penalty": None, "early_stopping": None}


@dataclass(frozen=True)
class Generation:
    """The settings of deterministic decoding. A setting that nothing reads is null, such as a length penalty at one
    beam.

    The prompt of a task with questions has `{}` for the question. Lengths are in new tokens, without prompt and image.
    question: how a question is rewritten before it stands in the prompt, one of QUESTIONS.
    repetition_penalty: of beam search, as in transformers; rounds of the in-context pipeline alone set it.
    early_stopping: true where a beam search ends with as many whole texts as beams, and null where it looks for better.
    """

    prompt: str | None
    num_beams: int
    max_new_tokens: int
    min_new_tokens: int | None = None
    length_penalty: float | None = None
    question: str = RAW
    repetition_penalty: float | None = None
    early_stopping: bool | None = None

    def as_dict(self) -> dict[str, object]:
        """The settings as JSON. What came later is there only where it does something, so that keys stay."""
        return {k: v for k, v in asdict(self).items() if k not in LATER or v != LATER[k]}


WRITES_NOTHING = Generation(None, 1, 1)  # of a task that only compares pictures and texts


def resolve_generation(
    config: Mapping[str, Any], kind: str, family: str, prompts: Mapping[str, str] | None = None
) -> tuple[Generation, frozenset[str]]:
    """The settings of a composed `generation` config for a kind of task and a family (opt, t5).

    A family without presets of its own takes those of `any`. prompts: the model's own prompts by kind of task, used
    where neither the config nor the preset has one. Returns them with the config keys that had an effect; an override that nothing reads is not among them. Raises
    UserError naming the key that is wrong.
    """
    own = {"prompt": _of_kind(prompts, kind)} if prompts else {}
    if not task_of(kind).PRESET:
        return WRITES_NOTHING, frozenset({"generation"})
    given = {k: config[k] for k in OPTIONS if config.get(k) is not None}
    values = {**own, **_preset(config, kind, family), **given}
    generation = Generation(
        prompt=_prompt(values.get("prompt"), kind),
        num_beams=_whole(values, "num_beams", 1),
        max_new_tokens=_whole(values, "max_new_tokens", 1),
        min_new_tokens=_whole({"min_new_tokens": 0, **values}, "min_new_tokens", 0) or None,
        length_penalty=_length_penalty(values),
        question=_question(values, kind),
        early_stopping=_early_stopping(values),
    )
    least, most = generation.min_new_tokens or 0, generation.max_new_tokens
    if least > most:
        raise UserError(f"generation.min_new_tokens={least}: right: at most max_new_tokens={most}")
    idle = {"question": not task_of(kind).ASKS, "early_stopping": generation.num_beams == 1}
    optional = ("prompt", "min_new_tokens", "early_stopping")
    used = [k for k in given if not idle.get(k) and (k in optional or getattr(generation, k) is not None)]
    return generation, frozenset({"generation", *(f"generation.{k}" for k in used)})


def _preset(config: Mapping[str, Any], kind: str, family: str) -> Mapping[str, Any]:
    presets = config.get("presets") or {}
    by_family = _of_kind(presets, kind) or {}
    if family not in by_family and ANY not in by_family:
        known = [f"presets.{k}.{f}" for k in presets for f in presets[k]]
        name, hint = config.get("name"), nearest(f"presets.{kind}", known)
        raise UserError(f"generation={name}: no preset for {kind} and {family}; {hint}")
    return by_family[family if family in by_family else ANY]


def _of_kind(by_kind: Mapping[str, Any], kind: str) -> Any:
    """The entry for a kind of task. Without one, the entry for the kind whose presets fit it."""
    return by_kind.get(kind if kind in by_kind else task_of(kind).PRESET)


def _prompt(value: object, kind: str) -> str | None:
    text = str(value or "")
    task_of(kind).check_prompt(text)
    return text or None


def _question(values: Mapping[str, object], kind: str) -> str:
    value = values.get("question", RAW)
    if value not in QUESTIONS:
        raise UserError(f"generation.question={value}: right: {' or '.join(QUESTIONS)}")
    return str(value) if task_of(kind).ASKS else RAW


def _whole(values: Mapping[str, object], name: str, least: int) -> int:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"generation.{name}={value}: right: an integer from {least} up")
    return value


def _length_penalty(values: Mapping[str, Any]) -> float | None:
    """The length penalty; null at one beam, where transformers does not read it. The default is 1.0."""
    value = values.get("length_penalty", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"generation.length_penalty={value}: right: a number such as -1, 0 or 1")
    return float(value) if values["num_beams"] > 1 else None


def _early_stopping(values: Mapping[str, Any]) -> bool | None:
    """True; null for false, the default, and at one beam, where transformers does not read it."""
    value = values.get("early_stopping") or False
    if not isinstance(value, bool):
        raise UserError(f"generation.early_stopping={value}: right: true or false")
    return True if value and values["num_beams"] > 1 else None
