"""Cells of one language recipe are answered together where images are few: short passes fill no batch.

In the turn of a cell whose samples fill at most half a batch, the images of later cells with the same language recipe,
task and generation are encoded too, and the language model answers all of them in one run (`joint.py`). The answers lie
where every cell looks for what others answered, so a later cell finds its own in its turn, which is otherwise as it always
was. What was done for a later cell is its cost (`sharing.Account`). If something goes wrong with one of them, its own turn
tells it. Of cells in rounds the worker says which rounds come next (`coming`): which ones do depends on answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from blip2sweep.apply.patch import weights_key
from blip2sweep.backends.shares import segments_of_round, whole
from blip2sweep.backends.torch.batching import Clock, Run, Sizes
from blip2sweep.backends.torch.encode import encode
from blip2sweep.backends.torch.joint import Joint, Other
from blip2sweep.backends.torch.model_state import ModelState, recipe_of
from blip2sweep.backends.torch.segments import Segments, source_of
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

Piece = tuple[str, str | None]  # `shared_work.piece_of` a job
# Seconds of one turn for the images of later cells. Where these take longer nothing is gained, and a cell would have to
# wait for others until the wall time of its job ends.
LONGEST = 30.0


class Together:
    """Finds the later cells that are answered in a cell's turn. ended: each cell is alone from then on, such as once memory
    ran out. coming: rounds that are asked for next, the first of the cell whose turn it is.

    work: what the cells of a worker share. settings: `data_workers`, and `alone`, which it ends with.
    """

    def __init__(self, work: SharedWork, settings: Settings) -> None:
        self.work, self.workers, self.ended = work, settings.get("data_workers") or 0, settings.get("alone", False)
        self.coming: Sequence[CellJob] = ()
        self._accounts: dict[Piece, Account] = {}  # of cells whose turn comes
        self._seen: set[Piece] = set()  # cells that had their turn, or were tried before it
        self._groups: tuple[Sequence[CellJob], str, dict[str, list[int]]] | None = None

    def of(self, state: ModelState, job: CellJob, batch_size: int | None) -> Shared | None:
        """`SharedWork.of` a job whose turn it is; `together` of it answers later cells too. The model has any recipe in it,
        before and after. batch_size: of the settings."""
        known = {*self._accounts}
        self._hold(job)
        others = self._others(state, job, batch_size)
        shared = self.work.of(state, job)
        if shared is None:
            return None
        lent = sum(account.spent for piece, account in self._accounts.items() if piece not in known)
        self._seen.add(piece_of(job))  # its turn may come before that of cells that are listed before it
        shared.account = self._accounts.pop(piece_of(job), shared.account)
        shared.account.lent = lent
        if others:
            shared.together = Joint(shared, others, self.end)
        return shared

    def end(self) -> None:
        """Each cell is alone from now on."""
        self.ended = True

    def alike(self, state: ModelState, job: CellJob) -> str | None:
        """What cells have in common whose rounds are answered together. None for a cell that is alone, also because its recipe
        is not put into the model for one round and again for the next."""
        return self._group(state, job) if self._allowed(state) and is_cheap(job) else None

    def fills(self, state: ModelState, job: CellJob, batch_size: int | None) -> bool:
        """Whether a job gains nothing by others: its samples fill more than half a batch, or each cell is alone by now."""
        return (
            not self._allowed(state)
            or 2 * len(self.work.task(job).samples) > self._sizes(state, job, batch_size).sequences.size
        )

    # ---- which cells

    def _hold(self, job: CellJob) -> None:
        """What rounds to come look for is kept, although they are of cells that are listed before and after this one."""
        if piece_of(job) not in map(piece_of, self.coming):
            self.coming = ()
        first = self.coming[0]["key"] if self.coming else None
        self.work.held = None if first is None else self.work.first_step(first)

    def _others(self, state: ModelState, job: CellJob, batch_size: int | None) -> list[Other]:
        if not self._allowed(state) or piece_of(job) in self._seen or (name := self._group(state, job)) is None:
            return []
        sizes = self._sizes(state, job, batch_size)
        room = sizes.sequences.size - len(self.work.task(job).samples)
        found, began = list[Other](), time.perf_counter()
        later = self._coming(state, job, name) if self.coming else self._later(state, job, name, room)
        for other in later:
            late = stopping.asked() or time.perf_counter() - began > LONGEST
            n = len(self.work.task(other).samples)
            if n <= room and not self.ended and not late:
                made = self._prepared(state, other, sizes)
                found, room = found + made, room - n * len(made)
        sizes.remember(state.batch_sizes)
        return found

    def _sizes(self, state: ModelState, job: CellJob, batch_size: int | None) -> Sizes:
        return Sizes(state.loaded, Generation(**job["generation"]), batch_size, state.batch_sizes)

    def _allowed(self, state: ModelState) -> bool:
        """In half precision a text may depend on what else is in a batch, and so on the cells that ran before."""
        exact = set(state.loaded.dtypes.values()) == {"float32"}
        return self.work.remember and not self.ended and exact and not isinstance(state.loaded.language, Matcher)

    def _coming(self, state: ModelState, job: CellJob, group: str) -> Iterator[CellJob]:
        """The rounds that come behind this one."""
        here = [*map(piece_of, self.coming)].index(piece_of(job))
        for other in self.coming[here + 1 :]:
            if piece_of(other) not in self._seen and self._group(state, other) == group:
                yield other

    def _later(self, state: ModelState, job: CellJob, group: str, room: int) -> Iterator[CellJob]:
        """The whole cells of a group that come behind this one and were not tried, where two fit into a batch."""
        jobs, step = self.work.jobs, self.work.step(job)
        if step is None or room < len(self.work.task(job).samples):
            return
        if self._groups is None or self._groups[0] is not jobs or self._groups[1] != state.name:
            groups: dict[str, list[int]] = {}
            for i, other in enumerate(jobs):
                if "places" not in other["task"]:
                    groups.setdefault(self._group(state, other) or "", []).append(i)
            self._groups = jobs, state.name, groups
        later = [i for i in self._groups[2].get(group, ()) if i > step and piece_of(jobs[i]) not in self._seen]
        if later:
            state.memo.advance(step - 1)  # this cell comes after them, and what it shares with them is kept for it
        yield from (jobs[i] for i in later)

    def _group(self, state: ModelState, job: CellJob) -> str | None:
        """What cells must have in common. None for a cell that is alone."""
        try:
            if not takes_part(job) or canonical_json(job["model"]) != state.name:
                return None
            return canonical_json([self.work.chain(state, job).language, whole(job)["task"], job["generation"]])
        except UserError:  # its own turn tells it
            return None

    # ---- what the language model sees of a later cell

    def _prepared(self, state: ModelState, job: CellJob, sizes: Sizes) -> list[Other]:
        """A later cell whose images are encoded; none where that is not cheap, or goes wrong. Images that cannot be read no
        other cell can read either, so each is alone from then on."""
        try:
            shared = self.work.shared(state, job)
            segments = [self.work.shared(state, own) for own in segments_of_round(job)]
            known = all(own.recall_output() is not None for own in segments)
            if not known and not self._put(state, job, shared.account):
                return []
            found = self._encoded(state, job, shared, sizes)
            if read := sum(own.hits.get("disk", 0) for own in segments):
                shared.account.hits["disk"] = shared.account.hits.get("disk", 0) + read
        except Exception as error:
            self._seen.add(piece_of(job))
            self.ended |= is_out_of_memory(error)
            return []
        self._seen.add(piece_of(job))
        for own, segment in zip(segments, segments_of_round(job), strict=True):
            self._needs_less(state, segment, own.chain.keys[:-1])
        kept = self.work.store is not None or all(self._knows(state, own) for own in segments)
        self.ended |= not kept or found is None
        self._accounts[piece_of(job)] = shared.account
        return [] if found is None else [found]

    def _needs_less(self, state: ModelState, job: CellJob, keys: Sequence[str]) -> None:
        step = self.work.step(job)
        if step is not None:
            state.memo.needs_less(step, keys)

    def _knows(self, state: ModelState, shared: Shared) -> bool:
        output = shared.chain.output
        return any(name in state.memo for name in (output, shared.whole or output))

    def _put(self, state: ModelState, job: CellJob, account: Account) -> bool:
        """Put a cell's recipe into the model, where that is nothing but quantizing weights that can be remembered."""
        began, recipe = time.perf_counter(), recipe_of(state, job)
        if not is_cheap(job) or unknown_bytes(state, recipe) > state.weights.room:
            return False
        account.written = state.patch.apply(recipe).written
        account.applying = time.perf_counter() - began
        return True

    def _encoded(self, state: ModelState, job: CellJob, shared: Shared, sizes: Sizes) -> Other | None:
        task, clock = self.work.task(job), Clock(state.loaded.device)
        run = Run(state.loaded, sizes.images, sizes.sequences, clock)
        seen = source_of(state, job, self.work.task, self.workers, lambda own: self.work.shared(state, own))
        features = seen.encoded(run, shared) if isinstance(seen, Segments) else encode(run, task, seen, shared)
        shared.account.seconds, shared.account.hits = clock.seconds, shared.hits
        if features.bad or features.rows is None:
            return None
        return Other(shared, task, features)


def takes_part(job: CellJob) -> bool:
    """Whether a cell is answered together with others, as far as its job tells.

    Not one that a chat model has a part in, that is trained, that several processes share, whose speed is measured
    (packed layers), or whose inputs are rounded: what a rounding decides may depend on the batch.
    """
    alone = {"chat", "recovery", "share"} & job.keys() or {"round", "share"} & job["task"].keys()
    return not alone and not any(entry.get("packed") or entry.get("input") for entry in job["recipe"])


def is_cheap(job: CellJob) -> bool:
    """Whether a cell's recipe is nothing but quantizing weights without calibration."""
    return not job["calibration"] and not any("step" in entry for entry in job["recipe"])


def unknown_bytes(state: ModelState, recipe: Recipe) -> int:
    """The bytes of a recipe's weights that are not remembered."""
    return sum(
        state.loaded.model.get_submodule(layer.path).weight.nbytes
        for part in recipe.parts.values()
        for layer, scheme in part.layers
        if weights_key(layer, scheme, None) not in state.weights
    )  # fmt: skip
