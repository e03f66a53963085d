"""What a recipe file says of its cell besides the recipe: what its weights and their size depend on.

`source.overrides` is {key of the config: value}. A file of an earlier version has none, and means what is typed beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import yaml

from blip2sweep.analysis.choice import Choice
from blip2sweep.console.quoting import override, yaml_text
from blip2sweep.models.dtypes import of_part
from blip2sweep.wire.pack import CellJob

Overrides = Mapping[str, object]
GROUPS = ("model", "backend", "calibration", "task")
READ = ("name", "n_samples", "seed", "upstream", "threads", "image_token_weight", "text_only")  # of a calibration
COLUMNS = {
    "calibration": "name", "calibration_samples": "n_samples", "calibration_seed": "seed",
    "calibration_upstream": "upstream", "calibration_threads": "threads",
}  # fmt: skip


def of_job(job: CellJob) -> dict[str, object]:
    """The overrides of a planned cell."""
    backend = job.get("backend")
    measured = job["calibration"]
    columns: Mapping[str, object] = {**job["columns"]}
    return {
        **of_dtypes(str(columns.get("dtype", "")), columns.get("stored")),
        **({"backend": backend["name"]} if backend else {}),
        **(_calibration(str(columns.get("task", "")), measured) if measured else {}),
    }


def of_row(row: Mapping[str, object], calibrated: bool, words: Sequence[str]) -> dict[str, object]:
    """The overrides of a row of the table. words: of the command that runs it, for what no column has."""
    backend = row.get("backend")
    name = backend.partition(" ")[0] if isinstance(backend, str) else "torch"
    kept = (*GROUPS[:2], *(GROUPS[2:] if calibrated else ()))
    typed = _typed(w for w in words if w.startswith(kept))
    known = {own: row[column] for column, own in COLUMNS.items() if isinstance(row.get(column), int | float | str)}
    found = {own: int(v) if isinstance(v, float) else v for own, v in known.items() if v == v}
    return {
        **{k: v for k, v in typed.items() if k not in ("model", "task.limit")},
        **of_dtypes(str(row.get("dtype") or ""), row.get("stored")),
        **({"backend": name} if name != "torch" else {}),
        **(_calibration(str(row.get("task", "")), found) if calibrated and found else {}),
    }


def _calibration(task: str, found: Mapping[str, object]) -> dict[str, object]:
    own = {f"calibration.{k}": found[k] for k in READ[1:] if found.get(k) is not None}
    return {"task": task, "calibration": found["name"], **own} if "name" in found else {}


def of_dtypes(dtype: str, stored: object) -> dict[str, object]:
    """The overrides of two columns: of what the model computes in, and of what its numbers are stored in."""
    parts = [word.partition(":")[0] for word in dtype.split() if ":" in word]
    found: dict[str, object] = {f"model.dtype_per_part.{part}": of_part(dtype, part) for part in parts}
    if dtype and not parts:
        found["model.dtype"] = dtype
    if isinstance(stored, str) and ":" not in stored:
        found["model.stored"] = None if stored == dtype else stored
    return found


def told(source: Mapping[str, object]) -> Overrides:
    """What a file says; nothing of one of an earlier version."""
    found = source.get("overrides")
    return {str(k): v for k, v in found.items()} if isinstance(found, Mapping) else {}


def words_of(source: Mapping[str, object], typed: Sequence[str]) -> list[str]:
    """The overrides of a file that nothing typed takes the place of."""
    gone = _replaced(source, typed)
    return [_word(k, v) for k, v in told(source).items() if k not in gone]


def notes_of(path: str, source: Mapping[str, object], typed: Sequence[str]) -> list[str]:
    """A line for each value of a file that is typed otherwise. Another model has other weights, of which there is a note."""
    own = _typed(typed)
    return [
        f"note: {path} was made with {_word(k, v)}, here {_word(k, own[k])}"
        for k, v in told(source).items()
        if k in own and own[k] != v
    ]


def _name(source: Mapping[str, object]) -> dict[str, object]:
    return {"model": source["model"]} if isinstance(source.get("model"), str) else {}


def _replaced(source: Mapping[str, object], typed: Sequence[str]) -> set[str]:
    """The keys of a file that are typed, and those of a section in whose place another one is typed."""
    own, found = _typed(typed), {**told(source), **_name(source)}
    others = {g for g in GROUPS if g in own and own[g] != found.get(g)}
    return {k for k in found if k in own or k.partition(".")[0] in others}


def _typed(words: Iterable[str]) -> dict[str, object]:
    """{key: value} of overrides."""
    pairs = (w.lstrip("+").partition("=") for w in words)
    return {key: _value(text) for key, given, text in pairs if given}


def _value(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _word(key: str, value: object) -> str:
    return override(key, value) if isinstance(value, str) else f"{key}={json.dumps(value)}"


def recipe_file(choice: Choice, comments: Mapping[str, str], made_of: Mapping[str, object] | None = None) -> str:
    """The YAML that `recipe_file=` reads. comments: {word: text}, one line each at its head. made_of: the model and its
    weights, for who takes the file alone."""
    head = "".join(f"# {k}: {v}\n" for k, v in comments.items())
    return head + yaml_text({"targets": choice.entries, **({"source": dict(made_of)} if made_of else {})})
