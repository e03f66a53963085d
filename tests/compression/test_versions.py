"""Versions of libraries that compute what a cell is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from blip2sweep.compression import quantize


def test_a_package_of_another_name_is_the_library_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime for GPUs is another package with the same module."""
    there = {"onnxruntime-gpu": "1.99", "torchao": "0.1"}

    def version(name: str) -> str:
        if name not in there:
            raise PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(quantize, "version", version)
    assert (quantize.version_of("onnxruntime"), quantize.version_of("torchao")) == ("1.99", "0.1")
    with pytest.raises(PackageNotFoundError):
        quantize.version_of("hqq")
