"""Finding checkpoints and reading what they are, without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from blip2sweep import weights
from blip2sweep.errors import UserError
from blip2sweep.weights import inspect, locate
from tests.checkpoints import ROOT, TINY, conf

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "copy"))


def fails(match: str) -> pytest.RaisesExc:
    """A UserError of one line."""
    return pytest.raises(UserError, match=match, check=lambda error: "\n" not in str(error))


def test_neither_weights_nor_tasks_import_torch() -> None:
    code = (
        "import sys, blip2sweep.weights, blip2sweep.tasks; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ---- locate


def test_the_shipped_model_is_found_in_the_package() -> None:
    assert locate(conf("model/tiny")) == (TINY, None)


def test_a_folder_is_found_and_a_missing_one_named(tmp_path: Path) -> None:
    assert locate({"path": str(tmp_path), "hub_id": "a/b"}) == (tmp_path, None)
    with fails(r"model.path=.*nowhere: no such folder"):
        locate({"path": str(tmp_path / "nowhere")})
    with fails("neither path nor hub_id"):
        locate({"name": "x"})


def test_a_cached_snapshot_is_found_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--some--model"
    shutil.copytree(TINY, repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    found = locate({"hub_id": "some/model"})
    assert found == (repo / "snapshots" / COMMIT, COMMIT)
    assert inspect(found.folder).fingerprint == inspect(TINY).fingerprint


def test_a_model_that_is_not_cached_names_the_cache_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with fails(f"{tmp_path}.*hf download some/model`"):
        locate({"hub_id": "some/model"})


# ---- inspect


def test_the_numbers_are_those_of_the_tensors() -> None:
    tensors = load_file(TINY / "model.safetensors")
    found = inspect(TINY)
    assert found.tensors == {name: tuple(x.shape) for name, x in tensors.items()}
    assert found.params == sum(x.numel() for x in tensors.values())
    assert found.dtypes == ("BF16",)


def test_tied_weights_count_once_and_integers_not_at_all(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    embedding, head = conf("model/tiny")["tied"][0]
    tensors[head] = tensors[embedding].clone()
    tensors["language_model.position_ids"] = tensors[embedding].long()
    save_file(tensors, copy / "model.safetensors")
    assert inspect(copy, conf("model/tiny")["tied"]).params == inspect(TINY).params
    assert inspect(copy).params == inspect(TINY).params + tensors[head].numel()


def test_shards_are_read_through_the_index(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
    for i, half in enumerate(halves):
        save_file(half, copy / f"model-{i}.safetensors")
    index = {name: f"model-{i}.safetensors" for i, half in enumerate(halves) for name in half}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (copy / "model.safetensors").unlink()
    assert (inspect(copy).params, inspect(copy).tensors) == (inspect(TINY).params, inspect(TINY).tensors)
    for name in ("model-9.safetensors", "../copy/model-0.safetensors"):
        (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
        with fails("names the shard"):
            inspect(copy)
    (copy / "model.safetensors.index.json").write_text("{")
    with fails("not a safetensors index"):
        inspect(copy)


def flip_a_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("whole_file", [weights.WHOLE_FILE, 0], ids=["small", "large"])
def test_the_fingerprint_follows_content_and_not_the_place(
    copy: Path, monkeypatch: pytest.MonkeyPatch, whole_file: int
) -> None:
    monkeypatch.setattr(weights, "WHOLE_FILE", whole_file)
    before = inspect(TINY).fingerprint
    (copy / "README.md").write_text("about")
    assert inspect(copy).fingerprint == before
    flip_a_byte(copy / "model.safetensors", -8)  # inside the last tensor: same header, same size
    assert inspect(copy).fingerprint != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "processor_config.json"])
def test_the_fingerprint_follows_the_files_that_change_predictions(copy: Path, name: str) -> None:
    (copy / name).write_text((copy / name).read_text() + " ")
    assert inspect(copy).fingerprint != inspect(TINY).fingerprint


def test_a_checkpoint_of_13_gb_takes_a_moment(tmp_path: Path) -> None:
    shape, size = [4096, 1350], 4096 * 1350 * 2
    header = {
        f"t{i}": {"dtype": "F16", "shape": shape, "data_offsets": [i * size, (i + 1) * size]} for i in range(1200)
    }
    raw = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        os.truncate(file.fileno(), 8 + len(raw) + 1200 * size)
    start = time.perf_counter()
    assert inspect(tmp_path).params == 1200 * 4096 * 1350
    assert time.perf_counter() - start < 2


def test_pickles_and_damaged_files_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes((TINY / "model.safetensors").read_bytes()[:-100])
    with fails("truncated"):
        inspect(copy)
    (copy / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with fails("not a safetensors file"):
        inspect(copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with fails(r"no model.safetensors \(found: pytorch_model.bin\).*never pickles"):
        inspect(copy)
