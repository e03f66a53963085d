"""Packages with code from outside: one that pip installs, and others of which only the metadata are written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOYS = Path(__file__).parent.parent / "toy"
PACKAGE = "blip2sweep_toys"
POINTS = {
    "architectures": {"toy": "architecture"},
    "tasks": {"toy": "task", "toy_choose": "task", "toy_match": "matching"},
    "compression": {"scale": "step"},
    "methods": {"toy_shift": "method"},
    "backends": {"parrot": "backend"},
}


def write_package(folder: Path, version: str = "1.0") -> Path:
    """The source of a package with one of each, as a user would write it."""
    (folder / PACKAGE).mkdir(parents=True)
    (folder / PACKAGE / "__init__.py").touch()
    for name in {m for own in POINTS.values() for m in own.values()}:
        (folder / PACKAGE / f"{name}.py").write_text((TOYS / f"{name}.py").read_text().replace("tests.toy", PACKAGE))
    lines = ["[build-system]", 'requires = ["setuptools"]', 'build-backend = "setuptools.build_meta"']
    lines += ["[project]", 'name = "blip2sweep-toys"', f'version = "{version}"']
    for group, own in POINTS.items():
        lines += [f'[project.entry-points."blip2sweep.{group}"]']
        lines += [f'{name} = "{PACKAGE}.{module}"' for name, module in own.items()]
    (folder / "pyproject.toml").write_text("\n".join([*lines, "[tool.setuptools]", f'packages = ["{PACKAGE}"]']))
    return folder


def install(source: Path, site: Path) -> Path:
    words = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *words, str(source)], check=True, cwd=source)
    return site


def pretend(site: Path, package: str, points: dict[str, dict[str, str]], version: str = "1.0") -> Path:
    """A package of which nothing is there but what says that it is installed."""
    info = site / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    sections = [f"[blip2sweep.{g}]\n" + "\n".join(f"{n} = {v}" for n, v in own.items()) for g, own in points.items()]
    (info / "entry_points.txt").write_text("\n\n".join(sections) + "\n")
    return site
