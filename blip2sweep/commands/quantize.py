"""`blip2sweep quantize`: a cell's model as a checkpoint that reloads with safetensors, and its recipe beside it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from blip2sweep.analysis.held_by import USUAL
from blip2sweep.commands import made_with
from blip2sweep.commands.chosen_cell import Chosen, chosen_cell, composed
from blip2sweep.commands.export import recipe_of
from blip2sweep.commands.sizes import on_disk, original_line, packed_bytes
from blip2sweep.console.quiet import quiet
from blip2sweep.console.quoting import override, yaml_text
from blip2sweep.errors import UserError, UserErrors
from blip2sweep.exporting import format_of
from blip2sweep.exporting.whole import taken, whole
from blip2sweep.files import write_atomic
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.compact import targets, text
from blip2sweep.recipe.trained import has_adapters
from blip2sweep.wire.pack import CellJob, JsonObject
from blip2sweep.workers.run_cell import unusable

NO_FOLDER = "quantize: no --to; right: --to DIR, a new folder"


def run_quantize(words: Sequence[str], to: Path | None, config_dir: Path | None, output_dir: Path) -> list[str]:
    """What the verb does. words: a key, a recipe file or overrides. Returns what there is to say.

    Raises UserError, all mistakes at once, before anything is computed.
    """
    try:
        chosen = chosen_cell("quantize", words, config_dir, output_dir)
    except UserError as error:
        if to is not None:
            raise
        raise UserErrors([*getattr(error, "lines", (str(error),)), NO_FOLDER]) from error
    if to is None:
        raise UserError(NO_FOLDER)
    more = () if str(output_dir) == "outputs" else ("--output-dir", str(output_dir))
    return _written(chosen._replace(words=(*chosen.words, *more)), to)


def write_checkpoint(config: Mapping[str, Any], to: Path) -> str:
    """Quantize the model of a composed config and write it to a folder. Returns what there is to say.

    The weights are dequantized, in the model's dtype: `model.path=FOLDER` evaluates to the same predictions as the
    cell. Where blocks are dropped, the checkpoint is that of a shorter model. Raises UserError where that cannot be:
    nothing changed, packed layers, a set of blocks that transformers cannot leave out, a folder that holds something.
    """
    return "\n".join(_written(composed(config), to))


def _written(chosen: Chosen, to: Path) -> list[str]:
    job = chosen.job
    recipe = recipe_of(job)
    _check(job, recipe, to)
    with quiet():  # libraries talk when they are imported, too
        _write(chosen, recipe, to)
    again = shlex.quote(override("model.path", str(to)))
    return [
        f"wrote {to}: {text(targets(recipe))}",
        *_sizes(job, to, chosen.row),
        *chosen.notes,
        *_notes(recipe),
        f"to evaluate it: {again} part=none",
        *([_export_line(chosen, recipe, to)] if recipe.schemes else []),
    ]


def _write(chosen: Chosen, recipe: Recipe, to: Path) -> None:
    from blip2sweep.backends.torch.backend import TorchBackend
    from blip2sweep.backends.torch.checkpoint import write_model
    from blip2sweep.models import shorter

    job = chosen.job
    if gone := recipe.dropped_paths:
        shorter.check(Path(job["folder"]), job["model"], gone)
    loaded = TorchBackend(chosen.settings).quantized(job)
    with whole(to) as folder:
        write_model(loaded, job["model"], folder)
        write_atomic(folder / "recipe.yaml", yaml_text(_recipe(chosen, recipe)).encode())


def _check(job: CellJob, recipe: Recipe, to: Path) -> None:
    """Raise UserError with all reasons why a cell is no dense checkpoint of its own."""
    wrong = []
    if recipe.empty:
        wrong.append("this cell leaves every layer alone; right: such as part=language quant=gptq quant.bits=4")
    if backend := job.get("backend"):
        wrong.append(f"backend={backend['name']} makes no checkpoint; right: backend=torch")
    if any(entry.get("packed") for entry in targets(recipe)):
        wrong.append("packed layers cannot be written; right: without quant.packed and sparsity.packed")
    if has_adapters(recipe):
        wrong.append("adapters beside the layers are no part of a checkpoint; right: recover.merge=true")
    if why := unusable(job):
        wrong.append(str(why))
    if held := taken(to, "--to"):
        wrong.append(held)
    if wrong:
        raise UserErrors(f"quantize: {why}" for why in wrong)


def _recipe(chosen: Chosen, recipe: Recipe) -> JsonObject:
    """What `recipe_file=` reads, and where the weights came from."""
    job = chosen.job
    columns: Mapping[str, object] = {**job["columns"]}
    source = {
        **{name: columns.get(name) for name in ("model", "weights", "revision")},
        "overrides": made_with.of_job(job),
    }
    return {"targets": targets(recipe), "source": source, "calibration": chosen.measured, "key": job["key"]}


# ---- what there is to say


def _sizes(job: CellJob, to: Path, row: bool) -> Iterator[str]:
    weights, others = on_disk(to)
    yield f"on disk: {weights:,} bytes of weights, whose numbers are not packed, and {others:,} of other files"
    if packed := packed_bytes(job):
        yield f"packed: {packed:,} bytes, {'as model_bytes of its row' if row else 'by planning'}"
    yield original_line(job)


def _notes(recipe: Recipe) -> list[str]:
    inputs = any(s.input_activations for s in recipe.schemes.values())
    told = ["note: the quantizers of inputs are in the recipe, not in the checkpoint"] if inputs else []
    steps = ", ".join(f"steps.{kind}" for kind in sorted(recipe.outside))
    return [*told, f"note: recipe_file= reads no steps from outside; give them again: {steps}"] if steps else told


def _export_line(chosen: Chosen, recipe: Recipe, to: Path) -> str:
    """The command that writes the packed bits, in the first usual format that holds them."""
    section = chosen.job["model"]
    held = next((form for form in USUAL if not format_of(form).mistakes(recipe, section, None)), None)
    if held is None:
        return f"its packed bits: none of {', '.join(USUAL)} holds them"
    words = ["blip2sweep", "export", *chosen.words, "--to", held, f"{to}-{held}"]
    return f"its packed bits: {shlex.join(words)}"
