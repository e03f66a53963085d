"""`python -m tests.golden`: adds to golden.json what it does not have yet, such as a field added on purpose.

Refuses where something that is frozen differs; `--changed` takes that too, and is for a new number of SEMANTICS alone.
`--likelihoods` adds nothing and takes the last digits of likelihoods alone: for passes that sum in another order.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden import USER_CACHE
from tests.golden.freeze import FILE, MISSING, differences, frozen


def only_known(known: Any, made: Any) -> Any:
    """What is made, without the fields that are not known."""
    return {k: only_known(v, made[k]) for k, v in known.items()} if isinstance(known, dict) else made


digits = "--likelihoods" in sys.argv
with tempfile.TemporaryDirectory() as folder:
    os.environ[USER_CACHE] = f"{folder}/user"
    made = json.loads(json.dumps(frozen(Path(folder))))
known = json.loads(FILE.read_text()) if FILE.exists() else {}
told, wrong = (list(differences(known, made, exact=exact)) for exact in (True, not digits))
changed, wrong = ([t for t in some if f": was {MISSING!r}, is " not in t] for some in (told, wrong))
print(*(t[:300] for t in told), f"{len(told)} differences, {len(changed)} of them no additions", sep="\n")
if wrong and "--changed" not in sys.argv:
    sys.exit(f"{FILE.name} is as it was: what is frozen differs; see CONTRIBUTING.md")
made = {**known, "rows": only_known(known["rows"], made["rows"])} if digits else made
FILE.write_text(json.dumps(made, indent=1) + "\n")
