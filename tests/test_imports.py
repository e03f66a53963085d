"""Arrows between rooms go one way; Hydra and torch are only where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "blip2sweep"

# Rooms from the bottom up: an arrow goes from a later room to an earlier one, and only where the table has it. A room is a
# file or folder directly below blip2sweep/. BASE may be imported by every room that stands after it.
BASE = ("version", "errors", "canonical", "machine", "console", "files", "wire", "outside")
ALLOWED: dict[str, set[str]] = {
    "version": set(),
    "errors": set(),
    "canonical": set(),
    "machine": {"errors"},
    "console": {"errors"},
    "files": {"errors", "machine"},
    "wire": {"errors"},
    "outside": {"errors", "wire"},
    "cache": set(),
    "lmms": set(),  # a program of its own, for another environment
    "rows": set(),
    "metrics": {"rows"},
    "chat": set(),
    "tasks": {"cache", "chat", "metrics", "rows"},
    "models": {"cache", "rows", "tasks"},
    "compression": {"cache", "models"},
    "recipe": {"compression", "models"},
    "apply": {"cache", "compression", "models", "recipe", "tasks"},
    "exporting": {"apply", "cache", "compression", "models", "recipe", "tasks"},
    "backends": {"apply", "cache", "compression", "exporting", "models", "recipe", "rows", "tasks"},
    "config": {"models"},
    "results": {"compression", "metrics", "recipe", "rows", "tasks"},
    "planning": {"backends", "chat", "compression", "exporting", "metrics", "models", "recipe", "results", "tasks"},
    "workers": {"backends", "chat", "metrics", "planning", "results", "rows", "tasks"},
    "running": {"compression", "planning", "recipe", "results", "workers"},
    "slurm": {"planning", "results", "running", "workers"},
    "analysis": {"compression", "exporting", "metrics", "models", "recipe", "results", "rows"},
    "importing": {"compression", "metrics", "models", "recipe", "results", "tasks"},
    "doctor": {"metrics", "models", "planning", "tasks"},
    "reporting": {"analysis", "cache", "metrics", "models", "planning", "recipe", "results", "rows", "tasks"},
    "commands": {
        "analysis",
        "backends",
        "cache",
        "chat",
        "compression",
        "config",
        "doctor",
        "exporting",
        "importing",
        "metrics",
        "models",
        "planning",
        "recipe",
        "reporting",
        "results",
        "running",
        "slurm",
        "workers",
    },
}
DOORS = (
    "__init__",
    "__main__",
    "cli",
    "hydra_app",
    "sweep",
)  # which may import every room; sweep: names of version 0.1
HYDRA = {"config", "hydra_app"}
TORCH = (
    "apply",
    "backends/torch",
    "backends/graphs",
    "backends/onnxruntime",
    "backends/openvino",
    "compression",
    "exporting",
    "models",
)
# Inside these: what planning reads.
NO_TORCH = (
    "backends/graphs/backend.py", "backends/onnxruntime/backend.py", "backends/openvino/backend.py",
    "compression/step.py", "compression/drop_blocks.py", *(f"compression/sparsity/{name}.py" for name in (
        "__init__", "kernels", "resolve", "spec", "step")),
    *(f"compression/recover/{name}.py" for name in ("__init__", "options", "spec", "step")), *(f"compression/quantize/{name}.py" for name in (
        "__init__", "folds", "kernels", "options", "per_part", "resolve", "scheme", "step", "stored")),
    "exporting/__init__.py", "exporting/compressed_tensors.py", "exporting/openvino.py", "exporting/onnx.py", "exporting/onnx_graphs/__init__.py", "exporting/onnx_graphs/layouts.py", "exporting/tensorrt_llm.py",
    "exporting/torchao.py", "exporting/bitsandbytes.py",
    "models/anatomy.py", "models/anatomy_config.py", "models/architecture.py", "models/block_params.py", "models/blip/__init__.py",
    "models/blip/caption.py", "models/blip/vqa.py", "models/blip2/__init__.py", "models/blip2/retrieval.py",
    "models/checkpoints", "models/dtypes.py", "models/image_text/__init__.py", "models/image_text/adapter.py", "models/instructblip/__init__.py",
    "models/image_text/work.py", "models/graphs/__init__.py", "models/language.py", "models/location.py", "models/part.py", "models/places.py", "models/role_params.py", "models/roles.py", "models/shipped.py",
    "models/own_folder.py", "models/own_config.py", "models/fitting.py", "models/fields.py", "models/linear_share.py", "models/work.py",
)  # fmt: skip
TORCH_FILES = ("cache/tensors.py",)


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Absolute names imported anywhere in a file, functions included; imports for type checking only are left out."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in (n for n in ast.walk(tree) if id(n) not in skipped):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def test_every_room_is_in_the_table() -> None:
    assert {room(p) for p in modules()} == ALLOWED.keys() | set(DOORS)


def test_the_table_goes_one_way() -> None:
    for i, (name, allowed) in enumerate(ALLOWED.items()):
        assert allowed <= set(list(ALLOWED)[:i]), name


ROOMS = sorted({room(path) for path in modules()})


def files_of(name: str) -> dict[str, Path]:
    """The modules of a room by their path in the package."""
    return {path.relative_to(PACKAGE).as_posix(): path for path in modules() if room(path) == name}


@pytest.mark.parametrize("own", ROOMS)
def test_arrows_go_one_way(own: str) -> None:
    wrong = {}
    for where, path in files_of(own).items():
        targets = {
            name.split(".")[1] if "." in name else "__init__"
            for name in imports(path)
            if name.split(".")[0] == "blip2sweep"
        }
        base = set(BASE) if own not in BASE else set()
        if own not in DOORS and (beyond := targets - {own, "__init__"} - ALLOWED[own] - base):
            wrong[where] = beyond
    assert not wrong


@pytest.mark.parametrize("own", ROOMS)
def test_hydra_and_torch_stay_in_their_rooms(own: str) -> None:
    wrong = {}
    for where, path in files_of(own).items():
        libraries = {name.split(".")[0] for name in imports(path)}
        refused = {"hydra", "omegaconf"} if own not in HYDRA else set()
        if where.startswith(NO_TORCH) or not (where.startswith(TORCH) or where in TORCH_FILES):
            refused |= {"torch", "transformers"}
        if libraries & refused:
            wrong[where] = libraries & refused
    assert not wrong


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("blip2sweep.__main__", {"torch", "pandas", "hydra", "matplotlib", "wandb"}),
        ("blip2sweep.cli", {"torch", "pandas", "hydra", "matplotlib", "wandb", "numpy"}),
        ("hydra_plugins.blip2sweep.launchers", {"torch", "transformers", "matplotlib", "wandb", "pandas", "pyarrow"}),
        ("blip2sweep.planning.plan", {"torch", "transformers", "hydra", "pandas", "wandb"}),
        ("blip2sweep.workers.worker", {"torch", "hydra", "omegaconf", "pandas", "pyarrow", "wandb", "rich"}),
        pytest.param(
            "blip2sweep.backends.torch.backend", {"hydra", "omegaconf", "pandas", "pyarrow", "wandb", "rich"},
            marks=pytest.mark.thorough,
        ),
    ],
)  # fmt: skip
def test_heavy_libraries_come_late(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(' '.join(sorted({absent!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
