"""DESIGN's arrows: config → anatomy → recipe → cell → sweep, one way; Hydra and torch only where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "blip2sweep"

# What each room may import of ours. A room is a file or folder directly below blip2sweep/.
BASE = {
    "errors", "canonical", "store", "memory", "patience", "printing", "processes", "quoting", "remarks", "__init__",
}  # fmt: skip
ALLOWED = {
    "errors": set(),
    "canonical": set(),
    "memory": set(),
    "patience": {"printing"},
    "printing": set(),
    "quoting": {"errors"},
    "store": {"errors", "processes"},
    "processes": set(),
    "remarks": {"printing"},
    "lines": {"store"},
    "attempts": set(),
    "journal": BASE | {"lines"},
    "architecture": {"errors"},
    "anatomy_config": {"errors"},
    "anatomy": BASE | {"anatomy_config", "architecture"},
    "dtypes": BASE | {"anatomy", "architecture"},
    "methods": set(),
    "recipe": BASE | {"anatomy", "architecture", "methods"},
    "weights": BASE,
    "rows": BASE,
    "checkpoints": BASE | {"architecture", "cache"},
    "tasks": BASE | {"cache", "metrics", "rows", "weights"},
    "metrics": BASE | {"rows"},
    "cell": BASE | {"anatomy", "architecture", "checkpoints", "dtypes", "recipe", "methods", "tasks", "weights"},
    "memo": BASE,
    "cache": BASE,
    "models": BASE | {"anatomy", "architecture", "checkpoints", "dtypes", "recipe", "methods", "memo"},
    "stages": BASE | {"models", "rows", "tasks", "memo", "cache", "recipe"},
    "packed": BASE | {"methods", "models", "recipe", "stages", "tasks"},
    "propagation": BASE,
    "calibration": BASE
    | {"anatomy", "architecture", "cache", "memo", "methods", "models", "recipe", "stages", "tasks"},
    "ledger": BASE | {"attempts", "journal", "lines"},
    "provenance": BASE | {"models"},
    "records": BASE | {"metrics", "rows"},
    "scoring": BASE | {"metrics", "records", "rows", "tasks"},
    "measured": BASE | {"metrics", "records"},
    "samples": BASE | {"measured", "metrics", "records", "rows"},
    "beside": BASE | {"ledger", "measured", "samples"},
    "scoring_process": BASE | {"beside", "records", "scoring", "tasks"},
    "table": BASE | {"cell", "ledger", "measured", "metrics", "records"},
    "config": BASE | {"anatomy"},
    "analysis": BASE | {"anatomy", "methods", "metrics", "recipe", "records", "rows"},
    "importing": BASE
    | {"anatomy", "cell", "collect", "journal", "lines", "methods", "metrics", "recipe", "records", "sweep"},
    "report": BASE
    | {
        "login",
        "sweep",
        "table",
        "analysis",
        "architecture",
        "doctor",
        "anatomy",
        "collect",
        "importing",
        "metrics",
        "records",
        "rows",
        "tasks",
    },
    "doctor": BASE | {"login", "cell", "checkpoints", "metrics", "tasks", "weights"},
    "anchors": BASE,
    "login": set(),
}
HYDRA = {"config", "__main__"}
TORCH = {"calibration", "memo", "methods", "models", "stages"}
TORCH_FILES = {"packed.py", "sweep/runner.py"}


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


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_go_one_way(path: Path) -> None:
    own = room(path)
    targets = {
        name.split(".")[1] if "." in name else "__init__"
        for name in imports(path)
        if name.split(".")[0] == "blip2sweep"
    }
    if own in ALLOWED:
        assert targets - {own} <= ALLOWED[own], f"{own} imports {targets - ALLOWED[own] - {own}}"
    if own not in ("__main__", "cli", "config"):
        assert "config" not in targets


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_hydra_and_torch_stay_in_their_rooms(path: Path) -> None:
    libraries = {name.split(".")[0] for name in imports(path)}
    where = str(path.relative_to(PACKAGE))
    if room(path) not in HYDRA:
        assert not libraries & {"hydra", "omegaconf"}, where
    if room(path) not in TORCH and where not in TORCH_FILES:
        assert not libraries & {"torch", "transformers"}, where


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("blip2sweep.__main__", {"torch", "pandas", "hydra", "matplotlib", "wandb"}),
        ("blip2sweep.cli", {"torch", "pandas", "hydra", "matplotlib", "wandb", "numpy"}),
        ("hydra_plugins.blip2sweep.launchers", {"torch", "transformers", "matplotlib", "wandb", "pandas", "pyarrow"}),
        ("blip2sweep.sweep.plan", {"torch", "transformers", "hydra", "pandas", "wandb"}),
        ("blip2sweep.sweep.worker", {"torch", "hydra", "omegaconf", "pandas", "pyarrow", "wandb", "rich"}),
        ("blip2sweep.sweep.runner", {"hydra", "omegaconf", "pandas", "pyarrow", "wandb", "rich"}),
    ],
)  # fmt: skip
def test_heavy_libraries_come_late(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(' '.join(sorted({absent!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
