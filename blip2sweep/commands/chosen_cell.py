"""The one cell that a verb is about: a key of the ledger, a recipe file, or overrides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from blip2sweep import outside
from blip2sweep.commands import made_with
from blip2sweep.config.standalone import compose_cell
from blip2sweep.console.quoting import KEY, override
from blip2sweep.errors import UserError, UserErrors
from blip2sweep.models.shipped import shipped_models
from blip2sweep.planning.cell_builder import CellBuilder
from blip2sweep.planning.packs import sweep_jobs
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import list_sweeps
from blip2sweep.wire.pack import CellJob, JsonObject, Settings

FILES = (".yaml", ".yml")
MODEL = ("model", "model.path", "model.hub_id")  # whichever is given says whose recipe it is
ONE = "one key, one recipe file, or overrides such as part=language quant.bits=4"


class Chosen(NamedTuple):
    """A cell that is to be handed out.

    words: those that choose it again, for another verb. measured: of its calibration, for people; None without one. notes:
    what there is to say. row: whether it is in the table.
    """

    job: CellJob
    settings: Settings
    words: tuple[str, ...]
    measured: JsonObject | None = None
    notes: tuple[str, ...] = ()
    row: bool = False


def chosen_cell(verb: str, words: Sequence[str], config_dir: Path | None, output_dir: Path) -> Chosen:
    """The cell that the words of a command mean. Raises UserError, all mistakes at once, for words that mean none."""
    bare, overrides = ([w for w in words if (_assigns(w)) == given] for given in (False, True))
    _check(verb, bare, overrides)
    if bare and not _is_file(bare[0]):
        job = job_of_key(output_dir, bare[0])
        outside.take(job.get("outside", {}))
        settings = Settings(cache="disk", cache_dir=str(output_dir / "cache"))
        return Chosen(job, settings, (job["key"],), _measured(job), row=has_row(output_dir, job["key"]))
    source = _source(bare[0]) if bare else {}
    given = [*_of_file(bare[0], source, overrides, config_dir), *overrides] if bare else overrides
    found = composed(compose_cell(given, config_dir, {"output_dir": str(output_dir)}))
    shown = (*words, *(("--config-dir", str(config_dir)) if config_dir else ()))
    notes = _other_weights(bare, source, str(found.job["columns"].get("weights")))
    notes += made_with.notes_of(bare[0], source, overrides) if bare else []
    return found._replace(words=shown, notes=tuple(notes), row=has_row(output_dir, found.job["key"]))


def has_row(output_dir: Path, key: str) -> bool:
    """Whether a cell was run, so that the table has a row of it."""
    return Ledger(output_dir, only=(key,), brief=True).refresh().done(key)


def composed(config: Mapping[str, object]) -> Chosen:
    """The cell of a composed config."""
    cell = CellBuilder()(config)
    measured = {**cell.calibration.columns(), **cell.calibration.identity} if cell.calibration else None
    return Chosen(cell.job(), settings_of(config), (cell.key,), measured)


def settings_of(config: Mapping[str, object]) -> Settings:
    """What a back end gets besides the job, from a composed config."""
    found = Settings(cache_dir=str(Path(str(config["output_dir"])) / "cache"))
    cache, most = config.get("cache"), config.get("cache_gb")
    found["cache"] = None if cache is None else str(cache)
    found["cache_gb"] = float(most) if isinstance(most, int | float) else None
    return found


def _assigns(word: str) -> bool:
    """Whether a word is an override; a path may have `=` in it where a folder comes first."""
    return "=" in word and not word.startswith(("/", "./", "../"))


def _is_file(word: str) -> bool:
    """Whether a word that is no override names a recipe file. Of a file without an ending a key of that name is meant."""
    return word.endswith(FILES) or os.sep in word or (KEY.fullmatch(word) is None and Path(word).is_file())


def _check(verb: str, bare: Sequence[str], overrides: Sequence[str]) -> None:
    """Raise UserError with all that is wrong with the words."""
    unknown = [w for w in bare if not _is_file(w) and not KEY.fullmatch(w)]
    wrong = [
        f"{w}: no key and no override; right: the beginning of a key of `blip2sweep table`, key=value, or a recipe file"
        for w in unknown
    ]
    if not bare and not overrides:
        wrong.append(f"{verb}: no cell; right: {ONE}")
    if len(bare) > 1:
        wrong.append(f"{verb}: {len(bare)} cells ({', '.join(bare)}); right: {ONE}")
    keys = [w for w in bare if w not in unknown and not _is_file(w)]
    if keys and overrides:
        wrong.append(
            f"{verb} {keys[0]} {overrides[0]}: a key is a whole cell, and nothing of it changes; right: the key alone, or "
            f"the overrides of another cell"
        )
    if any(map(_is_file, bare)) and (twice := [o for o in overrides if o.lstrip("+").startswith("recipe_file=")]):
        wrong.append(f"{verb} {twice[0]}: the recipe is given already; right: one recipe file")
    if wrong:
        raise UserErrors(wrong)


# ---- a key


def _measured(job: CellJob) -> JsonObject | None:
    """The calibration of a job: the columns of its row, and which samples they were."""
    if job["calibration"] is None:
        return None
    columns: Mapping[str, object] = {**job["columns"]}
    own = {
        k: v for k, v in job["calibration"].items() if k in ("prompt", "upstream", "image_token_weight", "text_only")
    }
    planned = job["calibration"].get("planned")
    return {
        **{k: v for k, v in columns.items() if k.startswith("calibration")},
        **(planned if isinstance(planned, Mapping) else {}),
        **own,
    }


def job_of_key(output_dir: Path, key: str) -> CellJob:
    """The job of the cell whose key begins so, from the packs of all sweeps; the newest counts.

    Raises UserError for a key of no or several cells, and for what is no key.
    """
    if not KEY.fullmatch(key):
        raise UserError(
            f"{key}: no key and no override; right: the beginning of a key of `blip2sweep table`, or key=value"
        )
    sweeps = list_sweeps(output_dir, forgotten=True)  # whose packs may have cells that other sweeps ask for
    found = {k: job for sweep in sweeps for k, job in sweep_jobs(sweep.folder(output_dir)).items()}
    keys = sorted(k for k in found if k.startswith(key))
    if len(keys) != 1:
        many = f"{len(keys)} cells have such a key ({', '.join(keys[:4])})" if keys else "no pack holds such a cell"
        raise UserError(f"{key}: {many} in {output_dir}; right: the beginning of one key of `blip2sweep table`")
    return found[keys[0]]


# ---- a recipe file


def _of_file(path: str, source: Mapping[str, object], overrides: Sequence[str], config_dir: Path | None) -> list[str]:
    """The overrides that a recipe file stands for: itself, what its weights and their size depend on, and the model that
    it was made of where none is given."""
    words = [override("recipe_file", path), *made_with.words_of(source, overrides)]
    name = source.get("model")
    if not isinstance(name, str) or any(o.lstrip("+").partition("=")[0] in MODEL for o in overrides):
        return words
    own = sorted(p.stem for p in (config_dir / "model").glob("*.yaml")) if config_dir else []
    if name not in (*shipped_models(), *own):
        raise UserError(
            f"{path}: made of the model {name}, which no file of conf/model has; right: model.path=FOLDER beside it"
        )
    return [*words, override("model", name)]


def _source(path: str) -> Mapping[str, object]:
    """What a recipe file says of where it came from; nothing of a file that cannot be read, which composing refuses."""
    try:
        data = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    source = data.get("source") if isinstance(data, Mapping) else None
    return source if isinstance(source, Mapping) else {}


def _other_weights(bare: Sequence[str], source: Mapping[str, object], fingerprint: str) -> list[str]:
    """A note where the weights are not those that a recipe file was made of."""
    told = source.get("weights")
    if not isinstance(told, str) or fingerprint.startswith(told) or told.startswith(fingerprint):
        return []
    return [f"note: {bare[0]} was made of other weights ({told[:12]}, here {fingerprint[:12]})"]
