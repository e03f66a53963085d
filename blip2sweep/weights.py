"""Where a model's weights are, and what they are: read from the safetensors files themselves, without torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from blip2sweep.errors import UserError

WHOLE_FILE = 64 * 2**20  # bytes up to which a weights file is hashed as a whole
SAMPLE = 4096  # bytes hashed from the middle of every tensor of a larger file
LARGEST_HEADER = 100 * 2**20  # bytes, the limit of the safetensors format itself

# Small files beside the weights that change predictions.
SIDE_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer*.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model",
)  # fmt: skip


class Located(NamedTuple):
    """A checkpoint's folder, and the commit of the Hub snapshot it is (None for a plain folder)."""

    folder: Path
    revision: str | None


@dataclass(frozen=True)
class Weights:
    """What the weights files say: parameters (floating tensors, tied ones once), dtypes of those, and all shapes."""

    fingerprint: str
    params: int
    dtypes: tuple[str, ...]
    tensors: dict[str, tuple[int, ...]]


def local_path(text: str) -> Path:
    """A path as the config writes it: `pkg://package/inner/path` (shipped with the package) or an ordinary one."""
    if not text.startswith("pkg://"):
        return Path(text).expanduser()
    package, _, inner = text.removeprefix("pkg://").partition("/")
    return Path(str(files(package) / inner))


def locate(model: Mapping[str, Any]) -> Located:
    """The folder of `model.path`, or the snapshot of `model.hub_id` in the local Hugging Face cache; never downloads.

    Raises UserError when there is no such folder or snapshot.
    """
    if model.get("path"):
        folder = local_path(str(model["path"]))
        if not folder.is_dir():
            raise UserError(
                f"model.path={model['path']}: no such folder; right: a folder with config.json and *.safetensors"
            )
        return Located(folder, None)
    if not model.get("hub_id"):
        raise UserError(f"model {model.get('name')}: neither path nor hub_id is set; right: one of them")
    return _cached(str(model["hub_id"]), model.get("revision"))


def _cached(hub_id: str, revision: str | None) -> Located:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    cache = constants.HF_HUB_CACHE
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, cache_dir=cache, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError) as error:
        wanted = hub_id + (f" --revision {revision}" if revision else "")
        raise UserError(
            f"model.hub_id={hub_id}: not in the cache {cache}; right: run `hf download {wanted}`, or set model.path"
        ) from error
    return Located(folder, folder.name)


# ---- safetensors headers


class Header(NamedTuple):
    """One safetensors file: its raw JSON header, the offset of the data after it, and the tensors' entries."""

    path: Path
    raw: bytes
    data: int
    tensors: dict[str, dict[str, Any]]


def inspect(folder: Path, tied: Iterable[Sequence[str]] = ()) -> Weights:
    """Read the headers of a checkpoint folder (single file or shards) and fingerprint it.

    tied: groups of names that are one tensor, counted once. Raises UserError for a folder without safetensors.
    """
    headers = [_header(path) for path in weight_files(folder)]
    entries = {name: entry for h in headers for name, entry in h.tensors.items()}
    floating = {name: entry for name, entry in entries.items() if entry["dtype"].startswith(("F", "BF"))}
    again = {name for group in tied for name in [n for n in group if n in floating][1:]}
    return Weights(
        fingerprint=_fingerprint(folder, headers),
        params=sum(math.prod(e["shape"]) for name, e in floating.items() if name not in again),
        dtypes=tuple(sorted({e["dtype"] for e in floating.values()})),
        tensors={name: tuple(e["shape"]) for name, e in entries.items()},
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, as transformers chooses them: one file, or else the index's shards."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        found = ", ".join(sorted(p.name for p in folder.glob("*.bin"))) or "no weights at all"
        raise UserError(
            f"{folder}: no model.safetensors (found: {found}); right: weights saved as safetensors, never pickles"
        )
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{index}: not a safetensors index ({type(error).__name__}: {error}); right: download it again"
        ) from error
    return [_shard(folder, str(name)) for name in names]


def _shard(folder: Path, name: str) -> Path:
    if Path(name).name != name or not (folder / name).is_file():
        raise UserError(
            f"{folder}: model.safetensors.index.json names the shard {name}, which is not there; right: download it"
        )
    return folder / name


def _header(path: Path) -> Header:
    """Format: 8 bytes little-endian header length, JSON header, data (https://github.com/huggingface/safetensors)."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            raw = file.read(min(length, LARGEST_HEADER))
        tensors = {name: entry for name, entry in json.loads(raw).items() if name != "__metadata__"}
        end = 8 + length + max((e["data_offsets"][1] for e in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a safetensors file ({type(error).__name__}); right: download it again") from error
    if path.stat().st_size != end:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes, its header says {end}: truncated; right: download it again"
        )
    return Header(path, raw, 8 + length, tensors)


# ---- fingerprint


def _fingerprint(folder: Path, headers: Iterable[Header]) -> str:
    """sha256 over names, sizes, headers and content of the weights, and the side files.

    Headers and sizes alone would call two fine-tunings of one model equal.
    """
    total = hashlib.sha256()
    for chunk in (c for h in headers for c in (h.path.name.encode(), h.raw, *_content(h))):
        _add(total, chunk)
    for path in sorted({p for pattern in SIDE_FILES for p in folder.glob(pattern) if p.is_file()}):
        _add(total, path.name.encode())
        _add(total, path.read_bytes())
    return total.hexdigest()


def _add(total: Any, chunk: bytes) -> None:
    total.update(len(chunk).to_bytes(8, "little"))  # so that no two lists of chunks run together
    total.update(chunk)


def _content(header: Header) -> Iterator[bytes]:
    size = header.path.stat().st_size
    yield size.to_bytes(8, "little")
    with header.path.open("rb") as file:
        if size <= WHOLE_FILE:
            yield file.read()
        else:
            yield from (_middle(file, header.data, *e["data_offsets"]) for _, e in sorted(header.tensors.items()))


def _middle(file: BinaryIO, data: int, start: int, end: int) -> bytes:
    length = min(SAMPLE, end - start)
    file.seek(data + start + (end - start - length) // 2)
    return file.read(length)
