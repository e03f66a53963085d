"""Which transformers has models that take the features of pictures in the place of pictures. No torch here.

An older forward pass takes the features as any other word and ignores them, so that texts are written without the pictures.
Planning asks for the version, since it imports no model. A worker asks the very class that will run.
"""

from __future__ import annotations

import re
from importlib.metadata import version

from blip2sweep.errors import UserError

FEATURES = "mm_encoder_outputs"  # of a forward pass, in the place of pixels
SINCE = (5, 18)  # of transformers


def check_transformers(model_type: object) -> None:
    """Raise UserError where the installed transformers is older. model_type: of the model that is planned."""
    if tuple(map(int, re.findall(r"\d+", version("transformers"))[:2])) < SINCE:
        raise without_features(model_type)


def without_features(model_type: object) -> UserError:
    """The error for a model whose forward pass takes no features."""
    return UserError(
        f"transformers {version('transformers')}: {model_type} takes no features of pictures ({FEATURES}), so it would write "
        f"without having seen them; right: transformers {'.'.join(map(str, SINCE))} or newer"
    )
