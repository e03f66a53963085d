"""The influence of blocks: how far each turns what passes through it, 1 − cosine on calibration samples.

It is the score by which ShortGPT (arXiv:2403.03853) chooses the layers that it removes. A child process measures it once for
each checkpoint and choice of samples, so that planning imports no torch, and it is kept in `output_dir/influence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from blip2sweep import outside
from blip2sweep.canonical import digest
from blip2sweep.compression.drop_blocks import INFLUENCE, check, parse
from blip2sweep.console.printing import say
from blip2sweep.errors import UserError
from blip2sweep.files import make_folder, read_json, write_json
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.architecture import asked_as
from blip2sweep.models.checkpoints import ask
from blip2sweep.models.part import Part, Stack
from blip2sweep.planning.model import Model
from blip2sweep.planning.outside_code import of_cell
from blip2sweep.recipe import Recipe, resolve_recipe
from blip2sweep.tasks.calibration import Calibration
from blip2sweep.wire.pack import JsonObject, OutsideCode

Values = Mapping[str, Sequence[float]]  # {part: one for each block}
FOLDER, MODULE, SEMANTICS = "influence", "blip2sweep.apply.influence", 1
LIMIT = 24 * 3600.0  # seconds
# What of `calibration` chooses the samples. No layer is compressed, and all tokens count alike.
USED = frozenset(
    {"calibration", *(f"calibration.{k}" for k in ("n_samples", "seed", "threads", "text_only", "split", "data_dir"))}
)


def asked_parts(text: str, anatomy: Anatomy) -> list[Part]:
    """The parts whose blocks a `drop_blocks` chooses by influence."""
    words = [word for word, blocks in parse(text) if blocks.endswith(f"@{INFLUENCE}")]
    names = [name for word in words for name in anatomy.resolve_names(word, f"drop_blocks={text}")]
    return [anatomy.parts[name] for name in dict.fromkeys(name.partition(".")[0] for name in names)]


def measurable(anatomy: Anatomy, text_only: bool) -> list[Part]:
    """The parts that have blocks to leave out, and see something of the samples."""
    residual = {s.name for s in anatomy.stages if s.residual}
    lists = [p for p in anatomy.parts.values() if p.stage in residual and not any(s.whole for s in p.stacks)]
    return [p for p in lists if p.reads_text or not text_only]


def check_words(config: Mapping[str, object], anatomy: Anatomy) -> None:
    """Raise UserError for a compression that planning would refuse. config: of a cell."""
    dropped = config.get("drop_blocks")
    if dropped is not None and str(dropped) != "none":
        check(str(dropped), anatomy)
    resolve_recipe({**config, "drop_blocks": None}, anatomy, runs=False)


def least_first(values: Values, part: Part, stack: Stack) -> list[int]:
    """The numbers in the part of a stack's blocks, those of least influence first."""
    return sorted(range(stack.first, stack.first + stack.n), key=lambda i: (values[part.name][i], i))


def influence(model: Model, samples: Calibration, output_dir: Path) -> Values:
    """The influence of every block. It is measured where no file has it.

    Raises UserError, one line, where it cannot be measured or written, and where the file is damaged.
    """
    about = _about(model, samples)
    path = output_dir / FOLDER / f"{digest(about)[:16]}.json"
    parts = measurable(model.anatomy, samples.text_only)
    if path.exists():
        return _read(path, parts)
    n = len(samples.data.samples)
    say(
        f"measuring the influence of the blocks of {model.name} on {n} calibration samples, once: {path} (recover may train "
        f"on their images)",
        err=True,
    )
    question: JsonObject = {"model": model.config, "calibration": samples.job(), "parts": [p.name for p in parts]}
    code = _code(model, samples)
    asked = {**question, **({"outside": code} if code else {})}
    found = cast("Values", ask(MODULE, model.folder, asked, "the influence of its blocks", dict, LIMIT, {}))
    make_folder(path.parent)
    write_json(path, {**about, "parts": found})
    return found


def _about(model: Model, samples: Calibration) -> JsonObject:
    """All that determines the values, as the file has it beside them."""
    code = _code(model, samples)
    measured = {k: v for k, v in samples.measured(False).items() if k != "image_token_weight"}
    return {
        "model": model.name, "weights": model.fingerprint, "dtype": model.stage_dtypes,
        **({"stored": model.narrowed} if model.narrowed else {}), **asked_as(model.config),
        "calibration": samples.name, "samples": samples.n_samples, "seed": samples.seed, "measured": measured,
        "semantics": SEMANTICS, **({"outside": outside.identity(code)} if code else {}),
    }  # fmt: skip


def _code(model: Model, samples: Calibration) -> Mapping[str, OutsideCode]:
    return of_cell(model.config, [samples.task], Recipe.untouched(model.anatomy.parts), None)


def _read(path: Path, parts: Sequence[Part]) -> Values:
    try:
        found = read_json(path)["parts"]
        whole = all(len([float(x) for x in found[p.name]]) == p.n_blocks for p in parts)
    except (UserError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{path}: is damaged; right: the same command without that file, which measures again")
    return cast("Values", found)
