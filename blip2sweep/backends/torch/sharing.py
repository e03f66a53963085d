"""What a cell's evaluation takes from cells before it and leaves for cells after it."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor

from blip2sweep.cache.disk import Store
from blip2sweep.cache.tensors import Memo
from blip2sweep.models.images import Features, preprocessing, some_of
from blip2sweep.models.load import Loaded
from blip2sweep.models.ragged import Rows
from blip2sweep.recipe.chain import Chain, Point
from blip2sweep.rows import Id
from blip2sweep.tasks.sample import TaskData
from blip2sweep.wire.pack import CellJob, JsonObject

T = TypeVar("T")
OUTPUT = "queries"  # the name, in entries on disk, of what the language model sees
MOST_TEXTS = 2_000_000  # answers kept in memory: some hundred megabytes


def start(loaded: Loaded, task: TaskData, job: CellJob, code: str) -> JsonObject:
    """Everything but the recipe that determines what the language model sees: the start of a chain of keys, as JSON.

    job: as `Cell.job()` gives it. code: semantics and versions of what computes.
    """
    return {
        "weights": job["columns"]["weights"], "images": task.content, "on_bad_image": job["task"]["on_bad_image"],
        "preprocessing": preprocessing(loaded), "dtypes": loaded.dtypes, "attention": loaded.attention,
        "device": loaded.device.type, "code": code,
        **({"stored": loaded.stored} if loaded.stored else {}),
    }  # fmt: skip


class AnswerCache(Generic[T]):
    """Lists of answers by key, at most MOST_TEXTS answers. The list that was used longest ago is removed first.

    digests: {output key of a chain: digest of its features}, which are part of the keys of answers.
    """

    def __init__(self) -> None:
        self._lists: OrderedDict[str, list[T]] = OrderedDict()
        self.digests: dict[str, bytes] = {}

    def get(self, key: str) -> list[T] | None:
        if key in self._lists:
            self._lists.move_to_end(key)
        return self._lists.get(key)

    def put(self, key: str, answers: list[T]) -> None:
        self._lists[key] = answers
        while sum(map(len, self._lists.values())) > MOST_TEXTS and len(self._lists) > 1:
            self._lists.popitem(last=False)


@dataclass
class Account:
    """What was done for a cell in the turn of another (together.py), which is the cell's own cost.

    seconds: of each stage. hits: what was not computed then. applying: seconds of its recipe. written: layers whose
    weights were computed. lent: seconds of the cell's own turn in which others were computed.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    hits: dict[str, float] = field(default_factory=dict)
    applying: float = 0.0
    written: int = 0
    lent: float = 0.0

    @property
    def spent(self) -> float:
        return sum(self.seconds.values()) + self.applying

    def seconds_of(self, load: float, apply: float, whole: float) -> dict[str, float]:
        """The columns of a cell's seconds. load, apply, whole: of its turn."""
        own = whole + self.spent - self.lent
        return {"seconds_load": load, "seconds_apply": apply + self.applying, "seconds": own}


def _alone(asking: object, question: object) -> None:
    return None


@dataclass(eq=False)
class Shared:
    """The stores of a cell, and its chain of keys.

    origin: the start of the chain. after: the stage before the language model's. hits: what was not computed, for the
    cell's cost. whole, images: of a round, the key of the same output for all images, and those of the round. account: of
    what was done before its turn. together: answers the cell's questions (`Answers`) with those of later cells; None
    where it is to be answered alone.
    """

    memo: Memo
    chain: Chain
    after: str
    origin: JsonObject
    answered: AnswerCache[Any]
    store: Store | None = None
    hits: dict[str, float] = field(default_factory=dict)
    whole: str | None = None
    images: Sequence[Id] = ()
    account: Account = field(default_factory=Account)
    together: Callable[[Any, object], list[Any] | None] = _alone

    @property
    def told(self) -> dict[str, float]:
        """The hits, of what was done before its turn too."""
        return {**self.hits, **self.account.hits}

    # ---- what the language model sees of all images

    def recall_output(self) -> Features | None:
        """What the language model sees of the images: from memory, or from disk and then into memory. A round takes its
        part of what was kept for all images."""
        found = self._recall(self.chain.output)
        if found is None and self.whole is not None and (known := self._recall(self.whole)) is not None:
            found = some_of(known, self.images) if not known.bad else None
        return found

    def _recall(self, key: str) -> Features | None:
        found = self.memo.get(key)
        if found is None and self.store is not None and (payload := self.store.get(key)) is not None:
            read = load(payload)
            rows = Rows.of_named(OUTPUT, read).everywhere(lambda x: x.to(self.memo.device))
            found = (read["ids"], read["bad"], *rows.tensors())
            self.answered.digests.pop(key, None)
            self.memo.put(key, found)
            self.hits["disk"] = 1
        return None if found is None else self._features(*found)

    def _features(self, ids: Tensor, bad: Tensor, *rows: Tensor) -> Features:
        return Features(ids_of_tensor(ids), Rows.of_tensors(rows), self.after, ids_of_tensor(bad))

    def keep_output(self, features: Features) -> None:
        """Keep it in memory where a later cell wants it, and on disk for other jobs.

        It is not put on disk where an image could not be read, because the image may be readable next time. What the disk
        has no room for is not even copied.
        """
        assert features.rows is not None
        key = self.chain.output
        self.answered.digests.pop(key, None)
        ids, bad = ids_as_tensor(features.ids), ids_as_tensor(features.bad)
        if self.memo.remaining_uses(key):
            self.memo.put(key, (ids, bad, *features.rows.tensors()))
        if self.store is not None and not features.bad and features.rows.values.nbytes <= self.store.budget:
            named = features.rows.everywhere(lambda x: x.cpu().contiguous()).named(OUTPUT)
            self.store.put(key, save({"ids": ids, "bad": bad, **named}))

    # ---- states on the way there, piece by piece

    def recall_state(self, rows: slice) -> tuple[Point, Rows | None]:
        """(the deepest known point of these rows, their state there). Without one: (the first point, None)."""
        first, *later = self.chain.points[:-1]
        for point in reversed(later):
            if (found := self.memo.get(_piece(point.key, rows))) is not None:
                return point, Rows.of_tensors(found)
        return first, None

    def keep_state(self, rows: slice, point: Point, state: Rows) -> None:
        self.memo.put(_piece(point.key, rows), state.tensors(), point.key)

    def stops(self, here: Point) -> list[Point]:
        """The points after `here` whose states are worth keeping: those where a later cell leaves this cell's path."""
        points, later = self.chain.points, [self.memo.remaining_uses(key) for key in self.chain.keys]
        ahead = range(points.index(here) + 1, len(points) - 1)
        return [points[i] for i in ahead if later[i] > later[i + 1]]

    # ---- answers

    def language_key(self, features: Rows, question: object) -> str:
        """The key of answers. It goes by content, so cells with equal features share answers, whatever made them."""
        digests, output = self.answered.digests, self.chain.output
        if output not in digests:  # it needs a copy on the host: once for all cells with these features
            digests[output] = features.digest()
        text = f"{self.chain.language} {sorted(self.origin.items())} {question}"
        return hashlib.sha256(text.encode() + digests[output]).hexdigest()


def ids_as_tensor(ids: Sequence[Id]) -> Tensor:
    """Image ids as a tensor: (n,) int64 for numbers, JSON as uint8 for texts."""
    if all(isinstance(i, int) for i in ids):
        return torch.tensor(ids, dtype=torch.int64)
    return torch.tensor(list(json.dumps(ids).encode()), dtype=torch.uint8)


def ids_of_tensor(tensor: Tensor) -> tuple[Id, ...]:
    """The inverse of `ids_as_tensor`."""
    return tuple(json.loads(bytes(tensor.tolist())) if tensor.dtype == torch.uint8 else tensor.tolist())


def _piece(key: str, rows: slice) -> str:
    return f"{key} {rows.start}-{rows.stop}"
