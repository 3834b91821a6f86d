"""The page about a run: what it says, from whole folders to nearly empty ones, and what it never does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from page_tree import Element, read
from run_folders import (
    CLIPS,
    STEPS,
    SYSTEMS,
    comparison,
    finished,
    speech_document,
    steps,
    text_document,
    transcripts,
    unfinished,
    write_lines,
)
from tutelage.errors import InputError
from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.reports.content import Figure
from tutelage.reports.report import report
from tutelage.reports.run_examples import plain_words
from tutelage.reports.run_files import read_run
from tutelage.reports.run_report import run_page

HOSTILE = "<script>alert('$1$')</script>&\"</title>"


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("speech") / "run", "speech")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("text") / "run", "text")


@pytest.fixture(scope="module")
def speech_page(speech: Path) -> Element:
    return read(report(str(speech)).html)


@pytest.fixture(scope="module")
def text_page(text: Path) -> Element:
    return read(report(str(text)).html)


def write_result(folder: Path, document: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def section(page: Element, title: str) -> Element:
    (found,) = [each for each in page.all("section") if each.all("h2")[0].text == title]
    return found


def rows(table: Element) -> dict[str, list[str]]:
    """Cells of each row by its name."""
    return {row.all("th")[0].text: [cell.text for cell in row.all("td")] for row in table.all("tr") if row.all("td")}


def banner(page: Element) -> Element:
    return next(each for each in page.all("div") if each.attributes.get("class", "").startswith("banner"))


def figures(folder: Path) -> dict[str, Figure]:
    return {figure.id: figure for figure in run_page(read_run(folder)).figures}


def test_what_was_done_is_one_sentence_and_the_verdict_comes_first(speech_page: Element) -> None:
    subtitle = next(each for each in speech_page.all("p") if each.attributes.get("class") == "subtitle")
    assert subtitle.text == (
        "A student of 63M parameters was trained from somewhere/teacher by cross-entropy, KL and angle for 60 steps "
        "and judged on 6 held-out clips."
    )
    first = banner(speech_page)
    assert first.attributes["class"] == "banner plain"
    headline, *lines = [each.text for each in first.all("p")]
    assert headline == "Worse than teacher, 10 s window; better than student, before"
    assert lines[0].replace("\u00a0", " ") == (
        "Student, distilled against teacher, 10 s window: +14.0 [+12.0, +16.0] points of WER (95 % interval)."
    )


@pytest.mark.parametrize(
    ("verdicts", "tone", "said"),
    [
        (("better", "better"), "good", "Better than teacher; better than before"),
        (("worse", "worse"), "bad", "Worse than teacher; worse than before"),
        (("worse", "better"), "plain", "Worse than teacher; better than before"),
        (("undecided", "better"), "plain", "Undecided against teacher; better than before"),
    ],
)
def test_the_tone_follows_the_verdicts(tmp_path: Path, verdicts: tuple[str, str], tone: str, said: str) -> None:
    document = speech_document()
    document["comparisons"] = [
        comparison(name, "student", "wer", 0.1, verdict)
        for name, verdict in zip(("teacher", "before"), verdicts, strict=True)
    ]
    first = run_page(read_run(write_result(tmp_path / "run", document))).banners[0]
    assert (first.tone, first.headline) == (tone, said)


def test_every_system_has_its_scores_with_intervals(speech_page: Element) -> None:
    table = section(speech_page, "Scores").all("table")[0]
    assert [each.text for each in table.all("thead")[0].all("th")] == ["", *SYSTEMS]
    found = rows(table)
    assert found["WER, normalised, %"][3] == "45.0 43.0 to 47.0"
    assert found["WER, as written, %"][3] == "55.0 53.0 to 57.0"
    assert found["CER, normalised, %"][2] == "45.0 43.0 to 47.0"
    assert found["Substituted words, %"] == found["Inserted words, %"]
    assert found["Loss, nats per token"] == [
        "–",
        *(f"{1 + rate:.3f} {0.98 + rate:.3f} to {1.02 + rate:.3f}" for rate in (0.31, 0.9, 0.45)),
    ]
    assert found["Calibration error (ECE), %"] == ["–", "3.1", "9.0", "4.5"]
    assert found["ECE of a calibrated model (null), %"][3] == "1.0 0.5 to 1.5"
    assert (
        "Teacher, 30 s window: 2 groups: the interval is rough. Hold out more." in section(speech_page, "Scores").text
    )


def test_the_lowest_rate_is_sought_among_systems_on_the_same_clips(speech: Path) -> None:
    found = figures(speech)["scores"]
    assert found.finding.startswith(
        "Teacher, 10 s window has the lowest WER: 31.0 [29.0, 33.0]; student, distilled has"
    )
    assert "Not on the same 6 clips, so not compared: teacher, 30 s window on 2 clips." in found.reading


def test_kinds_of_errors_of_older_results_come_from_the_counts(tmp_path: Path) -> None:
    document = speech_document()
    for system in document["systems"]:
        del system["kinds"]
        system["words"] = {"substitutions": 3, "deletions": 1, "insertions": 0, "reference": 20}
    page = read(report(str(write_result(tmp_path / "run", document))).html)
    assert rows(section(page, "Scores").all("table")[0])["Substituted words, %"] == ["15.0"] * 4


def test_text_has_losses_perplexity_and_bits_and_no_error_rate(text_page: Element) -> None:
    found = rows(section(text_page, "Scores").all("table")[0])
    assert found["Loss, nats per token"][2] == "3.600 3.580 to 3.620"
    assert found["Bits per byte"][0] == "1.500 1.480 to 1.520"
    assert found["Perplexity"][1].startswith("1807 ")
    assert not any("WER" in name for name in found)
    assert banner(text_page).all("p")[0].text == "Undecided against teacher"


def test_what_a_law_predicted_stands_beside_what_was_reached(text_page: Element, speech_page: Element) -> None:
    found = section(text_page, "Predicted against achieved loss")
    assert rows(found.all("table")[0]) == {
        "Predicted by ours": ["3.500", "3.480 to 3.520", "bootstrap, 21 draws"],
        "Achieved on held-out data": ["3.600", "3.580 to 3.620", "group bootstrap, 100 draws of 40 groups"],
    }
    assert [each.text for each in found.all("li")] == ["A student's size of 99k is outside."]
    assert "d" * 64 in section(text_page, "Where this came from").text
    assert not any("Predicted" in each.text for each in speech_page.all("h2"))


def test_a_law_that_does_not_apply_shows_no_loss(tmp_path: Path) -> None:
    document = speech_document()
    said = "The law does not apply: busbridge2025 was fitted on text models."
    document["prediction"] = {
        "law": "busbridge2025",
        "predicted": None,
        "achieved": {"value": 1.45, "low": None, "high": None, "level": None, "method": "point"},
        "text": said,
        "warnings": [{"input": "modality", "text": "busbridge2025 was fitted on text models"}],
    }
    found = section(read(report(str(write_result(tmp_path / "run", document))).html), "Predicted against achieved loss")
    assert found.text == f"Predicted against achieved loss {said}"


def test_every_term_has_its_curve_weight_and_gradient_norm(speech: Path) -> None:
    found = figures(speech)
    along = [name for name in found if name not in ("scores", "layers", "calibration")]
    assert along == ["total-loss", "term-0", "term-1", "term-2", "weights", "gradients", "learning-rate"]
    assert found["term-1"].title == "KL"
    assert found["term-1"].finding == "KL fell from 3.06 to 0.9 (means over the first and the last 6 steps)."
    assert "its weight is 0.8 throughout" in found["term-1"].reading
    assert "its weight goes from 0.495 to 0.2" in found["term-2"].reading
    assert found["gradients"].table.headers == ("step", "all, weighted", "Cross-entropy", "KL", "Angle")
    assert found["gradients"].table.rows[0] == ("1", "2.1", "1.01", "1.01", "1.01")
    assert [row[0] for row in found["gradients"].table.rows] == ["1", "11", "21", "31", "41", "51"]
    assert found["total-loss"].table.rows[0][0] == "1"
    assert found["total-loss"].table.rows[-1][0] == str(STEPS)
    assert "highest at step 10 (0.001)" in found["learning-rate"].finding


def test_checks_on_the_dev_split_show_the_lowest(text: Path, speech: Path) -> None:
    found = figures(text)["dev"]
    assert found.finding == "On the dev split the loss is lowest at step 40: 3.000."
    assert found.table.rows[0] == ("20", "4.000", "3.980 to 4.020")
    assert "dev" not in figures(speech)


def test_layers_show_the_angle_beside_both_baselines(speech: Path) -> None:
    found = figures(speech)["layers"]
    assert found.finding.startswith("At 1 of 2 pairs of layers")
    assert found.table.rows == (("1 → 1", "0.200", "0.800", "1.100"), ("2 → 4", "1.300", "0.700", "1.500"))


def test_a_layer_map_without_measured_angles_is_a_table(tmp_path: Path) -> None:
    document = {**speech_document(), "alignment": {}}
    page = read(report(str(write_result(tmp_path / "run", document))).html)
    assert rows(section(page, "Layers").all("table")[0]) == {"decoder 1": ["1"], "decoder 2": ["4"]}


def test_differing_words_are_marked_and_the_choice_is_told(speech_page: Element) -> None:
    found = section(speech_page, "Aligned examples")
    titles = [each.text for each in found.all("h3")]
    assert titles == [*(f"Evenly spread: clip{n}" for n in (0, 2, 3, 5)), "Worst: clip1"]
    told = found.all("p")[0].text
    assert "4 clips evenly spread" in told
    assert "1 other clip with the most word errors of student, distilled. 3 of 6 clips have none." in told
    worst = found.all("dl")[-1]
    labels = [each.text for each in worst.all("dt")]
    assert labels == [
        "said",
        "teacher, 10 s window, 0 errors",
        "student, before, 3 errors",
        "student, distilled, 2 errors",
    ]
    student = worst.all("dd")[-1]
    assert student.texts[0].strip() == "dos"
    assert sorted(each.text for each in student.all("del")) == ["blancas", "casas"]
    assert [each.text for each in student.all("ins")] == ["cosas"]
    assert not worst.all("dd")[1].all("del")


def test_the_worst_clips_come_first_and_clips_without_errors_are_not_among_them(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "run", speech_document())
    said = "uno dos tres cuatro cinco"
    wrong = (0, 1, 0, 3, 0, 2, 5, 0, 4, 0)
    texts = [" ".join(["otro"] * count + said.split()[count:]) for count in wrong]
    rows = [{"system": SYSTEMS[3], "id": f"c{n}", "reference": said, "transcript": t} for n, t in enumerate(texts)]
    write_lines(folder / "transcripts.jsonl", rows)
    found = next(each for each in run_page(read_run(folder)).sections if each.title == "Aligned examples")
    assert [each.title for each in found.examples[4:]] == [f"Worst: c{n}" for n in (8, 5, 1)]  # c3 and c6 are spread


def test_words_are_compared_as_whispers_basic_normaliser_has_them() -> None:
    normalise = whisper_normaliser("es")
    for sentence in ("¡Una, NUEZ pelada!", "un «inukshuk» (o inuksuk)", "a_b – 3,5 % [música] así…", "ﬁn ½"):
        assert plain_words(sentence) == normalise(sentence)
    assert plain_words("水。木", letters=True) == "水 木"


def test_continuations_of_texts_are_shown(text_page: Element) -> None:
    found = section(text_page, "Continuations")
    assert [each.text for each in found.all("dt")] == ["beginning", "text", "teacher", "student"]
    assert [each.text for each in found.all("dd")] == ["And God", "made", "said", "the the"]


def test_calibration_says_what_a_calibrated_model_would_show(speech: Path) -> None:
    found = figures(speech)["calibration"]
    assert found.finding == (
        "The expected calibration error of student, distilled is 4.5 %; a calibrated model of the same confidences "
        "would show 1.0 [0.5, 1.5] %."
    )
    assert len(found.table.rows) == 3 * 4  # the empty bin of each system is left out


def test_cost_speed_size_and_budget_have_shares(speech_page: Element) -> None:
    cost = section(speech_page, "Cost of the training")
    assert rows(cost.all("table")[0])["teacher"] == ["2×10¹²", "50.0 %"]
    assert "The training took 12.5 s." in cost.text
    speed, saved, size, budget = section(speech_page, "The student: speed, size, budget").all("table")
    assert rows(speed)["student"] == ["0.150 0.130 to 0.170", "30 % 28 % to 32 %"]
    assert rows(saved)["of that by fewer layers"] == ["14 % 12 % to 16 %"]
    assert rows(size)["bytes on disk"] == ["260,000,000", "90.0 %"]
    assert rows(budget)["trained share of the teacher's"] == ["1.00 %"]
    assert rows(budget)["limit of the recipe"] == ["2.00 %"]
    assert "Of the timing: other processes ran. Time again." in speech_page.text


def test_data_hashes_versions_and_warnings_are_there(speech_page: Element) -> None:
    found = section(speech_page, "Where this came from")
    hashes, made = found.all("table")
    assert rows(hashes) == {"recipe": ["a" * 64], "held-out data": ["c" * 64], "teacher, model.safetensors": ["b" * 64]}
    assert rows(made)["packages"] == ["numpy 2.4.6"]
    assert rows(made)["processors"] == ["2"]
    assert "2 of 2 checks before the first step passed." in found.text
    assert "One clip says 10²¹ words." in speech_page.text


def test_an_unfinished_run_gives_its_curves_and_says_so(tmp_path: Path) -> None:
    made = report(str(unfinished(tmp_path / "run")))
    page = read(made.html)
    first = banner(page)
    assert first.attributes["class"] == "banner warn"
    assert first.all("p")[0].text == "This run is not finished"
    assert "7 of 60 steps are logged" in first.text
    assert page.all("h1")[0].text == "cut-off"
    assert [each.text for each in page.all("h2")] == ["How the training went"]
    assert [figure.table.rows[-1][0] for figure in made.figures if figure.id == "total-loss"] == ["7"]


@pytest.mark.parametrize("left", ["nothing", "one step", "no recipe"])
def test_a_run_that_has_hardly_begun_is_a_page_too(tmp_path: Path, left: str) -> None:
    folder = unfinished(tmp_path / "run", 1)
    if left == "nothing":
        (folder / "log.jsonl").unlink()
    if left == "no recipe":
        (folder / "recipe.yaml").unlink()
    page = read(report(str(folder)).html)
    assert "not finished" in banner(page).text
    assert page.all("h1")[0].text == ("run" if left == "no recipe" else "cut-off")


def test_a_result_alone_gives_the_page_without_curves(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(speech_document()), encoding="utf-8")
    write_lines(tmp_path / "log.jsonl", steps())  # another run's, beside a file of another name
    assert set(figures(path)) == {"scores", "layers", "calibration"}


def test_the_result_of_a_folder_is_its_folder(speech: Path) -> None:
    assert report(str(speech / "result.json")).html == report(str(speech)).html


def test_a_cohort_shows_the_exported_members_log_and_all_members(tmp_path: Path) -> None:
    member = {"seed": 1, "steps": 60, "params": 1000, "status": "finished"}
    cohort = {"best": "b", "members": [{"name": name, **member} for name in "ab"], "comparisons": []}
    cohort["comparisons"] = [comparison("mean of 2 members", "ensemble", "wer", -0.01, "better")]
    folder = write_result(tmp_path / "run", {**speech_document(), "cohort": cohort})
    for name, count in (("a", 5), ("b", 9)):
        (folder / "members" / name).mkdir(parents=True)
        write_lines(folder / "members" / name / "log.jsonl", steps(count))
    page = read(report(str(folder)).html)
    assert figures(folder)["total-loss"].table.rows[-1][0] == "9"
    assert "Shown is the member b of the cohort, the one that was exported" in page.text
    assert rows(section(page, "Members").all("table")[0])["a"] == ["1", "60", "1,000", "finished"]
    assert "ensemble less mean of 2 members" in section(page, "Comparisons").text


@pytest.mark.parametrize("task", ["speech", "text"])
def test_parts_that_are_absent_or_null_are_left_out(tmp_path: Path, task: str) -> None:
    document = speech_document() if task == "speech" else text_document()
    absent = ("warnings", "layer_map", "alignment", "preflight", "speed", "prediction", "provenance", "data", "adapter")
    for name in (*absent, "teacher", "samples", "comparisons"):
        for without in ({**document, name: None}, {key: part for key, part in document.items() if key != name}):
            assert run_page(read_run(write_result(tmp_path / "run", without))).title


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: document["systems"][1]["metrics"].update(wer={"value": "x"}), "metrics.wer.value is 'x'"),
        (lambda document: document["training"].pop("steps"), "training.steps is missing"),
        (lambda document: document.update(schema={"name": "tutelage.distill", "version": 9}), "is no result of a run"),
        (lambda document: document.pop("recipe"), "recipe is missing"),
    ],
)
def test_a_broken_result_is_named(tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str) -> None:
    document = speech_document()
    change(document)
    with pytest.raises(InputError, match=re.escape(said)) as raised:
        report(str(write_result(tmp_path / "run", document)))
    assert all(str(tmp_path) in fault for fault in raised.value.faults)


def test_a_folder_that_is_no_run_and_a_file_that_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither result\.json nor run\.json"):
        report(str(tmp_path))
    (tmp_path / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="is not JSON"):
        report(str(tmp_path))
    (tmp_path / "result.json").unlink()
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(InputError, match="is not YAML"):
        report(str(tmp_path))


def test_lines_that_are_no_steps_are_passed_over(tmp_path: Path) -> None:
    folder = unfinished(tmp_path / "run", 3)
    write_lines(folder / "log.jsonl", [*steps(3), {"step": 4}, {**steps(5)[-1], "total": float("nan")}])
    assert figures(folder)["total-loss"].table.rows[-1][0] == "3"


def test_nothing_is_read_after_a_broken_line(tmp_path: Path) -> None:
    folder = unfinished(tmp_path / "run", 3)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(steps(9)[-1]) + "\n")
    assert figures(folder)["total-loss"].table.rows[-1][0] == "3"


def test_every_text_is_escaped(tmp_path: Path) -> None:
    document = json.loads(json.dumps(speech_document()).replace("demo", json.dumps(HOSTILE)[1:-1]))
    document["systems"][3]["name"] = HOSTILE
    folder = write_result(tmp_path / "run", document)
    lines = [{**line, "id": HOSTILE + line["id"], "transcript": HOSTILE} for line in transcripts()]
    write_lines(folder / "transcripts.jsonl", [{**line, "system": HOSTILE} for line in lines[-len(CLIPS) :]])
    html = report(str(folder)).html
    assert not read(html).all("script")
    assert HOSTILE in read(html).all("h1")[0].text


def test_the_same_run_gives_the_same_bytes_and_another_log_another_hash(tmp_path: Path) -> None:
    folder = unfinished(tmp_path / "run")
    first = report(str(folder)).html
    assert report(str(folder)).html == first
    write_lines(folder / "dev.jsonl", [])
    write_lines(folder / "log.jsonl", steps(8))
    footers = [read(html).all("footer")[0].text for html in (first, report(str(folder)).html)]
    assert footers[0] != footers[1]


def test_a_page_is_made_without_torch(speech: Path) -> None:
    code = (
        "import sys\nfrom tutelage.reports.report import report\n"
        f"report({str(speech)!r})\n"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "[]\n", done.stderr
