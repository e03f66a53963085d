"""The folder of `export --to tensorrt-llm`: a dense checkpoint, graphs of the image side, a test picture, samples, scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blip2sweep.exporting import Written
from blip2sweep.exporting.layout import laid_out
from blip2sweep.exporting.layout import write as write_checkpoint
from blip2sweep.exporting.made import Made
from blip2sweep.exporting.onnx_graphs.saved import write_graph
from blip2sweep.exporting.readme import head
from blip2sweep.exporting.traced import graphs_of
from blip2sweep.tasks import planned_task
from blip2sweep.tasks.question_text import prompts
from blip2sweep.tasks.sample import Sample
from blip2sweep.wire.pack import GenerationJob

TENSORRT_LLM = "1.0.0"  # the release whose options the scripts use
BATCH = 8  # of the engines, as in the examples of TensorRT-LLM
SPARE = 32  # tokens of a prompt beyond the longest one of the task
SCRIPTS = ("build_engines.sh", "run_engines.py", "check_vision.py")
IMAGE_SIDE = ("vision", "bridge")


class Limits(NamedTuple):
    """What an engine is built for. The table of embeddings holds the queries of a whole batch."""

    queries: int
    longest_prompt: int
    new_tokens: int
    batch: int = BATCH

    @property
    def input(self) -> int:
        return self.queries + self.longest_prompt + SPARE

    def lines(self) -> str:
        """As the scripts read them."""
        values = {
            "TENSORRT_LLM_VERSION": TENSORRT_LLM, "MAX_BATCH_SIZE": self.batch, "NUM_QUERY_TOKENS": self.queries,
            "MAX_NEW_TOKENS": self.new_tokens, "MAX_INPUT_LEN": self.input, "MAX_SEQ_LEN": self.input + self.new_tokens,
            "MAX_MULTIMODAL_LEN": self.queries * self.batch,
        }  # fmt: skip
        return "".join(f"{name}={value}\n" for name, value in values.items())


def write(made: Made, folder: Path) -> Written:
    """Write all of it. The payload is the checkpoint's: the graphs hold the same numbers of the image side again."""
    task, generation = planned_task(made.job["task"]), made.job["generation"]
    payload, lost = _checkpoint(made, folder / "checkpoint")
    graphs = folder / "graphs"
    graphs.mkdir()
    for graph in graphs_of(made.loaded, made.job["model"]).graphs:
        if graph.name in IMAGE_SIDE:
            write_graph(graph, made, graphs)
    _test_picture(made, folder)
    texts = prompts(task.rules, task.samples, generation["prompt"], generation.get("question", "raw"))
    _samples(task.samples, texts, folder / "samples.jsonl")
    limits = _limits(made, texts, generation)
    (folder / "engines.env").write_text(limits.lines())
    for name in SCRIPTS:
        shutil.copy(Path(__file__).parent / name, folder / name)
        (folder / name).chmod(0o755)
    (folder / "README.md").write_text(_readme(made, limits, lost))
    around = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) - payload
    return Written(payload, around, ["no engine was built or run here: that needs a GPU and TensorRT-LLM"])


def _checkpoint(made: Made, to: Path) -> tuple[int, int]:
    """(bytes of its tensors, how many of them lost digits)."""
    to.mkdir()
    with laid_out(made) as layout:
        return write_checkpoint(made, layout, layout.dense(), None, to), layout.rounded()


def _test_picture(made: Made, folder: Path) -> None:
    """A picture, its pixels as the model reads them, the queries, and what the model's image side makes of it."""
    loaded = made.loaded
    picture = _drawn(int(loaded.model.config.vision_config.image_size))
    picture.save(folder / "test_image.png")
    rows = loaded.pixels(picture)
    np.save(folder / "test_pixels.npy", rows.values.numpy())
    for stage in loaded.images:
        rows = stage.run(rows)
    with torch.inference_mode():
        seen: Tensor = loaded.model.language_projection(rows.values)
    np.save(folder / "test_features.npy", seen.float().cpu().numpy())
    np.save(folder / "query_tokens.npy", loaded.model.query_tokens.detach().float().cpu().numpy())


def _drawn(size: int) -> Image.Image:
    """Colours that change along both sides, so that a picture upside down or with swapped channels is another one."""
    along = np.linspace(0, 255, size)
    down, across = np.meshgrid(along, along, indexing="ij")
    return Image.fromarray(np.stack([down, across, (down * across) / 255], -1).astype(np.uint8))


def _samples(samples: Sequence[Sample], texts: Sequence[str], to: Path) -> None:
    rows = ({"id": s.id, "image": str(s.image), "prompt": text} for s, text in zip(samples, texts, strict=True))
    to.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _limits(made: Made, texts: Sequence[str], generation: GenerationJob) -> Limits:
    longest = max(map(len, made.loaded.language.prompt_ids(list(dict.fromkeys(texts)))))
    return Limits(int(made.loaded.model.config.num_query_tokens), longest, generation["max_new_tokens"])


def _readme(made: Made, limits: Limits, lost: int) -> str:
    key = made.job["key"]
    rounded = f" {lost} of its tensors lost digits when they were stored in 16 bits." if lost else ""
    return f"""{head(made, "tensorrt-llm")}
## What is here

- `checkpoint/`: the model in Hugging Face's layout, which TensorRT-LLM's own scripts read.{rounded}
- `graphs/vision.onnx`, `graphs/bridge.onnx`: the vision encoder, and the Q-Former with its projection, for `trtexec` or onnxruntime.
  `query_tokens.npy`: the queries, which `bridge.onnx` holds too.
- `test_image.png`, `test_pixels.npy`, `test_features.npy`: a picture, what the model reads of it, and what its image side
  makes of it. `./check_vision.py` compares.
- `samples.jsonl`: the samples of the cell's task with their prompts.
- `engines.env`: what the engines are built for. {limits.queries} queries times {limits.batch} pictures are
  {limits.queries * limits.batch} rows of the embedding table.

## Build, run, import

With TensorRT-LLM {TENSORRT_LLM} (`pip install tensorrt_llm=={TENSORRT_LLM}`) and a checkout of its repository at
`v{TENSORRT_LLM}`:

```bash
export TENSORRT_LLM=…/TensorRT-LLM
for variant in fp16 int8 int4; do
  ./build_engines.sh $variant
  ./run_engines.py engines/$variant
  blip2sweep import predictions engines/$variant/predictions.jsonl --like {key} \\
    --set backend=tensorrt-llm --set weights_as=$variant --set version={TENSORRT_LLM} --set device=…
done
```

Each variant is then a row of its own, with its drop against the cell's baseline and its latency: one sample at a time,
from the picture's file to the text. int8 and int4 are TensorRT-LLM's own rounding of the language model's linear layers,
one scale for each output; the image side stays in 16 bits. These scripts were not run on a GPU when they were written:
their options are those of TensorRT-LLM's examples at that version.
"""
