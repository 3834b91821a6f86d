"""What every test gets: folders of its own instead of the user's, no network, and skips that must be accounted for."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import settings

# Read when the libraries are imported, so set before any test module is: no hub, and no model cached by chance.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir()) / "tutelage-tests-have-no-hub")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples every time, and no limit on one example's time: machines differ, and a loaded one is slow.
settings.register_profile("seeded", derandomize=True, deadline=None, database=None)
settings.load_profile("seeded")

ALLOWED_SKIPS = Path(__file__).parent / "allowed_skips.txt"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def isolated_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the ledger and the caches of the person who runs the tests out of them."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_CACHE", str(folder / "cache"))
        patch.setenv("TUTELAGE_LEDGER", str(folder / "ledger.sqlite"))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Make a connection to another machine a failure (this one stays, for processes that work together)."""
    connect = socket.socket.connect
    here = {"127.0.0.1", "::1", "localhost", _own_address()}

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0]) if isinstance(address, tuple) else str(address)
            if host not in here:
                raise OSError(f"the tests run offline, and this one wanted to reach {host}")
        connect(self, address)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


def _own_address() -> str:
    """Under which this machine knows itself, where it has a network; a UDP socket that is connected sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # an address that is for documentation only
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def pytest_configure(config: pytest.Config) -> None:
    """Watch the skips in the process that sums up (pytest-xdist's workers report to it)."""
    strict = os.environ.get("TUTELAGE_STRICT_SKIPS") == "1" or os.environ.get("CI", "").lower() in ("1", "true")
    if strict and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipWatch(read_allowed_skips(ALLOWED_SKIPS)), "skip-watch")


def read_allowed_skips(path: Path) -> list[tuple[str, str]]:
    """(pattern of the test's id, text that its reason must hold), one a line as `PATTERN | TEXT`."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    rows = [line.partition("|") for line in lines if line and not line.startswith("#")]
    return [(pattern.strip(), text.strip()) for pattern, _, text in rows]


class SkipWatch:
    """Fails the whole run on a skip that nobody allowed: a test that silently stops running proves nothing."""

    def __init__(self, allowed: list[tuple[str, str]]) -> None:
        self.allowed = allowed
        self.unexpected: list[str] = []

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Remember a skip that no line allows; an expected failure is not a skip."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(text and fnmatchcase(report.nodeid, pattern) and text in reason for pattern, text in self.allowed):
            self.unexpected.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test was skipped."""
        self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A whole module was skipped."""
        self.note(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn an otherwise green run into a failed one."""
        if self.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which skips failed the run, and the way out."""
        if self.unexpected:
            terminalreporter.section("skips that tests/allowed_skips.txt does not list")
            for line in sorted(set(self.unexpected)):
                terminalreporter.write_line(line)
