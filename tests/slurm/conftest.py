"""One Slurm for all of these tests: `MAX_ARRAY_SIZE=9 scripts/slurm_dev.sh up`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.slurm.cluster import Bench


@pytest.fixture(scope="session", autouse=True)
def cluster() -> None:
    """Skips where no Slurm answers; in CI that is a failure."""
    try:
        answered = subprocess.run(["sinfo", "-h"], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.SubprocessError):
        answered = False
    if not answered and os.environ.get("CI") == "true":
        pytest.fail("no Slurm answers, and in CI one must: MAX_ARRAY_SIZE=9 scripts/slurm_dev.sh up")
    if not answered:
        pytest.skip("no Slurm answers here; MAX_ARRAY_SIZE=9 scripts/slurm_dev.sh up (as root, on Debian) starts one")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
