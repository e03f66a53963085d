"""Images -> query features: as much as is known beforehand is taken, the rest computed batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from blip2sweep.backends.torch.batching import Run
from blip2sweep.backends.torch.sharing import Shared
from blip2sweep.errors import UserError
from blip2sweep.models.blip2.bridge import bridge
from blip2sweep.models.blip2.vision import embed, finish, n_blocks, run_blocks
from blip2sweep.models.images import Features, Images
from blip2sweep.rows import Id
from blip2sweep.tasks.sample import TaskData

Source = Features | Images


def encode(run: Run, task: TaskData, source: Source, shared: Shared | None) -> Features:
    """Query features of every distinct image. Raises UserError when no image could be read."""
    if isinstance(source, Features):
        check_known(task, source)
        if source.query_features is not None:
            return source
    if shared is not None and (known := shared.recall_bridge()) is not None:
        shared.hits |= {"bridge": len(known.ids), "vision_blocks": n_blocks(run.loaded)}
        return known
    try:
        return _Encoder(run, shared).all(task, source)
    except Exception:
        if shared is not None:  # states of images that were not compared with the planned ones to the end
            shared.memo.clear()
        raise


def check_known(task: TaskData, known: Features) -> None:
    absent = task.images.keys() - {*known.ids, *known.bad}
    if absent:
        raise ValueError(
            f"features given without {len(absent)} images of task {task.name}, such as {next(iter(absent))}"
        )


class _Encoder:
    """One evaluation's way from pixels to query features."""

    def __init__(self, run: Run, shared: Shared | None) -> None:
        self.run, self.loaded, self.shared = run, run.loaded, shared
        self.last = n_blocks(run.loaded)
        self.skipped = 0  # blocks not run, summed over images

    def all(self, task: TaskData, source: Source) -> Features:
        rows: list[Tensor] = []
        ids: list[Id] = []
        bad: list[Id] = []
        for part in self._parts(source):  # pixels on the device are let go as soon as they are encoded
            rows.extend(self._part(part, len(ids)))
            ids.extend(part.ids)
            bad.extend(part.bad)
        if not rows:
            raise UserError(f"task {task.name}: none of its {len(task.images)} images could be read")
        found = Features(tuple(ids), query_features=torch.cat(rows), bad=tuple(bad))
        if self.shared is not None:
            self.shared.hits |= {"bridge": 0, "vision_blocks": self.skipped / len(ids)}
            self.shared.keep_bridge(found)
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

    def _part(self, part: Features, offset: int) -> list[Tensor]:
        """Query features (rows, num_query_tokens, width) of a part's images, whose first is number `offset`."""

        def step(rows: slice) -> Tensor:
            if part.image_features is not None:
                features = part.image_features[rows].to(self.loaded.device)
            else:
                assert part.pixels is not None
                with self.run.clock.stage("vision"):
                    features = self._image_features(part.pixels[rows], slice(offset + rows.start, offset + rows.stop))
            with self.run.clock.stage("bridge"):
                return bridge(self.loaded, features)

        return self.run.batches.run(len(part.ids), step)

    def _image_features(self, pixels: Tensor, rows: slice) -> Tensor:
        """From the deepest state that is known, leaving states where later cells go another way."""
        state, depth = self.shared.recall_state(rows) if self.shared else (None, 0)
        self.skipped += depth * len(pixels)
        if state is None:
            state = embed(self.loaded, pixels)
        for stop in self.shared.stops(depth) if self.shared else ():
            state = run_blocks(self.loaded, state, depth, stop)
            depth = stop
            assert self.shared is not None
            self.shared.keep_state(rows, depth, state)
        return finish(self.loaded, run_blocks(self.loaded, state, depth, self.last))
