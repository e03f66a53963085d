"""Names that one model's YAML gives its parts stand in no code but that of models and of other people's tables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OWN = {"vit", "qformer", "llm"}
MAY = ("blip2sweep/models/", "blip2sweep/importing/")
OF_OTHERS = re.compile("(?i)tensorrt[-_]llm|llm_int8_skip_modules")  # a product, an argument of transformers
NAMES = ("name", "id", "attr", "arg", "asname", "module", "rest")  # fields of a syntax tree that hold identifiers


def sources(*endings: str) -> list[Path]:
    found = [p for room in ("blip2sweep", "hydra_plugins") for e in endings for p in (ROOT / room).rglob(f"*{e}")]
    return sorted(p for p in found if "assets" not in p.parts)


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def words(text: str) -> set[str]:
    """Of a text or an identifier, in small letters: `bits_vit` has two."""
    return {w.lower() for w in re.findall("[A-Za-z]+", OF_OTHERS.sub("", text))}


def texts(path: Path) -> Iterator[str]:
    """Strings, docstrings and identifiers of Python; comments too, since people read them alike."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        yield from (str(getattr(node, f)) for f in NAMES if isinstance(getattr(node, f, None), str))
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names
    yield from re.findall(r"#.*", source)


def rooms(paths: list[Path]) -> dict[str, list[Path]]:
    """Files by the folder they lie in."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.parent.relative_to(ROOT).as_posix(), []).append(path)
    return found


CODE = rooms(sources(".py"))
PAGES = sources(".js", ".html")
FILES = rooms(sorted((ROOT / "conf").rglob("*.yaml")))


@pytest.mark.parametrize("folder", [name for name in CODE if not f"{name}/".startswith(MAY)])
def test_no_part_is_spelled_in_code(folder: str) -> None:
    spelled = {where(path): {w for text in texts(path) for w in words(text)} & OWN for path in CODE[folder]}
    assert not {path: own for path, own in spelled.items() if own}


@pytest.mark.parametrize("folder", CODE)
def test_nothing_asks_for_a_family(folder: str) -> None:
    assert not [where(path) for path in CODE[folder] if "family ==" in path.read_text()]


@pytest.mark.parametrize("path", PAGES, ids=where)
def test_no_part_is_spelled_in_the_page(path: Path) -> None:
    assert not words(path.read_text()) & OWN


@pytest.mark.parametrize("folder", FILES)
def test_only_model_files_spell_parts(folder: str) -> None:
    spelled = {where(path): words(path.read_text()) & OWN for path in FILES[folder] if path.parent.name != "model"}
    assert not {path: own for path, own in spelled.items() if own}


def test_the_walk_sees_strings_identifiers_and_docstrings(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(
        'def of_vit(llm_bits: int) -> str:\n    """`qformer`."""\n    return f"{llm_bits} a"\n'
    )
    assert {w for text in texts(tmp_path / "x.py") for w in words(text)} >= OWN
