"""`blip2sweep quantize`: a cell's model as a checkpoint that reloads with safetensors, and its recipe beside it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blip2sweep.console.quoting import override, yaml_text
from blip2sweep.errors import UserErrors
from blip2sweep.exporting.whole import taken
from blip2sweep.files import write_atomic
from blip2sweep.planning.cell import Cell
from blip2sweep.planning.cell_builder import CellBuilder
from blip2sweep.recipe.compact import targets, text
from blip2sweep.recipe.trained import has_adapters
from blip2sweep.wire.pack import JsonObject


def write_checkpoint(config: Mapping[str, Any], to: Path) -> str:
    """Quantize the model of a composed config and write it to a folder. Returns what there is to say.

    The weights are dequantized, in the model's dtype: `model.path=FOLDER` evaluates to the same predictions as the
    cell. Where blocks are dropped, the checkpoint is that of a shorter model. Raises UserError where that cannot be:
    nothing changed, packed layers, a set of blocks that transformers cannot leave out, a folder that holds something.
    """
    cell = CellBuilder()(config)
    _check(cell, to)
    job = cell.job()
    from blip2sweep.backends.torch.backend import TorchBackend
    from blip2sweep.backends.torch.checkpoint import write_model
    from blip2sweep.models import shorter

    if gone := cell.recipe.dropped_paths:
        shorter.check(Path(job["folder"]), job["model"], gone)

    cache = Path(str(config["output_dir"])) / "cache"
    backend = TorchBackend({"cache": config.get("cache"), "cache_dir": str(cache), "cache_gb": config.get("cache_gb")})
    loaded = backend.quantized(job)
    with _whole(to):
        write_model(loaded, job["model"], to)
        write_atomic(to / "recipe.yaml", yaml_text(_recipe(cell)).encode())
    again = shlex.quote(override("model.path", str(to)))
    return "\n".join([f"wrote {to}: {text(targets(cell.recipe))}", *_notes(cell), f"to evaluate it: {again} part=none"])


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Leaves a folder that was new or empty empty where the body fails."""
    try:
        yield
    except BaseException:
        for path in folder.glob("*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _check(cell: Cell, to: Path) -> None:
    """Raise UserError with all reasons why a cell is no dense checkpoint of its own."""
    wrong = []
    if cell.recipe.empty:
        wrong.append("this config leaves every layer alone; right: such as part=language quant=gptq quant.bits=4")
    if cell.backend:
        wrong.append(f"backend={cell.backend['name']} makes no checkpoint; right: backend=torch")
    if any(entry.get("packed") for entry in targets(cell.recipe)):
        wrong.append("packed layers cannot be written; right: without quant.packed and sparsity.packed")
    if has_adapters(cell.recipe):
        wrong.append("adapters beside the layers are no part of a checkpoint; right: recover.merge=true")
    if why := taken(to, "--to"):
        wrong.append(why)
    if wrong:
        raise UserErrors(f"quantize: {why}" for why in wrong)


def _recipe(cell: Cell) -> JsonObject:
    """What `recipe_file=` reads, and where the weights came from."""
    source = {"model": cell.model.name, "weights": cell.model.fingerprint, "revision": cell.model.revision}
    measured = {**cell.calibration.columns(), **cell.calibration.identity} if cell.calibration else None
    return {"targets": targets(cell.recipe), "source": source, "calibration": measured, "key": cell.key}


def _notes(cell: Cell) -> list[str]:
    inputs = any(s.input_activations for s in cell.recipe.schemes.values())
    told = ["note: the quantizers of inputs are in the recipe, not in the checkpoint"] if inputs else []
    steps = ", ".join(f"steps.{kind}" for kind in sorted(cell.recipe.outside))
    return [*told, f"note: recipe_file= reads no steps from outside; give them again: {steps}"] if steps else told
