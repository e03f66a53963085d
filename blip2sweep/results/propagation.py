"""propagation.parquet: one row for each cell and block, for cells that ran with analysis.propagation=true."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.files import read_json, write_atomic


def write_propagation(output_dir: Path, committed: Mapping[str, str]) -> None:
    """Collect the files that workers left in `propagation/`; write nothing when there are none.

    committed: {name of predictions that count: key}. Other files are ignored, because a cell that ran again may have
    left several. A damaged file is named and left out.
    """
    rows = list(_rows(output_dir, committed))
    if rows:
        buffer = io.BytesIO()
        table = pd.DataFrame(rows).astype({"block": "Int64"})
        table.to_parquet(buffer, index=False, engine="pyarrow", write_page_checksum=True)
        write_atomic(output_dir / "propagation.parquet", buffer.getvalue())


def _rows(output_dir: Path, committed: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for path in sorted((output_dir / "propagation").glob("*.json")):
        if path.stem in committed:
            try:
                yield from [{"key": committed[path.stem], **row} for row in read_json(path)]
            except (UserError, TypeError) as error:
                remark(f"{error}; its cell is left out of propagation.parquet")
