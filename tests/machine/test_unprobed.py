"""Extras that are hidden while a large library is imported, and are there afterwards."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from blip2sweep.machine.unprobed import unprobed


def test_a_package_is_hidden_inside_alone() -> None:
    with unprobed("wave"):
        assert importlib.util.find_spec("wave") is None
        assert importlib.util.find_spec("json") is not None
    assert importlib.util.find_spec("wave") is not None


def test_an_error_inside_hides_nothing_afterwards() -> None:
    with pytest.raises(ImportError), unprobed("wave"):
        raise ImportError
    assert importlib.util.find_spec("wave") is not None


def test_an_imported_package_is_not_hidden() -> None:
    with unprobed("json"):
        assert importlib.util.find_spec("json") is not None


# Every extra is used after the back end was imported without them, as a cell of a later pack in the same process would.
AFTERWARDS = """
import sys, torch
from blip2sweep.backends.backend import load_backend
load_backend({})
brought = [m for m in ("hqq", "torchao", "bitsandbytes", "scipy") if m in sys.modules]
from transformers.utils import is_bitsandbytes_available, is_hqq_available, is_scipy_available, is_torchao_available
print(brought, is_bitsandbytes_available(), is_hqq_available(), is_scipy_available(), is_torchao_available())
from hqq.core.quantize import Quantizer
from bitsandbytes import functional
from torchao.quantization.granularity import PerRow
from peft import LoraConfig, inject_adapter_in_model
from scipy.special import stdtrit
model = inject_adapter_in_model(LoraConfig(target_modules=["0"], r=2), torch.nn.Sequential(torch.nn.Linear(8, 8)))
print(tuple(model(torch.ones(1, 8)).shape))
"""


@pytest.mark.thorough
def test_extras_work_after_an_import_without_them() -> None:
    said = subprocess.run([sys.executable, "-c", AFTERWARDS], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["[] True True True True", "(1, 8)"]
