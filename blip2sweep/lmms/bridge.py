"""Tasks of lmms-eval answered by blip2sweep, by files. Run this in an environment with lmms-eval; it needs nothing else.

    python lmms_bridge.py export TASK FOLDER        # FOLDER/samples.jsonl, FOLDER/images/, FOLDER/lmms.json
    blip2sweep -m task=jsonl task.data_dir=FOLDER generation.prompt='{}' …        # in the environment of blip2sweep
    python lmms_bridge.py score FOLDER outputs/predictions/KEY-*.json             # the task's own scores

`export` writes what a model of lmms-eval would get: the prompt, with description and examples, and the picture. `score` gives
the answers to the task's filters, process_results and aggregation. It takes files of outputs/predictions, and JSON Lines with
`id` and `text`. Tasks of generated text with one picture a question work; others are refused before anything is written.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import io
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import distributions
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

SAMPLES, IMAGES, ABOUT = "samples.jsonl", "images", "lmms.json"
Row = dict[Any, Any]  # JSON, or what a task of lmms-eval gives
MOST = 10  # mistakes that are printed; the others are counted


class Refused(Exception):
    """What was wrong, a line a mistake; nothing was written."""


# ---- export


def export(name: str, folder: Path, limit: int | None, include_path: str | None, model_name: str | None) -> None:
    """Write the samples of a task: one JSON object a line, and each picture once."""
    if limit is not None and limit < 1:
        raise Refused(f"--limit {limit}: right: 1 or more documents")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise Refused(f"{folder}: is {'not empty' if folder.is_dir() else 'a file'}; right: a new folder")
    task = load(name, include_path, model_name)
    rows, pictures, note = samples(task, limit)
    given: Row = task.config.generation_kwargs or {}
    about: Row = {"task": name, "limit": limit, "model_name": model_name, "samples": digest(rows)}
    about["include_path"] = include_path and str(Path(include_path).resolve())
    about["generation_kwargs"] = {k: v for k, v in given.items() if isinstance(v, (int, float, str, list))}
    about["lmms_eval"] = next((found.version for found in distributions(name="lmms-eval")), None)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    try:
        (folder / IMAGES).mkdir(parents=True)
        for file, content in {**pictures, SAMPLES: lines.encode(), ABOUT: json.dumps(about, indent=1).encode()}.items():
            (folder / file).write_bytes(content)
    except OSError as error:
        raise Refused(f"{folder}: cannot be written ({error}); right: a new folder with space") from None
    words, left = overrides(given)
    told = [f"{len(rows)} samples with {len(pictures)} pictures in {folder}. Answer them with"]
    print(*told, f"  blip2sweep -m task=jsonl task.data_dir={folder} {words}", *note, *left, sep="\n")


def samples(task: Any, limit: int | None) -> tuple[list[Row], dict[str, bytes], list[str]]:
    """The rows of all documents, {file name: PNG} of their pictures, and a note. Raises Refused for what cannot be
    exchanged. Answers are in all rows or in none, as blip2sweep reads them."""
    docs, rows, pictures, wrong = task.eval_docs, [], {}, []
    for request in requests(task, limit):
        doc, where = docs[request.doc_id], f"document {request.doc_id}"
        prompt, visuals = request.arguments[0], task.doc_to_visual(doc) or []
        if not isinstance(prompt, str) or not prompt.strip():
            wrong.append(f"{where}: the prompt is {prompt!r:.60}; right: a text")
        elif len(visuals) != 1 or not hasattr(visuals[0], "convert"):
            kinds = ", ".join(type(v).__name__ for v in visuals) or "nothing"
            wrong.append(f"{where}: shows {kinds}; right: a task with one picture a question")
        else:
            visuals[0].convert("RGB").save(out := io.BytesIO(), format="PNG")
            file = f"{IMAGES}/{hashlib.sha256(out.getvalue()).hexdigest()[:16]}.png"
            pictures[file] = out.getvalue()
            own = {"id": request.doc_id, "image": file, "question": prompt}
            rows.append({**own, "answers": targets(task, doc)})
    if wrong or not rows:
        raise Refused(*wrong or ["the task has no documents; right: one with samples"])
    if not (bare := sum(not row["answers"] for row in rows)):
        return rows, pictures, []
    note = f"{bare} of {len(rows)} documents have no target: samples without answers, which blip2sweep does not score"
    return [{k: v for k, v in row.items() if k != "answers"} for row in rows], pictures, [note]


def targets(task: Any, doc: Any) -> list[str]:
    """The references as texts. They are for likelihoods; the task's own scores do not read them."""
    found = task.doc_to_target(doc)
    listed = found if isinstance(found, (list, tuple)) else [found]
    texts = [text if isinstance(text, str) else json.dumps(text, default=str) for text in listed if text is not None]
    return [text for text in texts if text.strip()]


def overrides(settings: Row) -> tuple[str, list[str]]:
    """The words of the command, and a line about the settings that are not among them."""
    told = [name for name in ("max_new_tokens", "num_beams") if isinstance(settings.get(name), int)]
    left = ", ".join(f"{name}={value!r:.60}" for name, value in settings.items() if name not in told)
    words = ["generation.prompt='{}'", *(f"generation.{name}={settings[name]}" for name in told)]
    return " ".join(words), [f"Not carried over: {left}"] if left else []


# ---- score


def score(folder: Path, files: list[Path], output: Path | None, include_path: str | None, media: bool) -> None:
    """Print the scores of each file of answers, a JSON object a line, and write them with those of each document."""
    with opened(output) as out:
        about, rows = exported(folder)
        answers = {file: read(file, {row["id"] for row in rows}) for file in files}
        task = load(about["task"], include_path or about["include_path"], about["model_name"])
        asked = [(request.doc_id, request.arguments[0]) for request in requests(task, about["limit"])]
        if digest(rows) != about["samples"] or asked != [(row["id"], row["question"]) for row in rows]:
            raise Refused(f"{folder}: not the documents and prompts of this task any more; right: export again")
        task.args = SimpleNamespace(output_path=str(folder), log_samples=False, process_with_media=media)
        scored = {file: one(task, about["limit"], texts, media) for file, texts in answers.items()}
        for file, (values, _) in scored.items():
            print(json.dumps({"file": str(file), **values}, default=str))
        listed = [{"file": str(f), "metrics": values, "documents": docs} for f, (values, docs) in scored.items()]
        out.write(json.dumps({**about, "scores": listed}, default=str, indent=1) + "\n")


@contextmanager
def opened(path: Path | None) -> Iterator[IO[str]]:
    """A new file, made before the work whose result it gets, and removed where that fails."""
    try:
        file = path.open("x", encoding="utf-8") if path else io.StringIO()
    except OSError as error:
        raise Refused(f"{path}: cannot be written ({error.strerror}); right: a new file in a folder") from None
    with file, ExitStack() as undo:
        undo.callback(path.unlink if path else file.close)
        yield file
        undo.pop_all()


def exported(folder: Path) -> tuple[Row, list[Row]]:
    """What `export` wrote."""
    try:
        lines = (folder / SAMPLES).read_text(encoding="utf-8").split("\n")
        return json.loads((folder / ABOUT).read_text(encoding="utf-8")), [json.loads(x) for x in lines if x.strip()]
    except (OSError, ValueError) as error:
        raise Refused(f"{folder}: cannot be read ({error}); right: a folder that export wrote") from None


def one(task: Any, limit: int | None, texts: Row, media: bool) -> tuple[Row, dict[Any, Row]]:
    """({metric,filter: value}, {document: {metric,filter: its share}}) of answers, as lmms-eval's evaluator makes them."""
    built = requests(task, limit)
    for request in built:
        request.resps.append(texts[request.doc_id])
    task.apply_filters()
    docs = task.eval_docs if media or not hasattr(task, "eval_docs_no_media") else task.eval_docs_no_media
    values: Row = {}
    shares: dict[Any, Row] = {}
    for name in built[0].filtered_resps:
        found: dict[str, list[Any]] = {}
        for request in built:
            for metric, share in task.process_results(docs[request.doc_id], [request.filtered_resps[name]]).items():
                found.setdefault(metric, []).append(share)
                shares.setdefault(request.doc_id, {})[f"{metric},{name}"] = share
        for metric, listed in found.items():
            if add := task.aggregation().get(metric):
                own = {"args": task.args} if "args" in inspect.signature(add).parameters else {}
                values[f"{metric},{name}"] = add(listed, **own)
    return values, shares


def read(path: Path, wanted: set[Any]) -> dict[Any, str]:
    """{document: answer} of a file of outputs/predictions, or of JSON Lines with `id` and `text`."""
    try:
        listed = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        whole = len(listed) == 1 and isinstance(listed[0].get("id"), list)
        columns = listed[0] if whole else {key: [row[key] for row in listed] for key in ("id", "text")}
        pairs = list(zip(columns["id"], columns["text"], strict=True))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        told = f"cannot be read ({error}); right: a file of outputs/predictions, or id and text a line"
        raise Refused(f"{path}: {told}") from None
    texts, wrong = dict[Any, str](), list[str]()
    for own, text in pairs:
        if type(own) not in (int, str) or own not in wanted:
            wrong.append(f"{path}: id {own!r:.60}: is of no sample; right: answers to this export")
            continue
        if own in texts or not isinstance(text, str):
            told = "stands twice; right: once" if own in texts else f"text is {text!r:.60}; right: a text"
            wrong.append(f"{path}: id {own!r}: {told}")
        texts[own] = text
    if lacking := sorted(wanted - texts.keys(), key=str):
        told = f"no answer to {len(lacking)} of {len(wanted)} samples, such as {lacking[0]!r}"
        wrong.append(f"{path}: {told}; right: an answer to each")
    if wrong:
        raise Refused(*wrong)
    return texts


def load(name: str, include_path: str | None, model_name: str | None) -> Any:
    """A task of lmms-eval by its name. Raises Refused for a group, and for one whose output is no generated text."""
    try:
        from lmms_eval.tasks import TaskManager
    except ImportError as error:
        raise Refused(f"lmms-eval cannot be imported ({error}); right: an environment with it") from None
    manager = TaskManager("ERROR", include_path=include_path, model_name=model_name)
    if name not in manager.all_tasks:
        raise Refused(f"{name}: lmms-eval has no task of this name; right: one of `lmms-eval --tasks list`")
    (task,) = list(manager.load_task_or_group([name]).values())[:1]
    if isinstance(task, dict):
        raise Refused(f"{name}: is a group; right: one of its tasks, {', '.join(map(str, task))}")
    if task.OUTPUT_TYPE != "generate_until":
        raise Refused(f"{name}: its output is {task.OUTPUT_TYPE}; right: a task with output_type: generate_until")
    return task


def requests(task: Any, limit: int | None) -> list[Any]:
    """New requests of all documents, in their order."""
    task.build_all_requests(limit=limit)
    return list(task.instances)


def digest(rows: list[Row]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    out = verbs.add_parser("export", help="write a task's samples for blip2sweep")
    out.add_argument("task")
    out.add_argument("folder", type=Path)
    out.add_argument("--limit", type=int, help="the first N documents")
    out.add_argument("--model-name", help="whose prompts to take, where a task has several")
    back = verbs.add_parser("score", help="score answers as the task does")
    back.add_argument("folder", type=Path)
    back.add_argument("files", type=Path, nargs="+", metavar="PREDICTIONS")
    back.add_argument("--output", type=Path, help="write the scores, with those of each document, as JSON")
    back.add_argument("--media", action="store_true", help="give process_results the pictures too")
    for verb in (out, back):
        verb.add_argument("--include-path", help="a folder with task YAML of your own")
    given = vars(parser.parse_args())
    try:
        score(**given) if given.pop("verb") == "score" else export(given.pop("task"), **given)
    except Refused as refused:
        more = [f"and {len(refused.args) - MOST} more"] if len(refused.args) > MOST else []
        print(*refused.args[:MOST], *more, sep="\n", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
