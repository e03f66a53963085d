"""Work shared between cells: same tokens as without, nothing run twice, and what faults do to it."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.cache import disk as cache
from blip2sweep.cache.disk import RECOVERY, Store
from blip2sweep.cache.tensors import Memo, size
from blip2sweep.models.load import load
from blip2sweep.recipe.chain import Prefixes
from tests.checkpoints import TINY, recipe, tiny_config
from tests.composing import chain, plan
from tests.in_process import jobs, run
from tests.params import quick

CPU = torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


GRIDS = {
    "parts": ["part=all", "per_part.vit.bits=3,none", "per_part.qformer.bits=4,none", "per_part.llm.bits=3,8"],
    "blocks": ["part=vit", "blocks=last,first+last,5,all", "quant.bits=2,3"],
    "vqa": ["task=shapes_vqa", "part=vit,llm", "quant.bits=3,8", "blocks=all,last"],
    "beams": ["generation=paper", "part=qformer,llm", "quant.bits=3"],
}


@pytest.mark.parametrize("grid", quick(GRIDS, "parts"))
def test_a_shared_run_gives_the_same_tokens(grid: str) -> None:
    these = jobs(*GRIDS[grid])
    shared, alone = run(these), run(these, cache="off")
    for key, (predictions, _) in alone.items():
        assert shared[key][0].text == predictions.text
        assert shared[key][0].tokens == predictions.tokens
        assert shared[key][0].nll_sum == pytest.approx(predictions.nll_sum, rel=1e-5)
    assert len({tuple(p.text) for p, _ in alone.values()}) > 2


def test_nothing_is_run_twice() -> None:
    """Every distinct prefix of the ViT once, every distinct pair of ViT and Q-Former once."""
    these = jobs(*GRIDS["parts"])
    costs = [info["cost"] for _, info in run(these).values()]
    assert len(these) == 9
    assert sum(c["hits_bridge"] == 0 for c in costs) == 4  # two ViTs by two Q-Formers
    assert sum(c["hits_vision_blocks"] < 6 for c in costs) == 2
    quantized = sum(c["layers_written"] for c in costs)
    assert quantized == 24 + 48 + 2 * 36  # each part's layers once a width


def test_blocks_before_the_first_touched_one_are_not_run_again() -> None:
    these = jobs("part=vit", "blocks=5,4-5,3-5", "quant.bits=2")
    hits = [info["cost"]["hits_vision_blocks"] for _, info in run(these).values()]
    assert sorted(hits) == [0, 3, 4, 5]  # the baseline runs all six


@pytest.mark.thorough
def test_a_small_budget_shares_less_and_changes_nothing() -> None:
    these = jobs(*GRIDS["blocks"])
    small, alone = run(these, cache_memory_gb=1e-3), run(these, cache="off")
    assert [p.text for p, _ in small.values()] == [p.text for p, _ in alone.values()]


@pytest.mark.thorough
def test_what_is_on_disk_is_not_computed_by_another_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    these = jobs(*GRIDS["parts"])
    first = run(these, cache="disk", cache_dir=str(tmp_path))
    assert Store(tmp_path, 0).info().entries == 4
    monkeypatch.setattr("blip2sweep.models.images.Images.batches", lambda *_: pytest.fail("an image was read"))
    again = run(these, cache="disk", cache_dir=str(tmp_path))
    assert [p for p, _ in again.values()] == [p for p, _ in first.values()]
    assert sum(info["cost"].get("hits_disk", 0) for _, info in again.values()) == 4


def test_cache_off_keeps_nothing(tmp_path: Path) -> None:
    these = jobs(*GRIDS["parts"])[:3]
    found = run([*these, *these], cache="off", cache_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())
    assert all("hits_bridge" not in info["cost"] and info["cost"]["seconds_vision"] > 0 for _, info in found.values())


def test_what_was_asked_before_is_not_answered_again() -> None:
    job = jobs("part=llm", "quant.bits=3")[1]
    runner = TorchBackend({"device": "cpu"})
    first, second = runner(job), runner(job)
    assert second.predictions == first.predictions
    assert (first.cost["hits_language"], second.cost["hits_language"]) == (0, 40)


def test_sharing_changes_no_identity() -> None:
    assert plan("quant.bits=3").keys == plan("quant.bits=3", "cache=off", "cache_gb=1", "cache_memory_gb=1").keys


@pytest.mark.thorough
def test_half_precision_agrees_too() -> None:
    these = jobs(*GRIDS["parts"], "model.dtype=bfloat16")
    shared, alone = run(these), run(these, cache="off")
    pairs = [(a, b) for k in alone for a, b in zip(shared[k][0].text, alone[k][0].text, strict=True)]
    assert sum(a != b for a, b in pairs) <= len(pairs) // 50  # measured: none, for the batches are the same
    noise = [info["noise"] for _, info in shared.values() if info["noise"]]
    assert len(noise) == 1  # the baseline's second run, of which nothing is shared


def test_a_cell_that_fails_leaves_the_model_as_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = jobs("part=llm,vit", "quant.bits=3")[1:3]
    runner = TorchBackend({"device": "cpu"})
    expected = runner(two).predictions
    with monkeypatch.context() as broken:
        broken.setattr("blip2sweep.models.opt.Prefilled.generate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runner(one)
    assert runner(two).predictions == expected


# ---- the order of packs, and keys


def test_neighbours_share_the_longest_prefix() -> None:
    cells = list(plan(*GRIDS["parts"], "task.limit=4").cells.values())
    random.Random(0).shuffle(cells)
    ordered = sorted((c.job() for c in cells), key=Prefixes())
    by_key = {c.key: chain({}, c.recipe, c.model.anatomy.stages) for c in cells}
    chains = [by_key[j["key"]] for j in ordered]
    for level in (lambda c: c.points[6].key, lambda c: c.output):
        met = [level(c) for c in chains]
        assert len({a for a, b in itertools.pairwise(met) if a != b}) == len(set(met)) - 1  # each in one run
    assert ordered[0]["baseline"] == ordered[0]["key"]


def test_keys_part_where_recipes_part() -> None:
    loaded = load(tiny_config(), TINY)
    stages = loaded.anatomy.stages
    plain, last = (chain({"x": 1}, recipe(loaded.anatomy, p, b), stages) for p, b in (("none", "all"), ("vit", "5")))
    assert [(p.stage, p.block) for p in plain.points] == [*((0, block) for block in range(7)), (2, 0)]
    assert plain.points[:6] == last.points[:6]
    assert plain.points[6] != last.points[6]
    assert chain({"x": 2}, recipe(loaded.anatomy, "none"), stages).keys[0] != plain.keys[0]


# ---- weights by difference


def test_only_layers_that_differ_are_touched_and_all_of_them_come_back() -> None:
    loaded = load(tiny_config(), TINY)
    before = {n: p.clone() for n, p in loaded.model.named_parameters()}
    patch = Patch(loaded, Memo(CPU, 0, 10**9))
    counts = []
    for part, blocks, bits in [
        ("vit", "all", 3),
        ("vit", "first", 3),
        ("vit", "all", 3),
        ("vit+llm", "all", 3),
        ("vit", "0", 4),
    ]:
        wanted = recipe(loaded.anatomy, part, blocks, bits=bits)
        applied = patch.apply(wanted)
        assert set(applied.layers) == set(wanted.schemes)
        assert applied.layers_changed == len(applied.layers)
        counts.append((applied.written, applied.recalled))
    assert counts == [(24, 0), (0, 0), (0, 16), (36, 0), (4, 0)]
    patch.restore()
    assert all(torch.equal(p, before[n]) for n, p in loaded.model.named_parameters())


def test_remembered_weights_are_the_computed_ones() -> None:
    loaded = load(tiny_config(), TINY)
    remembering, forgetting = Patch(loaded, Memo(CPU, 0, 10**9)), Patch(loaded)
    states = []
    for patch in (remembering, remembering, forgetting):
        patch.apply(recipe(loaded.anatomy, "all", bits=2))
        states.append({n: p.clone() for n, p in loaded.model.named_parameters()})
        patch.restore()
    assert all(torch.equal(states[0][n], s[n]) for s in states[1:] for n in states[0])


# ---- the memo


def value(n: int) -> tuple[torch.Tensor, ...]:
    return (torch.full((n,), 1.0),)


def test_a_memo_stays_within_its_budget_and_forgets_the_oldest() -> None:
    memo = Memo(CPU, 0, 100)
    for name in "abcde":
        memo.put(name, value(8))
        memo.get("a")
    assert memo.bytes == 96
    assert [n for n in "abcde" if memo.get(n)] == ["a", "d", "e"]
    memo.put("huge", value(1000))
    assert memo.get("huge") is None
    assert memo.bytes == 96


def test_a_memo_that_knows_what_comes_keeps_what_comes_first() -> None:
    memo = Memo(CPU, 0, 64)
    memo.expect([["a"], ["b"], ["c"], ["a"], ["b"]])
    memo.advance(0)
    for name in "cab":
        memo.put(name, value(8))
    assert [n for n in "abc" if memo.get(n)] == ["b", "c"]
    assert memo.remaining_uses("a") == 1
    memo.advance(3)
    assert [n for n in "abc" if memo.get(n)] == ["b"]  # nobody will ask for c


def test_what_does_not_fit_the_device_goes_to_the_host() -> None:
    memo = Memo(CPU, 0, 64)
    memo._tiers.insert(0, type(memo._tiers[0])(32))
    for name in "abc":
        memo.put(name, value(8))
    assert [len(t.entries) for t in memo._tiers] == [1, 2]
    assert all(memo.get(n) for n in "abc")
    assert size(value(8)) == 32


# ---- the store on disk


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", 10**6)


def test_an_entry_comes_back(store: Store) -> None:
    assert store.get("k") is None
    assert store.put("k", b"x" * 1000)
    assert store.get("k") == b"x" * 1000
    assert store.info().entries == 1
    assert store.clear().entries == 1
    assert store.get("k") is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "header", "empty", "version", "renamed"])
def test_a_damaged_or_foreign_entry_is_not_used(store: Store, damage: str) -> None:
    store.put("k", b"0123456789")
    path = store.folder / "k.entry"
    whole = path.read_bytes()
    broken = {
        "cut": whole[:-3], "flipped": whole[:-1] + b"x", "header": whole[5:], "empty": b"",
        "version": whole.replace(b'"version": 1', b'"version": 0'), "renamed": whole.replace(b'"k"', b'"j"'),
    }  # fmt: skip
    path.write_bytes(broken[damage])
    assert store.get("k") is None
    store.put("k", b"again")
    assert store.get("k") == b"again"


@pytest.mark.thorough
def test_a_damaged_entry_is_computed_again(tmp_path: Path) -> None:
    these = jobs(*GRIDS["parts"])[:2]
    first = run(these, cache="disk", cache_dir=str(tmp_path))
    for path in tmp_path.glob("*.entry"):
        path.write_bytes(path.read_bytes()[:-100])
    again = run(these, cache="disk", cache_dir=str(tmp_path))
    assert [p for p, _ in again.values()] == [p for p, _ in first.values()]
    assert run(these[:1], cache="disk", cache_dir=str(tmp_path))[these[0]["key"]][1]["cost"]["hits_disk"] == 1


def test_the_least_recently_used_entry_goes_first(store: Store) -> None:
    store.budget = 3500
    for age, name in enumerate("abc"):
        store.put(name, bytes(1000))
        os.utime(store.folder / f"{name}.entry", (age, age))
    assert store.get("a") is not None  # used now, so b is the oldest
    store.put("d", bytes(1000))
    assert [n for n in "abcd" if store.get(n)] == ["a", "c", "d"]
    assert not store.put("huge", bytes(10_000))
    assert store.info().bytes <= 3500


def test_a_checkpoint_that_no_training_goes_on_with_is_cleared(store: Store) -> None:
    old, new = (store.folder / RECOVERY / f"{name}.safetensors" for name in ("old", "new"))
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_bytes(bytes(10))
    os.utime(old, (1, 1))
    assert store.clear().entries == 1
    assert (old.exists(), new.exists()) == (False, True)


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    these = jobs(*GRIDS["parts"])[:4]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run(these, cache="disk", cache_dir=str(tmp_path / "file" / "cache"))
    told = [str(w.message) for w in caught if "cache" in str(w.message)]
    assert len(told) == 1
    assert "cannot be written (Not a directory); going on in memory. Right: " in told[0]
    assert sum(info["cost"]["hits_bridge"] > 0 for _, info in found.values()) == 2  # memory still shares


FULL = """
import resource, sys, warnings
from pathlib import Path
from blip2sweep.cache.disk import RECOVERY, Store
warnings.simplefilter("always")
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # the kernel refuses, as on a full disk
store = Store(Path(sys.argv[1]), 10**9)
print(store.put("small", bytes(1000)), store.put("large", bytes(9000)), store.put("larger", bytes(9999)))
print(sorted(p.name for p in store.folder.iterdir()))
"""


def test_a_full_disk_leaves_no_half_entry(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "True False False\n['small.entry']\n"
    assert done.stderr.count("cannot be written") == 1


WRITER = """
import sys
from pathlib import Path
from blip2sweep.cache.disk import RECOVERY, Store
store = Store(Path(sys.argv[1]), 10**9)
print("ready", flush=True)
for i in range(int(sys.argv[3])):
    store.put("k", sys.argv[2].encode() * 2_000_000)
"""


def writer(folder: Path, letter: str, times: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), letter, str(times)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_of_two_writers_either_wins_and_both_are_valid(tmp_path: Path) -> None:
    store, writers = Store(tmp_path, 10**9), [writer(tmp_path, letter, 40) for letter in "ab"]
    seen = set()
    while any(w.poll() is None for w in writers):
        if (found := store.get("k")) is not None:
            assert len(found) == 2_000_000
            seen |= {found[:1] * (found == found[:1] * 2_000_000)}
    assert seen <= {b"a", b"b"}
    assert store.get("k") is not None
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.thorough
def test_a_writer_killed_while_writing_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    for attempt in range(5):
        process = writer(tmp_path, "a", 10_000)
        time.sleep(0.05 * (attempt + 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert Store(tmp_path, 10**9).get("k") in (None, b"a" * 2_000_000)
    (tmp_path / ".k.0.tmp").write_bytes(b"half")
    os.utime(tmp_path / ".k.0.tmp", (0, 0))
    cache.Store(tmp_path, 2_500_000).put("j", b"b" * 1_000_000)  # makes room: old rests of the killed go too
    assert not (tmp_path / ".k.0.tmp").exists()
