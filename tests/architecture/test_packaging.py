"""What is installed: pinned versions that cover every dependency, and a wheel that holds the package and no data."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

LARGEST_WHEEL = 1_000_000  # bytes; the package is text, so anything above holds data that does not belong there


def pins(root: Path) -> dict[str, str]:
    """Name and version of every line of the constraints."""
    lines = (root / "constraints" / "tested.txt").read_text(encoding="utf-8").splitlines()
    matches = [re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9A-Za-z.]+)", line) for line in lines if line[:1] != "#"]
    assert all(matches), "each line is NAME==VERSION: no address, no local version suffix"
    return {plain(match[1]): match[2] for match in matches if match}


def plain(name: str) -> str:
    """A distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    names = {plain(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]) for line in wanted}
    assert not names - set(pins(root))


def test_the_tested_torch_is_named(root: Path) -> None:
    assert pins(root)["torch"] == "2.13.0"


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the installed hatchling and nothing fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=root, check=True, capture_output=True, timeout=60)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_typed_and_licensed(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"tutelage/py.typed", "tutelage/reports/page.css", "tutelage/reports/page.html.jinja"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].split("-")[0] for name in names} == {"tutelage"}


def test_the_wheel_holds_no_data(wheel: Path) -> None:
    sounds = {".ogg", ".opus", ".flac", ".wav", ".safetensors", ".bin"}
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if Path(name).suffix in sounds]
    assert wheel.stat().st_size < LARGEST_WHEEL
