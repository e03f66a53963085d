"""The sizes of layers as products of fields of the config, so that a YAML fits checkpoints of other sizes too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from blip2sweep.models.fields import factors, field, size
from blip2sweep.models.part import LANGUAGE, VISION

INNER = ("text_config", "vision_config")
DEPTH = ("num_hidden_layers", "depth", "num_layers", "n_layers")
FIRST = ("hidden_size", "intermediate_size", "embed_dim", "num_hidden_layers", "depth")


class Expressions:
    """Finds the expression that has a number in each of several configs, written out (models/written_out.py)."""

    def __init__(self, configs: Sequence[Mapping[str, object]]) -> None:
        self.configs = configs
        self._known = dict.fromkeys(_candidates(configs[0]))

    def __call__(self, values: Sequence[int], role: str) -> int | str:
        """The expression of `values`, one for each config; the number itself where there is none.

        role: of the part, whose own section is tried before fields of others.
        """
        fits = [x for x in self._known if all(_value(x, c) == v for c, v in zip(self.configs, values, strict=True))]
        return min(fits, key=lambda x: (_foreign(x, role), x.count("*") + x.count("/")), default=values[0])

    def depth(self, values: Sequence[int], role: str) -> int | str:
        """The field that counts the blocks of a list; the number itself where there is none."""
        found = self(values, role)
        return found if str(found).endswith(DEPTH) else values[0]


def _foreign(expression: str, role: str) -> int:
    """How many fields are of another section than the role's; a connector stands between both."""
    own = {VISION: "vision_config.", LANGUAGE: "text_config."}.get(role, "")
    return sum(not name.startswith(own) for name in factors(expression) if not name.isdigit())


def _value(expression: str, config: Mapping[str, object]) -> int | None:
    try:
        return size(expression, config)
    except (ValueError, ZeroDivisionError):
        return None


def _candidates(config: Mapping[str, object]) -> Iterator[str]:
    inner = [name for name in INNER if isinstance(config.get(name), Mapping)]
    plain = [f"{s}.{k}" for s in inner for k in (*FIRST, *_numbers(config[s])) if field(f"{s}.{k}", config)]
    yield from plain
    top = list(_numbers(config))
    yield from top
    for s in inner:
        for heads in ("num_attention_heads", "num_heads", "num_key_value_heads"):
            yield f"{s}.{heads}*{s}.head_dim"
            yield f"{s}.{heads}*{s}.hidden_size/{s}.num_attention_heads"
    widths = [name for name in plain if name.endswith(("hidden_size", "embed_dim", "intermediate_size"))]
    yield from (f"{n}*{name}" for name in widths for n in (2, 3, 4))
    merges = [n for n in (*plain, *top) if n.endswith(("merge_size", "scale_factor", "downsample_factor"))]
    yield from (f"{m}*{m}*{name}" for m in merges for name in widths)


def _numbers(section: object) -> Iterator[str]:
    if isinstance(section, Mapping):
        yield from (k for k, v in section.items() if isinstance(v, int) and not isinstance(v, bool) and v > 1)
