"""The product speaks of itself alone: not of the machine it was made on, nor of one registry among many."""

from __future__ import annotations

import re
from pathlib import Path

# Each pattern is written so that it does not match itself.
WORKPLACE = [r"(^|[^A-Za-z.])/(wor[k]|far[m])/", r"bash_job[s]", r"\.librar[y]", r"before-sto[p]", r"DEVELOPERS\.m[d]"]
HOSTS = [r"pypi\.or[g]", r"files\.pythonhoste[d]", r"deb\.debian\.or[g]"]
NEIGHBOUR = r"\.\./share[d]"  # the reference data beside a checkout: named by the CI entry alone
CI_ENTRY = ".ci/run"


def faults(text: str, name: str) -> list[str]:
    """`name:line` of every line that names what the product must not name."""
    patterns = WORKPLACE + HOSTS + ([] if name == CI_ENTRY else [NEIGHBOUR])
    wanted = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    return [f"{name}:{number}" for number, line in enumerate(text.splitlines(), start=1) if wanted.search(line)]


def test_no_file_names_the_workplace_or_a_registry(tracked: list[Path], root: Path) -> None:
    found = []
    for file in tracked:
        data = file.read_bytes()
        if b"\0" not in data[:8192]:
            found += faults(data.decode("utf-8", errors="replace"), str(file.relative_to(root)))
    assert not found


def test_the_scan_sees_what_it_looks_for() -> None:
    words = ["/wor" + "k/main", "x bash_" + "jobs", "https://pypi." + "org/simple", "../sha" + "red/data"]
    assert all(faults(word, "file.md") for word in words)
    assert not faults("../sha" + "red/data", CI_ENTRY)
    assert not faults("a framework/module and ~/homework/x.py", "file.md")
