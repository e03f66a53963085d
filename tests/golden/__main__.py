"""`python -m tests.golden`: writes golden.json anew. Only with a new number of SEMANTICS, or for a field added on purpose."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from tests.golden import USER_CACHE
from tests.golden.freeze import FILE, differences, frozen

with tempfile.TemporaryDirectory() as folder:
    os.environ[USER_CACHE] = f"{folder}/user"
    made = json.loads(json.dumps(frozen(Path(folder))))
before = json.loads(FILE.read_text()) if FILE.exists() else {}
FILE.write_text(json.dumps(made, indent=1) + "\n")
told = list(differences(before, made))
print("\n".join(told[:40]), f"\n{FILE}: {len(told)} differences from before")
