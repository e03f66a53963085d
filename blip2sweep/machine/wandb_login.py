"""Finds out without the network whether the user is logged in to W&B."""

from __future__ import annotations

import os
from pathlib import Path

GIVEN = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL")  # a private server may need no key


def logged_in() -> bool:
    """Whether the environment, or the file that `wandb login` writes, has credentials."""
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return any(name in os.environ for name in GIVEN) or (
        netrc.exists() and "api.wandb" in netrc.read_text(errors="ignore")
    )
