"""The answer in a reply of a chat model.

`published` is the rule of the published pipeline with all its quirks (github.com/EricLangezaal/Blip2-GPT3-Fusion,
src/extensions/gpt_utils.py). `sane` keeps what the published one loses: digits, letters with marks, and answers that only
contain one of the words of a refusal.
"""

from __future__ import annotations

import re

# A reply that has one of these counts as no answer: the vision-language model's own is used.
NO_ANSWER = (
    "unknown", "sorry", "valid", "certain", "difficult", "specific", "perspective", "personal", "preference",
    "description", "can not", "applicable", "n/a", "n / a", "mention", "apologies", "question", "not a question",
    "not possible", "impossible", "none", "?", "information", "not specific", "no specific", "enough", "unclear",
    "context", "answer", "provided", "not clear", "not known", "unspecified", "undetermined", "specified", "determine",
)  # fmt: skip
CUTS = (" or ", " and ", "/", ",", " - ", "(")  # an answer ends before the first of them
RULES = ("published", "sane")
OWN = "\0"  # stands for the own answer, and for nothing else
REFUSAL = re.compile(
    r"(?<!\w)(?:can't|cannot|unable to|not sure|"
    + "|".join(re.escape(w) for w in NO_ANSWER if w != "?")
    + r")(?!\w)|\?"
)
LEAD = re.compile(
    r"^(?:the )?(?:final |best |short )?answer(?: is|:)\s*:?\s*|^it(?: is|'s) |^answer:\s*", re.IGNORECASE
)


def answer(reply: str, own: str, variant: str, rule: str) -> str:
    """The answer of a cell to a question. own: the vision-language model's own, which a refusal falls back to. rule: one
    of RULES.

    The published `questions` variant takes its last reply as it is, but for what stands around the letters.
    """
    if rule == "sane":
        return sane(reply, own)
    return letters(reply) if variant == "questions" else published(reply, own)


def published(reply: str, own: str) -> str:
    """From the first to the last ASCII letter of a line, in lower case; `own` where a word of NO_ANSWER is anywhere in
    it, as `certain` is in `certainly`; else cut at the first of CUTS."""
    found = letters(reply).lower()
    return own if any(word in found for word in NO_ANSWER) else first(found)


def letters(reply: str) -> str:
    """The first line that has two ASCII letters, from the first to the last of them. Without one, the whole reply."""
    found = re.search("[a-zA-Z].*[a-zA-Z]", reply.strip())
    return found.group() if found else reply.strip()


def first(text: str) -> str:
    """What stands before the first of CUTS; of a text with two quotation marks, what stands between them."""
    for cut in CUTS:
        text = text.split(cut)[0]
    if text.count('"') == 2:
        quoted: list[str] = re.findall(r'"(.*?)"', text)
        return quoted[0] if quoted else text
    return text


def sub_questions(reply: str) -> list[str]:
    """The questions in a reply, one a line, each from its first ASCII letter on; at most three.

    The published code takes as many of each as the shortest list of a batch has, and fails at an empty line.
    """
    found = (re.search("[a-zA-Z].*", line) for line in reply.strip().split("\n"))
    return [match.group() for match in found if match][:3]


def noun(reply: str) -> str:
    """The noun that a reply picks. It is cut, and keeps its capitals."""
    return first(letters(reply))


def sane(reply: str, own: str) -> str:
    """The first line with anything in it, in lower case, without what is in brackets, without quotation marks and a full
    stop, cut as the published rule cuts; `own` where nothing is left or where a word of NO_ANSWER stands alone."""
    line = next((x.strip() for x in reply.split("\n") if x.strip()), "").lower()
    line = re.sub(r"\s*[(\[][^)\]]*[)\]]", "", LEAD.sub("", line))
    if REFUSAL.search(line):
        return own
    for cut in (" or ", " and ", " / ", ",", " - ", " – "):
        line = line.split(cut)[0]
    return line.strip(" \t.!:;\"'“”‘’`*_-") or own
