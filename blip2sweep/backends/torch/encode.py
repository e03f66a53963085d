"""Images -> what the language model sees of them. What is known is taken; the rest is computed stage by stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blip2sweep.backends.backend import NoImage
from blip2sweep.backends.torch.batching import Run
from blip2sweep.backends.torch.sharing import Shared
from blip2sweep.models.architecture import BlockStage, ImageStage
from blip2sweep.models.images import Features, Images
from blip2sweep.models.ragged import Rows, joined
from blip2sweep.recipe.chain import Point
from blip2sweep.rows import Id
from blip2sweep.tasks.sample import TaskData

Source = Features | Images
PATCHES = 1024  # about as many as a tile has
START = Point("", 0, 0)  # before the first stage, where nothing is shared


def encode(run: Run, task: TaskData, source: Source, shared: Shared | None) -> Features:
    """The output of the last image stage for every distinct image. Raises NoImage when none could be read."""
    if isinstance(source, Features):
        check_known(task, source)
        if source.after == run.loaded.images[-1].name:
            return source
    if shared is not None and (known := shared.recall_output()) is not None:
        shared.hits |= _hits(run.loaded.images, len(known.ids), [_steps(s) for s in run.loaded.images])
        return known
    try:
        return _Encoder(run, shared).all(task, source)
    except Exception:
        if shared is not None:  # its states may be of images other than the planned ones
            shared.memo.clear()
        raise


def check_known(task: TaskData, known: Features) -> None:
    absent = task.images.keys() - {*known.ids, *known.bad}
    if absent:
        raise ValueError(
            f"features given without {len(absent)} images of task {task.name}, such as {next(iter(absent))}"
        )


def _steps(stage: ImageStage) -> int:
    """The number of its blocks; 1 for a stage that runs as a whole."""
    return stage.n_blocks if isinstance(stage, BlockStage) else 1


def _hits(stages: Sequence[ImageStage], images: int, skipped: Sequence[float]) -> dict[str, float]:
    """What was not computed, as columns.

    images: those whose whole way was known. skipped: for each stage the blocks for each image; for a stage without
    blocks the share of images.
    """
    found: dict[str, float] = {stages[-1].name: images}
    for stage, n in zip(stages, skipped, strict=True):
        found.setdefault(f"{stage.name}_blocks" if isinstance(stage, BlockStage) else stage.name, n)
    return found


def _shares(rows: Rows) -> list[float] | None:
    """The pictures' sizes for batches: tiles, or thousands of patches. None where all are alike."""
    if rows.lengths is None:
        return None
    unit = 1 if rows.values.dim() > 2 else PATCHES
    return [max(1.0, length / unit) for length in rows.lengths]


class _Encoder:
    """Runs images from pixels to what the language model sees, for one evaluation."""

    def __init__(self, run: Run, shared: Shared | None) -> None:
        self.run, self.shared, self.stages = run, shared, run.loaded.images
        self.skipped = [0] * len(self.stages)  # steps of each stage that were not run, summed over images

    def all(self, task: TaskData, source: Source) -> Features:
        rows: list[Rows] = []
        ids: list[Id] = []
        bad: list[Id] = []
        for part in self._parts(source):  # pixels on the device are freed once they are encoded
            rows.extend(self._part(part, len(ids)))
            ids.extend(part.ids)
            bad.extend(part.bad)
        if not rows:
            raise NoImage(f"task {task.name}: none of its {len(task.images)} images could be read")
        found = Features(tuple(ids), joined(rows), self.stages[-1].name, tuple(bad))
        if self.shared is not None:
            self.shared.hits |= _hits(self.stages, 0, [n / len(ids) for n in self.skipped])
            self.shared.keep_output(found)
        return found

    def _parts(self, source: Source) -> Iterator[Features]:
        if isinstance(source, Features):
            yield source
            return
        reading = source.batches(self.run.batches.size)
        while True:
            with self.run.clock.stage("images"):
                part = next(reading, None)
            if part is None:
                return
            yield part

    def _part(self, part: Features, offset: int) -> list[Rows]:
        """The output for a part's images, the first of which has number `offset`."""
        if part.rows is None:
            return []
        rows, given = part.rows, [s.name for s in self.stages].index(part.after) + 1 if part.after else 0
        shares = _shares(rows)
        if given:
            return self.run.batches.run(len(rows), lambda piece: self._after(given, rows.take(piece)), shares)
        move = lambda piece: slice(offset + piece.start, offset + piece.stop)  # noqa: E731
        return self.run.batches.run(len(rows), lambda piece: self._from_pixels(rows.take(piece), move(piece)), shares)

    def _after(self, stage: int, rows: Rows) -> Rows:
        """Run the stages from number `stage` on."""
        state = rows.everywhere(lambda x: x.to(self.run.loaded.device))
        for i in range(stage, len(self.stages)):
            with self.run.clock.stage(self.stages[i].name):
                state = self.stages[i].run(state)
        return state

    def _from_pixels(self, pixels: Rows, piece: slice) -> Rows:
        """Start from the deepest state that is known, and keep states where later cells leave this cell's path."""
        with self.run.clock.stage(self.stages[0].name):
            here, known = self.shared.recall_state(piece) if self.shared else (START, None)
            state = pixels if known is None else known
            stops = self.shared.stops(here) if self.shared else []
            for i, stage in enumerate(self.stages[: here.stage + 1]):
                self.skipped[i] += len(pixels) * (_steps(stage) if i < here.stage else here.block)
        for i in range(here.stage, len(self.stages)):
            with self.run.clock.stage(self.stages[i].name):
                own = [p for p in stops if p.stage == i]
                state = self._stage(self.stages[i], state, here.block if i == here.stage else 0, own, piece)
        return state

    def _stage(self, stage: ImageStage, state: Rows, block: int, stops: Sequence[Point], piece: slice) -> Rows:
        """From the state before `block` to the stage's output. Block 0 is the stage's input."""
        for stop in (p for p in stops if p.block == 0):
            self._keep(piece, stop, state)
        if not isinstance(stage, BlockStage):
            return stage.run(state)
        state = state if block else stage.enter(state)
        for stop in (p for p in stops if p.block):
            state, block = stage.blocks(state, block, stop.block), stop.block
            self._keep(piece, stop, state)
        return stage.leave(stage.blocks(state, block, stage.n_blocks))

    def _keep(self, piece: slice, point: Point, state: Rows) -> None:
        assert self.shared is not None
        self.shared.keep_state(piece, point, state)
