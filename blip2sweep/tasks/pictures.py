"""Bytes of an image file -> an upright RGB picture of 8 bits, by the rules that `content.READING` names.

- Turned and mirrored as its EXIF or XMP orientation says, as viewers, `transformers.image_utils.load_image` and the
  annotators' browsers show it.
- Of several frames (GIF, animated PNG or WebP, TIFF) the first.
- Transparent pixels show white: what colour is stored beneath them is the drawing program's chance, black most often.
- 16-bit grey is scaled from the range of its type to 0 … 255. Pillow's own conversion cuts it off at 255, which is
white.
- 32-bit integers and floats are refused: nothing in such a file says which numbers are black and white.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
# Formats whose 16 bits are unsigned and whole; Pillow gives those of a PGM, and before version 11 of a PNG, as mode I.
UNSIGNED, IN_32_BITS = ("PNG", "TIFF", "JPEG2000", "PPM"), ("PNG", "PPM")
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF


class Refused(ValueError):
    """The picture is whole but of a kind with no unique form in 8 bits."""


def decode(content: bytes) -> Image.Image:
    """The picture of a file's bytes. Raises Refused, MemoryError, or whatever Pillow raises for a broken file."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        picture = _rgb(image)
        turn = TURNS.get(_orientation(image))
        return picture if turn is None else picture.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 where there is none, or where the tag is damaged, since the picture is whole then."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
        return found if isinstance(found, int) else 1
    except MemoryError:
        raise
    except Exception:  # Pillow raises nearly anything for broken EXIF
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if (mode in DEEP and image.format in UNSIGNED) or (mode == "I" and image.format in IN_32_BITS):
        return _of_16_bits(image)
    if mode in ("I", "F") or mode.startswith("I;"):
        raise Refused(f"image mode {mode} of a {image.format}: no range of black to white is said; right: 8 or 16 bits")
    if mode in ALPHA or "transparency" in image.info:
        seen = (image.convert("LA") if mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert("RGB")


def _of_16_bits(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, (16,))
    top = 4095 if bits == 12 or bits == (12,) else 65535
    values = np.asarray(image).astype(np.int64)
    grey = np.clip((values * 255 + top // 2) // top, 0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey).convert("RGB")
