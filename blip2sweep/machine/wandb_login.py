"""Whether W&B knows who we are, found without asking it."""

from __future__ import annotations

import os
from pathlib import Path

GIVEN = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL")  # a server of one's own has its own ways


def logged_in() -> bool:
    """By the environment, or by what `wandb login` left."""
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return any(name in os.environ for name in GIVEN) or (
        netrc.exists() and "api.wandb" in netrc.read_text(errors="ignore")
    )
