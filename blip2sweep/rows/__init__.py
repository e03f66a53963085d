"""Rows of other people's files, typed: one validator for the data of tasks and for what `blip2sweep score` reads.

Every mistake of an input becomes one line with the file, the list, the index and what would be right; all of them are told
at once. What these rules are:
- An **id** is a whole number of at most 64 bits or a text with a character in it. A number such as 1.0, which a table made of
  an integer, is that integer; 1.5, null, NaN, true and lists are no ids. The ids of an input are all numbers or all texts,
  so that 1 and "1" can never be taken for each other.
- A **text** is a JSON string that can be written as UTF-8. Nothing else is made into one.
- A **question** has something to read in it.
- Fields that nobody reads may hold anything.
"""

from blip2sweep.rows.fields import Id
from blip2sweep.rows.forms import (
    Answers,
    Image,
    Question,
    answer_rows,
    caption_rows,
    image_rows,
    list_of,
    listed_captions,
    own_predictions,
    prediction_rows,
    question_rows,
    sentence_rows,
)
from blip2sweep.rows.json_file import parse, read_json, read_text, without_gc
from blip2sweep.rows.mistakes import Mistakes

__all__ = [
    "Answers",
    "Id",
    "Image",
    "Mistakes",
    "Question",
    "answer_rows",
    "caption_rows",
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
