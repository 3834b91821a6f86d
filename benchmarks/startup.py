"""How long a command takes before it does anything, as a ratio to `python -c "import numpy"` in the same round.

Prints one JSON document. Rounds run every command once, in turn, so that a change of the machine's load meets all of
them; the interval is a bootstrap over rounds of the median ratio. The dumb baseline is an interpreter that does
nothing. Run: `python benchmarks/startup.py [ROUNDS]`.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time

import numpy as np

REFERENCE = "import numpy"
DRAWS = 2000
LEVEL = 0.95
PREDICT = ["predict", "--student-params", "1e9", "--student-tokens", "2.5e11", "--teacher-loss", "2.0", "--json"]
PLAN = ["plan", "--student-params", "1e9", "--compute", "1e21", "--teacher", "name=7b,params=7e9,loss=2.02", "--json"]


def tutelage(*words: str) -> str:
    """Python code that runs the command line with `words`."""
    return f"from tutelage.cli.main import main; main({list(words)!r})"


COMMANDS: dict[str, str] = {
    REFERENCE: "import numpy",
    "python": "pass",
    "import tutelage": "import tutelage",
    "tutelage --help": tutelage("--help"),
    "tutelage predict --help": tutelage("predict", "--help"),
    "tutelage predict": tutelage(*PREDICT),
    "tutelage plan": tutelage(*PLAN),
}


def seconds(code: str) -> float:
    """Wall-clock seconds of one fresh interpreter that runs `code`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of every command in every round, after one round that warms the disk."""
    for code in COMMANDS.values():
        seconds(code)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, code in COMMANDS.items():
            times[name].append(seconds(code))
    return times


def ratio(times: list[float], reference: list[float]) -> dict[str, float | str]:
    """The median over rounds of the ratio, with its interval."""
    ratios = np.array(times) / np.array(reference)
    draws = np.random.default_rng(0).choice(ratios, size=(DRAWS, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "value": round(float(np.median(ratios)), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "level": LEVEL,
        "method": f"median over {len(ratios)} rounds, bootstrap over rounds, {DRAWS} draws",
    }


def main() -> int:
    """Measure and print."""
    start = time.perf_counter()
    times = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
    document = {
        "benchmark": "startup",
        "reference": f'python -c "{REFERENCE}"',
        "reference_seconds": round(float(np.median(times[REFERENCE])), 4),
        "ratios": {name: ratio(values, times[REFERENCE]) for name, values in times.items() if name != REFERENCE},
        "cost_seconds": round(time.perf_counter() - start, 1),
        "environment": {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.platform()},
    }
    print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
