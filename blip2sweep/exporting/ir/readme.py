"""The README.md of a folder of IR files, and the program that runs them alone."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

from blip2sweep.exporting import readme
from blip2sweep.exporting.made import Made
from blip2sweep.models.graphs import Graphs

# Graphs that exporting/ir/alone.py runs: pictures of one length stand before the prompt.
ALONE = (("pixels",), ("features",), ("input_ids", "pictures", "is_picture", "attention_mask", "at"))


def write(made: Made, graphs: Graphs, folder: Path) -> None:
    """Write README.md, and run.py where the graphs are such as it runs."""
    alone = tuple(tuple(i.name for i in g.inputs) for g in graphs.graphs) == ALONE
    if alone:
        shutil.copyfile(Path(__file__).with_name("alone.py"), folder / "run.py")
    (folder / "README.md").write_text(text(made, graphs, alone), encoding="utf-8")


def text(made: Made, graphs: Graphs, alone: bool) -> str:
    names = ", ".join(f"`{g.name}.xml`" for g in graphs.graphs)
    return "\n".join([
        readme.head(made, "openvino"),
        f"{names}: a graph of each stage, made by OpenVINO {version('openvino')}. Quantized weights are integers in OpenVINO's own "
        f"types, with their scales and zero points; each constant has the name of its weight. In float32 arithmetic they "
        f"are the weights of the cell, bit for bit.\n",
        *(RUN if alone else ()),
        EXACT,
    ])  # fmt: skip


RUN = (
    "## Run\n",
    "```bash",
    "python run.py PICTURE …",
    "```\n",
    "It needs openvino, transformers, numpy and pillow alone.\n",
)
EXACT = """## Arithmetic

The cell was measured with `INFERENCE_PRECISION_HINT=f32`, `KV_CACHE_PRECISION=f32` and
`DYNAMIC_QUANTIZATION_GROUP_SIZE=0`. Without them OpenVINO chooses for the CPU: bfloat16, keys and values of 8 bits, inputs
quantized on the way. Some texts then differ; `backend=openvino backend.hints=default` is the cell that counts them.
"""
