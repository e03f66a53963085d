"""Where a number comes from: versions, device, code revision."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from blip2sweep import outside
from blip2sweep import version as own_version
from blip2sweep.compression.quantize import METHODS
from blip2sweep.compression.step import STEPS
from blip2sweep.machine.devices import cpu_name
from blip2sweep.recipe.semantics import SEMANTICS, semantics
from blip2sweep.version import VERSION
from blip2sweep.wire.lines import Provenance

if TYPE_CHECKING:
    from blip2sweep.models.load import Loaded


def provenance(loaded: Loaded, threads: int) -> Provenance:
    """What ran: CPU threads, libraries, kind of CPU, attention implementation, image-processor back end, code revision."""
    return {
        "threads": threads,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu": cpu_name(),
        "versions": versions(),
        "attention": _agreed(loaded.attention),
        "image_processor": loaded.image_processor_backend,
        "code": code_revision(),
    }


def computed_by(device: str = "cpu") -> str:
    """What may change results without being in the identity: versions and the kind of processor.

    Entries of another are not looked for. So a row's columns hold for everything that went into it.
    """
    on_gpu = device.startswith("cuda")
    kind = torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability()
    own = f"semantics {SEMANTICS} {semantics(METHODS, STEPS, METHODS)} {versions()} {kind}"
    return f"{own} {outside.in_use()}" if outside.in_use() else own


def _agreed(names: Mapping[str, str]) -> str:
    """One word where all stages agree, otherwise one for each stage."""
    alike = set(names.values())
    return alike.pop() if len(alike) == 1 else " ".join(f"{stage}:{name}" for stage, name in names.items())


@lru_cache
def versions() -> str:
    """`blip2sweep 0.1.0 torch … transformers … python …`, with the libraries of methods that are installed."""
    names = [f"{n} {version(n)}" for n in ("torch", "transformers", "tokenizers", "pillow")]
    for extra in ("hqq", "bitsandbytes", "torchao"):
        with contextlib.suppress(PackageNotFoundError):
            names.append(f"{extra} {version(extra)}")
    return f"blip2sweep {VERSION} {' '.join(names)} python {platform.python_version()}"


@lru_cache
def code_revision() -> str | None:
    """The commit of the checkout, with `+` where files differ. None in an installed package."""
    root = Path(own_version.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        run = lambda *arguments: subprocess.run(  # noqa: E731
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        return run("rev-parse", "--short=12", "HEAD") + ("+" if run("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
