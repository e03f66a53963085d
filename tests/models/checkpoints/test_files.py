"""Which files a checkpoint is, what their headers may say, and what is in them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2sweep.cache import disk as cache
from blip2sweep.models.checkpoints import content, folder, inspect, weight_files
from blip2sweep.models.checkpoints.headers import Header, read_header
from tests.checkpoints import TINY, conf, edit_tensors, fails

FC1 = "vision_model.encoder.layers.0.mlp.fc1.weight"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.USER, str(tmp_path / "user"))
    return tmp_path / "user"


# ---- the numbers


def test_the_numbers_are_those_of_the_tensors() -> None:
    tensors = load_file(TINY / "model.safetensors")
    found = inspect(TINY)
    assert {name: t.shape for name, t in found.tensors.items()} == {name: tuple(x.shape) for name, x in tensors.items()}
    assert found.params == sum(x.numel() for x in tensors.values())
    assert found.dtypes == ("BF16",)


def test_tied_weights_count_once_and_integers_not_at_all(copy: Path) -> None:
    embedding, head = conf("model/tiny")["tied"][0]

    def again(tensors: dict[str, torch.Tensor]) -> None:
        tensors[head] = tensors[embedding].clone()
        tensors["language_model.position_ids"] = tensors[embedding].long()

    edit_tensors(copy, again)
    assert inspect(copy, conf("model/tiny")["tied"]).params == inspect(TINY).params
    assert inspect(copy).params == inspect(TINY).params + inspect(TINY).tensors[embedding].shape[0] * 64


# ---- headers


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file of this header (an object, or its bytes) and data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(start: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


LYING = {
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "a and b overlap"),
    "the same bytes": ({"a": entry(0, 8), "b": entry(0, 8)}, 8, "a and b overlap"),
    "hole": ({"a": entry(0, 4), "b": entry(8, 12)}, 12, "leave 4 bytes out"),
    "hole before": ({"a": entry(4, 8)}, 8, "the beginning and a leave 4 bytes out"),
    "more data": ({"a": entry(0, 4)}, 8, "not all of it belongs to a tensor"),
    "less data": ({"a": entry(0, 8)}, 4, "truncated"),
    "no tensor, data": ({}, 4, "not all of it belongs to a tensor"),
    "negative offset": ({"a": entry(-4, 4)}, 8, "no first and last byte"),
    "backwards": ({"a": {"dtype": "F32", "shape": [0], "data_offsets": [4, 0]}}, 4, "no first and last byte"),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, 8, "no first and last byte"),
    "other size": ({"a": entry(0, 8, [3])}, 8, "are not the bytes of F32 [3]"),
    "huge shape": ({"a": entry(0, 8, [2**62, 2**62])}, 8, "are not the bytes"),
    "beyond 64 bits": ({"a": entry(0, 8, [2**64])}, 8, "no list of sizes"),
    "negative shape": ({"a": entry(0, 8, [-1, -2])}, 8, "no list of sizes"),
    "float shape": ({"a": entry(0, 8, [2.0])}, 8, "no list of sizes"),
    "true shape": ({"a": entry(0, 4, [True])}, 4, "no list of sizes"),
    "text shape": ({"a": entry(0, 8, ["2"])}, 8, "no list of sizes"),
    "true offset": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [False, True]}}, 1, "no first and last byte"),
    "unknown dtype": ({"a": entry(0, 8, [2], "F99")}, 8, "dtype 'F99' is unknown"),
    "dtype a list": ({"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}, 8, "is unknown"),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, 8, "no object with dtype"),
    "entry a list": ({"a": [1]}, 8, "no object with dtype"),
    "metadata numbers": ({"__metadata__": {"a": 1}, "a": entry(0, 8)}, 8, "__metadata__"),
    "a list": ([], 0, "no object"),
    "twice": (b'{"a":%b,"a":%b}' % ((json.dumps(entry(0, 4)).encode(),) * 2), 4, "'a' is there twice"),
    "shape twice": (b'{"a":{"dtype":"F32","shape":[1],"shape":[2],"data_offsets":[0,8]}}', 8, "'shape' is there twice"),
    "not UTF-8": (b'{"\xff":1}', 0, "UnicodeDecodeError"),
    "deep": (b'{"a":' + b"[" * 100_000, 0, "RecursionError"),
    "digits": (b'{"a":{"dtype":"F32","shape":[%b],"data_offsets":[0,4]}}' % (b"1" * 5000), 4, "ValueError"),
    "NaN": (b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', 4, "NaN is no JSON"),
    "cut": (b'{"a":', 0, "JSONDecodeError"),
    "escape": ({"\x1b[31m\u202e": entry(0, 8, [3])}, 8, "tensor \\x1b[31m\\u202e"),
}  # fmt: skip


@pytest.mark.parametrize(("header", "size", "told"), LYING.values(), ids=LYING)
def test_a_header_that_is_no_exact_description_is_refused(tmp_path: Path, header: Any, size: int, told: str) -> None:
    path = write(tmp_path / "model.safetensors", header, bytes(size))
    with fails("model.safetensors: not a safetensors file", told):
        inspect(tmp_path)
    assert path.stat().st_size  # and the file is left as it is


@pytest.mark.parametrize("length", [0, 7, 10**9, 2**63, 2**64 - 1])
def test_a_header_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    write(tmp_path / "model.safetensors", {"a": entry(0, 4)}, bytes(4), length)
    with fails("not a safetensors file"):
        inspect(tmp_path)


@pytest.mark.parametrize("data", [b"", b"1234567", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_safetensors_file_at_all_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with fails("not a safetensors file"):
        inspect(tmp_path)


def test_all_mistakes_of_a_header_are_told_at_once_and_many_counted(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {f"t{i}": entry(0, 8, [3]) for i in range(9)}, bytes(8))
    with fails("tensor t0", "tensor t1", "tensor t2", "and 6 more"):
        inspect(tmp_path)


def test_what_the_format_allows_is_taken(tmp_path: Path) -> None:
    header = {
        "second": entry(4, 8), "first": entry(0, 4, []), "empty": entry(8, 8, [0, 7]), "half": entry(8, 9, [2], "F4"),
        "__metadata__": {"format": "pt"},
    }  # fmt: skip
    raw = json.dumps(header).encode() + b"     "
    found = read_header(write(tmp_path / "x.safetensors", raw, bytes(9)))
    assert {name: t.shape for name, t in found.tensors.items()} == {
        "second": (1,), "first": (), "empty": (0, 7), "half": (2,),
    }  # fmt: skip


# ---- shards


def in_shards(copy: Path) -> dict[str, str]:
    """Split a folder's weights into two shards. Returns the index's map."""
    tensors = load_file(copy / "model.safetensors")
    halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
    for i, half in enumerate(halves):
        save_file(half, copy / f"model-{i}.safetensors")
    (copy / "model.safetensors").unlink()
    names = {name: f"model-{i}.safetensors" for i, half in enumerate(halves) for name in half}
    index(copy, names)
    return names


def index(copy: Path, names: Any) -> None:
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def test_shards_are_read_through_the_index(copy: Path) -> None:
    in_shards(copy)
    shapes = [{name: t.shape for name, t in inspect(f).tensors.items()} for f in (copy, TINY)]
    assert shapes[0] == shapes[1]
    assert inspect(copy).params == inspect(TINY).params


def test_an_index_that_disagrees_with_its_shards_is_refused(copy: Path) -> None:
    names = in_shards(copy)
    index(copy, {**names, "x": "model-0.safetensors"})
    with fails("its shards disagree", "x is not in model-0.safetensors"):
        inspect(copy)
    index(copy, {name: shard for name, shard in names.items() if name != FC1})
    with fails(f"{FC1} is in", "the index says nothing"):
        inspect(copy)
    shard = copy / names[FC1]
    other = copy / "model-0.safetensors" if shard.name == "model-1.safetensors" else copy / "model-1.safetensors"
    save_file({**load_file(other), FC1: load_file(shard)[FC1]}, other)
    index(copy, names)
    with fails(f"{FC1} is in {other.name}, the index says {shard.name}"):
        inspect(copy)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not a safetensors index"),
        ("[]", "not a safetensors index"),
        ("[" * 100_000, "RecursionError"),
        ('{"weight_map": []}', "no object of file names"),
        ('{"weight_map": {"a": 1}}', "no object of file names"),
        ('{"weight_map": {"a": "model-0.safetensors", "a": "model-1.safetensors"}}', "'a' is there twice"),
        ('{"weight_map": {"a": "../copy/model-0.safetensors"}}', "names the shard ../copy"),
        ('{"weight_map": {"a": "model-8.safetensors", "b": "model-9.safetensors"}}', "model-9.safetensors"),
    ],
)  # fmt: skip
def test_a_broken_index_is_refused(copy: Path, text: str, told: str) -> None:
    in_shards(copy)
    (copy / "model.safetensors.index.json").write_text(text)
    with fails(told):
        inspect(copy)


# ---- what is there instead, and beside


def moved(*names: str) -> Callable[[Path], None]:
    """The weights under other names."""

    def change(copy: Path) -> None:
        for name in names:
            shutil.copy(copy / "model.safetensors", copy / name)
        (copy / "model.safetensors").unlink()

    return change


def link_to_nothing(name: str) -> Callable[[Path], None]:
    def change(copy: Path) -> None:
        (copy / name).unlink()
        (copy / name).symlink_to(f"../../blobs/{name}")

    return change


def adapter(alone: bool) -> Callable[[Path], None]:
    def change(copy: Path) -> None:
        (copy / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        save_file({"lora_A.weight": torch.ones(2, 64)}, copy / "adapter_model.safetensors")
        if alone:
            (copy / "model.safetensors").unlink()

    return change


INSTEAD = {
    "nothing": (lambda c: (c / "model.safetensors").unlink(), ("no weights at all",)),
    "pickle": (moved("pytorch_model.bin"), ("pytorch_model.bin", "never pickles")),
    "pickle's variant": (moved("pytorch_model.fp16.bin"), ("pytorch_model.fp16.bin", "never pickles")),
    "LAVIS": (moved("blip2_pretrained.pth"), ("blip2_pretrained.pth", "never pickles")),
    "variant": (moved("model.fp16.safetensors"), ("only a variant (model.fp16.safetensors)", "right: save it without")),
    "shards of a variant": (moved("model.fp16-00001-of-00002.safetensors"), ("only a variant",)),
    "shards without index": (moved("model-00001-of-00002.safetensors"), ("without model.safetensors.index.json",)),
    "another format": (moved("model.gguf"), ("found: model.gguf",)),
    "link to nothing": (link_to_nothing("model.safetensors"), ("model.safetensors is a link to nothing",)),
    "config a link to nothing": (link_to_nothing("config.json"), ("config.json is a link to nothing",)),
    "tokenizer a link to nothing": (link_to_nothing("tokenizer.json"), ("tokenizer.json is a link to nothing",)),
    "adapter alone": (adapter(alone=True), ("an adapter alone", "merge_and_unload")),
    "adapter beside": (adapter(alone=False), ("an adapter lies beside the model", "merge_and_unload")),
    "pickled adapter": (lambda c: (c / "adapter_model.bin").write_bytes(b""), ("an adapter lies beside the model",)),
    "GPTQ": (lambda c: (c / "quantize_config.json").write_text("{}"), ("already quantized (quantize_config.json",)),
    "two things": (
        lambda c: (adapter(alone=False)(c), link_to_nothing("config.json")(c)),
        ("config.json is a link to nothing", "an adapter lies beside"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "told"), INSTEAD.values(), ids=INSTEAD)
def test_what_is_no_checkpoint_has_its_own_sentence(
    copy: Path, change: Callable[[Path], object], told: tuple[str, ...]
) -> None:
    change(copy)
    with fails(str(copy), *told):
        weight_files(copy)


def test_a_snapshot_whose_blobs_are_gone_names_the_command(copy: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--some--model" / "snapshots" / "0123"
    shutil.copytree(copy, snapshot)
    link_to_nothing("model.safetensors")(snapshot)
    with fails("is a link to nothing", "hf download some/model"):
        inspect(snapshot)


def test_links_to_files_that_are_there_are_files(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for path in copy.iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    assert inspect(tmp_path / "links").fingerprint == inspect(TINY).fingerprint


# ---- fingerprint and content


def flip_a_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("whole_file", [folder.WHOLE_FILE, 0], ids=["small", "large"])
def test_the_fingerprint_follows_content_and_not_the_place(
    copy: Path, monkeypatch: pytest.MonkeyPatch, whole_file: int
) -> None:
    monkeypatch.setattr(folder, "WHOLE_FILE", whole_file)
    before = inspect(TINY).fingerprint
    (copy / "README.md").write_text("about")
    assert inspect(copy).fingerprint == before
    header = read_header(copy / "model.safetensors")
    largest = max(header.tensors.values(), key=lambda t: t.end - t.start)
    for at in (header.data, header.data + largest.start + 1, header.data + largest.end - 1, header.size - 1):
        flip_a_byte(copy / "model.safetensors", at)
        assert inspect(copy).fingerprint != before
        flip_a_byte(copy / "model.safetensors", at)
    assert inspect(copy).fingerprint == before


@pytest.mark.thorough
def test_large_content_is_hashed_in_pieces_and_by_threads_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    header = read_header(TINY / "model.safetensors")
    monkeypatch.setattr(content, "PIECE", 1000)
    monkeypatch.setattr(content, "_threads", lambda: 1)
    alone = content.scan(header)
    monkeypatch.setattr(content, "_threads", lambda: 7)
    assert content.scan(header) == alone


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "processor_config.json"])
def test_the_fingerprint_follows_the_files_that_change_predictions(copy: Path, name: str) -> None:
    (copy / name).write_text((copy / name).read_text() + " ")
    assert inspect(copy).fingerprint != inspect(TINY).fingerprint


@pytest.mark.parametrize("name", ["chat_template.jinja", "qformer_tokenizer/tokenizer.json"])
def test_the_fingerprint_follows_files_that_only_some_have(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("one")
    one = inspect(copy).fingerprint
    (copy / name).write_text("two")
    assert len({one, inspect(copy).fingerprint, inspect(TINY).fingerprint}) == 3


def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read for their content from now on."""
    found: list[Path] = []
    real = content.scan

    def scan(header: Header) -> content.Content:
        found.append(header.path)
        return real(header)

    monkeypatch.setattr(content, "scan", scan)
    return found


def test_a_large_file_is_read_once_while_it_stays_the_same(
    copy: Path, monkeypatch: pytest.MonkeyPatch, user_cache: Path
) -> None:
    monkeypatch.setattr(folder, "WHOLE_FILE", 0)
    monkeypatch.setattr(content, "SETTLED", -1)
    seen, path = reads(monkeypatch), copy / "model.safetensors"
    first = inspect(copy).fingerprint
    assert (inspect(copy).fingerprint, len(seen)) == (first, 1)
    stat = path.stat()
    flip_a_byte(path, -8)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # only ctime tells
    assert inspect(copy).fingerprint != first
    assert len(seen) == 2
    for entry_file in user_cache.rglob("*.entry"):
        flip_a_byte(entry_file, -3)  # damaged: read again
    inspect(copy).fingerprint  # noqa: B018
    assert len(seen) == 3


def test_a_file_that_has_just_changed_is_not_remembered(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "WHOLE_FILE", 0)
    monkeypatch.setattr(content, "SETTLED", 3600)
    seen = reads(monkeypatch)
    assert inspect(copy).fingerprint == inspect(copy).fingerprint
    assert len(seen) == 2


def test_a_file_that_changes_while_it_is_read_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "WHOLE_FILE", 0)
    real, path = content.scan, copy / "model.safetensors"

    def slow(header: Any) -> Any:
        os.utime(path, (time.time(), time.time() + 9))
        return real(header)

    monkeypatch.setattr(content, "scan", slow)
    with fails("it changed while it was read"):
        inspect(copy).fingerprint  # noqa: B018


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_found_in_every_dtype(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    if dtype is torch.float8_e4m3fn:
        value = float("nan")  # it has no infinity
    whole = torch.linspace(-3, 3, 1001).to(dtype)
    broken = whole.clone()
    broken[1000] = value
    tensors = {"whole": whole, "broken": broken, "codes": torch.full((9,), -1, dtype=torch.int16), "none": whole[:0]}
    save_file(tensors, tmp_path / "model.safetensors")
    assert content.scan(read_header(tmp_path / "model.safetensors")).not_finite == ("broken",)


@pytest.mark.parametrize("dtype", DTYPES[:4], ids=str)
def test_what_float16_cannot_hold_is_known(tmp_path: Path, dtype: torch.dtype) -> None:
    values = (1.0, 65504.0, 65519.0, 65520.0, 65536.0, -70000.0)
    tensors = {str(v): torch.tensor([1.0, v], dtype=torch.float64).to(dtype) for v in values}
    tensors = {name: x for name, x in tensors.items() if x.isfinite().all()}
    save_file(tensors, tmp_path / "model.safetensors")
    expected = {name for name, x in tensors.items() if not x.to(torch.float16).isfinite().all()}
    assert set(content.scan(read_header(tmp_path / "model.safetensors")).beyond_half) == expected
    assert expected or dtype is torch.float16
