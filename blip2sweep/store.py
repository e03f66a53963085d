"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid
from pathlib import Path
from typing import Any

from blip2sweep.errors import UserError

NETWORK = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "wekafs")


def write_atomic(path: Path, data: bytes) -> None:
    """Write under a temporary name, fsync, rename. Raises UserError, one line, and leaves nothing half-written."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # such as the very one that is to be told
            temporary.unlink()
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); right: a writable output_dir with space"
        ) from error


def write_json(path: Path, data: Any) -> None:
    """`write_atomic` of JSON."""
    write_atomic(path, json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode())


def read_json(path: Path) -> Any:
    """The JSON in a file. Raises UserError with the position when it is cut or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: not whole JSON ({error})") from error


def on_network(path: Path) -> bool:
    """Whether other hosts may write there, and are seen late."""
    return filesystem(path) in NETWORK


def filesystem(path: Path) -> str:
    """Type of the mount that holds a path, from /proc/mounts; `unknown` where there is none."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    path = path.resolve()
    inside = [(where, kind) for where, kind in mounts if path == Path(where) or Path(where) in path.parents]
    return max(inside, key=lambda m: len(m[0]), default=("", "unknown"))[1]
