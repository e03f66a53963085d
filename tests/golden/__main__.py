"""`python -m tests.golden`: adds to golden.json what it does not have yet, such as a field added on purpose.

Refuses where something that is frozen differs; `--changed` takes that too, and is for a new number of SEMANTICS alone.
`--likelihoods` takes other last digits of likelihoods, and nothing else: for passes that sum in another order.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from tests.golden import USER_CACHE
from tests.golden.freeze import FILE, MISSING, differences, frozen

with tempfile.TemporaryDirectory() as folder:
    os.environ[USER_CACHE] = f"{folder}/user"
    made = json.loads(json.dumps(frozen(Path(folder))))
told = list(differences(json.loads(FILE.read_text()) if FILE.exists() else {}, made))
changed = [t for t in told if f": was {MISSING!r}, is " not in t]
beyond = list(differences(json.loads(FILE.read_text()), made, exact=False)) if "--likelihoods" in sys.argv else changed
print(*(t[:300] for t in told), f"{len(told)} differences, {len(changed)} of them no additions", sep="\n")
if beyond and "--changed" not in sys.argv:
    sys.exit(f"{FILE.name} is as it was: what is frozen differs; see CONTRIBUTING.md")
FILE.write_text(json.dumps(made, indent=1) + "\n")
