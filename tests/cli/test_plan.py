"""`tutelage plan`: its document, its table, its errors, what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tutelage.cli.main import main

REALISTIC = ["--student-params", "1B", "--compute", "1e21", "--teacher", "name=7B,params=7.7e9,loss=2.02"]
HARDWARE = ["--hardware", "H100,mfu=0.5,price=2"]
LLAMA = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "intermediate_size": 5632,
    "num_hidden_layers": 20,
    "vocab_size": 32000,
}
# Losses at reference optima.
LOSS = 1e-4
# Columns of a terminal that the tables and words are made for.
WIDTH = 100


def document(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["plan", *words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["plan", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_the_reference_case(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, "--student-params", "300M", "--compute", "1e20")
    assert answer["schema"] == {"name": "tutelage.plan", "version": 1}
    losses = {name: entry and entry["student_loss"]["value"] for name, entry in answer["scenarios"].items()}
    assert losses.pop("existing") is None
    assert losses == pytest.approx(
        {"best": 2.4196, "inference": 2.4418, "pretraining": 2.5421, "both": 2.5633}, abs=LOSS
    )
    assert answer["supervised"]["loss"]["value"] == pytest.approx(2.4766, abs=LOSS)
    assert answer["verdict"]["probability"] is None
    assert answer["cost"]["gpu_hours"] is None
    assert [warning["code"] for warning in answer["warnings"]] == ["at-bound"]


def test_an_existing_teacher(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, *REALISTIC)
    assert answer["scenarios"]["existing"]["teacher"] == "7B"
    assert answer["teachers"][0]["name"] == "7B"
    assert answer["crossover"]["existing"]["ends"]["low"] < 3.3e20 < answer["crossover"]["existing"]["ends"]["high"]
    assert answer["verdict"]["choice"] == "train"
    assert answer["cost"]["flops"]["value"] == pytest.approx(1e21)


def test_tokens_targets_and_students(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = document(capsys, "--student-params", "1B", "--tokens", "20B")
    assert tokens["scenarios"]["both"]["student_tokens"]["value"] == 2e10
    target = document(capsys, "--student-params", "1B", "--target-loss", "2.15", "--students", "4")
    assert target["scenarios"]["shared"]["student_loss"]["value"] == pytest.approx(2.15)


def test_an_infeasible_target_names_the_floor(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, "--student-params", "1B", "--target-loss", "1.9")
    assert answer["status"]["kind"] == "infeasible"
    assert "2.0792" in answer["status"]["text"]
    assert answer["status"]["remedy"]
    assert answer["verdict"]["choice"] is None


def test_the_table_is_the_same_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *REALISTIC]) == 0
    out, err = capsys.readouterr()
    assert "existing (7B)" in out
    assert "Train: on 1e21 FLOPs" in out
    assert "above its teacher's always" in out
    assert err.startswith("warning: inference: teacher_tokens sits on the edge")


def test_a_supervised_law_says_what_it_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, *REALISTIC, "--law", "besiroglu2024")
    assert answer["status"]["kind"] == "no-distillation-law"
    assert set(answer["scenarios"].values()) == {None}
    assert answer["supervised"]["loss"]["value"] > 0


def test_all_faults_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = refused(
        capsys,
        "--student-params=x",
        "--compute=inf",
        "--target-loss=2",
        "--students=1.5",
        "--teacher=name=a,size=3",
        "--teacher=name=b,params=-1,loss=nan",
        "--law=bus",
    )
    assert len(lines) == 8
    assert all(line.startswith("error: ") for line in lines)
    text = "\n".join(lines)
    for part in (
        "no law 'bus'",
        "--student-params is 'x'",
        "--compute is inf",
        "--compute and --target-loss are given: give exactly one of --compute, --gpu-hours, --money, --tokens and --t",
        "unknown 'size'; missing params, loss",
        "--teacher b: params is -1",
        "--teacher b: loss is nan",
        "--students is 1.5; it must be a whole number",
    ):
        assert part in text


def test_a_budget_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, "--student-params", "1B")
    assert "no budget: give exactly one of --compute" in line


def test_two_teachers_of_one_name_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, *REALISTIC, "--teacher", "name=7B,params=1e9,loss=2.2")
    assert "two teachers are called '7B'" in line


def test_plan_loads_neither_torch_nor_numba() -> None:
    script = (
        "import sys; from tutelage.cli.main import main\n"
        f"code = main({['plan', *REALISTIC, '--json']!r})\n"
        "heavy = {'numba', 'pyarrow', 'torch', 'transformers', 'pandas'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    json.loads(done.stdout)


def test_hours_and_money_are_compute_through_the_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    hours = document(capsys, "--student-params", "1B", "--gpu-hours", "100", *HARDWARE)
    money = document(capsys, "--student-params", "1B", "--money", "200", *HARDWARE)
    assert hours["question"]["compute"] == money["question"]["compute"] == pytest.approx(100 * 3600 * 989e12 * 0.5)
    assert hours["question"]["asked"] == "100 device-hours of H100"
    assert money["question"]["asked"] == "200 USD of H100"
    assert hours["cost"]["gpu_hours"]["value"] == pytest.approx(100)
    assert hours["cost"]["money"]["value"] == pytest.approx(200)
    assert hours["costs"]["both"]["energy_kwh"]["value"] == pytest.approx(100 * 0.7 * 1.3)
    given = {each["name"]: each["source"] for each in hours["cost"]["assumptions"]["numbers"]}
    assert (given["mfu"], given["price"], given["peak"]) == ("given", "given", "nvidia2023")


@pytest.mark.parametrize("written", ["name=H100,mfu=0.5,price=2", "h100,price=2,mfu=0.5"])
def test_hardware_is_written_in_words(capsys: pytest.CaptureFixture[str], written: str) -> None:
    answer = document(capsys, "--student-params", "1B", "--money", "200", "--hardware", written)
    assert answer["question"]["compute"] == pytest.approx(100 * 3600 * 989e12 * 0.5)


def test_hardware_and_teachers_from_yaml(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    device, teachers = tmp_path / "mine.yaml", tmp_path / "teachers.yml"
    device.write_text("name: mine\npeak: 1e15\nmfu: 0.25\nprice: 3\n", "utf-8")
    teachers.write_text("- {name: 7B, params: 7.7B, loss: 2.02}\n- {name: 1B, params: 1e9, loss: 2.3}\n", "utf-8")
    words = ["--student-params", "1B", "--gpu-hours", "10", "--hardware", str(device), "--teachers", str(teachers)]
    answer = document(capsys, *words, "--teacher", "name=big,params=70B,loss=1.8")
    assert {each["name"] for each in answer["teachers"]} == {"7B", "1B", "big"}
    assert answer["question"]["compute"] == pytest.approx(10 * 3600 * 2.5e14)
    assert answer["cost"]["energy_kwh"] is None
    assert answer["cost"]["money"]["value"] == pytest.approx(30)


def test_service_data_adapters_and_cache(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA), "utf-8")
    words = ["--served-tokens", "1T", "--serving-hardware", "L4", "--unique-tokens", "10B", "--lora", "1%"]
    words += ["--student-config", str(config), "--context", "1024", "--cached-teacher", "sampled=12,vocabulary=151936"]
    answer = document(capsys, *REALISTIC, *HARDWARE, *words)
    assert answer["lifetime"]["served_tokens"]["value"] == 1e12
    assert answer["lifetime"]["serving_weight"] != 1.0
    assert answer["lifetime"]["ways"]["train"]["money"]["value"] > answer["cost"]["money"]["value"]
    assert answer["repetition"]["unique_tokens"]["value"] == 1e10
    assert answer["lora"]["counted_from"] == "configuration"
    assert answer["lora"]["adapter_params"]["value"] == 1e7
    assert answer["cache"]["bytes_per_token"]["value"] == 64
    codes = [warning["code"] for warning in answer["warnings"]]
    assert "repeated-tokens" in codes


def test_adapters_by_their_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, *REALISTIC, "--lora", "20M")
    assert answer["lora"]["adapter_params"]["value"] == 2e7
    assert answer["lora"]["counted_from"] == "F(N)"
    assert 0.6 < answer["lora"]["ratio"]["value"] < 0.8


def test_people_see_the_costs_and_what_they_rest_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--served-tokens", "1T", "--unique-tokens", "10B", "--lora", "1%", "--cached-teacher", "topk=128"]
    size = ["--student-params", "1B", "--teacher", "name=7B,params=7.7e9,loss=2.02"]
    assert main(["plan", *size, "--gpu-hours", "700", *HARDWARE, *words]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("Budget: 700 device-hours of H100\n")
    for part in ("every way at this size", "H100 mfu", "Lifetime: ", "Repeated data: ", "LoRA: ", "Cached teacher: "):
        assert part in out
    assert max(map(len, out.splitlines())) <= WIDTH


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--compute", "1e20", "--money", "5"], "--compute and --money are given: give exactly one of --compute, "),
        (["--gpu-hours", "5"], "--gpu-hours needs --hardware NAME"),
        (["--gpu-hours", "-1", *HARDWARE], "--gpu-hours is -1; it must be a finite number greater than 0"),
        (["--money", "9", "--hardware", "mine,peak=1e15,mfu=0.4"], "hardware mine has no price"),
        (["--compute", "1e20", "--hardware", "H10"], "no hardware 'H10' (near: H100)"),
        (["--compute", "1e20", "--hardware", "H100,mfu=2"], "mfu is 2; no device does more than its peak"),
        (["--compute", "1e20", "--hardware", "H100,mfu=x"], "--hardware H100: mfu is 'x', which is not a number"),
        (["--compute", "1e20", "--hardware", "H100,speed=3"], "unknown 'speed'; known are peak, mfu"),
        (["--compute", "1e20", "--hardware", "mfu=0.3"], "no name; write it as H100,mfu=0.4,price=2.5"),
        (["--compute", "1e20", "--hardware", "none.yaml"], "--hardware: there is no file none.yaml"),
        (["--compute", "1e20", "--serving-hardware", "L4"], "--serving-hardware is given without --served-tokens"),
        (["--compute", "1e20", "--served-tokens", "many"], "--served-tokens is 'many', which is not a number"),
        (["--compute", "1e20", "--unique-tokens", "0"], "--unique-tokens is 0; it must be a finite number"),
        (["--compute", "1e20", "--lora", "0.01"], "--lora is 0.01: less than one parameter; write a share as 1%"),
        (["--compute", "1e20", "--lora", "150%"], "lora: share is 1.5; adapters are smaller"),
        (["--compute", "1e20", "--context", "9"], "--context is given without --lora"),
        (["--compute", "1e20", "--lora", "1%", "--context", "9"], "--context is given without --student-config"),
        (["--compute", "1e20", "--lora", "1%", "--student-config", "c.json"], "there is no file c.json"),
        (["--compute", "1e20", "--cached-teacher", "dense=5"], "cache 'dense' is not known"),
        (["--compute", "1e20", "--cached-teacher", "topk"], "'topk' is not KEY=VALUE; write it as topk=128"),
        (["--compute", "1e20", "--cached-teacher", "topk=4,sampled=3"], "names 2 formats; give one"),
        (["--compute", "1e20", "--cached-teacher", "vocabulary=9"], "names no format"),
        (["--compute", "1e20", "--teachers", "none.yaml"], "--teachers: there is no file none.yaml"),
    ],
)
def test_each_fault_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    (line,) = refused(capsys, "--student-params", "1B", *words)
    assert said in line


def test_the_size_is_left_out_for_a_target_alone(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, "--compute", "1e20")
    assert "--student-params is missing; the size is looked for only where --target-loss is given" in line
    (line,) = refused(capsys, "--target-loss", "2.2", "--unique-tokens", "1B")
    assert "--unique-tokens needs --student-params" in line
    answer = document(capsys, "--target-loss", "2.2", "--served-tokens", "1T", "--lora", "1%")
    assert answer["question"]["student_params"] is None
    assert answer["lifetime"]["loss"]["value"] == pytest.approx(2.2)
    assert answer["lora"]["adapter_params"]["value"] > 0


def test_all_faults_of_a_file_of_teachers_are_told_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "teachers.yaml"
    path.write_text("- {name: a, params: 7B}\n- 5\n- {name: b, params: x, loss: -1}\n- {name: c, tokens: 1}\n", "utf-8")
    lines = refused(capsys, "--student-params", "1B", "--compute", "1e20", "--teachers", str(path))
    text = "\n".join(lines)
    assert len(lines) == 5
    for part in (
        "teacher 1: missing loss",
        "teacher 2 is not a mapping",
        "--teachers b: params is 'x'",
        "--teachers b: loss is -1",
        "teacher 4: unknown 'tokens'; missing params, loss",
    ):
        assert part in text
    for content, said in (("{a: 1}", "is not a list of teachers"), ("- [", "is not YAML"), ("", "is not a list")):
        path.write_text(content, "utf-8")
        (line,) = refused(capsys, "--student-params", "1B", "--compute", "1e20", "--teachers", str(path))
        assert said in line
    path.write_bytes(b"\xff")
    (line,) = refused(capsys, "--student-params", "1B", "--compute", "1e20", "--teachers", str(path))
    assert "is not UTF-8" in line


def test_faults_of_every_part_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    teacher = ["--teacher", "name=7B,params=7.7e9,loss=2.02"]
    words = ["--money", "x", "--hardware", "H10", "--lora", "x", "--cached-teacher", "topk=-1", "--students", "0"]
    lines = refused(capsys, "--student-params", "1e99", *teacher, *teacher, *words)
    text = "\n".join(lines)
    assert len(lines) == 7
    for part in (
        "--money is 'x'",
        "no hardware 'H10'",
        "--lora is 'x'",
        "topk is -1",
        "--students is 0",
        "called '7B'",
    ):
        assert part in text
    assert "student_params is 1e99; a plan is made within 1M to 1e17" in text


def test_the_installed_command_answers_with_every_option() -> None:
    words = ["--served-tokens", "1T", "--unique-tokens", "10B", "--lora", "1%", "--cached-teacher", "hidden=4096"]
    budget = ["--student-params", "1B", "--gpu-hours", "700", *HARDWARE, "--students", "3"]
    command = [sys.executable, "-m", "tutelage.cli.main", "plan", *budget, *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert all(answer[part] for part in ("cost", "costs", "lifetime", "repetition", "lora", "cache", "scenarios"))
    assert answer["verdict"]["way"] == "shared"
