"""The tree in docs/architecture.md, from the first lines of the modules: `python scripts/source_tree.py [--check]`."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
SOURCE = ROOT / "src" / "tutelage"
BEGIN, END = "<!-- tree: begin (made by `make docs`) -->", "<!-- tree: end -->"
COLUMN = 28  # where the descriptions start
WIDTH = 90  # a longer first line is cut at a word


def tree(folder: Path, depth: int = 0) -> list[str]:
    """One line a module: files first, then the packages with what they hold."""
    lines = []
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            lines.append(entry(file.name, file, depth))
    for package in sorted(path for path in folder.iterdir() if (path / "__init__.py").is_file()):
        lines.append(entry(f"{package.name}/", package / "__init__.py", depth))
        lines += tree(package, depth + 1)
    return lines


def entry(name: str, file: Path, depth: int) -> str:
    """The name, indented, and the first sentence of the docstring."""
    return f"{'  ' * depth}{name}".ljust(COLUMN) + " " + first_sentence(file)


def first_sentence(file: Path) -> str:
    """What a module says of itself first, without its full stop."""
    text = " ".join((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    sentence = text.split(". ")[0].rstrip(".")
    if len(sentence) <= WIDTH:
        return sentence
    return sentence[:WIDTH].rsplit(" ", 1)[0].rstrip(",;:") + " ..."


def page() -> str:
    """The page with its tree replaced."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    listing = "\n".join(["src/tutelage/", *tree(SOURCE, 1)])
    return f"{before}{BEGIN}\n\n```text\n{listing}\n```\n\n{END}{after}"


def main() -> int:
    """Write the page, or with --check say whether it is current."""
    text = page()
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
