"""Where a model's checkpoint is: a folder, one in the package, or a snapshot in the Hugging Face cache.

No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from blip2sweep.errors import UserError
from blip2sweep.files import local_path


class Located(NamedTuple):
    """The folder of a checkpoint, and the commit of its Hub snapshot; None for a plain folder."""

    folder: Path
    revision: str | None


def locate(model: Mapping[str, object]) -> Located:
    """The folder of `model.path`, or the snapshot of `model.hub_id` in the local Hugging Face cache.

    Nothing is downloaded.

    Raises UserError when there is no such folder or snapshot.
    """
    if model.get("path"):
        return Located(_folder(str(model["path"])), None)
    if not model.get("hub_id"):
        raise UserError(f"model {model.get('name')}: neither path nor hub_id is set; right: one of them")
    revision = model.get("revision")
    return _cached(str(model["hub_id"]), None if revision is None else str(revision))


def _folder(text: str) -> Path:
    try:
        folder = local_path(text)
        if folder.is_dir():
            return folder
        why = "a file and no folder" if folder.exists() else "no such folder"
    except OSError as error:  # no permission, or the name is too long
        why = str(error.strerror)
    except (
        RuntimeError,
        ImportError,
        ValueError,
        TypeError,
    ) as error:  # ~nobody, a package that is not there, a zero byte
        why = str(error)
    raise UserError(f"model.path={text}: {why}; right: a folder with config.json and *.safetensors")


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
