"""Captions of pictures, or answers about them, by the OpenVINO files in this program's folder.

python run.py PICTURE … [--prompt TEXT] [--tokens N] [--default]

It needs openvino, transformers, numpy and pillow, and nothing of whoever wrote the folder. Arithmetic is float32, as where
the files were measured; --default leaves it to OpenVINO, which is faster on some CPUs and changes some words.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import openvino as ov
from PIL import Image, ImageOps
from transformers import AutoProcessor

HERE = Path(__file__).resolve().parent
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


def check() -> str | None:
    """What is wrong with the folder, in one line."""
    noted = json.loads((HERE / "blip2sweep.json").read_text())
    for name, note in noted["files"].items():
        if not (HERE / name).is_file() or (HERE / name).stat().st_size != note["bytes"]:
            return f"{HERE / name}: is not whole; right: the export again"
    written, here = noted["versions"].get("openvino", ""), ov.__version__.split("-")[0]
    if written.split(".")[:2] != here.split(".")[:2]:
        return f"{HERE}: written by openvino {written}, and this is {here}; right: pip install openvino=={written}"
    return None


def ends() -> set[int]:
    """The tokens that end a text."""
    whole = json.loads((HERE / "config.json").read_text())
    own = HERE / "generation_config.json"
    found = json.loads(own.read_text()).get("eos_token_id") if own.is_file() else None
    found = whole["text_config"]["eos_token_id"] if found is None else found
    return set(found if isinstance(found, list) else [found])


def write(language: ov.CompiledModel, pictures: np.ndarray, ids: list[int], most: int) -> list[int]:
    """The likeliest token each time. pictures (1, n, width) stand before the tokens of the prompt."""
    request, stops, written = language.create_infer_request(), ends(), list[int]()
    for state in request.query_state():  # one row that holds nothing yet
        state.state = ov.Tensor(np.zeros((1, *state.state.shape[1:]), np.float32))
    n, width, seen = pictures.shape[1], pictures.shape[2], 0
    for state in request.query_state():  # keys and values of one text without tokens; by itself it is of no text
        state.state = ov.Tensor(np.zeros([1, *state.state.shape[1:]], np.float32))
    embeds = np.concatenate([pictures, np.zeros((1, len(ids), width), np.float32)], 1)
    tokens, there = np.array([[0] * n + ids]), np.array([[True] * n + [False] * len(ids)])
    while len(written) < most:
        seen += tokens.shape[1]
        logits = request.infer({
            "input_ids": tokens, "pictures": embeds, "is_picture": there, "at": np.array([[tokens.shape[1] - 1]]),
            "attention_mask": np.ones((1, seen), np.int64),
        })["logits"]  # fmt: skip
        token = int(logits[0, -1].argmax())
        if token in stops:
            break
        written.append(token)
        tokens, there, embeds = np.array([[token]]), np.array([[False]]), np.zeros((1, 1, width), np.float32)
    return written


def opened(path: str | Path) -> Image.Image:
    """A picture as cells read it: turned as its file says, on white where it is transparent."""
    try:
        picture: Image.Image = ImageOps.exif_transpose(Image.open(path))
    except OSError as error:
        sys.exit(f"{path}: no picture that can be read ({error})")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--default", action="store_true")
    given = parser.parse_args()
    if wrong := check():
        sys.exit(wrong)
    core, processor = ov.Core(), AutoProcessor.from_pretrained(HERE, local_files_only=True)
    graphs = ("vision", "bridge", "language")
    own = {name: core.compile_model(HERE / f"{name}.xml", "CPU", {} if given.default else EXACT) for name in graphs}
    for path in given.pictures:
        pixels = processor.image_processor(opened(path), return_tensors="np")["pixel_values"]
        pictures = own["bridge"](own["vision"](pixels)[0])[0]
        ids = processor.tokenizer(given.prompt).input_ids
        print(
            processor.tokenizer.decode(
                write(own["language"], pictures, ids, given.tokens), skip_special_tokens=True
            ).strip()
        )


if __name__ == "__main__":
    main()
