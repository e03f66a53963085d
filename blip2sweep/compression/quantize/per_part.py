"""`per_part.<part>.<option>`: what the config says of one part alone, or of all parts of a role."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from blip2sweep.compression.quantize.options import OPTIONS, Option, Options, merged, options_of
from blip2sweep.compression.step import DROP, RECOVER, SPARSITY
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import ROLES


class PartOptions(NamedTuple):
    """What `per_part` says of one part: options, its own blocks and layers, and the config key it stands under."""

    options: Options = ()
    target: Options = ()
    where: str = ""


# Whole steps that name parts themselves, and what is right.
NOT_PER_PART = {
    DROP: "drop_blocks=part:blocks, pieces joined with +",
    RECOVER: "recover.target=part:blocks:layers and recover.<option>, one recovery for all layers",
}
SPARSE_OPTIONS = ("method", "ratio", "pattern", "packed")
Read = Callable[[Mapping[str, object], str], Options]  # the options of one kind of step in a part's section


def of_quantization(values: Mapping[str, object], where: str) -> Options:
    """All options of a part's section but those of sparsity."""
    for key, right in NOT_PER_PART.items():
        if key in values:
            raise UserError(f"{where}.{key}: is not set per part; right: {right}")
    known = (*OPTIONS, *(f"{SPARSITY}.{name}" for name in SPARSE_OPTIONS))
    return options_of({k: v for k, v in values.items() if k != SPARSITY}, where, known)


def read_per_part(
    per_part: Mapping[str, object], names: list[str], anatomy: Anatomy, part: str, read: Read = of_quantization
) -> dict[str, PartOptions]:
    """{addressable part: its own options and target}. The options of a stack are one level deeper, as in
    `per_part.language.encoder.bits`.

    names: the parts that `part` names. part: the value of `part`, for messages. read: takes the options out of a part's
    section without `blocks` and `layers`. Raises UserError for a part outside `part`.
    """
    found: dict[str, PartOptions] = {}
    without = of_no_part(per_part, anatomy)
    for word, values in _flat_parts(per_part, anatomy):
        if f"per_part.{word}.bits" in without:
            continue
        where = f"per_part.{word}"
        meant = [n for n in anatomy.resolve_names(word, where) if _reaches(n, names)]
        if not meant:
            raise UserError(f"{where}: outside part={part}, so it would do nothing; right: name {word} in part as well")
        own = _part_options(values, where, read)
        for name in meant:
            before = found.get(name, PartOptions())
            found[name] = PartOptions(merged(before.options, own.options), merged(before.target, own.target), where)
    return found


def _reaches(name: str, names: Sequence[str]) -> bool:
    """Whether `part`, which names `names`, has something of a part or stack."""
    return name in names or name.partition(".")[0] in names or any(n.startswith(name + ".") for n in names)


def _part_options(values: Mapping[str, object], where: str, read: Read) -> PartOptions:
    places = {k: v for k, v in values.items() if k in ("blocks", "layers")}
    target = tuple(Option(k, str(v), f"{where}.{k}") for k, v in places.items() if v is not None)
    return PartOptions(read({k: v for k, v in values.items() if k not in places}, where), target)


def _flat_parts(per_part: Mapping[str, object], anatomy: Anatomy) -> Iterator[tuple[str, Mapping[str, object]]]:
    for name, values in per_part.items():
        if not isinstance(values, Mapping):
            raise UserError(f"per_part.{name}={values}: right: per_part.{name}.<option>=<value>")
        inner = {k: v for k, v in values.items() if f"{name}.{k}" in anatomy.spellings}
        yield str(name), {k: v for k, v in values.items() if k not in inner}
        for stack, options in inner.items():
            if not isinstance(options, Mapping):
                raise UserError(f"per_part.{name}.{stack}={options}: right: per_part.{name}.{stack}.<option>=<value>")
            yield f"{name}.{stack}", options


def of_no_part(per_part: Mapping[str, object], anatomy: Anatomy) -> list[str]:
    """The keys `per_part.<role>.bits` with the value `none` of roles that no part has.

    They mean nothing, so they are allowed.
    """
    lacking = {r: per_part.get(r) for r in ROLES if not anatomy.role(r)}
    only = {r: v["bits"] for r, v in lacking.items() if isinstance(v, Mapping) and set(v) == {"bits"}}
    return [f"per_part.{r}.bits" for r, bits in only.items() if str(bits).lower() == "none"]
