"""Whether a checkpoint is what its model config says. Planning asks it before anything is queued.

transformers fills missing tensors with random numbers and leaves out unknown ones. So every tensor, config.json, the
processor and the tokenizer are compared with the model. The comparison needs the model's classes and therefore torch,
so a child process does it, once for each checkpoint. A verdict without mistakes is remembered by fingerprint, model
config and versions.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import cast

from blip2sweep import outside
from blip2sweep.cache import disk as cache
from blip2sweep.canonical import digest
from blip2sweep.errors import UserError
from blip2sweep.models.architecture import FIRST, stage_of, stages
from blip2sweep.models.checkpoints.child import LIMIT, ask
from blip2sweep.models.checkpoints.content import STORE, Content
from blip2sweep.models.checkpoints.folder import Weights, inspect
from blip2sweep.models.checkpoints.headers import Header, shown
from blip2sweep.wire.model_section import ModelSection, PartSection
from blip2sweep.wire.pack import JsonObject

MODULE = "blip2sweep.models.check"  # the child
LISTED = 20  # mistakes of a checkpoint that are listed; the others are counted
# The fields of a model config that a verdict depends on: how the model is built and which names it has.
FIELDS = ("name", "family", "config", "parts", "tied")
FURTHER = ("chat", "adapter")  # those that an architecture may read besides
# The identity of the embedded checkpoint with its config. Its verdict ships with the package, and a test makes it anew.
# So a first sweep on a new machine needs no child. Loading checks the checkpoint all the same.
SHIPPED = "67799dd826fd637ae341c9e34eac9224f2072651f3e338de82db4f450be4ef3a"


@dataclass(frozen=True)
class Verdict:
    """The mistakes of a checkpoint, each a sentence, and the names of tensors with numbers beyond float16."""

    mistakes: tuple[str, ...]
    beyond_half: tuple[str, ...]


def check(folder: Path, model: ModelSection, half: Sequence[str] = ()) -> Weights:
    """The weights of a checkpoint that is exactly what `model` describes.

    half: the names of the stages that are evaluated in float16. Raises UserError with all mistakes in one line.
    """
    found = inspect(folder, model.get("tied") or ())
    verdict = _verdict(found, model)
    mistakes = [*verdict.mistakes, *_overflows(verdict, model, half)]
    if mistakes:
        raise refused(folder, str(model["name"]), mistakes)
    return found


def refused(folder: Path, name: str, mistakes: Sequence[str]) -> UserError:
    """The error that lists all mistakes of a checkpoint in one line, or the first ones and the number of the others."""
    count = f"{len(mistakes)} mistakes: " if len(mistakes) > 1 else ""
    more = [f"and {len(mistakes) - LISTED} more"] if len(mistakes) > LISTED else []
    return UserError(
        f"{folder}: not a checkpoint of model {name}: {count}{'; '.join([*mistakes[:LISTED], *more])}; "
        f"right: the whole checkpoint that conf/model/{name}.yaml describes"
    )


def listed(names: Sequence[str], at_most: int = 4) -> str:
    """The first names for a sentence, and the number of the others."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(shown(n) for n in names[:at_most]) + more


def _overflows(verdict: Verdict, model: ModelSection, half: Sequence[str]) -> Iterator[str]:
    """The tensors that would become infinite in float16. half: the names of the stages in it."""
    order = stages(model)
    names = [n for n in verdict.beyond_half if stage_of(n, order).name in half]
    if names:
        yield f"numbers beyond what float16 can hold in {listed(names)} (model.dtype and model.stored of bfloat16 or float32 can)"


# ---- made once


def _verdict(found: Weights, model: ModelSection) -> Verdict:
    if identity(found, model) == SHIPPED:
        return Verdict((), ())
    name = digest(["verdict", identity(found, model), versions()])
    store = cache.of_user(STORE)
    remembered = store.get(name) if store else None
    if remembered is not None:
        return Verdict((), tuple(json.loads(remembered)["beyond_half"]))
    verdict = _new_verdict(found, model)
    if inspect(found.folder).fingerprint != found.fingerprint:
        raise UserError(f"{found.folder}: it changed while it was checked; right: wait until it is whole")
    # Mistakes are not remembered: they may be this machine's (a library that a tokenizer needs) and not the folder's.
    if store and not verdict.mistakes:
        store.put(name, json.dumps({"beyond_half": verdict.beyond_half}).encode())
    return verdict


def identity(found: Weights, model: ModelSection) -> str:
    """A digest of a checkpoint and of all that its verdict depends on in the model config.

    The roles and folds of parts are left out, and `clip` and `unpackable` of layers: they do not change the model.
    """
    parts = {name: _identity_of_part(part) for name, part in model["parts"].items()}
    return digest([found.fingerprint, {**_question(model), "parts": parts}])


def _identity_of_part(part: PartSection) -> JsonObject:
    layers = {
        kind: {name: {k: v for k, v in layer.items() if k not in ("clip", "unpackable")} for name, layer in own.items()}
        for kind, own in part["layers"].items()
    }
    return {**{k: v for k, v in part.items() if k not in ("folds", "role")}, "layers": layers}


def _question(model: ModelSection) -> JsonObject:
    """The fields of a model config that the child is given; the architecture only where it is not the first one."""
    own = str(model.get("architecture") or FIRST)
    if own == FIRST:
        return {k: model.get(k) for k in FIELDS}
    code = outside.codes([("architectures", own)])
    further = {k: v for k in FURTHER if (v := model.get(k))}
    return {**{k: model.get(k) for k in FIELDS}, "architecture": own, **further, **({"outside": code} if code else {})}


@functools.cache
def versions() -> list[str]:
    """A digest of the code of all of `models/`, and the versions of the libraries whose rules it asks.

    A change of any of them makes new verdicts.
    """
    sources = sorted(Path(__file__).parent.parent.rglob("*.py"))
    code = hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()
    return [code, *(f"{name} {version(name)}" for name in ("transformers", "tokenizers"))]


def _new_verdict(found: Weights, model: ModelSection) -> Verdict:
    contents = found.contents()
    mistakes = [
        *_answer_of_child(found.folder, _question(model)), *_numbers(contents), *_tied(found, model.get("tied") or ())
    ]  # fmt: skip
    return Verdict(tuple(mistakes), tuple(n for c in contents for n in c.beyond_half))


def _numbers(contents: Sequence[Content]) -> Iterator[str]:
    names = [name for c in contents for name in c.not_finite]
    if names:
        tensors = "1 tensor holds" if len(names) == 1 else f"{len(names)} tensors hold"
        yield f"{tensors} NaN or Inf: {listed(names)}"


def _tied(found: Weights, tied: Sequence[Sequence[str]]) -> Iterator[str]:
    """The names of one tensor of the model that are stored several times with different content."""
    holder = {name: header for header in found.headers for name in header.tensors}
    for group in tied:
        first, *others = [n for n in group if n in holder] or [""]
        for other in others:
            if _digest(holder[first], first) != _digest(holder[other], other):
                yield f"{shown(first)} and {shown(other)} differ, though conf/model says that they are one tensor"


def _digest(header: Header, name: str) -> bytes:
    tensor, total = header.tensors[name], hashlib.sha256()
    total.update(f"{tensor.dtype} {tensor.shape}".encode())
    with header.path.open("rb") as file:
        file.seek(header.data + tensor.start)
        for start in range(tensor.start, tensor.end, 2**20):
            total.update(file.read(min(2**20, tensor.end - start)))
    return total.digest()


# ---- the child


def _answer_of_child(folder: Path, question: JsonObject) -> list[str]:
    """The mistakes that the child finds. Raises UserError where it gives no answer."""
    found = ask(MODULE, folder, {"model": question}, "names, shapes, config and tokenizer", list, LIMIT)
    return [str(mistake) for mistake in cast("list[object]", found)]
