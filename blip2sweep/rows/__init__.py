"""One validator for files of unknown origin: the data of tasks, and what `blip2sweep score` reads.

Each mistake of an input becomes one line with the file, the list, the index and what would be right. All mistakes are
reported at once. The rules:
- An **id** is a whole number of at most 64 bits or a text with a visible character. A float such as 1.0, which tables
  make of an integer, is read as that integer. 1.5, null, NaN, true and lists are no ids. The ids of an input are all
  numbers or all texts, so that 1 and "1" cannot be confused.
- A **text** is a JSON string that can be written as UTF-8. No other value is converted to one.
- A **question** has at least one visible character.
- Fields that nobody reads may hold anything.
"""

from blip2sweep.rows.fields import Id
from blip2sweep.rows.forms import (
    Answers,
    Captioned,
    Image,
    Question,
    answer_rows,
    caption_rows,
    domain_rows,
    image_rows,
    listed_captions,
    own_predictions,
    prediction_rows,
    question_rows,
    sentence_rows,
)
from blip2sweep.rows.json_file import parse, read_json, read_text, without_gc
from blip2sweep.rows.mistakes import Mistakes
from blip2sweep.rows.row_list import list_of

__all__ = [
    "Answers",
    "Captioned",
    "Id",
    "Image",
    "Mistakes",
    "Question",
    "answer_rows",
    "caption_rows",
    "domain_rows",
    "image_rows",
    "list_of",
    "listed_captions",
    "own_predictions",
    "parse",
    "prediction_rows",
    "question_rows",
    "read_json",
    "read_text",
    "sentence_rows",
    "without_gc",
]
