"""Whether a checkpoint is what its model config says, before anything is queued.

transformers fills what is missing with random numbers and leaves out what it does not know, so every tensor, config.json,
processor and tokenizer are compared with the model. That takes the model's classes, hence torch: a child process does it,
once per checkpoint, and that all is well is remembered by fingerprint, model config and versions.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from blip2sweep import outside
from blip2sweep.cache import disk as cache
from blip2sweep.canonical import digest
from blip2sweep.console.printing import say
from blip2sweep.errors import UserError
from blip2sweep.models.architecture import FIRST, stages
from blip2sweep.models.checkpoints.content import STORE, Content
from blip2sweep.models.checkpoints.folder import Weights, inspect
from blip2sweep.models.checkpoints.headers import Header, shown

MODULE = "blip2sweep.models.check"  # the child
ANSWER = "blip2sweep-verdict: "  # what its answer's line begins with; libraries print as well
LIMIT = 600.0  # seconds; importing torch from a cold network file system takes minutes
TOLD = 20  # mistakes of a checkpoint that are told, the others counted
# What a verdict depends on besides the content: how the model is built and which names it has.
ASKED = ("name", "family", "config", "parts", "tied")
# The embedded checkpoint and its config: of these the verdict ships with the package (a test makes it anew), so that a
# first sweep and every fresh machine need no child. Loading checks it all the same.
SHIPPED = "67799dd826fd637ae341c9e34eac9224f2072651f3e338de82db4f450be4ef3a"


@dataclass(frozen=True)
class Verdict:
    """Mistakes of a checkpoint, each a sentence, and the tensors that hold more than float16 can."""

    mistakes: tuple[str, ...]
    beyond_half: tuple[str, ...]


def check(folder: Path, model: Mapping[str, Any], half: Sequence[str] = ()) -> Weights:
    """The weights of a checkpoint that is exactly what `model` (a composed model config) describes.

    half: the stages that will be evaluated in float16. Raises UserError, all mistakes in one line.
    """
    found = inspect(folder, model.get("tied") or ())
    verdict = _verdict(found, model)
    mistakes = [*verdict.mistakes, *_overflows(verdict, model, half)]
    if mistakes:
        raise refused(folder, str(model["name"]), mistakes)
    return found


def refused(folder: Path, name: str, mistakes: Sequence[str]) -> UserError:
    """All mistakes of a checkpoint in one line; of very many the rest is counted."""
    count = f"{len(mistakes)} mistakes: " if len(mistakes) > 1 else ""
    more = [f"and {len(mistakes) - TOLD} more"] if len(mistakes) > TOLD else []
    return UserError(
        f"{folder}: not a checkpoint of model {name}: {count}{'; '.join([*mistakes[:TOLD], *more])}; "
        f"right: the whole checkpoint that conf/model/{name}.yaml describes"
    )


def listed(names: Sequence[str], at_most: int = 4) -> str:
    """Names for a sentence: the first few, the others counted."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(shown(n) for n in names[:at_most]) + more


def _overflows(verdict: Verdict, model: Mapping[str, Any], half: Sequence[str]) -> Iterator[str]:
    """Tensors of stages in float16 that would become infinite."""
    cast = [stage for stage in stages(model) if stage.name in half]
    names = [n for n in verdict.beyond_half if any(stage.holds(n) for stage in cast)]
    if names:
        yield f"numbers beyond what float16 can hold in {listed(names)} (model.dtype=bfloat16 or float32 can)"


# ---- made once


def _verdict(found: Weights, model: Mapping[str, Any]) -> Verdict:
    asked = _question(model)
    if identity(found, model) == SHIPPED:
        return Verdict((), ())
    name = digest(["verdict", identity(found, model), _versions()])
    store = cache.of_user(STORE)
    kept = store.get(name) if store else None
    if kept is not None:
        return Verdict((), tuple(json.loads(kept)["beyond_half"]))
    made = _made(found, asked)
    if inspect(found.folder).fingerprint != found.fingerprint:
        raise UserError(f"{found.folder}: it changed while it was checked; right: wait until it is whole")
    # Mistakes are not remembered: they may be this machine's (a library that a tokenizer needs) and not the folder's.
    if store and not made.mistakes:
        store.put(name, json.dumps({"beyond_half": made.beyond_half}).encode())
    return made


def identity(found: Weights, model: Mapping[str, Any]) -> str:
    """Digest of a checkpoint and of what is asked of it; what a part is for, and how its layers may be compressed, is not."""
    parts = {name: _asked_of(part) for name, part in model["parts"].items()}
    return digest([found.fingerprint, {**_question(model), "parts": parts}])


def _asked_of(part: Mapping[str, Any]) -> dict[str, Any]:
    layers = {
        kind: {name: {k: v for k, v in layer.items() if k not in ("clip", "unpackable")} for name, layer in own.items()}
        for kind, own in part["layers"].items()
    }
    return {**{k: v for k, v in part.items() if k not in ("folds", "role")}, "layers": layers}


def _question(model: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model config the answer depends on; the architecture where it is not the first one."""
    own = str(model.get("architecture") or FIRST)
    if own == FIRST:
        return {k: model.get(k) for k in ASKED}
    code = outside.codes([("architectures", own)])
    return {**{k: model.get(k) for k in ASKED}, "architecture": own, **({"outside": code} if code else {})}


@functools.cache
def _versions() -> list[str]:
    """The libraries whose rules are asked, and the code that asks: any change makes a new verdict."""
    sources = sorted(Path(__file__).parent.parent.rglob("*.py"))
    code = hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()
    return [code, *(f"{name} {version(name)}" for name in ("transformers", "tokenizers"))]


def _made(found: Weights, asked: Mapping[str, Any]) -> Verdict:
    contents = found.contents()
    mistakes = [*_asked(found.folder, asked), *_numbers(contents), *_tied(found, asked.get("tied") or ())]
    return Verdict(tuple(mistakes), tuple(n for c in contents for n in c.beyond_half))


def _numbers(contents: Sequence[Content]) -> Iterator[str]:
    names = [name for c in contents for name in c.not_finite]
    if names:
        tensors = "1 tensor holds" if len(names) == 1 else f"{len(names)} tensors hold"
        yield f"{tensors} NaN or Inf: {listed(names)}"


def _tied(found: Weights, tied: Sequence[Sequence[str]]) -> Iterator[str]:
    """Names that are one tensor in the model, stored several times with different content."""
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


def _asked(folder: Path, asked: Mapping[str, Any]) -> list[str]:
    """The mistakes that the child finds. Raises UserError where it gives no answer: nothing is known then."""
    command = [sys.executable, "-m", MODULE]
    quiet = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    question = json.dumps({"folder": str(folder.absolute()), "model": asked})
    if sys.stderr.isatty():
        say(f"checking {folder} once: names, shapes, config and tokenizer …", err=True)
    try:
        done = subprocess.run(
            command, input=question, capture_output=True, text=True, errors="replace", timeout=LIMIT, check=False,
            env={**os.environ, **quiet},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _no_answer(folder, f"gave no answer in {LIMIT:.0f} s") from error
    except OSError as error:
        raise _no_answer(folder, f"cannot be started ({error.strerror})") from error
    answers = [line.removeprefix(ANSWER) for line in done.stdout.splitlines() if line.startswith(ANSWER)]
    try:
        found = json.loads(answers[-1]) if answers and not done.returncode else None
    except ValueError:  # cut
        found = None
    if not isinstance(found, list):
        said = done.stderr.strip().splitlines()
        raise _no_answer(folder, f"{_ended(done.returncode)} ({shown(said[-1]) if said else 'it said nothing'})")
    return [str(mistake) for mistake in found]


def _ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _no_answer(folder: Path, why: str) -> UserError:
    return UserError(
        f"{folder}: cannot be checked: python -m {MODULE} {why}; right: the same command again, on a machine where "
        f"transformers can be imported"
    )
