"""Damages an output folder in every way and looks whether what the verbs then show is true.

    python scripts/fuzz_ledger.py                     # 1,000 tries; some minutes
    python scripts/fuzz_ledger.py --tries 200 --seed 7 --real   # cells of the tiny model instead of made-up ones

A folder is made by real commands: sweeps with failed, requeued, calibrated and repeated cells, and imported rows. Each try
copies it, damages one file (a flip, a cut, a hole, a block of noughts, lines lost, moved or said twice, an odd line, the file
gone), and has the verbs' own functions read it; in every other try they read lines together however few there are, as those of
a large ledger. What they show is compared with what the whole folder shows. A try is

    silent     when a value differs, or is new, and no message names the file or its cell
    traceback  when anything but a message of one line comes out

A value that is not shown any more is no lie: the cell is not done. Exit code 1 when any try is silent or a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from blip2sweep.cache.disk import Store
from blip2sweep.commands.sweeps import logs
from blip2sweep.commands.table import show_table
from blip2sweep.console import remarks
from blip2sweep.errors import UserError
from blip2sweep.reporting.captions import captions
from blip2sweep.reporting.source import load_source
from blip2sweep.reporting.table_asked import Asked
from blip2sweep.reporting.worst import worst_samples
from blip2sweep.results import line_batches
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.predictions import read_predictions, stem
from blip2sweep.results.sweeps import list_sweeps
from blip2sweep.results.table_files import sweep_rows
from blip2sweep.running.queue import QueueState
from blip2sweep.running.status import print_status, sweep_status

DUMMY = ["backend=dummy"]
TASK = ["-m", "task=shapes_vqa", "task.limit=8"]
CSV = "part,bits,cider\nnone,,1.2\nvit,4,1.1\nllm,4,1.0\n"
Shown = dict[tuple[str, ...], Any]
Look = Callable[[Path], Iterator[tuple[tuple[str, ...], Any]]]

# ---- the folder


def command(*words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(env or {})}
    run = [sys.executable, "-m", "blip2sweep", *words]
    return subprocess.run(run, cwd=cwd, env=given, capture_output=True, text=True)


def make(cwd: Path, real: bool) -> Path:
    """An output folder with a bit of everything. real: computed by the tiny model."""
    env: dict[str, str] = {}
    words = [*TASK, *([] if real else DUMMY), "part=vit,llm", "quant.bits=2,4", "sweep_name=first"]
    raising = env if real else {**env, "BLIP2SWEEP_DUMMY": json.dumps({"raise": ["vit:all:all=rtn2"]})}
    command(*words, cwd=cwd, env=raising)
    outputs = cwd / "outputs"
    done = next(r["key"] for r in Ledger(outputs).refresh().results() if r["columns"]["part"] == "llm")
    _must(command(*words[:-1], "part=llm", "sweep_name=again", "--rerun", done, cwd=cwd, env=env))
    more = ["model.dtype=bfloat16", "analysis.propagation=true"] if real else []
    calibrated = [
        *TASK,
        *([] if real else DUMMY),
        "quant=gptq",
        "part=llm",
        "quant.bits=3",
        "calibration.n_samples=8",
        "sweep_name=calibrated",
    ]
    _must(command(*calibrated, *more, cwd=cwd, env=env))
    (cwd / "mine.csv").write_text(CSV)
    _must(command("import", "csv", "mine.csv", cwd=cwd))
    unfinished(outputs, done)
    return outputs


def _must(ran: subprocess.CompletedProcess[str]) -> None:
    if ran.returncode:
        raise SystemExit(ran.stderr[-2000:])


def unfinished(outputs: Path, done: str) -> None:
    """Attempts that were given up: of a cell that is done, and of one that never was."""
    journal, ledger = Journal(outputs), Ledger(outputs).refresh()
    failed = next((k for k, a in ledger.attempts.items() if a.failures), done)
    for key in dict.fromkeys((failed, done)):
        told = {"key": key, "sweep": "first", "run": "other", "attempt": f"given-up-{key[:4]}", "job": None}
        journal.write("started", **told)
        journal.write("requeued", **told, reason="preempted")
    journal.close()


# ---- what is shown


def shown(outputs: Path, looks: Sequence[Look]) -> Shown:
    """Every value that the reading verbs show, by where it stands."""
    found: Shown = {}
    for what in looks:
        with contextlib.suppress(UserError):
            for where, value in what(outputs):
                found[where] = value
    return found


def _tables(outputs: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    table = _told(lambda: collect(outputs))
    yield from _rows("table", table)
    for sweep in list_sweeps(outputs) if table is not None else ():
        yield from _rows(sweep.name, sweep_rows(table, sweep))
    for path in sorted((outputs / "samples.parquet").glob("*.parquet")):
        rows = pq.read_table(path, page_checksum_verification=True).to_pandas()
        for row in rows.to_dict("records"):
            yield ("samples", row["key"], str(row["id"])), str(sorted(row.items()))
    if (path := outputs / "propagation.parquet").exists():
        for row in pd.read_parquet(path, page_checksum_verification=True).to_dict("records"):
            yield ("propagation", row["key"], str(row["block"]), str(row.get("part"))), str(sorted(row.items()))


def _rows(name: str, table: pd.DataFrame | None) -> Iterator[tuple[tuple[str, ...], Any]]:
    for row in table.to_dict("records") if table is not None else ():
        known = ((c, v) for c, v in row.items() if v is not None and v == v)
        yield from (((name, row["key"], str(c)), str(v)) for c, v in known)


def _told(what: Callable[[], Any]) -> Any:
    """None where a message came instead."""
    try:
        return what()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return None


def _statuses(outputs: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    for sweep in list_sweeps(outputs):
        ledger = Ledger(outputs, only=sweep.keys, brief=True)
        status = sweep_status(outputs, sweep, ledger, QueueState())
        yield from ((("status", sweep.name, key), s) for key, s in status.states.items() if s in ("done", "failed"))


def _texts(outputs: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What is printed: the whole table, and what is known of every cell's attempts."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        _told(lambda: show_table(outputs, None, True, Asked("csv")))
    if printed := said.getvalue():
        yield from _rows("printed", pd.read_csv(io.StringIO(printed), dtype=str))
    with contextlib.redirect_stdout(io.StringIO()):
        for sweep in list_sweeps(outputs):
            _told(lambda sweep=sweep: print_status(outputs, sweep.name))  # type: ignore[misc]
    for key in Ledger(outputs).refresh().attempts:
        _told(lambda key=key: logs(outputs, key))  # type: ignore[misc]


def _reports(outputs: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    for sweep in list_sweeps(outputs):
        source = _told(lambda sweep=sweep: load_source(outputs, sweep.name))  # type: ignore[misc]
        if source is None:
            continue
        if source.draws is not None:
            for key in source.draws.arrays:
                yield ("draws", sweep.name, key), float(source.draws.value(key))
        pages = _told(lambda source=source: captions(source))  # type: ignore[misc]
        for cell, index in zip(pages["cells"], pages["index"], strict=True) if pages else ():
            texts = [list(t)[i] for t, i in zip(pages["texts"], index, strict=False)]
            yield from ((("said", sweep.name, cell["key"], str(i)), t) for i, t in enumerate(texts))
        worst = _told(lambda source=source: worst_samples(source))  # type: ignore[misc]
        for row in worst.to_dict("records") if worst is not None else ():
            yield ("worst", sweep.name, row["key"], str(row["id"])), str(sorted(row.items()))


def _entries(outputs: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    store = Store(outputs / "cache", 0)
    for path in sorted((outputs / "cache").glob("*.entry")):
        payload = store.get(path.stem)
        if payload is not None:
            yield ("cache", path.stem), hash(payload)
    for result in Ledger(outputs).refresh().results():
        if result["predictions"]:
            said = _told(lambda r=result: read_predictions(outputs, stem(r["key"], r["predictions"])))  # type: ignore[misc]
            if said is not None:
                yield ("predictions", result["key"]), said.hash


QUICK: tuple[Look, ...] = (_tables, _statuses, _entries)
ALL: tuple[Look, ...] = (*QUICK, _texts, _reports)

# ---- damage

# A line that an earlier version could have written, but for one field.
RESULT = (b'{"event":"result","time":1,"host":"h","key":"KEY","predictions":"00","columns":{"model":"m","dtype":"float32","task":"t",'
          b'"part":"none","recipe":"none","recipe_json":"[]","baseline":"KEY","data":"d","semantics":1,"samples":1}')  # fmt: skip
MEASURED = (
    b'{"event":"measured","time":1,"host":"h","key":"KEY","source":"s","scored":"s","samples":1,"noise":{},"metrics":{}'
)
FIELDS = [
    *(b'"%b":%b' % (k, v) for k in (b"replaces", b"starts") for v in (b"5", b'"x"', b"null", b"{}", b"[1]", b"[[1]]", b"[null]")),
    *(b'"files":' + v for v in (b"5", b'"x"', b"[]", b"[[1,2,3]]", b'{"predictions":[1]}', b'{"predictions":null}',
                                b'{"predictions":5}', b'{"predictions":["1",2,3]}', b'{"noise-seed":[1,2.5,3]}')),
]  # fmt: skip
BESIDE = [
    b'"generation":"q"',
    b'"generation":null',
    b'"generation":1.5',
    b'"images":"x"',
    b'"images":[1]',
    b'"same":[]',
]
ODD = [
    *(RESULT + b"," + field + b"}" for field in FIELDS),
    *(MEASURED + b"," + field + b"}" for field in BESIDE),
    MEASURED.replace(b'"metrics":{}', b'"metrics":{"cider":[1,2]}') + b"}",
    b"null", b"[]", b"5", b'"x"', b"{}", b"", b"\x00\xff\xfe binary \x80", b"[" * 5000, b'{"event":"result"}', b"not json",
    b'{"event":"result","time":1,"host":"h","key":7,"predictions":null,"columns":{}}',
    b'{"event":"result","time":"x","host":"h","key":"KEY","predictions":null,"columns":{}}',
    b'{"event":"result","time":1e400,"host":"h","key":"KEY","predictions":null,"columns":{}}',
    b'{"event":"result","time":NaN,"host":"h","key":"KEY","predictions":null,"columns":{}}',
    b'{"event":"result","time":' + b"9" * 5000 + b',"host":"h","key":"KEY","predictions":null}',
    b'{"event":"result","time":9000000000000,"host":"h","key":"KEY","predictions":"0","columns":null}',
    b'{"event":"result","time":1,"host":"h","key":"KEY","predictions":{"a":1},"columns":{"model":[]}}',
    b'{"event":"result","time":1,"host":"h","key":"KEY","key":"KEY","predictions":null,"columns":{}}',
    b'{"event":"result","time":1,"host":"h","key":"../../etc/passwd","predictions":"x","columns":{}}',
    b'{"event":"started","time":1,"key":"KEY"}', b'{"event":"started","time":1,"host":"h","pid":"x","key":"KEY"}',
    b'{"event":"failed","time":1,"host":"h","key":"KEY"}', b'{"event":"failed","time":1,"host":"h","key":"KEY","kind":3}',
    b'{"event":"measured","time":1,"host":"h","key":"KEY"}', b'{"event":"worker"}', b'{"event":"worker","run":[]}',
    b'{"event":"measured","time":1,"host":"h","key":"KEY","source":"s","scored":"s","samples":1,"metrics":{"cider":["x"]}}',
    b'{"event":"worker","time":1,"host":"h","run":"r","pack":{}}', b'{"event":[],"key":"KEY"}', b'{"key":"KEY"}',
    b'{"event":"result","x":"' + b"y" * 2_000_000 + b'"}', b'{"event":"requeued","time":-1,"host":"h","key":"KEY"}',
]  # fmt: skip


def flip(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def hole(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.randint(1, 200) :]


def noughts(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.choice((1, 16, 512, 4096)))
    return data[:start] + bytes(end - start) + data[end:]


def garbage(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + draw.randbytes(draw.randint(1, 64)) + data[start + draw.randint(0, 64) :]


def lines(data: bytes, draw: random.Random) -> bytes:
    """Some lines lost, one twice, or two exchanged."""
    all_ = data.splitlines(keepends=True)
    first, second = draw.randrange(len(all_)), draw.randrange(len(all_))
    how = draw.randrange(3)
    if how == 0:
        del all_[first : first + draw.randint(1, 3)]
    elif how == 1:
        all_.insert(second, all_[first])
    else:
        all_[first], all_[second] = all_[second], all_[first]
    return b"".join(all_)


def odd(data: bytes, draw: random.Random) -> bytes:
    all_ = data.splitlines(keepends=True)
    key = data.partition(b'"key":"')[2][:12] or b"a" * 12
    all_.insert(draw.randint(0, len(all_)), draw.choice(ODD).replace(b"KEY", key) + b"\n")
    return b"".join(all_)


FILES = {"flip": flip, "cut": cut, "hole": hole, "noughts": noughts, "garbage": garbage}
JOURNALS = {"lines": lines, "odd": odd}


def damage(outputs: Path, draw: random.Random) -> tuple[str, Path]:
    """Damage one file. Every folder is as likely as any other, so that many predictions do not hide one sweep.json."""
    files = sorted(p for p in outputs.rglob("*") if p.is_file())
    by_kind: dict[str, list[Path]] = {}
    for path in files:
        by_kind.setdefault(kind(outputs, path), []).append(path)
    path = draw.choice(by_kind[draw.choice(sorted(by_kind))])
    ways = {**FILES, **(JOURNALS if path.suffix == ".jsonl" else {}), "gone": None, "alone": None}
    how = draw.choice(sorted(ways))
    if how == "gone":
        path.unlink()
    elif how == "alone":  # nothing but odd lines, in a journal of an earlier version
        path = outputs / "journals" / "odd.jsonl"
        path.write_bytes(b"\n".join(draw.sample(ODD, 5)).replace(b"KEY", b"a" * 12) + b"\n")
    elif data := path.read_bytes():
        path.write_bytes(ways[how](data, draw))  # type: ignore[misc]
    return how, path


def kind(outputs: Path, path: Path) -> str:
    """`journals`, `sweeps sweep.json`, …."""
    parts = path.relative_to(outputs).parts
    if parts[0] != "sweeps":
        return parts[0]
    return f"sweeps {parts[2]}" if len(parts) > 2 else "sweeps"


# ---- the tries

EVERY = 4  # reports take most of the time: they are made in every fourth try


@dataclass
class Found:
    """Of all tries. silent, tracebacks: what happened, in words."""

    tries: int = 0
    changed: int = 0  # something differs from the whole folder, or is gone; with the silent ones
    ways: Counter[str] = field(default_factory=Counter)
    silent: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)

    def told(self) -> str:
        ways = ", ".join(f"{n} {way}" for way, n in self.ways.most_common())
        return (f"{self.tries} tries ({ways}): {self.changed} showed less or other values than the whole folder; "
                f"{len(self.silent)} silent changes, {len(self.tracebacks)} tracebacks")  # fmt: skip


def looked_at(outputs: Path, looks: Sequence[Look]) -> tuple[Shown, str]:
    """(what is shown, what was said on stderr)."""
    remarks.forget()
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        return shown(outputs, looks), said.getvalue()


@contextlib.contextmanager
def together(few: bool) -> Iterator[None]:
    """few: whether lines are parsed together however few there are, as those of a large ledger are."""
    before = line_batches.LEAST, line_batches.FEW
    line_batches.LEAST, line_batches.FEW = (1, 1) if few else before
    try:
        yield
    finally:
        line_batches.LEAST, line_batches.FEW = before


def fuzz(
    whole: Path, scratch: Path, tries: int, seed: int, looks: Sequence[Look] = ALL, progress: bool = False
) -> Found:
    """Damage copies of a folder `whole`, one file a try."""
    found, truth = Found(), looked_at(whole, looks)[0]
    for i in range(tries):
        outputs = scratch / f"try-{i}"
        shutil.copytree(whole, outputs, copy_function=shutil.copy2)
        how, path = damage(outputs, random.Random(f"{seed} {i}"))
        found.tries += 1
        found.ways[f"{how} {kind(outputs, path)}" if progress else how] += 1
        where = f"seed {seed}, try {i}: {how} {path.relative_to(outputs)}"
        try:
            some = looks if i % EVERY == 0 else tuple(x for x in looks if x is not _reports)
            with together(few=i % 2 == 1):
                _compare(found, truth, *looked_at(outputs, some), path, where)
        except Exception:
            found.tracebacks.append(f"{where}\n{traceback.format_exc()}")
        shutil.rmtree(outputs)
        if progress and sys.stderr.isatty():
            print(f"\r{i + 1}/{tries}", end="", file=sys.stderr)
    return found


def _compare(found: Found, truth: Shown, now: Shown, said: str, path: Path, where: str) -> None:
    other = {k: v for k, v in now.items() if truth.get(k, _NOTHING) != v}
    looks = {k[0] for k in now}
    found.changed += bool(other) or len(now) < sum(k[0] in looks for k in truth)
    named = path.name in said or any(str(part) in said for k in other for part in k if len(part) == 12)
    if other and not named:
        listed = [f"{k}: {truth.get(k)} -> {v}" for k, v in list(other.items())[:5]]
        found.silent.append("\n".join([where, *listed, said]))


_NOTHING = object()


def through_the_door(whole: Path, scratch: Path, tries: int, seed: int) -> list[str]:
    """A sample of tries by real commands. Tracebacks, in words."""
    found = []
    for i in range(tries):
        cwd = scratch / f"door-{i}"
        shutil.copytree(whole, cwd / "outputs", copy_function=shutil.copy2)
        how, path = damage(cwd / "outputs", random.Random(f"{seed} door {i}"))
        verb = (["table", "--all"], ["status"], ["report"], ["rescore"], ["table"])[i % 5]
        ran = command(*verb, cwd=cwd)
        if "Traceback" in ran.stderr or ran.returncode not in (0, 1, 2):
            found.append(f"{how} {path.relative_to(cwd)}, {verb}: {ran.stderr[-3000:]}")
        shutil.rmtree(cwd)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="cells of the tiny model")
    parser.add_argument("--commands", type=int, default=10, help="tries by real commands besides")
    parser.add_argument("--whole", type=Path, help="an output folder to damage copies of; by default one is made")
    asked = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        whole = asked.whole or make(scratch, asked.real)
        found = fuzz(whole, scratch, asked.tries, asked.seed, progress=True)
        found.tracebacks += through_the_door(whole, scratch, asked.commands, asked.seed)
    print("\n\n".join([*found.silent, *found.tracebacks, found.told(), f"{time.perf_counter() - start:.0f} s"]))
    return 1 if found.silent or found.tracebacks else 0


if __name__ == "__main__":
    sys.exit(main())
