"""`tutelage fit`: its document, its words, its faults, what it writes and what it leaves alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tutelage.laws.fitting
from tutelage.cli.main import main
from tutelage.laws.designs import Design
from tutelage.laws.files import read_law
from tutelage.laws.published import PUBLISHED
from tutelage.laws.run_files import write_runs
from tutelage.laws.simulate import simulate

# Predictions at noise 1e-3 in log loss, within the range of the runs.
WITHIN_NOISE = 3e-3
FEW = ["--bootstrap", "64", "--starts", "64"]
Simulated = Callable[..., str]


@pytest.fixture
def simulated(tmp_path: Path) -> Simulated:
    """Writes simulated runs; returns the path of the file."""

    def write(
        law: str = "besiroglu2024", design: str = "isoflop", runs: int = 60, name: str = "runs.csv", seed: int = 1
    ) -> str:
        write_runs(simulate(PUBLISHED[law], Design(design, runs), noise=1e-3, seed=seed), tmp_path / name)
        return str(tmp_path / name)

    return write


def fitted(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["fit", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["fit", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return [line.removeprefix("error: ") for line in err.splitlines()]


def test_the_document_is_the_law_that_is_written(
    capsys: pytest.CaptureFixture[str], simulated: Simulated, tmp_path: Path
) -> None:
    out = tmp_path / "law.json"
    answer = fitted(capsys, simulated(), "--law", "hoffmann", "--out", str(out), *FEW)
    assert answer["schema"] == {"name": "tutelage.fit", "version": 1}
    assert answer["status"]["kind"] in ("converged", "weakly-identified")
    assert answer["law"] == json.loads(out.read_text("utf-8"))
    for key in ("objective", "delta", "runs", "starts", "agreeing_starts", "condition_number", "correlation",
                "distinct_ratios", "at_bounds", "linear_share", "coefficients", "identified"):  # fmt: skip
        assert key in answer["diagnostics"], key
    assert answer["diagnostics"]["runs"] == 60
    for estimate in answer["diagnostics"]["coefficients"].values():
        assert {"value", "low", "high", "level", "method"} <= set(estimate)
    law, truth = read_law(out), PUBLISHED["besiroglu2024"]
    assert law.name == "law"
    assert str(tmp_path / "runs.csv") in law.source
    assert float(law.supervised.predict(1e9, 2e10)) == pytest.approx(
        float(truth.supervised.predict(1e9, 2e10)), rel=WITHIN_NOISE
    )
    assert law.draws is not None


def test_the_words_come_with_the_status_first(
    capsys: pytest.CaptureFixture[str], simulated: Simulated, tmp_path: Path
) -> None:
    out = tmp_path / "mine.json"
    words = [simulated(), "--law", "hoffmann", "--out", str(out), *FEW, "--quiet"]
    assert main(["fit", *words]) == 0
    said, err = capsys.readouterr()
    assert err == ""
    law = read_law(out)
    assert said.startswith(f"{law.status.kind}: " if law.status.kind == "converged" else law.status.kind.upper())
    for line in (
        r"coefficient +value +low +high",
        r"E +1\.8\d* +1\.\d+ +1\.\d+",
        r"gamma +1 +fixed",
        r"identified +value +low +high",
        r"fitted by hoffmann to 60 runs of .*runs\.csv: N in parameters \(assumed\)",
        r"objective: ",
        r"starts: 64 tried, \d+ followed to a minimum, \d+ of them to the best",
        r"condition number: ",
        r"correlation of ln N and ln D: ",
        r"distinct ratios D/N: ",
        r"runs in Huber's linear part: ",
        r"at bounds: none",
        r"seconds: ",
        rf"written to {re.escape(str(out))}",
    ):
        assert re.search(f"^{line}", said, re.MULTILINE), line


def test_one_ratio_is_said_loudly_and_exits_0(
    capsys: pytest.CaptureFixture[str], simulated: Simulated, tmp_path: Path
) -> None:
    out = tmp_path / "law.json"
    runs = simulated(design="fixed-ratio", runs=30)
    assert main(["fit", runs, "--law", "hoffmann", "--out", str(out), *FEW]) == 0
    said, _ = capsys.readouterr()
    assert said.startswith("NOT-IDENTIFIED: ")
    assert "refused by predict and plan, unless --accept-unidentified" in said
    assert read_law(out).status.kind == "not-identified"
    assert main(["predict", "--student-params", "1B", "--student-tokens", "20B", "--law", str(out)]) == 2
    assert "is not-identified" in capsys.readouterr().err


def test_a_distillation_law_on_a_supervised_one(
    capsys: pytest.CaptureFixture[str], simulated: Simulated, tmp_path: Path
) -> None:
    runs = simulated("busbridge2025", "distillation", 120)
    words = ["--supervised", "busbridge2025", "--bootstrap", "0", "--starts", "64", "--name", "students"]
    answer = fitted(capsys, runs, "--law", "distillation", "--out", str(tmp_path / "law.json"), *words)
    assert answer["law"]["name"] == "students"
    assert answer["law"]["coefficients"]["E"] == PUBLISHED["busbridge2025"].supervised.E
    assert "knee" in answer["diagnostics"]["identified"]


def test_weak_constants_are_marked(capsys: pytest.CaptureFixture[str], simulated: Simulated, tmp_path: Path) -> None:
    runs = simulated("busbridge2025", "distillation", 120, seed=0)
    words = ["--supervised", "busbridge2025", "--bootstrap", "64", "--quiet", "--out", str(tmp_path / "law.json")]
    assert main(["fit", runs, "--law", "distillation", *words]) == 0
    said, _ = capsys.readouterr()
    assert said.startswith("WEAKLY-IDENTIFIED: ")
    assert re.search(r"^A_prime .*weakly identified$", said, re.MULTILINE)
    assert re.search(r"^alpha +0.408 +frozen$", said, re.MULTILINE)
    assert re.search(r"^best teacher loss .*on \S+ tokens$", said, re.MULTILINE)
    assert not re.search(r"^x0 .*weakly", said, re.MULTILINE)


def test_options_reach_the_fit(capsys: pytest.CaptureFixture[str], simulated: Simulated, tmp_path: Path) -> None:
    words = ["--law", "gamma", "--fixed", "gamma=1", "--level", "0.8", "--delta", "1e-2", "--out"]
    counting = ["--counting", "params=non-embedding, biases too,tokens=with repeats", "--units", "D=tokens"]
    answer = fitted(capsys, simulated(), *words, str(tmp_path / "law.json"), *FEW, *counting)
    assert answer["law"]["coefficients"]["gamma"] == 1
    assert answer["diagnostics"]["delta"] == 1e-2
    assert answer["diagnostics"]["coefficients"]["E"]["level"] == 0.8
    assert answer["law"]["counting"] == {"params": "non-embedding, biases too", "tokens": "with repeats"}
    assert "D in tokens, L" in answer["law"]["source"]


def test_all_faults_are_told_at_once(capsys: pytest.CaptureFixture[str], simulated: Simulated, tmp_path: Path) -> None:
    out = tmp_path / "law.json"
    out.write_text("old", "utf-8")
    lines = refused(
        capsys, simulated(), "--law", "gamma", "--out", str(out), "--columns", "N=size", "--columns", "D", "--units",
        "N=dozens", "--supervised", "busbridge", "--fixed", "alpha=-1,delta=1", "--bootstrap", "1.5", "--starts", "x",
        "--delta", "0", "--level", "90",
    )  # fmt: skip
    text = "\n".join(lines)
    assert len(lines) == 12
    for part in (
        "--columns 'D': 'D' is not KEY=VALUE; write it as N=params,D=tokens,loss=final_loss",
        "no law 'busbridge'; did you mean busbridge2025?",
        "--supervised busbridge: family gamma has no supervised law inside; leave it out",
        "--units N=dozens: no such unit",
        "there is no column 'size' for N; its columns are N, D, L",
        "--delta is 0",
        "--level is 90; it is the coverage of an interval, between 0 and 1",
        "--bootstrap is 1.5; it must be a whole number, 0 (no intervals) or 2 and more",
        "--starts is 'x'",
        "--fixed alpha is -1",
        "--fixed names delta; family gamma fits E, A, B, alpha, beta, gamma",
        f"--out {out} exists",
    ):
        assert part in text
    assert out.read_text("utf-8") == "old"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["missing.csv", "--law", "gamma"], "missing.csv: cannot be read"),
        (["--ledger", "missing.sqlite3", "--law", "gamma"], "missing.sqlite3: cannot be read"),
        (["runs.csv", "--ledger", "x.sqlite3", "--law", "gamma"], "runs are given as runs.csv and as --ledger"),
        (["runs.csv", "--law", "quadratic"], "family 'quadratic' is not known; it must be one of"),
        (["students.csv", "--law", "distillation"], "family distillation needs --supervised"),
    ],
)
def test_a_fault(
    capsys: pytest.CaptureFixture[str],
    simulated: Simulated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    part: str,
) -> None:
    simulated()
    simulated("busbridge2025", "capacity-gap", 20, "students.csv")
    monkeypatch.chdir(tmp_path)
    (line,) = refused(capsys, *words, "--out", "law.json")
    assert part in line
    assert not Path("law.json").exists()


def test_force_replaces_and_a_dry_run_does_nothing(
    capsys: pytest.CaptureFixture[str], simulated: Simulated, tmp_path: Path
) -> None:
    out, runs = tmp_path / "law.json", simulated()
    assert main(["fit", runs, "--law", "hoffmann", "--out", str(out), "--dry-run"]) == 0
    said, _ = capsys.readouterr()
    assert said.startswith("would fit L = E + A / N^alpha + B / D^beta\nto ")
    assert not out.exists()
    assert fitted(capsys, runs, "--law", "hoffmann", "--out", str(out), "--dry-run")["runs"] == 60
    out.write_text("old", "utf-8")
    fitted(capsys, runs, "--law", "hoffmann", "--out", str(out), *FEW, "--force")
    assert read_law(out).equation.family == "hoffmann"


def test_an_interrupted_fit_leaves_the_old_law(
    capsys: pytest.CaptureFixture[str], simulated: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    out, runs = tmp_path / "law.json", simulated()
    out.write_text("old", "utf-8")
    monkeypatch.setattr(tutelage.laws.fitting, "fit", interrupted)
    assert main(["fit", runs, "--law", "hoffmann", "--out", str(out), "--force"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert out.read_text("utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["law.json", "runs.csv"]
