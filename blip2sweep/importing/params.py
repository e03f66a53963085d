"""Numbers of parameters of the shipped models, tied ones counted once. Imported rows need them for the model's size."""

from __future__ import annotations

from blip2sweep.errors import UserError

# Counted on the modules that transformers builds from conf/model; those of `tiny` and `tiny-llava` on their weights
# (tests/importing/test_table_csv.py).
PARAMS = {
    "tiny": 1_005_056,
    "tiny-llava": 678_208,
    "blip2-opt-2.7b": 3_744_761_856,
    "blip2-opt-2.7b-coco": 3_745_353_216,
    "blip2-opt-6.7b": 7_752_869_376,
    "blip2-flan-t5-xl": 3_876_648_448,
    "blip2-flan-t5-xxl": 12_098_000_384,
}


def model_params(model: str, given: int | None = None) -> int:
    """The number of parameters of a whole model: the given one, else a shipped model's.

    Raises UserError without either.
    """
    if given is not None:
        if given < 1:
            raise UserError(f"--params {given}: right: the number of parameters of the whole model")
        return given
    if model not in PARAMS:
        raise UserError(f"model {model}: its number of parameters is not known here; right: --params N")
    return PARAMS[model]
