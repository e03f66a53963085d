"""Image files -> pixels, and features by image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from blip2sweep.errors import UserError
from blip2sweep.models.load import Loaded
from blip2sweep.models.pixel_store import PixelStore
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


def some_of(known: Features, images: Iterable[Id]) -> Features:
    """The rows of some images, in their order. known: of these and others, all of which could be read."""
    assert known.rows is not None
    row, ids = {image: i for i, image in enumerate(known.ids)}, tuple(images)
    return Features(ids, known.rows.take([row[i] for i in ids]), known.after)


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
    they would take a large share of the free memory and the disk has room. Rows that differ in length are not kept where
    neither has room: each pass then decodes them again.

    kept: all pixels, from the end of the first pass on.
    """

    def __init__(self, loaded: Loaded, task: TaskData, workers: int = 0, on_bad_image: str = "error") -> None:
        self.loaded, self.task, self.workers, self.on_bad_image = loaded, task, workers, on_bad_image
        self.kept: Features | None = None
        self._has_room = True

    def batches(self, size: int) -> Iterator[Features]:
        """Pixels in task order: batch by batch the first time, all at once afterwards where they are kept.

        Raises UserError after the last batch where the files are not those that were planned. What was made of the
        batches must then be thrown away.
        """
        if self.kept is not None:
            yield self.kept
            return
        files, digests = list(self.task.images.items()), dict[Id, str]()
        reading = pixel_batches(self.loaded, files, size, self.workers, self.on_bad_image, digests)
        ids: list[Id] = []
        bad: list[Id] = []
        store = PixelStore(len(self.task.images))
        for part in _ahead(reading):
            if part.rows is not None and self._has_room:
                store.add(part.rows)
            ids.extend(part.ids)
            bad.extend(part.bad)
            yield part
        if self.task.planned is not None:
            check_planned(self.task.images, self.task.planned, digests, self.task.name)
        self._has_room &= store.kept
        if self._has_room:
            self.kept = Features(tuple(ids), store.rows(), bad=tuple(bad))


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
    parts = list(images.batches(batch_size))
    return images.kept or _whole(parts)


def _whole(parts: Sequence[Features]) -> Features:
    """All parts as one."""
    rows = [part.rows for part in parts if part.rows is not None]
    ids, bad = (tuple(i for part in parts for i in getattr(part, name)) for name in ("ids", "bad"))
    return Features(ids, joined(rows) if rows else None, bad=bad)


def preprocessing(loaded: Loaded) -> JsonObject:
    """How files become pixels, as JSON."""
    settings = loaded.processor.image_processor.to_dict()
    as_text = {k: str(v) for k, v in sorted(settings.items())}
    return {"backend": loaded.image_processor_backend, "settings": as_text, "pictures": READING}
