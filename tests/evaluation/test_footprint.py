from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tutelage.errors import InputError, TutelageError
from tutelage.evaluation.footprint import gpu_peak_memory, measure_folder, measure_peak_memory, peak_memory
from tutelage.records.document import jsonable

MEGABYTE = 2**20
INTERPRETER = 60 * MEGABYTE
"""More than a bare interpreter takes."""


def take(megabytes: int) -> list[str]:
    return [sys.executable, "-S", "-c", f"kept = b'x' * ({megabytes} * {MEGABYTE})"]


def test_peak_memory_is_of_the_command() -> None:
    small, large = (measure_peak_memory(take(megabytes)).value for megabytes in (1, 100))
    assert 0 < small < INTERPRETER
    assert large - small == pytest.approx(99 * MEGABYTE, abs=5 * MEGABYTE)


def test_what_the_measuring_process_holds_is_not_counted() -> None:
    """Linux hands the peak of the starting process down to the started one."""
    program = (
        f"import sys; kept = b'x' * (300 * {MEGABYTE});"
        "from tutelage.evaluation.footprint import measure_peak_memory;"
        "print(measure_peak_memory([sys.executable, '-S', '-c', 'pass']).value)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0 < float(answer.stdout) < INTERPRETER


def test_this_process_has_a_peak_that_only_grows() -> None:
    before = peak_memory().value
    kept = b"x" * (80 * MEGABYTE)
    assert before > 0
    assert peak_memory().value >= max(before, len(kept))


def test_a_failing_command_is_no_measurement() -> None:
    with pytest.raises(TutelageError, match=r"ended with exit code 3.*no memory"):
        measure_peak_memory([sys.executable, "-c", "import sys; print('no memory', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(TutelageError, match="No such file"):
        measure_peak_memory(["/no/such/program"])


def test_a_command_that_is_given_up_does_not_go_on(tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    program = f"import time; time.sleep(0.6); open({str(sign)!r}, 'w').close()"
    with pytest.raises(TutelageError, match=r"still running after 0\.2 s"):
        measure_peak_memory([sys.executable, "-S", "-c", program], timeout=0.2)
    time.sleep(0.8)
    assert not sign.exists()


def test_a_system_without_accounts_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "wait4")
    found = measure_peak_memory(take(1))
    assert math.isnan(found.value)
    assert found.method.startswith("not measured")
    assert jsonable(found)["value"] is None


class TestGpu:
    def fake(self, peaks: list[int], initialised: bool = True) -> SimpleNamespace:
        return SimpleNamespace(
            cuda=SimpleNamespace(
                is_available=lambda: True,
                is_initialized=lambda: initialised,
                device_count=lambda: len(peaks),
                max_memory_allocated=lambda device: peaks[device],
            )
        )

    def test_devices_are_summed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", self.fake([5, 0, 7]))
        found = gpu_peak_memory()
        assert found.value == 12
        assert "2 CUDA devices" in found.method

    def test_an_unused_gpu_is_not_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", self.fake([0], initialised=False))
        assert gpu_peak_memory().method == "not measured: no GPU was used"

    def test_torch_is_not_loaded_to_ask(self) -> None:
        program = (
            "import sys; from tutelage.evaluation.footprint import gpu_peak_memory;"
            "print(gpu_peak_memory().method, 'torch' in sys.modules)"
        )
        answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == "not measured: no GPU was used False"


class TestFolders:
    def test_sizes(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
        (tmp_path / "config.json").write_bytes(b"x" * 10)
        (tmp_path / "adapter").mkdir()
        (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"x" * 7)
        found = measure_folder(tmp_path)
        assert found.to_dict() == {"bytes": 117, "weight_bytes": 107, "files": 3}

    def test_links_are_followed_and_counted_once(self, tmp_path: Path) -> None:
        """A hub's cache keeps files under their hashes and links to them."""
        blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
        blobs.mkdir()
        folder.mkdir()
        (blobs / "0a1b").write_bytes(b"x" * 50)
        for name in ("model.safetensors", "again.safetensors"):
            (folder / name).symlink_to(blobs / "0a1b")
        assert measure_folder(folder).to_dict() == {"bytes": 50, "weight_bytes": 50, "files": 1}

    def test_nothing_there(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "absent"):
            with pytest.raises(InputError, match="holds no file"):
                measure_folder(folder)
