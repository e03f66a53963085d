"""Optional packages that nobody asks for while a large library is imported.

transformers looks for optional packages when it is imported, and imports those that it finds, whether anything of theirs
is used or not. hqq, torchao and bitsandbytes bring the compilers of torch with them, and scipy its optimizers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec

# Of each, what this package uses of it imports it by itself. Nothing in transformers that needs one is used here.
EXTRAS = ("hqq", "torchao", "bitsandbytes", "scipy")
ANSWERS = "transformers.utils.import_utils"  # remembers what it was answered


@contextlib.contextmanager
def unprobed(*packages: str) -> Iterator[None]:
    """While inside, `importlib.util.find_spec` finds none of these packages, unless it is imported already.

    An import of one of them works as ever, inside and afterwards. What transformers was answered is forgotten at the end,
    so that it finds the packages later.
    """
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        hidden = name.partition(".")[0] in packages and name not in sys.modules
        return None if hidden else real(name, package)

    importlib.util.find_spec = find_spec
    try:
        yield
    finally:
        importlib.util.find_spec = real
        _forget_answers()


def _forget_answers() -> None:
    """Have transformers ask anew which packages there are."""
    asked = vars(sys.modules[ANSWERS]).items() if ANSWERS in sys.modules else ()
    for name, function in asked:
        if name.startswith("is_") and hasattr(function, "cache_clear"):
            function.cache_clear()
