"""The chat model of a cell and its endpoint, as planning writes them and a worker reads them."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Message(TypedDict):
    """One message of a conversation."""

    role: str  # system, user or assistant
    content: str


class Sampling(TypedDict):
    """How a reply is drawn. seed: only where the temperature is above 0, because nothing reads it otherwise."""

    temperature: float
    max_tokens: int
    seed: NotRequired[int]


class ChatRecipe(TypedDict):
    """What determines the replies of a cell. It is part of the cell's key; the endpoint is not.

    shots: worked examples before a question; null where the variant has none. steps: {what is asked: its sampling}.
    messages: the version of their texts. lemmatiser: its version, where the own answer that messages tell is lemmatised.
    """

    model: str
    variant: str
    shots: int | None
    steps: dict[str, Sampling]
    messages: int
    lemmatiser: NotRequired[str]


class ChatJob(TypedDict):
    """The chat of one cell. origin: a digest of all that determines what the vision-language model says, so that cells
    with other chat models share it. rounds: {what it is asked: the settings of its generation}."""

    recipe: ChatRecipe
    origin: str
    rounds: dict[str, dict[str, object]]


class Endpoint(TypedDict, total=False):
    """Where and how requests are sent. None of it changes a reply. Prices are for a million tokens."""

    base_url: str | None
    online: bool
    timeout: float
    retries: int
    concurrency: int
    price_in: float | None
    price_out: float | None
