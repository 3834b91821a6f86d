"""The command `tutelage`: finds the verb, imports it alone, and turns errors into one line and an exit code.

A verb is a module `tutelage.cli.VERB` with `add_arguments(parser)` and `run(arguments) -> int`. The parser of the top
level knows the verbs by name and one line of help, so that `--help` loads none of them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import warnings
from collections.abc import Sequence

from tutelage.cli.ranks import rank
from tutelage.errors import InterruptedRunError, TutelageError

_NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan)\S*", re.IGNORECASE)

VERBS: dict[str, str] = {
    "predict": "the loss that a law predicts for a student",
    "plan": "divide a budget between teacher and student; distil or train?",
    "fit": "fit a law to training runs, with intervals",
    "simulate": "write synthetic runs of a law",
    "cache": "run a teacher once and keep what it says",
    "distill": "train a student as a recipe says",
    "merge": "make one student of a cohort's members",
    "evaluate": "score models on held-out data, with intervals",
    "export": "write a run's student for other programs",
    "study": "do many runs side by side, on one machine or many",
    "demo": "distil a real speech model and prove it",
    "report": "show a run, a law or a plan as one HTML file",
    "runs": "list the runs that the ledger holds",
    "doctor": "what this installation has and lacks",
}


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line, with the arguments of `verb` (of every verb, where None)."""
    from tutelage import __version__

    parser = argparse.ArgumentParser(
        prog="tutelage", description="Plans, runs and proves model distillation.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"tutelage {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, line in VERBS.items():
        module = importlib.import_module(f"tutelage.cli.{name}") if verb in (None, name) else None
        description = module.__doc__ if module else line
        sub = verbs.add_parser(
            name,
            help=line,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module is not None:
            module.add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code (0 done, 2 bad input, 1 failure while running, 130 interrupted)."""
    words = join_negative_numbers(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in words if not word.startswith("-")), "")
    arguments = build_parser(verb).parse_args(words)
    if not arguments.debug:
        # peft 0.21 uses an attribute that transformers 5 deprecates; users can do nothing about it.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    try:
        code = int(importlib.import_module(f"tutelage.cli.{arguments.verb}").run(arguments))
        sys.stdout.flush()
    except TutelageError as error:
        if arguments.debug:
            raise
        _tell(_lines(error), once=isinstance(error, InterruptedRunError))
        return error.exit_code
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        _tell("interrupted", once=True)
        return InterruptedRunError.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if arguments.debug or error.errno is None:
            raise
        print(f"error: {error.strerror}: {error.filename or 'no file named'}", file=sys.stderr)
        return TutelageError.exit_code
    return code


def join_negative_numbers(words: Sequence[str]) -> list[str]:
    """`--option -1e9` as `--option=-1e9`: argparse takes -1e9 for an option, and the verb should say what is wrong.

    Example:
        >>> join_negative_numbers(["--compute", "-1e21", "--json"])
        ['--compute=-1e21', '--json']
    """
    joined: list[str] = []
    for word in words:
        if _NEGATIVE.fullmatch(word) and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _tell(text: str, *, once: bool) -> None:
    """Write to stderr; what every process of several has to say at once, only the main one says."""
    if rank() == 0 or not once:
        print(text, file=sys.stderr)


def _lines(error: TutelageError) -> str:
    start = f"error (process {rank()})" if rank() else "error"
    return "\n".join(f"{start}: {line}" for line in str(error).splitlines())


if __name__ == "__main__":
    raise SystemExit(main())
