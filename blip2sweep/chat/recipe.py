"""What a config says of the chat model: what determines its replies, and where it is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast
from urllib.parse import SplitResult, urlsplit

from blip2sweep.chat.messages import CAPTION_PROMPT, NOUN_PROMPT, SHOTS, VERSION
from blip2sweep.errors import UserError, UserErrors, nearest
from blip2sweep.wire.chat import ChatRecipe, Endpoint, Sampling

ENDPOINT = ("base_url", "online", "timeout", "retries", "concurrency", "price_in", "price_out")
PLAIN, LABEL = re.compile(r"[!-~]+"), re.compile(r"[\w-]{1,63}")  # an address, and a part of a host's name
IN_CONTEXT = "right: task=okvqa_incontext, or without chat"


class Variant(NamedTuple):
    """steps: what the chat model is asked for. rounds: what the vision-language model is asked for, besides its own answer.
    shots: whether there are worked examples to leave out. tells: whether messages have the own answer."""

    steps: tuple[str, ...]
    rounds: tuple[str, ...]
    shots: bool
    tells: bool = False


VARIANTS = {
    "caption": Variant(("context",), ("captions",), shots=True),
    "questions": Variant(("questions", "summary"), ("asked",), shots=False, tells=True),
    "noun": Variant(("noun", "context"), ("captions", "described"), shots=True),
}
# As published: (temperature, most tokens).
STEPS = {"context": (0.0, 10), "noun": (0.0, 7), "questions": (0.7, 150), "summary": (0.2, 10)}
DESCRIPTION = {"num_beams": 5, "max_new_tokens": 20, "length_penalty": 1.5, "repetition_penalty": 2.0}
# As published: how the vision-language model generates what the chat model is told.
ROUNDS: Mapping[str, dict[str, object]] = {
    "captions": {"prompt": CAPTION_PROMPT, **DESCRIPTION},
    "described": {"prompt": NOUN_PROMPT, **DESCRIPTION},
    "asked": {
        "prompt": "Question: {} Short answer:", "num_beams": 5, "max_new_tokens": 15, "length_penalty": 1.0,
        "repetition_penalty": 1.5,
    },
}  # fmt: skip


def resolved(config: Mapping[str, object]) -> tuple[ChatRecipe, frozenset[str]]:
    """The recipe of a composed section `chat` of a task that needs one, and the config keys that had an effect.

    Raises UserError with a line a mistake.
    """
    wrong = [*_mistakes(config), *_endpoint_mistakes(config)]
    if wrong:
        raise wrong[0] if len(wrong) == 1 else UserErrors(map(str, wrong))
    name = str(config["variant"])
    variant = VARIANTS[name]
    steps = {step: _sampling(config, step) for step in variant.steps}
    shots = cast("int", config["shots"]) if variant.shots else None
    recipe = ChatRecipe(model=str(config["model"]), variant=name, shots=shots, steps=steps, messages=VERSION)
    drawn = any(s["temperature"] > 0 for s in steps.values())
    used = ["model", "variant", "temperature", "max_tokens", *ENDPOINT]
    used += [
        *(["shots"] if variant.shots else []),
        *(["seed"] if drawn else []),
        *(["lemmatize"] if variant.tells else []),
    ]
    return recipe, frozenset({"chat", *(f"chat.{key}" for key in used)})


def endpoint(config: Mapping[str, object]) -> Endpoint:
    """Where the requests of a composed section `chat` go."""
    return cast("Endpoint", {key: config.get(key) for key in ENDPOINT})


def _sampling(config: Mapping[str, object], step: str) -> Sampling:
    """How the replies of a step are drawn: as published, or as the config says for all."""
    temperature, most = STEPS[step]
    given = config.get("temperature")
    temperature = temperature if given is None else float(cast("float", given))
    sampling = Sampling(temperature=temperature, max_tokens=cast("int", config.get("max_tokens")) or most)
    return {**sampling, "seed": cast("int", config["seed"])} if temperature > 0 else sampling


def _mistakes(config: Mapping[str, object]) -> list[UserError]:
    """What is wrong with that which determines replies."""
    if config.get("name") is None:
        return [UserError("chat=none: this task asks a chat model; right: chat=openai or chat=local chat.model=NAME")]
    found = []
    model, variant = config.get("model"), config.get("variant")
    if not isinstance(model, str) or model in ("", "???"):
        found.append(UserError("chat.model: not set; right: the model's name as the endpoint knows it"))
    if variant not in VARIANTS:
        found.append(UserError(f"chat.variant={variant}: unknown; {nearest(str(variant), VARIANTS)}"))
    checks: list[tuple[str, Callable[[object], bool], str]] = [
        ("shots", lambda x: not isinstance(x, bool) and x in SHOTS, "3 or 0 worked examples"),
        ("temperature", lambda x: x is None or _number(x, 0, 2), "a number from 0 to 2, or null: as published"),
        ("max_tokens", lambda x: x is None or _whole(x, 1), "a positive integer, or null: as published"),
        ("seed", lambda x: _whole(x, 0), "an integer from 0 up"),
        ("lemmatize", lambda x: x in ("none", "spacy"), "none or spacy"),
    ]
    return found + _failed(config, checks)


def _endpoint_mistakes(config: Mapping[str, object]) -> list[UserError]:
    if config.get("name") is None:
        return []
    checks: list[tuple[str, Callable[[object], bool], str]] = [
        ("timeout", lambda x: _number(x, 0.001), "seconds, more than 0"),
        ("retries", lambda x: _whole(x, 0), "an integer from 0 up"),
        ("concurrency", lambda x: _whole(x, 1), "a positive integer"),
        ("price_in", lambda x: x is None or _number(x, 0), "the price of a million tokens, or null"),
        ("price_out", lambda x: x is None or _number(x, 0), "the price of a million tokens, or null"),
    ]
    found = _failed(config, checks)
    try:
        if (url := config.get("base_url")) is not None or config.get("online"):
            check_url(url)
    except UserError as error:
        found.append(error)
    return found


def check_url(url: object) -> str:
    """The base URL of an endpoint. Raises UserError where it is none, and where it holds a password, because the URL is
    written into files."""
    right = "right: such as http://localhost:8000/v1, what stands before /chat/completions"
    if not isinstance(url, str) or not url:
        raise UserError(f"chat.base_url: not set; {right}")
    try:
        parts = urlsplit(url)
    except ValueError:  # an open bracket
        raise UserError(f"chat.base_url={url.rpartition('@')[2]}: no address of a server; {right}") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        told = f"{parts.scheme}://…@{parts.hostname}" if parts.username or parts.password else f"{url.split('?')[0]}?…"
        raise UserError(f"chat.base_url={told}: holds more than an address; {right}, and the key in OPENAI_API_KEY")
    if parts.scheme not in ("http", "https") or not _is_server(parts):
        raise UserError(f"chat.base_url={url}: no address of a server; {right}")
    if not PLAIN.fullmatch(url):
        raise UserError(f"chat.base_url={url!r}: has characters that no address has; {right}")
    return url.rstrip("/")


def _is_server(parts: SplitResult) -> bool:
    """Whether an address names a host, and no port or one that there can be."""
    try:
        port = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    return port != 0 and (":" in host or all(LABEL.fullmatch(label) for label in host.removesuffix(".").split(".")))


def _failed(config: Mapping[str, object], checks: list[tuple[str, Callable[[object], bool], str]]) -> list[UserError]:
    return [
        UserError(f"chat.{key}={config.get(key)}: right: {right}")
        for key, holds, right in checks
        if not holds(config.get(key))
    ]


def _number(value: object, least: float, most: float = float("inf")) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
