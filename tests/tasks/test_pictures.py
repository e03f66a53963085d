"""From the bytes of an image file to the picture that a model sees: depth, transparency, orientation, frames, damage."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from blip2sweep.errors import UserError
from blip2sweep.tasks.pictures import Refused, decode
from blip2sweep.tasks.scenes import write_split
from tests.in_process import jobs, run

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (5, 7), dtype=np.uint8)
COLOURS = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def saved(image: Image.Image, form: str, **fields: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **fields)
    return file.getvalue()


def seen(content: bytes) -> np.ndarray:
    """The picture, as (rows, columns, 3)."""
    picture = decode(content)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, 2)


def alpha(picture: np.ndarray, opaque: np.ndarray) -> np.ndarray:
    return np.dstack([picture, np.where(opaque, 255, 0).astype(np.uint8)])


# ---- 16 bits and more

DEEP = {
    "PNG": saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
    "TIFF": saved(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"),
    "TIFF, big endian": saved(Image.fromarray((GREY.astype(np.uint16) * 257).astype(">u2")), "TIFF"),
    "TIFF, packed": saved(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF", compression="tiff_lzw"),
    "TIFF, white is 0": saved(Image.fromarray((255 - GREY).astype(np.uint16) * 257), "TIFF", tiffinfo={262: 0}),
    "JPEG 2000": saved(Image.fromarray(GREY.astype(np.uint16) * 257), "JPEG2000", irreversible=False),
    "PGM": b"P5 7 5 65535\n" + (GREY.astype(np.uint16) * 257).astype(">u2").tobytes(),
    "PGM of 10 bits": b"P5 7 5 1020\n" + (GREY.astype(np.uint16) * 4).astype(">u2").tobytes(),
    "PGM in words": b"P2 7 5 65535\n" + " ".join(map(str, (GREY.astype(int) * 257).ravel())).encode(),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_grey_is_scaled(name: str) -> None:
    assert np.abs(seen(DEEP[name]).astype(int) - grey(GREY)).max() <= (name == "PGM of 10 bits")


def tiff_of_12_bits(values: np.ndarray) -> bytes:
    """A file as microscopes write it: two values in three bytes, the row padded."""
    rows = b""
    for row in values:
        bits = "".join(f"{v:012b}" for v in row)
        rows += int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    tags = [(256, 7), (257, 5), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 5), (279, len(rows))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(rows)) + rows + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_twelve_bits_are_scaled_from_their_own_range() -> None:
    found = seen(tiff_of_12_bits((GREY.astype(int) * 4095 + 127) // 255))
    assert np.abs(found.astype(int) - grey(GREY)).max() <= 1


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (saved(Image.fromarray(GREY.astype(np.int32) * 1000), "TIFF"), "I"),
        (saved(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), "F"),
        (saved(Image.fromarray(GREY.astype(np.float32)), "PPM"), "F"),
    ],
)
def test_numbers_without_a_range_are_refused_by_name(content: bytes, mode: str) -> None:
    with pytest.raises(
        Refused, match=f"image mode {mode} of a .*no range of black to white is said; right: 8 or 16 bits"
    ):
        decode(content)


def test_a_picture_of_floats_is_named_or_skipped_by_a_cell(tmp_path: Path) -> None:
    write_split(tmp_path, "val2014", 3, seed=1)
    write_split(tmp_path, "train2014", 1, seed=2, first_id=101)
    first, second, _ = sorted((tmp_path / "val2014").iterdir())
    second.write_bytes(saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"))  # by content, whatever the name says
    words = ("part=none", f"task.data_dir={tmp_path}")
    with pytest.raises(
        UserError, match=f"{second.name}: not a readable image .image mode F .*; right: an intact file, or"
    ):
        run(jobs(*words))
    assert [p.image_id for p, _ in run(jobs(*words, "task.on_bad_image=skip")).values()] == [[1, 3]]
    deep = Image.open(first).convert("L")
    first.write_bytes(saved(deep, "PNG"))
    eight = run(jobs(*words, "task.on_bad_image=skip"))
    first.write_bytes(saved(Image.fromarray(np.asarray(deep).astype(np.uint16) * 257), "PNG"))
    sixteen = run(jobs(*words, "task.on_bad_image=skip"))
    assert eight.keys() != sixteen.keys()
    assert [p for p, _ in eight.values()] == [p for p, _ in sixteen.values()]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_what_pillow_shows_rightly_is_as_pillow_shows_it(mode: str) -> None:
    image = Image.fromarray(COLOURS).convert(mode)
    content = saved(image, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    assert (seen(content) == np.asarray(image.convert("RGB"))).all()


# ---- transparency

HOLES = GREY > 128
ON_WHITE = np.where(HOLES[..., None], COLOURS, 255)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_what_is_transparent_shows_white_whatever_is_stored_beneath(form: str) -> None:
    for beneath in (COLOURS, np.where(HOLES[..., None], COLOURS, 0)):
        content = saved(Image.fromarray(alpha(beneath.astype(np.uint8), HOLES)), form)
        assert (seen(content) == ON_WHITE).all()


def test_a_line_drawing_on_nothing_is_not_a_black_picture() -> None:
    drawing = Image.new("LA", (7, 5), (0, 0))
    drawing.putpixel((3, 2), (0, 255))
    found = seen(saved(drawing, "PNG"))
    assert found[2, 3].tolist() == [0, 0, 0]
    assert (np.delete(found.reshape(-1, 3), 2 * 7 + 3, 0) == 255).all()


def test_one_colour_or_entry_that_means_transparent() -> None:
    palette = Image.fromarray(GREY % 4).convert("P")
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 10, 10, 10])
    want = np.array([[200, 0, 0], [255] * 3, [0, 0, 200], [10] * 3], np.uint8)[GREY % 4]
    for form in ("PNG", "GIF"):
        assert (seen(saved(palette, form, transparency=1)) == want).all()
    assert (seen(saved(palette, "PNG", transparency=bytes([255, 0, 255, 255]))) == want).all()
    flat = np.where(HOLES[..., None], COLOURS, (1, 2, 3)).astype(np.uint8)
    assert (seen(saved(Image.fromarray(flat), "PNG", transparency=(1, 2, 3))) == ON_WHITE).all()
    levels = np.where(HOLES, GREY, 7).astype(np.uint8)
    assert (seen(saved(Image.fromarray(levels), "PNG", transparency=7)) == grey(np.where(HOLES, GREY, 255))).all()


def test_half_transparent_is_half_white() -> None:
    half = np.dstack([COLOURS, np.full_like(GREY, 128)])
    want = COLOURS * (128 / 255) + 255 * (127 / 255)
    assert np.abs(seen(saved(Image.fromarray(half), "PNG")) - want).max() <= 1


# ---- orientation


def oriented(value: Any, form: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return saved(Image.fromarray(COLOURS), form, exif=exif.tobytes())


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("value", range(1, 9))
def test_pictures_stand_upright(value: int, form: str) -> None:
    fields = {"lossless": True} if form == "WEBP" else {}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    content = saved(Image.fromarray(COLOURS), form, exif=exif, **fields)
    want = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    assert (seen(content) == np.asarray(want)).all()
    assert seen(content).shape == ((7, 5, 3) if value >= 5 else (5, 7, 3))


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(value: int) -> None:
    assert (seen(oriented(value)) == COLOURS).all()


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"nothing"]
)
def test_damaged_exif_leaves_a_whole_picture_as_it_is(exif: bytes) -> None:
    assert (seen(saved(Image.fromarray(COLOURS), "PNG", exif=exif)) == COLOURS).all()


def test_deep_and_transparent_pictures_are_turned_too() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert (seen(saved(deep, "PNG", exif=exif.tobytes())) == np.rot90(grey(GREY), -1)).all()
    holes = Image.fromarray(alpha(COLOURS, HOLES))
    assert (seen(saved(holes, "PNG", exif=exif.tobytes())) == np.rot90(ON_WHITE, -1)).all()


# ---- frames and damage


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_counts(form: str) -> None:
    frames = [Image.new("RGB", (7, 5), c) for c in ("#ff0000", "#0000ff")]
    fields = {"lossless": True} if form == "WEBP" else {}
    found = seen(saved(frames[0], form, save_all=True, append_images=frames[1:], **fields))
    assert (found == [255, 0, 0]).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_a_truncated_file_is_not_shown_in_part(form: str) -> None:
    big = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = saved(big, form)
    with pytest.raises((OSError, ValueError, SyntaxError)):
        decode(content[: len(content) // 2])


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Image.DecompressionBombError):
        decode(saved(Image.fromarray(COLOURS), "PNG"))
