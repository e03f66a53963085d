"""Image files -> pixels, and features by image."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from blip2sweep.errors import UserError
from blip2sweep.machine.memory import free_host_bytes
from blip2sweep.models.load import Loaded
from blip2sweep.models.ragged import Rows, joined
from blip2sweep.rows import Id
from blip2sweep.tasks.content import READING, UNREADABLE, check_planned, content_of
from blip2sweep.tasks.pictures import Refused, decode
from blip2sweep.tasks.sample import TaskData
from blip2sweep.wire.pack import JsonObject

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Features:
    """Rows of images, one for each id. rows: None where no image could be read.

    after: the stage that made the rows; None where they are pixels. bad: ids of images that could not be read.
    """

    ids: tuple[Id, ...]
    rows: Rows | None = None
    after: str | None = None
    bad: tuple[Id, ...] = ()


class Row:
    """One image: its id, the digest of its file, and its pixels (one row) or the reason why there are none.

    bad: whether the file is the reason, and not the model's processor.
    """

    def __init__(self, image_id: Id, digest: str, pixels: Rows | None, error: str = "", bad: bool = False) -> None:
        self.image_id, self.digest, self.pixels, self.error, self.bad = image_id, digest, pixels, error, bad


class _Images(Dataset[Row]):
    def __init__(self, images: Sequence[tuple[Id, Path]], pixels: Callable[[Image], Rows]) -> None:
        self.images, self.pixels = images, pixels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Row:
        (image_id, path), digest = self.images[i], UNREADABLE
        try:
            content = content_of(path)
            digest = hashlib.sha256(content).hexdigest()  # of the very bytes that are decoded
            picture = decode(content)
        except MemoryError:  # not the image's fault
            raise
        except Exception as error:  # Pillow raises almost any error for a broken file
            why = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
            return Row(image_id, digest, None, f"{path}: not a readable image ({why})", bad=True)
        try:
            return Row(image_id, digest, self.pixels(picture))
        except MemoryError:
            raise
        except Exception as error:  # handed over, because workers hand over no error of ours as it is
            return Row(image_id, digest, None, f"{path}: the model's processor fails on this image ({_told(error)})")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def pixel_batches(
    loaded: Loaded, images: Sequence[tuple[Id, Path]], batch_size: int, workers: int, on_bad_image: str,
    digests: dict[Id, str],
) -> Iterator[Features]:  # fmt: skip
    """Read, decode and preprocess images (id, path) in order. digests: receives the digests of the files by id.

    Raises UserError naming a file that cannot be decoded. With on_bad_image="skip" its id is listed under `bad`
    instead. Raises UserError for an image on which the model's processor fails, in any case.
    """
    loader: Iterable[list[Row]] = DataLoader(
        _Images(images, loaded.pixels),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
        pin_memory=False,
    )
    return (_batch(rows, on_bad_image, loaded.device.type == "cuda", digests) for rows in loader)


def _batch(rows: list[Row], on_bad_image: str, pin: bool, digests: dict[Id, str]) -> Features:
    digests.update((row.image_id, row.digest) for row in rows)
    failed = [row for row in rows if row.pixels is None and not row.bad]
    if failed:  # whatever on_bad_image says: a score without the images that a model does not take is no score
        raise UserError(f"{failed[0].error}; right: a task without it, or another model")
    bad = [row for row in rows if row.bad]
    if bad and on_bad_image != "skip":
        raise UserError(f"{bad[0].error}; right: an intact file, or task.on_bad_image=skip")
    good = [(row.image_id, row.pixels) for row in rows if row.pixels is not None]
    pixels = joined([p for _, p in good]) if good else None
    if pin and pixels is not None:
        pixels = pixels.everywhere(Tensor.pin_memory)  # joined here and not in the loader, whose rows may hold errors
    return Features(tuple(i for i, _ in good), pixels, bad=tuple(row.image_id for row in bad))


class Images:
    """The distinct images of a task, decoded and preprocessed once for any number of cells.

    The first pass decodes one batch ahead. At its end the content of all files is compared with what was planned. The
    pixels are kept: 4 bytes a value, 0.6 MB for an image of 224 x 224. They are in a memory-mapped temporary file where
    they would take a large share of the free memory and the disk has room.
    """

    def __init__(self, loaded: Loaded, task: TaskData, workers: int = 0, on_bad_image: str = "error") -> None:
        self.loaded, self.task, self.workers, self.on_bad_image = loaded, task, workers, on_bad_image
        self._pixels: Features | None = None

    def batches(self, size: int) -> Iterator[Features]:
        """Pixels in task order: batch by batch the first time, all at once afterwards.

        Raises UserError after the last batch where the files are not those that were planned. What was made of the
        batches must then be thrown away.
        """
        if self._pixels is not None:
            yield self._pixels
            return
        files, digests = list(self.task.images.items()), dict[Id, str]()
        reading = pixel_batches(self.loaded, files, size, self.workers, self.on_bad_image, digests)
        ids: list[Id] = []
        bad: list[Id] = []
        store = _PixelStore(len(self.task.images))
        for part in _ahead(reading):
            if part.rows is not None:
                store.add(part.rows)
            ids.extend(part.ids)
            bad.extend(part.bad)
            yield part
        if self.task.planned is not None:
            check_planned(self.task.images, self.task.planned, digests, self.task.name)
        self._pixels = Features(tuple(ids), store.rows(), bad=tuple(bad))


class _PixelStore:
    """Rows of at most n images.

    Dense rows of one shape are written to their final place; others are joined at the end.
    """

    def __init__(self, n: int) -> None:
        self.n, self.filled = n, 0
        self._room: Tensor | None = None
        self._parts: list[Rows] = []

    def add(self, rows: Rows) -> None:
        if not self._parts and self._room is None and rows.plain:
            self._room = _allocated(self.n, rows.values)
        if self._room is None or not rows.plain or rows.values.shape[1:] != self._room.shape[1:]:
            self._parts = [*self._emptied(), rows]
            return
        self._room[self.filled : self.filled + len(rows)] = rows.values
        self.filled += len(rows)

    def _emptied(self) -> list[Rows]:
        """All parts so far. The allocated room is given up."""
        first = [] if self._room is None else [Rows(self._room[: self.filled])]
        self._room = None
        return [*first, *self._parts]

    def rows(self) -> Rows | None:
        parts = self._emptied()
        return parts[0] if len(parts) == 1 else joined(parts) if parts else None


def _allocated(n: int, like: Tensor) -> Tensor:
    """Room for n images (n, …) with the dtype of `like`."""
    shape, bytes_ = (n, *like.shape[1:]), n * like[:1].nbytes
    if bytes_ < free_host_bytes() // 4:
        return torch.empty(shape, dtype=like.dtype, pin_memory=like.is_pinned())
    with tempfile.NamedTemporaryFile(prefix="blip2sweep-pixels-") as file:  # mapped, so it may lose its name
        try:
            os.posix_fallocate(file.fileno(), 0, bytes_)  # on a full disk, writing a missing page ends the process
        except OSError:
            return torch.empty(shape, dtype=like.dtype)
        return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=like.dtype).reshape(shape)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items. The next one is made in a thread while one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def load_pixels(
    loaded: Loaded, task: TaskData, *, batch_size: int = 64, workers: int = 0, on_bad_image: str = "error"
) -> Features:
    """The pixels of all distinct images of a task."""
    images = Images(loaded, task, workers, on_bad_image)
    list(images.batches(batch_size))
    return next(images.batches(batch_size))


def preprocessing(loaded: Loaded) -> JsonObject:
    """How files become pixels, as JSON."""
    settings = loaded.processor.image_processor.to_dict()
    as_text = {k: str(v) for k, v in sorted(settings.items())}
    return {"backend": loaded.image_processor_backend, "settings": as_text, "pictures": READING}
