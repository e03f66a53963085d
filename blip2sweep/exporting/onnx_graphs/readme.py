"""The README.md of a folder of ONNX files."""

from __future__ import annotations

from collections.abc import Sequence

from blip2sweep.compression.quantize import version_of
from blip2sweep.exporting.made import Made
from blip2sweep.exporting.readme import head
from blip2sweep.models.graphs import Graph

RUN = """## onnxruntime

```bash
python run.py PICTURE ... [--prompt TEXT] [--tokens N]
```

A line for each picture. `run.py` needs onnxruntime, numpy, pillow and transformers alone.
"""


def readme(made: Made, graphs: Sequence[Graph], states: str, runs: bool) -> str:
    """states: the key of a file's metadata. runs: whether run.py is there."""
    tables = "\n".join(f"| `{g.name}.onnx` | {_names(g)} | {', '.join(f'`{x}`' for x in g.outputs)} |" for g in graphs)
    return "\n".join([
        head(made, "onnx"),
        *([RUN] if runs else []),
        "## Graphs\n",
        "| file | inputs | outputs |\n|---|---|---|\n" + tables + "\n",
        f"Weights are in `NAME.onnx.data` beside each. Keys and values are inputs and outputs of the last graph: its metadata "
        f"`{states}` has {{past: [present, shape of one row]}}. They begin with no tokens.\n",
        f"Quantized layers are MatMulNBits of onnxruntime, or DequantizeLinear and MatMul, and have the names of the model's "
        f"layers. Written for onnxruntime {version_of('onnxruntime')}. In float32 it writes the texts of the cell; set the session "
        f'option `session.qdq_matmulnbits_accuracy_level` to "1", or it rounds the inputs of some layers to 8 bits. The CUDA '
        f"provider was not tried.\n",
    ])  # fmt: skip


def _names(graph: Graph) -> str:
    return ", ".join(f"`{i.name}`" for i in graph.inputs) + (" and the states" if graph.states else "")
