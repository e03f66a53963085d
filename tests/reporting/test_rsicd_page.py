"""docs/rsicd.md: every figure that it says follows from shapes is computed from shapes again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.models.block_params import block_params
from blip2sweep.models.checkpoints.headers import Tensor
from blip2sweep.models.role_params import role_params
from blip2sweep.models.work import Asked
from blip2sweep.recipe.params import param_columns
from tests.checkpoints import build_meta, conf
from tests.recipe.test_flops import NAME, dropped, giga

pytestmark = pytest.mark.thorough
PAGE = (Path(__file__).parents[2] / "docs" / "rsicd.md").read_text()
TEN = Asked((1,), 10)
LORA = {"recover": {"method": "lora", "target": "language:all:attention", "rank": 8, "merge": False}}


@pytest.fixture(scope="module")
def layout() -> Anatomy:
    return anatomy(conf(f"model/{NAME}"))


@pytest.fixture(scope="module")
def params(layout: Anatomy) -> dict[str, float]:
    """{drop_blocks: parameters of what is left}, also with adapters behind them."""
    tensors = {n: Tensor("BF16", tuple(p.shape), 0, 0) for n, p in build_meta(conf(f"model/{NAME}")).named_parameters()}
    roles, own = role_params(tensors, layout), block_params(tensors, layout)
    every = {b: dropped(b, layout) for b in sets()} | {f"{b} lora": dropped(b, layout, **LORA) for b in sets()}
    return {b: float(param_columns(r, sum(roles.values()), roles, own)["params"]) for b, r in every.items()}


def sets() -> list[str]:
    """The values of drop_blocks in the page's table."""
    return re.findall(r"^\| [^|]+ \| `(none|\w+:[\w:+-]+)` \|", PAGE, re.MULTILINE)


def row(first: str) -> list[str]:
    found = re.search(rf"^\| {re.escape(first)} \|(.*)\|$", PAGE, re.MULTILINE)
    assert found, first
    return [w.strip() for w in found[1].split("|")]


def total(blocks: str, layout: Anatomy, asked: Asked = TEN, **further: object) -> float:
    return sum(giga(dropped(blocks, layout, **further), asked).values())


def test_gflop_and_parameters_of_each_set(layout: Anatomy, params: dict[str, float]) -> None:
    assert len(sets()) == 5
    base = total("none", layout)
    for name in ("nothing", "Q6", "Q8", "LLM28", "LLM28+Q8"):
        blocks, flop, less_flop, size, less = row(name)
        own = blocks.strip("`")
        assert f"{total(own, layout):.2f}" == flop
        assert f"{params[own] / 1e6:.1f}" == size
        if own != "none":
            assert f"−{100 * (1 - total(own, layout) / base):.2f} %" == less_flop
            assert f"−{100 * (1 - params[own] / params['none']):.2f} %" == less


def test_gflop_of_each_stage(layout: Anatomy) -> None:
    found = giga(dropped("none", layout), TEN)
    rows = {"vision": "ViT", "bridge": "Q-Former", "language": "OPT with projection and head"}
    for stage, name in rows.items():
        assert row(name) == [f"{found[stage]:.2f}", f"{100 * found[stage] / sum(found.values()):.1f} %"]


def test_tokens_and_adapters(layout: Anatomy, params: dict[str, float]) -> None:
    lengths = {n: total("none", layout, Asked((1,), n)) for n in (9, 10, 16, 20)}
    assert f"9 tokens have {lengths[9]:.2f}, 20 have {lengths[20]:.2f}" in PAGE
    linear = (32 * 12 * 2560**2 + 2560 * 50304) * 2 / 1e9
    assert f"{6 * linear:.2f} is six more tokens written" in PAGE
    assert f"the head of one token, {linear:.2f} ({lengths[16] - lengths[10]:.2f} with attention" in PAGE
    assert f"add {total('none', layout, **LORA) - lengths[10]:.2f} GFLOP to a caption of 10 tokens" in PAGE
    assert f"all 32 blocks is {params['none lora'] - params['none']:,.0f}" in PAGE
    both = "connector:8-11+language:28-31"
    assert f"of the 28 that LLM28 leaves, {params[f'{both} lora'] - params[both]:,.0f}" in PAGE


def test_lines_are_short() -> None:
    assert max(len(line) for line in PAGE.splitlines() if not line.startswith("|")) <= 106
