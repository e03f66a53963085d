"""A name from outside, and the module it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from blip2sweep.errors import UserError
from blip2sweep.wire.pack import OutsideCode

GROUPS = ("architectures", "tasks", "compression", "methods", "backends")
Name = tuple[str, str]  # (group, name)
PAGE = "docs/extending.md"


@dataclass(frozen=True, eq=False)
class OutsideModule:
    """A name and who has it. where: for messages; source: imports the module; hashed: gives what keys and packs say of it."""

    where: str
    source: Callable[[], object]
    hashed: Callable[[], OutsideCode]

    @cached_property
    def code(self) -> OutsideCode:
        """Raises UserError for a file that cannot be read."""
        return self.hashed()

    @cached_property
    def module(self) -> object:
        """Raises UserError, one line, where it cannot be imported."""
        try:
            return self.source()
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            said = " ".join(str(error).split())
            raise UserError(
                f"{self.where}: cannot be imported ({type(error).__name__}: {said}); right: a module as {PAGE} has it"
            ) from error

    def having(self, names: Iterable[str]) -> object:
        """The module. Raises UserError where it lacks names."""
        lacking = [name for name in names if not hasattr(self.module, name)]
        if lacking:
            raise UserError(f"{self.where}: lacks {', '.join(lacking)}; right: every name that {PAGE} lists")
        return self.module
