"""Data of one's own: six pictures, a file of questions, one of captions and one of choices."""

from __future__ import annotations

from pathlib import Path

from scripts.miniature_sets._pictures import pictures, write_json_lines


def write(folder: Path) -> None:
    questions, captions, choices = [], [], []
    for i, picture in enumerate(pictures("jsonl", 6)):
        name, thing = f"{i}.png", picture.things[0]
        picture.save(folder / "pictures" / name)
        questions.append(
            {"image": name, "question": "How many objects are there?", "answers": [str(len(picture.things))]}
        )
        captions.append({"id": f"scene-{i}", "image": name, "captions": picture.captions})
        asked = f"What color is the {thing.shape}?"
        choices.append(
            {
                "image": name,
                "question": asked,
                "choices": ["red", thing.color] if thing.color != "red" else ["red", "blue"],
                "answer": thing.color,
            }
        )
    write_json_lines(folder / "samples.jsonl", questions)
    write_json_lines(folder / "captions.jsonl", captions)
    write_json_lines(folder / "choices.jsonl", choices)
