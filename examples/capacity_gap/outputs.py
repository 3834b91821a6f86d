"""Where the two demonstrations write, and figures whose bytes depend on the numbers alone.

Not here: what is computed or drawn.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.errors import MissingExtraError, TutelageError
from tutelage.records.files import explain_write_failure, write_atomically, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
STYLE: dict[str, Any] = {
    "svg.hashsalt": "tutelage",  # ids that do not change from run to run
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "legend.frameon": False,
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#555555")  # told apart with any colour vision


@dataclass(frozen=True)
class Places:
    """The two files that a demonstration writes."""

    figure: Path
    numbers: Path


def read_arguments(description: str, name: str, results: str) -> tuple[argparse.Namespace, Places]:
    """The command line of a demonstration, and where its files go.

    Args:
        description: What `--help` says.
        name: Stem of the figure, and of both files under `--out`.
        results: Name of the committed file with the numbers, written without `--out` and `--quick`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="DIR", help="a folder for figure and numbers; must not exist yet")
    parser.add_argument("--force", action="store_true", help="replace the files that --out holds")
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds, too little to show the finding; needs --out"
    )
    arguments = parser.parse_args()
    if arguments.out is None:
        if arguments.quick:
            parser.error("--quick makes no committed result; name a folder for it with --out DIR")
        return arguments, Places(Path(__file__).with_name(f"{name}.svg"), ROOT / "results" / results)
    if arguments.out.exists() and not arguments.force:
        parser.error(f"{arguments.out} exists already; choose another --out, or replace its files with --force")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(str(explain_write_failure(error, arguments.out)))
    return arguments, Places(arguments.out / f"{name}.svg", arguments.out / f"{name}.json")


def new_figure(columns: int) -> Figure:
    """An empty figure for `columns` panels side by side.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    mpl.rcParams.update(STYLE)
    return Figure(figsize=(4.6 * columns, 3.6), layout="constrained")


def keep(places: Places, figure: Figure, numbers: dict[str, Any]) -> None:
    """Write both files and say where they are."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    # matplotlib ends some lines of a path with a space, which version control would show as a fault
    lines = (line.rstrip() for line in stream.getvalue().decode("utf-8").splitlines())
    write_atomically(places.figure, "\n".join(lines) + "\n")
    write_json(places.numbers, numbers)
    for path in (places.figure, places.numbers):
        print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def run(work: Callable[[], None]) -> int:
    """Do the work; an error of ours is one line a fault and its exit code."""
    try:
        work()
    except TutelageError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    return 0
