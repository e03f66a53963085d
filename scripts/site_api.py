"""An extension of griffe, which reads docstrings for the site: `blip2sweep.sweep` is the function.

The folder of the same name has names of version 0.1, for jobs queued then. Python gives the function; griffe, which imports
nothing, would take the folder.
"""

from __future__ import annotations

import ast
from typing import Any

from griffe import Extension, GriffeLoader, Inspector, Module, Object, ObjectNode, Visitor


class Functions(Extension):
    """Keeps the functions of the package where a folder is called like one."""

    def __init__(self) -> None:
        self.found: dict[str, Object] = {}

    def on_module_members(
        self, *, node: ast.AST | ObjectNode, mod: Module, agent: Visitor | Inspector, **kwargs: Any
    ) -> None:
        """Note them: folders are read later."""
        if mod.path == "blip2sweep":
            self.found = dict(mod.functions)

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs: Any) -> None:
        """Put them back."""
        if pkg.path == "blip2sweep":
            pkg.members.update(self.found)
