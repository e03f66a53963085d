"""The README.md of an exported folder: what it is, and how it is loaded or served."""

from __future__ import annotations

from collections.abc import Sequence

from blip2sweep.exporting import vllm
from blip2sweep.exporting.made import Made
from blip2sweep.recipe.compact import targets, text

VERSIONS = "transformers 5.23 and compressed-tensors 0.20"


def head(made: Made, form: str) -> str:
    """Title, and what was exported."""
    job = made.job
    return (
        f"# {job['columns']['model']}, {text(targets(made.recipe))}\n\n"
        f"Written by `blip2sweep export --to {form}`: cell {job['key']} (weights {job['columns']['weights']}). "
        f"`recipe.yaml` has the recipe, `blip2sweep.json` what each file's content is.\n"
    )


def of_packed(made: Made, exact: bool, rounded: int, for_vllm: bool) -> str:
    """Of a folder of compressed-tensors. exact: whether plain transformers makes the cell's weights. rounded: tensors
    without codes that lose digits where they are stored."""
    own = type(made.loaded.model).__name__
    plain = [
        "## transformers\n",
        "```python",
        f"from transformers import AutoProcessor, {own}",
        "",
        f'model = {own}.from_pretrained(".")' if exact else "from load import load\n\nmodel = load()",
        'processor = AutoProcessor.from_pretrained(".")',
        "```\n",
        _why(exact),
        f"Tried with {VERSIONS}, offline. {_same(made)}\n",
    ]
    return "\n".join(
        [head(made, "compressed-tensors"), *plain, *_lost(rounded), *(_for_vllm(made) if for_vllm else ())]
    )


def _same(made: Made) -> str:
    """Whether the weights are those of the cell."""
    if not made.folds:
        return "The weights are then those of the cell, bit for bit."
    return (
        f"AWQ's scales are in the {len(made.folds)} modules before the layers they scale, so that no kernel divides by them: "
        f"what is computed is that of the cell up to rounding. Stored in 16 bits a few texts of a hundred differ."
    )


def of_others(made: Made, form: str, notes: Sequence[str]) -> str:
    """Of a folder whose format writes no README of its own."""
    return "\n\n".join([head(made, form), *notes]).rstrip() + "\n"


def of_library(
    made: Made, library: str, rounded: int, dequantized: bool = False, widened: str | None = None
) -> str:  # fmt: skip
    """Of a folder with a library's own tensors. dequantized: whether its kernel rounds inputs, which the cell does not.
    widened: the dtype in which the model computes, where its loader keeps numbers in the narrower one of the files."""
    own = type(made.loaded.model).__name__
    told = [
        "## transformers\n",
        "```python",
        *(["import torch"] if widened else []),
        f"from transformers import AutoProcessor, {own}",
        "",
        f'model = {own}.from_pretrained("."){".dequantize()" if dequantized else ""}',
        *_widening(widened),
        'processor = AutoProcessor.from_pretrained(".")',
        "```\n",
        f"It needs {library}. The weights are those of the cell, bit for bit; its kernels may sum in another order.\n",
    ]
    if dequantized:
        told.append(
            "Without `.dequantize()` its kernel rounds the inputs of each layer too, which the cell does not.\n"
        )
    return "\n".join([head(made, library), *told, *_lost(rounded)])


def _widening(dtype: str | None) -> list[str]:
    """Code that gives all numbers that are no codes one dtype."""
    if dtype is None:
        return []
    return [
        "for p in model.parameters():  # its loader keeps some as they are stored, and the cell computes all in one dtype",
        "    if p.is_floating_point():",
        f"        p.data = p.data.to(torch.{dtype})",
    ]


def _lost(rounded: int) -> list[str]:
    told = f"{rounded} tensors that are not quantized lost digits when they were stored: texts may differ.\n"
    return [told] if rounded else []


def _why(exact: bool) -> str:
    dense = (
        "`dequantize` of config.json's `quantization_config` makes dense weights while it loads: kept packed, transformers 5 "
        "unpacks them in a hook of the whole model, and `generate`, which calls its submodules, meets layers without weights.\n"
    )
    if exact:
        return dense
    return (
        f"{dense}\n`load.py` stands here because plain `from_pretrained` takes the first of several schemes for all layers, "
        f"and computes weights in the dtype of the scales.\n"
    )


def _for_vllm(made: Made) -> list[str]:
    return [
        "## vLLM\n",
        "```bash",
        vllm.serve_command(made.job["model"]),
        "```\n",
        "Names and schemes are those that vLLM's own class of this model takes, by its published source; it was not run "
        "here. Its kernels compute in 16 bits, so some texts differ from the cell's.\n",
    ]
