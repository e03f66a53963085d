"""docs/extending.md, followed word by word: its files are written, its commands run, and what it shows is what they print."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.image_text.adapter import CHOICES, Adapter
from blip2sweep.models.image_text.chat import IMAGE, USER
from blip2sweep.wire.model_section import ModelSection
from tests.outside.page import follow, lines, plain, shown, write, written
from tests.outside.site import PACKAGE, POINTS, TOYS
from tests.outside.typed import workers_here

pytestmark = pytest.mark.thorough

PAGE = Path(__file__).parent.parent.parent / "docs" / "extending.md"
MODULES = {"toy_shift": "method", "scale": "step", "parrot": "backend"}


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(PAGE, tmp_path))
    for command, text in shown(PAGE):
        with workers_here():
            said = plain("".join(follow(line, tmp_path) for line in lines(command)))
        for line in plain(text):
            assert line in said, (command, line, said)


@pytest.mark.parametrize("path", [p for p in written(PAGE) if p.endswith(".py")])
def test_its_modules_are_those_that_other_tests_use(path: str) -> None:
    group, name = Path(path).parent.name, Path(path).stem
    toy = MODULES.get(name) or {"tasks": "task", "architectures": "architecture"}[group]
    assert plain(written(PAGE)[path]) == plain((TOYS / f"{toy}.py").read_text())


def test_its_package_has_the_entry_points_that_are_tested() -> None:
    text = written(PAGE)["pyproject.toml"]
    for group, own in POINTS.items():
        assert f'[project.entry-points."blip2sweep.{group}"]\n' in text
        name, module = next(iter(own.items()))
        assert f'{name} = "{PACKAGE}.{module}"' in text


def test_its_model_of_the_adapter_can_be_planned() -> None:
    """The YAML has the form of a model, its blocks that reach nothing are unread, and its adapter's entries are known."""
    model = yaml.safe_load(written(PAGE)["site/model/mine.yaml"])
    assert set(model) <= set(ModelSection.__annotations__)
    found = anatomy(model)
    assert [(p.n_blocks, p.stacks[0].unread) for p in found.parts.values()] == [(4, 1), (2, 0)]
    assert [len(p.folds) for p in found.parts.values()] == [1, 1]
    assert set(found.not_addressable) == {"connector"}
    assert Adapter.of(model).image_token == "<image>"
    assert (IMAGE in model["chat"], USER in model["chat"]) == (True, True)
    for entry in (*CHOICES, "image_token"):
        assert f"`adapter.{entry}`" in PAGE.read_text()


def test_lines_are_short() -> None:
    assert max(map(len, PAGE.read_text().splitlines())) <= 100
