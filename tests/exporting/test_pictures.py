"""Programs that travel with exported graphs read pictures as cells do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from blip2sweep.tasks.pictures import decode

Opened = Callable[[Path], Image.Image]


def of_openvino() -> Opened:
    pytest.importorskip("openvino")
    from blip2sweep.exporting.ir.alone import opened

    return opened


def of_onnxruntime() -> Opened:
    pytest.importorskip("onnxruntime")
    from blip2sweep.exporting.onnx_graphs.runner import runner

    program: dict[str, Any] = {"__file__": __file__, "__name__": "run"}
    exec(runner([SimpleNamespace(name="language")], 0, [1], "states"), program)  # type: ignore[list-item]
    return cast("Opened", program["opened"])


def turned(picture: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned
    picture.save(path, exif=exif)


def transparent(picture: Image.Image, path: Path) -> None:
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(path)


def palette(picture: Image.Image, path: Path) -> None:
    picture.quantize(8).save(path, transparency=0)


@pytest.mark.parametrize("opener", [of_openvino, of_onnxruntime])
@pytest.mark.parametrize(("name", "save"), [("a.jpg", turned), ("b.png", transparent), ("c.png", palette)])
def test_pictures_are_read_as_cells_read_them(
    name: str, save: Callable[[Image.Image, Path], None], opener: Callable[[], Opened], tmp_path: Path
) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8))
    save(picture, tmp_path / name)
    expected = np.asarray(decode((tmp_path / name).read_bytes()))
    assert not np.array_equal(expected, np.asarray(Image.open(tmp_path / name).convert("RGB")))
    assert np.array_equal(np.asarray(opener()(tmp_path / name)), expected)
