"""The text of `run.py`, which writes texts with an exported folder: it knows onnxruntime, transformers and numpy alone."""

from __future__ import annotations

from collections.abc import Sequence

from blip2sweep.models.graphs import Graph

READS = ["input_ids", "pictures", "is_picture", "attention_mask", "at"]  # of the graphs that run.py can run

RUNNER = '''"""Writes a text for each picture: python run.py PICTURE ... [--prompt TEXT] [--tokens N]

It needs onnxruntime, numpy, pillow and transformers alone. The likeliest token is taken each time.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from transformers import AutoProcessor

FOLDER = Path(__file__).resolve().parent
IMAGES, LANGUAGE = {images!r}, {language!r}  # graphs, in the order in which they run
PICTURE, ENDS = {picture}, {ends}  # tokens


def opened(path):
    """A picture as cells read it: turned as its file says, on white where it is transparent."""
    try:
        picture = ImageOps.exif_transpose(Image.open(path))
    except OSError as error:
        sys.exit(f"{{path}}: no picture that can be read ({{error}})")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def session(name):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # inputs stay in float32
    return onnxruntime.InferenceSession(str(FOLDER / f"{{name}}.onnx"), options)


def write(images, language, processor, picture, prompt="", most=32):
    """The text that a model writes behind a prompt."""
    read = processor(images=picture, text=prompt, return_tensors="np")
    values, ids = read["pixel_values"], read["input_ids"].astype(np.int64)
    for own in images:
        (values,) = own.run(None, {{own.get_inputs()[0].name: values}})
    shown = ids == PICTURE
    pictures = np.zeros((*ids.shape, values.shape[-1]), np.float32)
    pictures[shown] = values.reshape(-1, values.shape[-1])
    states = json.loads(language.get_modelmeta().custom_metadata_map["{states}"])
    held = {{past: np.zeros((1, *shape), np.float32) for past, (_, shape) in states.items()}}
    presents, tokens, length = [present for present, _ in states.values()], [], ids.shape[1]
    ids = np.where(shown, ENDS[0], ids)
    while len(tokens) < most:
        given = {{
            "input_ids": ids, "pictures": pictures, "is_picture": shown, "attention_mask": np.ones((1, length), np.int64),
            "at": np.array([[ids.shape[1] - 1]]),
        }}
        logits, *new = language.run(["logits", *presents], {{**given, **held}})
        tokens.append(int(logits[0, -1].argmax()))
        if tokens[-1] in ENDS:
            break
        held, length, ids = dict(zip(states, new)), length + 1, np.array([tokens[-1:]])
        pictures, shown = np.zeros((1, 1, values.shape[-1]), np.float32), np.zeros((1, 1), bool)
    return processor.decode(tokens, skip_special_tokens=True).strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--tokens", type=int, default=32)
    given = parser.parse_args()
    processor = AutoProcessor.from_pretrained(FOLDER)
    graphs = [session(name) for name in IMAGES], session(LANGUAGE)
    for path in given.pictures:
        print(write(*graphs, processor, opened(path), given.prompt, given.tokens))
'''


def runs(graphs: Sequence[Graph]) -> bool:
    """Whether run.py can run such graphs: each of an image has one input and one output, the last one is a decoder."""
    *images, last = graphs
    simple = all(len(g.inputs) == len(g.outputs) == 1 and not g.states for g in images)
    return simple and [i.name for i in last.inputs] == READS


def runner(graphs: Sequence[Graph], picture: int, ends: Sequence[int], states: str) -> str:
    """picture: the token in place of which an image's rows stand. ends: the tokens that end a text. states: the key of a
    file's metadata."""
    *images, last = (g.name for g in graphs)
    return RUNNER.format(images=images, language=last, picture=picture, ends=list(ends), states=states)
