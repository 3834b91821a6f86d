"""The commands and examples in README, docs and the pages of examples do what they say.

A fenced block that a reader could run carries a tag after its language:

- `quick`: run as it stands (shell, or Python);
- `long`: every `tutelage` line is run with `--dry-run` where the verb has it, else its arguments are parsed; every
  `make` line is run with `-n`, every `python` script with `--help`. A configuration in the checkout stands in for the
  teacher, which may be on a hub;
- `setup`: installs or clones; not run, because the tests are offline.

A `text` block that follows a `quick` one, before any other block, quotes what it prints: each part between "[...]" must
be there, whatever the line breaks.

Blocks run in a folder of links to the checkout, so that a relative path works and nothing is written into it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(bash|sh|shell|console|python|py)\b[ \t]*([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TAGS = {"quick", "long", "setup"}
QUICK_SECONDS = 120  # far above what a quick block takes, for a loaded machine
STAND_INS = {
    "speech": ROOT / "examples" / "whisper-medium-config",
    "text": ROOT / "examples" / "kjv" / "configs" / "teacher",
}
WRITTEN = {".venv", ".git"}  # not linked: a block has no business there


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    place: str
    language: str
    tag: str
    code: str
    quoted: str = ""


def blocks_of(text: str, name: str) -> list[Block]:
    """The runnable blocks of a page."""
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        language, tag, code = match.groups()
        after = FENCE.search(text, match.end())
        quoted = after[2] if after and after[1] == "text" and tag.strip() == "quick" else ""
        kind = "python" if language.startswith("py") else "bash"
        found.append(Block(f"{name}:{line}", kind, tag.strip(), code, quoted))
    return found


def all_blocks() -> list[Block]:
    """The runnable blocks of README, docs and examples."""
    folders = [page for folder in ("docs", "examples") for page in sorted((ROOT / folder).rglob("*.md"))]
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *folders]
    return [block for page in pages for block in blocks_of(page.read_text("utf-8"), str(page.relative_to(ROOT)))]


def commands(code: str) -> list[str]:
    """The commands of a shell block, continued lines joined, comments left out."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def checked_form(command: str) -> list[str]:
    """The words that check a long command without doing its work."""
    from tutelage.cli.main import build_parser

    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    if words[0] == "make":
        return ["make", "-n", *words[1:]]
    if words[0] == "python":
        return [sys.executable, *words[1:], "--help"]
    assert words[0] == "tutelage", f"a long block holds tutelage, make and python commands only, not: {command}"
    parser = build_parser(words[1])
    try:
        arguments = parser.parse_args(words[1:])
    except SystemExit:
        pytest.fail(f"the parser refuses: {command}")
    if not hasattr(arguments, "dry_run"):
        return ["tutelage", words[1], "--help"]
    if not hasattr(arguments, "overrides"):
        return [*words, "--dry-run"]
    recipe = getattr(arguments, "recipe", None)
    task = "text" if recipe is not None and "task: text" in (ROOT / recipe).read_text(encoding="utf-8") else "speech"
    return [*words, "--dry-run", "--set", f"teacher.model={STAND_INS[task]}"]


BLOCKS = all_blocks()


@pytest.fixture
def linked_checkout(tmp_path: Path) -> Path:
    """A folder with a link to everything at the top of the checkout."""
    for path in ROOT.iterdir():
        if path.name not in WRITTEN:
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def run(words: list[str], folder: Path) -> str:
    """What the words print, run in `folder` with this interpreter's commands first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=QUICK_SECONDS,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def not_printed(quoted: str, printed: str) -> list[str]:
    """The parts of a quotation that were not printed."""
    parts = [" ".join(part.split()) for part in quoted.split("[...]")]
    return [part for part in parts if part not in " ".join(printed.split())]


def test_every_block_says_how_it_is_checked() -> None:
    assert not [block.place for block in BLOCKS if block.tag not in TAGS]


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.tag == "quick"], ids=lambda b: b.place)
def test_quick_blocks_run(block: Block, linked_checkout: Path) -> None:
    words = [sys.executable, "-c"] if block.language == "python" else ["sh", "-e", "-c"]
    assert not not_printed(block.quoted, run([*words, block.code], linked_checkout))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [pytest.param(c, id=f"{b.place} {c}") for b in BLOCKS if b.tag == "long" for c in commands(b.code)],
)
def test_long_commands_are_accepted(command: str, linked_checkout: Path) -> None:
    run(checked_form(command), linked_checkout)


def test_the_reader_of_blocks() -> None:
    page = "text\n```bash quick\ntutelage --help\n```\n```python\nx = 1\n```\n```text\nnot code\n```\n"
    first, second = blocks_of(page, "page.md")
    assert (first.place, first.language, first.tag, first.code) == ("page.md:2", "bash", "quick", "tutelage --help\n")
    assert (second.language, second.tag) == ("python", "")
    assert (first.quoted, second.quoted) == ("", "")
    assert commands("# a comment\na \\\n  b\n\nc\n") == ["a    b", "c"]


def test_a_long_command_with_an_unknown_option_is_seen() -> None:
    with pytest.raises(pytest.fail.Exception, match="refuses"):
        checked_form("tutelage predict --student-parameters 1e9")


def test_the_reader_of_quotations() -> None:
    page = "```bash quick\na\n```\nprints\n```text\none  two\n[...] four\n```\n```bash long\nb\n```\n```text\nc\n```\n"
    first, second = blocks_of(page, "page.md")
    assert (first.quoted, second.quoted) == ("one  two\n[...] four\n", "")
    assert not not_printed(first.quoted, "zero one\ntwo three\nfour")
    assert not_printed(first.quoted, "one 2 four") == ["one two"]
