"""Pixels of a task where memory is short: the same rows from a file, or none at all where the disk is full too."""

from __future__ import annotations

import errno
import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from blip2sweep.models import pixel_store
from blip2sweep.models.images import Images, load_pixels
from blip2sweep.models.load import load
from blip2sweep.models.pixel_store import PixelStore
from blip2sweep.models.ragged import Rows, as_ragged, joined
from blip2sweep.tasks import load_task
from tests.checkpoints import TINY, conf, tiny_config

if TYPE_CHECKING:
    from PIL.Image import Image


def dense(n: int, width: int | None, tokens: int = 3) -> Rows:
    further = {} if width is None else {"text": torch.full((n, width), width, dtype=torch.uint8)}
    return Rows(torch.randn(n, tokens, 4), None, further)


def ragged(lengths: Sequence[int], width: int = 2) -> Rows:
    further = {"text": torch.full((len(lengths), width), width, dtype=torch.uint8)}
    return Rows(torch.randn(sum(lengths), 4).to(torch.bfloat16), tuple(lengths), further)


PARTS = {
    "plain": [dense(2, None), dense(1, None)],
    "dense": [dense(2, 3), dense(2, 5)],
    "ragged": [ragged([1, 3], 3), ragged([2, 0], 5), ragged([4])],
    "of two shapes": [dense(2, 3), dense(1, 2), dense(2, 3, tokens=5), dense(1, 2)],
}


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """No free memory. The sizes of all tensors that are mapped from files."""
    sizes, real = list[int](), torch.from_file
    monkeypatch.setattr(pixel_store, "free_host_bytes", lambda: 0)
    monkeypatch.setattr(torch, "from_file", lambda *a, **kw: sizes.append(kw["size"]) or real(*a, **kw))
    return sizes


def stored(parts: Sequence[Rows], spare: int = 0) -> Rows | None:
    store = PixelStore(sum(map(len, parts)) + spare)
    for part in parts:
        store.add(part)
    assert store.kept
    return store.rows()


@pytest.mark.parametrize("name", PARTS)
def test_rows_of_a_file_are_those_of_memory(name: str, mapped: list[int]) -> None:
    """All their values are mapped, also where something is further known of them."""
    parts, spare = PARTS[name], 1
    found, whole = stored(parts, spare), joined(parts)
    assert found is not None
    assert found.digest() == whole.digest()
    assert found.values.dtype == whole.values.dtype
    assert mapped[-1] >= whole.values.numel()
    found.values.add_(1)  # the pages of a file without a name can be written
    assert not torch.equal(found.values, whole.values)


@pytest.mark.parametrize("name", PARTS)
def test_rows_that_fit_are_in_memory(name: str, mapped: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_store, "free_host_bytes", lambda: 2**30)
    found = stored(PARTS[name])
    assert found is not None
    assert found.digest() == joined(PARTS[name]).digest()
    assert mapped == []


def test_no_image_is_no_rows() -> None:
    assert stored([]) is None


class Full(io.BytesIO):
    """A file on a full disk."""

    def write(self, _content: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_ragged_rows_on_a_full_disk_are_decoded_again(mapped: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass has the same batches then."""
    loaded, task = load(tiny_config(), TINY), load_task({**conf("task/shapes_caption"), "limit": 6})
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    read = loaded.pixels

    def cut(image: Image) -> Rows:
        return as_ragged(read(image))

    loaded = replace(loaded, pixels=cut)
    images = Images(loaded, task)
    passes = [list(images.batches(4)) for _ in range(3)]
    assert images.kept is None
    assert mapped == []
    for found in passes:
        assert [part.ids for part in found] == [part.ids for part in passes[0]]
        assert [p.rows.digest() for p in found if p.rows] == [p.rows.digest() for p in passes[0] if p.rows]
    whole = load_pixels(loaded, task, batch_size=4)
    assert whole.ids == tuple(task.images)
    assert whole.rows is not None
    assert whole.rows.digest() == joined([p.rows for p in passes[0] if p.rows]).digest()


def test_a_file_goes_with_its_rows(mapped: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = stored(PARTS["ragged"])
    assert mapped
    assert found is not None
    assert list(tmp_path.iterdir()) == []
