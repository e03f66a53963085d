"""A package `lmms_eval` with the names of lmms-eval 0.7.3 that the bridge uses, for a folder on the path of a program.

Its tasks have the form of that release: TaskManager loads by name, build_all_requests makes instances whose first argument is
the prompt, filters write filtered_resps, process_results gives a share a metric, aggregation a function a metric.
"""

from __future__ import annotations

from pathlib import Path

TASKS = """
import os
from types import SimpleNamespace

from PIL import Image

ROWS = [("red", "Which color?"), ("green", "Which color?"), ("red", "Is it red?")]


class Instance:
    def __init__(self, arguments, doc_id):
        self.arguments, self.doc_id, self.idx, self.resps, self.filtered_resps = arguments, doc_id, 0, [], {}


class Task:
    OUTPUT_TYPE = "generate_until"

    def __init__(self, name, pictures=1):
        self.config = SimpleNamespace(task=name, generation_kwargs={"max_new_tokens": 16, "until": ["x"], "do_sample": False})
        self.pictures = pictures
        answers = ["red", "green", "yes"]
        self.eval_docs = [
            {"image": Image.new("RGB", (8, 8), c), "question": q, "answer": a} for (c, q), a in zip(ROWS, answers)
        ]
        self.eval_docs_no_media = [{"question": d["question"], "answer": d["answer"]} for d in self.eval_docs]

    def doc_to_visual(self, doc):
        return [doc["image"]] * self.pictures

    def doc_to_target(self, doc):
        return None if doc["answer"] in os.environ.get("UNKNOWN", "").split() else doc["answer"]

    def build_all_requests(self, *, limit=None, **more):
        rows = list(enumerate(self.eval_docs_no_media))[: int(os.environ.get("DOCUMENTS", 3))][:limit]
        post = os.environ.get("POST", "Answer with a word.")
        self._instances = [Instance((doc["question"] + "\\n" + post, {}, self.doc_to_visual, i), i) for i, doc in rows]

    @property
    def instances(self):
        return self._instances

    def apply_filters(self):
        for instance in self._instances:
            instance.filtered_resps["lower"] = instance.resps[0].lower()

    def process_results(self, doc, results):
        assert "image" not in doc
        return {"exact": float(results[0].strip() == doc["answer"]), "pair": (doc["answer"], results[0])}

    def aggregation(self):
        return {"exact": lambda shares: sum(shares) / len(shares), "pair": written}


def written(pairs, args):
    with open(os.path.join(args.output_path, "pairs.txt"), "w") as file:
        file.write(repr(pairs))
    return len(pairs)


class Likelihood(Task):
    OUTPUT_TYPE = "multiple_choice"


class TaskManager:
    def __init__(self, verbosity="INFO", include_path=None, include_defaults=True, model_name=None):
        self.all_tasks = ["colors", "likely", "many", "group"]

    def load_task_or_group(self, task_list=None, task_type="simple"):
        (name,) = task_list
        made = {
            "colors": lambda: Task(name), "likely": lambda: Likelihood(name), "many": lambda: Task(name, pictures=2),
            "group": lambda: {"colors": Task("colors"), "many": Task("many")},
        }
        return {name: made[name]()}
"""


def write(folder: Path) -> Path:
    """The package in a folder."""
    (folder / "lmms_eval").mkdir(parents=True)
    (folder / "lmms_eval" / "__init__.py").touch()
    (folder / "lmms_eval" / "tasks.py").write_text(TASKS.lstrip())
    return folder
