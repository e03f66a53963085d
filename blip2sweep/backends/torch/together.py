"""Cells of one language recipe are answered together where images are few: short passes fill no batch.

In the turn of a cell whose samples fill at most half a batch, the images of later cells with the same language recipe,
task and generation are encoded too, and the language model answers all of them in one run. The answers lie where every
cell looks for what others answered, so a later cell finds its own in its turn, which is otherwise as it always was. What
was done for a later cell is its cost (`sharing.Account`). If something goes wrong with one of them, its own turn tells it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from blip2sweep.apply.patch import weights_key
from blip2sweep.backends.shares import segments_of_round
from blip2sweep.backends.torch.batching import Batches, Clock, Run, Sizes
from blip2sweep.backends.torch.encode import encode
from blip2sweep.backends.torch.model_state import ModelState, recipe_of
from blip2sweep.backends.torch.shared_work import SharedWork, piece_of
from blip2sweep.backends.torch.sharing import Account, Shared
from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.machine import stopping
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.models.language import Matcher
from blip2sweep.recipe import Recipe
from blip2sweep.tasks.generation import Generation
from blip2sweep.wire.pack import CellJob, Settings

if TYPE_CHECKING:
    from blip2sweep.backends.torch.answers import Answer, Answers
    from blip2sweep.models.ragged import Rows

Piece = tuple[str, str | None]  # `shared_work.piece_of` a job
# Seconds of one turn for the images of later cells. Where these take longer nothing is gained, and a cell would have to
# wait for others until the wall time of its job ends.
LONGEST = 30.0


class Other(NamedTuple):
    """A later cell that is answered now. shared: where its answers go. pictures: what the language model sees of its
    images, all of which could be read."""

    piece: Piece
    shared: Shared
    pictures: Rows


class Together:
    """Finds the later cells that are answered in a cell's turn. ended: each cell is alone from then on, such as once memory
    ran out.

    work: what the cells of a worker share. settings: `data_workers`.
    """

    def __init__(self, work: SharedWork, settings: Settings) -> None:
        self.work, self.workers, self.ended = work, settings.get("data_workers") or 0, False
        self._accounts: dict[Piece, Account] = {}  # of cells whose turn comes
        self._hits: tuple[Piece, dict[str, float]] | None = (
            None  # of an account: of the first segment of this turn's round
        )
        self._seen: set[Piece] = set()  # cells that had their turn, or were tried before it
        self._groups: tuple[Sequence[CellJob], str, dict[str, list[int]]] | None = None

    def of(self, state: ModelState, job: CellJob, batch_size: int | None) -> Shared | None:
        """`SharedWork.of` a job whose turn it is; `together` of it answers later cells too. The model has any recipe in it,
        before and after. batch_size: of the settings."""
        known = {*self._accounts}
        others = self._others(state, job, batch_size)
        shared = self.work.of(state, job)
        if shared is None:
            return None
        lent = sum(account.spent for piece, account in self._accounts.items() if piece not in known)
        first = piece_of(segments_of_round(job)[0])
        self._seen.add(first)  # its turn may come before that of cells that are listed before it
        shared.account = self._accounts.pop(first, shared.account)
        if first != piece_of(job):
            self._hits, shared.account.hits = (first, shared.account.hits), {}
        shared.account.lent = lent
        if others:
            shared.together = partial(self._answered, shared, others)
        return shared

    def of_segment(self, state: ModelState, job: CellJob) -> Shared | None:
        """`SharedWork.of` a segment of the round whose turn it is, with the hits of what was done before."""
        shared = self.work.of(state, job)
        if shared is not None and self._hits is not None and self._hits[0] == piece_of(job):
            shared.account.hits, self._hits = self._hits[1], None
        return shared

    # ---- which cells

    def _others(self, state: ModelState, job: CellJob, batch_size: int | None) -> list[Other]:
        step = self.work.step(job) if self._allowed(state) and piece_of(job) not in self._seen else None
        group = None if step is None else self._group(state, job)
        if step is None or group is None:
            return []
        sizes = Sizes(state.loaded, Generation(**job["generation"]), batch_size, state.batch_sizes)
        most = sizes.sequences.size // max(1, len(self.work.task(job).samples)) - 1
        later = [i for i in self._later(state, group) if i > step] if most > 0 else []
        if later:
            state.memo.advance(step - 1)  # this cell comes after them, and what it shares with them is kept for it
        found, began = list[Other](), time.perf_counter()
        for i in later:
            late = stopping.asked() or time.perf_counter() - began > LONGEST
            if len(found) < most and not self.ended and not late:
                found += self._prepared(state, i, sizes)
        sizes.remember(state.batch_sizes)
        return found

    def _allowed(self, state: ModelState) -> bool:
        """In half precision a text may depend on what else is in a batch, and so on the cells that ran before."""
        exact = set(state.loaded.dtypes.values()) == {"float32"}
        return self.work.remember and not self.ended and exact and not isinstance(state.loaded.language, Matcher)

    def _later(self, state: ModelState, group: str) -> list[int]:
        """The numbers of the jobs of a group that were not tried, in their order."""
        jobs = self.work.jobs
        if self._groups is None or self._groups[0] is not jobs or self._groups[1] != state.name:
            groups: dict[str, list[int]] = {}
            for i, job in enumerate(jobs):
                groups.setdefault(self._group(state, job) or "", []).append(i)
            self._groups = jobs, state.name, groups
        return [i for i in self._groups[2].get(group, ()) if piece_of(jobs[i]) not in self._seen]

    def _group(self, state: ModelState, job: CellJob) -> str | None:
        """What cells must have in common. None for a cell that is alone."""
        try:
            if not takes_part(job) or canonical_json(job["model"]) != state.name:
                return None
            return canonical_json([self.work.chain(state, job).language, job["task"], job["generation"]])
        except UserError:  # its own turn tells it
            return None

    # ---- what the language model sees of a later cell

    def _prepared(self, state: ModelState, step: int, sizes: Sizes) -> list[Other]:
        """A later cell whose images are encoded; none where that is not cheap, or goes wrong. Images that cannot be read no
        other cell can read either, so each is alone from then on."""
        job = self.work.jobs[step]
        try:
            shared = self.work.shared(state, job)
            if shared.recall_output() is None and not self._put(state, job, shared.account):
                return []
            found = self._encoded(state, job, shared, sizes)
        except Exception as error:
            self._seen.add(piece_of(job))
            self.ended |= is_out_of_memory(error)
            return []
        self._seen.add(piece_of(job))
        *before, output = shared.chain.keys
        state.memo.needs_less(step, before)
        kept = self.work.store is not None or any(name in state.memo for name in (output, shared.whole or output))
        self.ended |= not kept or found is None
        self._accounts[piece_of(job)] = shared.account
        return [] if found is None else [found]

    def _put(self, state: ModelState, job: CellJob, account: Account) -> bool:
        """Put a cell's recipe into the model, where that is nothing but quantizing weights that can be remembered."""
        began, recipe = time.perf_counter(), recipe_of(state, job)
        further = job["calibration"] or any("step" in entry for entry in job["recipe"])
        if further or unknown_bytes(state, recipe) > state.weights.room:
            return False
        account.written = state.patch.apply(recipe).written
        account.applying = time.perf_counter() - began
        return True

    def _encoded(self, state: ModelState, job: CellJob, shared: Shared, sizes: Sizes) -> Other | None:
        task, clock = self.work.task(job), Clock(state.loaded.device)
        run = Run(state.loaded, sizes.images, sizes.sequences, clock)
        features = encode(run, task, state.pictures(job, task, self.workers), shared)
        shared.account.seconds, shared.account.hits = clock.seconds, shared.hits
        if features.bad or features.rows is None:
            return None
        return Other(piece_of(job), shared, features.rows)

    # ---- the answers

    def _answered(
        self, shared: Shared, others: Sequence[Other], asking: Answers, question: object
    ) -> list[Answer] | None:
        """The answers of a cell, while those of others are kept for them. None where it has to be answered alone."""
        new = dict(_new(shared, others, asking, question))
        if not new or stopping.asked():
            return None
        clock = copy(asking.run.clock)
        clock.seconds = {}
        run = asking.run._replace(sequences=Whole(asking.run.sequences.size), clock=clock)
        try:
            found = asking.beside([other.pictures for other in new.values()], run).all()
        except Exception as error:  # whose fault it is, each one's own turn tells
            self.ended |= is_out_of_memory(error)
            return None
        n = len(asking.prompts)
        share = {stage: seconds / (1 + len(new)) for stage, seconds in clock.seconds.items()}
        for k, (key, other) in enumerate(new.items(), 1):
            shared.answered.put(key, found[k * n : (k + 1) * n])
            _take(other.shared.account, share, asking.stage)
            shared.account.lent += sum(share.values())
        asking.run.clock.add(share)
        return found[:n]


def takes_part(job: CellJob) -> bool:
    """Whether a cell is answered together with others, as far as its job tells.

    Not one that a chat model has a part in, that is trained, that several processes share, whose speed is measured
    (packed layers), or whose inputs are rounded: what a rounding decides may depend on the batch. Of a cell in rounds the
    first, because later ones may never be asked.
    """
    alone = {"chat", "recovery", "share"} & job.keys() or {"round", "share"} & job["task"].keys()
    rounds = any(entry.get("packed") or entry.get("input") for entry in job["recipe"])
    return not alone and not rounds and job["task"].get("places", "0-").startswith("0-")


def unknown_bytes(state: ModelState, recipe: Recipe) -> int:
    """The bytes of a recipe's weights that are not remembered."""
    return sum(
        state.loaded.model.get_submodule(layer.path).weight.nbytes
        for part in recipe.parts.values()
        for layer, scheme in part.layers
        if weights_key(layer, scheme, None) not in state.weights
    )  # fmt: skip


def _new(shared: Shared, others: Sequence[Other], asking: Answers, question: object) -> Iterator[tuple[str, Other]]:
    """(key of its answers, cell) of those that nobody has answered: not this cell either, whose features may be equal."""
    own = shared.language_key(asking.pictures, question)
    for other in others:
        key = other.shared.language_key(other.pictures, question)
        alike = len(other.pictures) == len(asking.pictures)
        if alike and key != own and shared.answered.get(key) is None:
            yield key, other


def _take(account: Account, share: Mapping[str, float], stage: str) -> None:
    for name, seconds in share.items():
        account.seconds[name] = account.seconds.get(name, 0.0) + seconds
    account.hits[stage] = 0


class Whole(Batches):
    """Batches that are not halved: cells together have to fit, or each is alone."""

    def _halve(self, tried: int) -> None:
        raise MemoryError(f"{tried} sequences of several cells do not fit")
