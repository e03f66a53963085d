"""Rows of any lengths: chosen, split, joined, kept and told apart as if each were a list of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from blip2sweep.cache.tensors import Memo, size
from blip2sweep.models.ragged import Rows, joined

LENGTHS = st.lists(st.integers(0, 4), min_size=1, max_size=6)


def ragged(lengths: list[int], start: int = 0) -> Rows:
    values = torch.arange(start, start + 2 * sum(lengths), dtype=torch.float32).reshape(-1, 2)
    return Rows(values, tuple(lengths), {"size": torch.arange(start, start + len(lengths))[:, None]})


def apart(rows: Rows) -> list[tuple[list[object], object]]:
    """Each row alone."""
    cut: tuple[Tensor, ...] = rows.values.split(list(rows.lengths)) if rows.lengths is not None else tuple(rows.values)
    return [(x.tolist(), rows.further["size"][i].tolist() if rows.further else None) for i, x in enumerate(cut)]


@pytest.mark.thorough
@given(LENGTHS, st.data())
def test_chosen_rows_are_the_chosen_ones(lengths: list[int], data: st.DataObject) -> None:
    rows, alone = ragged(lengths), apart(ragged(lengths))
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1)))
    assert apart(rows.take(chosen)) == [alone[i] for i in chosen]
    start, stop = data.draw(st.integers(0, len(lengths))), data.draw(st.integers(0, len(lengths)))
    assert apart(rows.take(slice(start, stop))) == alone[start:stop]
    assert [rows.tokens(i) for i in range(len(rows))] == lengths


def test_rows_that_follow_each_other_are_no_copy() -> None:
    rows = ragged([2, 3, 1, 4])
    for chosen in (slice(1, 3), [1, 2]):
        assert rows.take(chosen).values.data_ptr() == rows.values[2:].data_ptr()
    assert rows.take([]).values.shape == (0, 2)


@given(LENGTHS, st.integers(1, 4))
def test_what_was_split_is_joined_again(lengths: list[int], n: int) -> None:
    rows = ragged(lengths)
    pieces = rows.split(n)
    assert [len(p) for p in pieces] == [min(n, len(rows) - start) for start in range(0, len(rows), n)]
    assert apart(joined(pieces)) == apart(rows)
    assert joined(pieces).digest() == rows.digest()


@given(LENGTHS)
def test_rows_come_back_from_memory_and_from_disk(lengths: list[int]) -> None:
    rows, memo = ragged(lengths), Memo(torch.device("cpu"), 0, 10**6)
    memo.put("rows", rows.tensors())
    kept = memo.get("rows")
    assert kept is not None
    read = load(save({"ids": torch.zeros(1), **rows.named("queries")}))
    for back in (Rows.of_tensors(kept), Rows.of_named("queries", read)):
        assert apart(back) == apart(rows)
        assert back.digest() == rows.digest()
    assert size(rows.tensors()) >= rows.values.nbytes + rows.further["size"].nbytes


@given(LENGTHS, LENGTHS)
def test_a_digest_tells_other_cuts_apart(one: list[int], other: list[int]) -> None:
    a, b = (Rows(torch.zeros(24, 2), (*x, 24 - sum(x))) for x in (one, other))
    assert (a.digest() == b.digest()) == (a.lengths == b.lengths)
    assert a.digest() != Rows(a.values).digest()
    further = Rows(a.values, a.lengths, {"size": torch.zeros(len(a), 1)})
    assert further.digest() not in (a.digest(), Rows(a.values, a.lengths, {"grid": torch.zeros(len(a), 1)}).digest())


def test_dense_rows_are_one_tensor_in_memory_and_on_disk() -> None:
    """As caches of versions before rows could be ragged hold them."""
    values = torch.rand(3, 4, 2)
    rows = Rows(values)
    assert [x is values for x in rows.tensors()] == [True]
    assert list(rows.named("queries")) == ["queries"]
    assert Rows.of_named("queries", {"ids": torch.zeros(3), "bad": torch.zeros(0), "queries": values}).lengths is None
    assert rows.take(slice(1, 3)).values.data_ptr() == values[1:].data_ptr()  # a view
    assert joined([rows, rows]).lengths is None
    assert joined([rows, rows]).values.shape == (6, 4, 2)


def test_dense_rows_of_several_lengths_are_joined_to_ragged_ones() -> None:
    both = joined([Rows(torch.zeros(2, 3, 4)), Rows(torch.ones(1, 5, 4)), Rows(torch.ones(2, 4), (0, 2))])
    assert both.lengths == (3, 3, 5, 0, 2)
    assert both.values.sum() == 4 * 7


@given(LENGTHS)
def test_padded_rows_have_zeros_behind_them(lengths: list[int]) -> None:
    rows = ragged(lengths, start=1)
    padded, there = rows.padded()
    assert padded.shape == (len(lengths), max(lengths), 2)
    assert there.sum(1).tolist() == lengths
    assert torch.equal(padded[there], rows.values)
    assert not padded[~there].any()


def test_rows_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of 3 entries together, and 4 entries"):
        Rows(torch.zeros(4, 2), (1, 2))
    with pytest.raises(ValueError, match="size of 1 rows for 2"):
        Rows(torch.zeros(2, 2), None, {"size": torch.zeros(1)})
    with pytest.raises(ValueError, match="further known"):
        joined([ragged([1]), Rows(torch.zeros(1, 2), (1,))])
