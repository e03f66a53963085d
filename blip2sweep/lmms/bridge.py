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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SAMPLES, IMAGES, ABOUT = "samples.jsonl", "images", "lmms.json"
Row = dict[Any, Any]  # JSON, or what a task of lmms-eval gives
MOST = 10  # mistakes that are printed; the others are counted


class Refused(Exception):
    """What was wrong, a line a mistake; nothing was written."""


# ---- export


def export(
    name: str, folder: Path, limit: int | None = None, include_path: str | None = None, model_name: str | None = None
) -> None:
    """Write the samples of a task: one JSON object a line, and each picture once."""
    if folder.exists() and any(folder.iterdir()):
        raise Refused(f"{folder}: is not empty; right: a new folder")
    task = load(name, include_path, model_name)
    rows, pictures = samples(task, limit)
    (folder / IMAGES).mkdir(parents=True)
    for file, content in pictures.items():
        (folder / IMAGES / file).write_bytes(content)
    (folder / SAMPLES).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {
        k: v for k, v in (task.config.generation_kwargs or {}).items() if isinstance(v, (int, float, str, list))
    }
    path = include_path and str(Path(include_path).resolve())
    about: Row = {"task": name, "limit": limit, "include_path": path, "model_name": model_name}
    about |= {"samples": digest(rows), "generation_kwargs": settings, "lmms_eval": installed()}
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} samples with {len(pictures)} pictures in {folder}. Answer them with")
    print(f"  blip2sweep -m task=jsonl task.data_dir={folder} {overrides(settings)}")


def samples(task: Any, limit: int | None) -> tuple[list[Row], dict[str, bytes]]:
    """The rows of all documents, and {file name: PNG} of their pictures. Raises Refused for what cannot be exchanged."""
    docs, rows, pictures, wrong = task.eval_docs, [], {}, []
    for request in requests(task, limit):
        prompt, visuals = request.arguments[0], task.doc_to_visual(docs[request.doc_id]) or []
        if not isinstance(prompt, str) or not prompt.strip():
            wrong.append(f"document {request.doc_id}: the prompt is {prompt!r:.60}; right: a text")
        elif len(visuals) != 1 or not hasattr(visuals[0], "convert"):
            kinds = ", ".join(type(v).__name__ for v in visuals) or "nothing"
            wrong.append(f"document {request.doc_id}: shows {kinds}; right: a task with one picture a question")
        else:
            content = png(visuals[0])
            file = f"{hashlib.sha256(content).hexdigest()[:16]}.png"
            pictures[file] = content
            own = {"id": request.doc_id, "image": f"{IMAGES}/{file}", "question": prompt}
            rows.append({**own, "answers": targets(task, docs[request.doc_id])})
    refuse(wrong)
    return rows, pictures


def png(picture: Any) -> bytes:
    out = io.BytesIO()
    picture.convert("RGB").save(out, format="PNG")
    return out.getvalue()


def targets(task: Any, doc: Any) -> list[str]:
    """The references as texts. They are for likelihoods; the task's own scores do not read them."""
    found = task.doc_to_target(doc)
    listed = found if isinstance(found, (list, tuple)) else [found]
    texts = [text if isinstance(text, str) else json.dumps(text, default=str) for text in listed if text is not None]
    return [text for text in texts if text.strip()] or ["-"]


def overrides(settings: Row) -> str:
    known = {"max_new_tokens": "generation.max_new_tokens", "num_beams": "generation.num_beams"}
    told = [f"{key}={settings[name]}" for name, key in known.items() if isinstance(settings.get(name), int)]
    return " ".join(["generation.prompt='{}'", *told])


# ---- score


def score(
    folder: Path, files: list[Path], output: Path | None = None, include_path: str | None = None, media: bool = False
) -> None:
    """Print the scores of each file of answers, a JSON object a line, and write them with those of each document."""
    about, rows = exported(folder)
    answers = {file: read(file, {row["id"] for row in rows}) for file in files}
    task = load(about["task"], include_path or about["include_path"], about["model_name"])
    built = requests(task, about["limit"])
    asked = [(request.doc_id, request.arguments[0]) for request in built]
    if digest(rows) != about["samples"] or asked != [(row["id"], row["question"]) for row in rows]:
        raise Refused(f"{folder}: not the documents and prompts of this task any more; right: export again")
    task.args = SimpleNamespace(output_path=str(folder), log_samples=False, process_with_media=media)
    scored = {file: one(task, about["limit"], texts, media) for file, texts in answers.items()}
    for file, (values, _) in scored.items():
        print(json.dumps({"file": str(file), **values}, default=str))
    if output:
        listed = [{"file": str(f), "metrics": values, "documents": docs} for f, (values, docs) in scored.items()]
        output.write_text(json.dumps({**about, "scores": listed}, default=str, indent=1) + "\n", encoding="utf-8")


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
        summed = {metric: listed for metric, listed in found.items() if metric in task.aggregation()}
        values |= {f"{metric},{name}": total(task, metric, listed) for metric, listed in summed.items()}
    return values, shares


def total(task: Any, metric: str, shares: list[Any]) -> Any:
    aggregate = task.aggregation()[metric]
    return aggregate(shares, args=task.args) if "args" in inspect.signature(aggregate).parameters else aggregate(shares)


def read(path: Path, wanted: set[Any]) -> dict[Any, str]:
    """{document: answer} of a file of outputs/predictions, or of JSON Lines with `id` and `text`."""
    try:
        content = path.read_text(encoding="utf-8")
        listed = [json.loads(line) for line in content.split("\n") if line.strip()]
        own = len(listed) == 1 and isinstance(listed[0].get("id"), list)
        pairs = zip(listed[0]["id"], listed[0]["text"], strict=True) if own else [(r["id"], r["text"]) for r in listed]
        texts = dict(pairs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Refused(
            f"{path}: cannot be read ({error}); right: a file of outputs/predictions, or id and text a line"
        ) from None
    if lacking := sorted(wanted - texts.keys(), key=str):
        told = f"no answer to {len(lacking)} of {len(wanted)} samples, such as {lacking[0]!r}"
        raise Refused(f"{path}: {told}; right: an answer to each")
    return texts


# ---- lmms-eval


def load(name: str, include_path: str | None, model_name: str | None) -> Any:
    """A task of lmms-eval by its name. Raises Refused for a group, and for one whose output is no generated text."""
    from lmms_eval.tasks import TaskManager

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


def installed() -> str | None:
    try:
        return version("lmms-eval")
    except PackageNotFoundError:
        return None


def digest(rows: list[Row]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def refuse(wrong: list[str]) -> None:
    more = [f"and {len(wrong) - MOST} documents more"] if len(wrong) > MOST else []
    if wrong:
        raise Refused(*wrong[:MOST], *more)


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
        print(*refused.args, sep="\n", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
