"""Where a number comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

import blip2sweep
from blip2sweep.backends.torch.provenance import code_revision

ROOT = Path(blip2sweep.__file__).resolve().parents[1]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout has a revision")
def test_a_checkout_tells_its_revision() -> None:
    found = code_revision()
    assert found
    assert len(found.removesuffix("+")) == 12
