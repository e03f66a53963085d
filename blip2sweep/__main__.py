"""`python -m blip2sweep` and `blip2sweep`: a first word that is a verb goes to the verbs, all else to Hydra."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from blip2sweep.console.printing import joined, prepare, say
from blip2sweep.hydra_app import VERBS as OF_OVERRIDES
from blip2sweep.hydra_app import run_hydra

VERBS = (
    "status",
    "wait",
    "retry",
    "ask",
    "cancel",
    "logs",
    "table",
    "answers",
    "score",
    "rescore",
    "sweeps",
    "forget",
    "merge",
    "collect",
    "cache",
    "doctor",
    "import",
    "influence",
    "quantize",
    "export",
    "report",
    "recommend",
    "suggest",
    "screen",
    "model",
    "lmms",
)
ASKS_NOTHING = frozenset({"-m", "--multirun"})  # flags of Hydra, for which `cli` need not be imported
BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0; 1 when a cell failed; 2 for bad input, said on one line."""
    from blip2sweep.machine.garbage import seldom
    from blip2sweep.machine.processes import settle_user

    settle_user()
    if argv is None:
        seldom()
    words = list(sys.argv[1:] if argv is None else argv)
    words = ["--help", *words[1:]] if words[:1] == ["help"] else words  # as git, pip and others have it
    prepare()
    if words and words[0] in OF_OVERRIDES and not {"--help", "-h"} & set(words):
        sys.exit(guarded(lambda: run_hydra(words[1:], words[0])))
    if words and words[0] in ("plan", *VERBS):
        from blip2sweep.cli import app

        # The words of these are overrides and flags of Hydra.
        its_words = [words[0], "--help"] if words[0] in OF_OVERRIDES else words
        sys.exit(guarded(lambda: run_verb(app, its_words)))
    if not ASKS_NOTHING.issuperset(word.partition("=")[0] for word in words if word.startswith("-")):
        from blip2sweep.cli.asked import asked

        if answer := asked(words, ["plan", *VERBS]):
            sys.exit(guarded(answer))
    sys.exit(guarded(lambda: run_hydra(checked(words))))


def run_verb(app: Callable[..., object], words: Sequence[str]) -> None:
    """A verb. typer's complaints about its words take three lines: they become one."""
    import typer

    from blip2sweep.errors import UserError

    usage: type[Exception] = typer.BadParameter.__bases__[0]  # UsageError, which typer has no name of its own for
    try:
        code = app(words, prog_name="blip2sweep", standalone_mode=False)
    except usage as error:
        said = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        extra = re.search(r"extra argument\S* \((\w+[<>=!][^\s)]*)", said) if words[0] == "table" else None
        if extra:
            raise UserError(f"table: {extra[1]}: a second condition; right: --where {extra[1]}") from error
        raise UserError(
            f"{words[0]}: {said}; right: {_form(app, words[0], error)}see blip2sweep {words[0]} --help"
        ) from error
    raise SystemExit(code if isinstance(code, int) else 0)


def _form(app: Callable[..., object], verb: str, error: Exception) -> str:
    """`--to FORMAT DIR, `, of an option that a word is missing behind and that says what it takes."""
    import typer

    name = getattr(error, "option_name", None)
    command = getattr(typer.main.get_command(app), "commands", {}).get(verb) if isinstance(app, typer.Typer) else None
    takes = next((getattr(p, "metavar", None) for p in getattr(command, "params", ()) if name in p.opts), None)
    return f"{name} {takes}, " if takes else ""


def checked(words: Sequence[str]) -> Sequence[str]:
    """Words that are no override and no flag, before Hydra speaks of a parser."""
    from blip2sweep.config.hints import NOT_HERE
    from blip2sweep.config.schema import known_keys
    from blip2sweep.errors import UserError, nearest

    loose = words and words[0].isalpha() and words[0] not in NOT_HERE and not "".join(words[1:2]).startswith("=")
    if loose and words[0] not in known_keys():
        raise UserError(f"{words[0]}: no verb and no key=value; {nearest(words[0], ['plan', *VERBS])}")
    return refuse_late_verb(words)


def refuse_late_verb(words: Sequence[str]) -> Sequence[str]:
    """The words. Raises UserError where flags stand before a verb, which is then no word that Hydra knows."""
    from blip2sweep.errors import UserError

    for before, word in pairwise(words):
        if "=" in before:
            break
        if word in ("plan", *VERBS) and not before.startswith("-"):  # a flag's value may be called like a verb
            rest = [w for w in words if w != word]
            raise UserError(f"{word}: a verb comes first; right: blip2sweep {shlex.join([word, *rest])}")
    return words


def guarded(run: Callable[[], object]) -> int:
    """Run; an error a user can mend becomes one line on stderr and exit code 2."""
    from blip2sweep.errors import UserError

    try:
        run()
    except UserError as error:
        return _say(error, BAD_INPUT)
    except KeyboardInterrupt:
        say("stopped; finished cells are kept, the same command goes on", err=True)
        return 130
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _library_error(error)
    return 0


def _say(error: BaseException, code: int) -> int:
    if FULL_ERROR:
        raise error
    for line in getattr(error, "lines", (str(error),)):
        say(f"error: {joined(line)}", err=True)
    return code


def _library_error(error: Exception) -> int:
    """Hydra's and OmegaConf's own complaints are about input; a failed sweep has its summary; the rest is a bug."""
    from blip2sweep.errors import SweepFailed, UserError

    mendable = next((e for e in _chain(error) if isinstance(e, UserError)), None)
    if mendable:
        return _say(mendable, BAD_INPUT)
    names = [c.__module__.split(".")[0] for c in type(error).__mro__]
    if isinstance(error, SweepFailed):
        return _say(error, 1)
    if "hydra" in names or "omegaconf" in names or _raised_in(error) == "hydra":
        from blip2sweep.config.overrides import explain

        return _say(UserError(explain(error)), BAD_INPUT)
    raise error


def _raised_in(error: Exception) -> str:
    """The package whose code raised an error: Hydra complains of some flags with a plain ValueError."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return "" if place is None else str(place.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# ---- Hydra

FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR") in ("1", "true")


if __name__ == "__main__":
    main()
