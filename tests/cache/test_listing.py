"""What transformers finds in its own folder is read once for a release."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from blip2sweep.cache import listing
from blip2sweep.cache.listing import Structure, remembered

# As transformers has it: folders by name, modules by what must be installed.
FOUND: Structure = {
    "blip_2": {
        frozenset(): {"configuration_blip_2": {"Blip2Config", "Blip2VisionConfig"}},
        frozenset({"torch", "vision"}): {"modeling_blip_2": {"Blip2Model"}},
    },
    "empty": {},
    frozenset({"tokenizers"}): {"auto": set()},
}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLIP2SWEEP_CACHE_DIR", str(tmp_path / "store"))
    (folder := tmp_path / "transformers" / listing.MODELS).mkdir(parents=True)
    (folder / "__init__.py").touch()
    return folder


@pytest.fixture
def read() -> list[str]:
    """The folders that were read."""
    return []


def asked(read: list[str], path: Path, release: str = "5.23.0") -> Structure:
    """As in a process of its own."""
    return remembered(lambda path: (read.append(str(path)), FOUND)[1], release)(str(path))


def test_a_release_is_read_once_and_found_as_it_was(models: Path, read: list[str]) -> None:
    first, again = asked(read, models), asked(read, models / "__init__.py")  # the folder by another name
    assert first == again == FOUND
    assert list(again) == list(FOUND)
    assert read == [str(models)]


def test_what_is_handed_out_may_be_changed(models: Path, read: list[str]) -> None:
    asked(read, models)["blip_2"].clear()
    assert asked(read, models) == FOUND


@pytest.mark.parametrize("release", ["5.24.0", "5.24.0.dev0"])
def test_another_release_is_read(models: Path, read: list[str], release: str) -> None:
    asked(read, models)
    asked(read, models, release)
    asked(read, models, release)
    assert len(read) == (3 if "dev" in release else 2)


def test_a_changed_folder_and_a_damaged_entry_are_read_anew(models: Path, read: list[str], tmp_path: Path) -> None:
    asked(read, models)
    (models / "newer").mkdir()
    asked(read, models)
    for entry in (tmp_path / "store" / listing.STORE).iterdir():
        entry.write_bytes(entry.read_bytes()[:-1])
    assert asked(read, models) == FOUND
    assert len(read) == 3


def test_other_folders_are_not_remembered(models: Path, read: list[str]) -> None:
    asked(read, models.parent)
    asked(read, models.parent)
    assert len(read) == 2


def test_the_installed_release_is_found_as_it_reads_itself(models: Path) -> None:
    """Its function is the one that is put in place of, and some of its own folders survive the store."""
    from transformers.utils import import_utils

    listed = getattr(import_utils, listing.FUNCTION)
    for name in ("auto", "blip_2", "llava", "opt", "t5"):
        (models / name).symlink_to(Path(import_utils.__file__).parents[1] / "models" / name)
    asked = remembered(listed, "5.23.0")
    asked(str(models))
    assert asked(str(models)) == listed(str(models))
    assert {"configuration_opt"} == set(asked(str(models))["opt"][frozenset()])


def test_the_function_is_put_in_place_while_inside(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it goes by the version of the package that is imported, whichever other one is installed."""
    package = tmp_path / "somebody" / "utils"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("__version__ = '1.2'")
    (package / "import_utils.py").write_text(f"def {listing.FUNCTION}(path): return {{'asked': {{}}}}")
    monkeypatch.setattr(listing, "MODULE", "somebody.utils.import_utils")
    monkeypatch.syspath_prepend(tmp_path)
    releases = list[str]()
    monkeypatch.setattr(listing, "remembered", lambda listed, release: (releases.append(release), listed)[1])
    finders = list(sys.meta_path)
    with listing.listed_before():
        module = importlib.import_module("somebody.utils.import_utils")
    assert sys.meta_path == finders
    assert releases == ["1.2"]
    assert getattr(module, listing.FUNCTION)("") == {"asked": {}}
    for name in ("", ".utils", ".utils.import_utils"):
        del sys.modules[f"somebody{name}"]


def test_a_file_that_is_replaced_is_read(models: Path, read: list[str]) -> None:
    """As by pip or an editor, in the folder of one model, whose own time alone tells."""
    (models / "opt").mkdir()
    (file := models / "opt" / "modeling_opt.py").touch()
    asked(read, models)
    (newer := file.with_name("newer")).touch()
    newer.replace(file)
    os.utime(models / "opt", ns=(1, 1))  # whatever a clock's step is
    asked(read, models)
    assert len(read) == 2


def test_a_store_that_cannot_be_written_is_no_store(
    models: Path, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BLIP2SWEEP_CACHE_DIR", str(tmp_path / "file"))
    assert asked(read, models) == asked(read, models) == FOUND
    assert len(read) == 2
