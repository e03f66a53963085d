"""All changes of a model on one stack. They are taken back in reverse order, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Hook = Callable[..., object]


class Undo:
    """The changes of a model so far. `back()`, or leaving it as a context, takes all of them back.

    Tensors are exchanged and never written to, so the originals themselves come back. An exchange is noted before it is
    made. So one that fails half-way is taken back with the others.
    """

    def __init__(self) -> None:
        self._back: list[Callable[[], object]] = []

    def data(self, parameter: Tensor, value: Tensor) -> None:
        """Exchange the storage of a parameter. The Parameter itself stays, so tied names and hooks still see it."""
        original = parameter.data
        self._back.append(lambda: setattr(parameter, "data", original))
        parameter.data = value

    def module(self, model: nn.Module, path: str, new: nn.Module) -> None:
        """Put another module in the place of the one at `path`."""
        original = model.get_submodule(path)
        self._back.append(lambda: model.set_submodule(path, original))
        model.set_submodule(path, new)

    def pre_hook(self, module: nn.Module, hook: Hook) -> None:
        """Add a forward pre-hook."""
        self._back.append(module.register_forward_pre_hook(hook).remove)

    def hook(self, module: nn.Module, hook: Hook) -> None:
        """Add a forward hook."""
        self._back.append(module.register_forward_hook(hook).remove)

    def attribute(self, owner: object, name: str, value: object) -> None:
        """Set a plain attribute of an object, such as a layer's index in the cache.

        A new attribute is deleted again.
        """
        had, original = name in vars(owner), getattr(owner, name, None)
        self._back.append(lambda: setattr(owner, name, original) if had else vars(owner).pop(name, None))
        setattr(owner, name, value)

    def back(self) -> None:
        """Take everything back, the last change first. A second call does nothing.

        Where taking one back fails, the others are still taken back, and the first failure is raised.
        """
        failed: BaseException | None = None
        while self._back:
            try:
                self._back.pop()()
            except BaseException as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, *error: object) -> None:
        self.back()
