"""Which words of a command say what cells there are: they name a screening, and guard a sweep's name."""

from __future__ import annotations

import pytest

from blip2sweep.commands.cell_words import cell_overrides

GRID = "part=vit quant.bits=2,4"


@pytest.mark.parametrize("flags", ["--config-name={}", "--config-name {}", "-cn {}", "-cn={}", "--config-n={}"])
def test_another_config_is_another_grid(flags: str) -> None:
    assert cell_overrides(f"{flags.format('a')} -m {GRID}") == ["--config-name=a", *GRID.split()]


def test_so_is_another_folder() -> None:
    found = [cell_overrides(f"{flag}={name} {GRID}") for flag in ("-cd", "-cp", "hydra.searchpath") for name in "ab"]
    assert len({*map(str, found)}) == 6
    assert cell_overrides(f"--config-dir 'my own' {GRID}") == cell_overrides(f"-cd='my own' {GRID}")
    assert cell_overrides(f"{GRID} --config-dir") == [*GRID.split(), "--config-dir="]


def test_a_screening_is_of_the_cells_of_its_grid() -> None:
    assert cell_overrides(f"screen {GRID}") == cell_overrides(f"-m {GRID}") == GRID.split()


def test_other_flags_change_no_cell() -> None:
    words = f"-m --multirun {GRID} hydra/launcher=slurm rerun=[abc] output_dir=o"
    assert cell_overrides(words) == GRID.split()
