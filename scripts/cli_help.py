"""Write docs/cli.md from the parsers: `python scripts/cli_help.py [--check]`.

The page is made from what argparse knows, not from its help text, whose layout differs between versions of Python.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tutelage.cli.main import VERBS, build_parser
from tutelage.cli.options import add_options

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"

OPENING = """\
# The command line

Made by `make docs` from the parsers; do not edit.

Data goes to stdout, talk and progress to stderr. With `--json`, stdout is exactly one JSON document with `schema`,
`status`, `warnings` and the verb's own keys. Every estimate is `{"value", "low", "high", "level", "method"}`.

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed while running |
| 2 | bad input: recipe, arguments or data; nothing was written |
| 130 | interrupted; `--resume` continues where the verb offers it |

`$TUTELAGE_LEDGER` names the ledger and `$TUTELAGE_CACHE` the cache folder; without them the platform's own folders
are used.
"""


def page() -> str:
    """The whole page."""
    parts = [OPENING, "## Options of every verb\n", table(options(common_parser()))]
    shared = {action.option_strings[-1] for action in options(common_parser())}
    for verb, line in VERBS.items():
        parser = verb_parser(verb)
        own = [action for action in options(parser) if action.option_strings[-1:] != ["--help"]]
        own = [action for action in own if not action.option_strings or action.option_strings[-1] not in shared]
        description = (parser.description or line).strip()
        parts += [f"## tutelage {verb}\n", f"{description}\n", table(own)]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def common_parser() -> argparse.ArgumentParser:
    """A parser with the options that every verb has, and no others."""
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    return parser


def verb_parser(verb: str) -> argparse.ArgumentParser:
    """The parser of one verb."""
    (subparsers,) = (a for a in options(build_parser(verb)) if isinstance(a, argparse._SubParsersAction))
    parser = subparsers.choices[verb]
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a parser takes, in order. argparse offers no public way to ask."""
    return list(parser._actions)


def table(actions: list[argparse.Action]) -> str:
    """One row an option."""
    if not actions:
        return ""
    rows = [f"| {spelling(action)} | {meaning(action)} |" for action in actions if action.help != argparse.SUPPRESS]
    return "\n".join(["| option | meaning |", "|---|---|", *rows]) + "\n"


def spelling(action: argparse.Action) -> str:
    """The option as it is typed."""
    value = ""
    if action.nargs != 0:
        shown = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
        value = " ".join(shown) if isinstance(shown, tuple) else str(shown)
    words = ", ".join(action.option_strings)
    required = ", required" if action.required and action.option_strings else ""
    return f"`{(words + ' ' + value).strip()}`{required}".replace("|", "\\|")


def meaning(action: argparse.Action) -> str:
    """The help line, with its default put in."""
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write the page, or with --check say whether it is current."""
    text = page()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
