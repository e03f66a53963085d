"""The wheel: conf, plugins and the tiny model are in it, and every folder of code is named in pyproject."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).resolve().parent.parent


def test_every_folder_of_code_is_a_package() -> None:
    named = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {str(p.parent.relative_to(ROOT)).replace("/", ".") for p in (ROOT / "blip2sweep").rglob("*.py")}
    assert found | {"blip2sweep.assets", "blip2sweep.conf", "hydra_plugins.blip2sweep"} == named | {"blip2sweep.assets"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files git knows, as from a fresh clone."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(out), str(source)]
    subprocess.run(command, check=True, cwd=out)
    return next(out.glob("*.whl"))


def test_what_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "blip2sweep/py.typed", "blip2sweep/conf/config.yaml", "blip2sweep/conf/__init__.py", "blip2sweep/conf/model/tiny.yaml",
        "blip2sweep/conf/hydra/launcher/local.yaml", "blip2sweep/conf/study/card.yaml",
        "hydra_plugins/blip2sweep/launchers.py", "blip2sweep/assets/tiny/model.safetensors",
        "blip2sweep/assets/tiny/README.md", "blip2sweep/assets/tiny-llava/model.safetensors",
        "blip2sweep/assets/tiny-llava/chat_template.jinja", "blip2sweep/assets/shapes/annotations/captions_val2014.json",
        "blip2sweep/assets/shapes/val2014/COCO_val2014_000000000001.jpg",
    ):  # fmt: skip
        assert needed in names, needed
    assert "hydra_plugins/__init__.py" not in names
    assert not [n for n in names if n.startswith(("tests/", "scripts/", "conf/"))]
    assert {str(p.relative_to(ROOT)) for p in (ROOT / "blip2sweep").rglob("*.py")} <= names


def test_it_works_from_another_folder_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Unpacked beside the installed libraries, with the checkout out of reach."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    # -I leaves out the working folder and PYTHONPATH; the checkout's editable finder is taken out by hand.
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()];"
        f"sys.path = [{str(site)!r}] + [p for p in sys.path if 'editable' not in p];"
        f"import os; os.environ['PYTHONPATH'] = {str(site)!r};"
        "import blip2sweep; assert blip2sweep.__file__.startswith(sys.path[0]), blip2sweep.__file__;"
        "from blip2sweep.__main__ import main; main(['task.limit=4', 'quant.bits=8', 'part=vit'])"
    )
    run = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "outputs" / "table.parquet").exists()
    assert str(ROOT) not in (tmp_path / "outputs" / "journals").iterdir().__next__().read_text()
