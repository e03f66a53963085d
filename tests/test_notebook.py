"""docs/decision.ipynb, executed in a kernel of its own: it ends with a decision, and with what is taken away.

Its stored outputs are those of such a run. `python -m tests.test_notebook` makes them anew.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "docs" / "decision.ipynb"


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in `folder`. Cells that install are left out. Raises CellExecutionError."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # where `!blip2sweep` is
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "BLIP2SWEEP_OUTPUT_DIR": "outputs",
        **{name: str(folder / "jupyter") for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")},
    }
    notebook = nbformat.read(NOTEBOOK, 4)  # type: ignore[no-untyped-call]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        place = {"metadata": {"path": str(folder)}}
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place, record_timing=False)
        return client.execute()


def texts(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """{the first line of a cell: what it shows, as text}."""
    found = {}
    for cell in (c for c in notebook.cells if c.cell_type == "code"):
        outputs = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
        found[cell.source.splitlines()[0]] = "\n".join(outputs)
    return found


def told(shown: dict[str, str], beginning: str) -> str:
    (text,) = [text for line, text in shown.items() if line.startswith(beginning)]
    return text


@pytest.mark.thorough
def test_it_goes_from_nothing_to_a_decision(tmp_path: Path) -> None:
    shown = texts(executed(tmp_path))
    assert told(shown, "SET =") == "<SweepPlan: 13 cells (1 baseline), 13 to run>"
    assert "13/13" in told(shown, "table = blip2sweep.sweep")  # the bar, which is one output that changed
    assert "rtn 4 bits" in told(shown, "!blip2sweep recommend")
    assert "ship it" in told(shown, "row = blip2sweep.evaluate")
    assert "load.py" in told(shown, "!rm -rf")
    assert "the same captions: 20 of 20" in told(shown, "%%capture")


def test_its_stored_outputs_are_of_a_whole_run_and_of_no_machine() -> None:
    text = NOTEBOOK.read_text()
    stored = texts(nbformat.read(NOTEBOOK, 4))  # type: ignore[no-untyped-call]
    assert "the same captions: 20 of 20" in told(stored, "%%capture")
    assert not any(
        path in text for path in ("/home/", "/root/", "/tmp/", "site-packages", str(Path(__file__).parents[1]))
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(Path(folder)), NOTEBOOK)  # type: ignore[no-untyped-call]
