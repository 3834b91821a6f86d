"""Cohorts from recipe to result, in this process: members equal runs alone, what is kept, specialists, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.numpy import load_file

from tiny_run import SENTENCES, TRAINED, write_manifest, write_run
from tiny_text_run import write_text_run
from tutelage.cli.run_tables import result_lines
from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import sum_by_group
from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.evaluation.rover import vote_each
from tutelage.evaluation.wer import score_transcripts
from tutelage.records.ledger import Ledger
from tutelage.reports.report import report
from tutelage.runs.attempt import Attempt
from tutelage.runs.cohort import learn
from tutelage.runs.cohort.rows import spread_of, stack_members
from tutelage.runs.cohort.settings import Enrolled, MemberSettings, enrol
from tutelage.runs.distil import distil
from tutelage.runs.speech.members import spread_speech
from tutelage.runs.tasks import forecast, gather_materials
from tutelage.tasks.speech.manifest import read_manifest
from tutelage.training.loop import Watch

ADAPTED = "layers: 3\n  lora: {rank: 2, targets: [q_proj, v_proj], dropout: 0.3, first_block: 1}\n  budget_share: 0.5"
MEMBERS = """
students: 3
seed: 7
members:
  - {name: low, lora: {rank: 1, use_dora: true}, training: {learning_rate: 3e-3}}
  - {name: bag, seed: 11, bagging: true, objective: [{kind: cross_entropy}]}
"""
SAME = 1e-9  # the same sums, in another order
TOGETHER = 1e-5  # nats; the average of probabilities is taken in float32


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path_factory.getbasetemp() / "cohort-cache"))


def run(recipe: Path, out: str = "run", overrides: tuple[str, ...] = (), **settings: Any) -> dict[str, Any]:
    loaded = load_recipe(recipe, overrides)
    attempt = Attempt(recipe.parent / out, dump_recipe(loaded), device="cpu", **settings)
    document: dict[str, Any] = json.loads(distil(gather_materials(loaded), attempt).read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("speech")
    recipe = write_run(folder, steps=4, extra=MEMBERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_CACHE", str(tmp_path_factory.getbasetemp() / "cohort-cache"))
        return folder, run(recipe, overrides=("evaluation.speed_clips=0",), ledger=folder / "ledger.db")


def adapter(folder: Path) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in load_file(folder / "adapter_model.safetensors").items()}


def rows(document: dict[str, Any]) -> dict[str, Any]:
    return {row["name"]: row for row in document["systems"]}


def test_a_member_is_the_same_student_as_a_recipe_of_its_own(speech: tuple[Path, dict[str, Any]]) -> None:
    folder, document = speech
    member = document["cohort"]["members"][2]
    assert (member["name"], member["seed"]) == ("seed23", 7 * 3 + 2)
    recipe = folder / "recipe.yaml"
    alone = recipe.with_name("alone.yaml")
    alone.write_text(recipe.read_text().replace(MEMBERS, "seed: 23\ndata_seed: 7\n"))
    found = run(alone, "alone", ("evaluation.speed_clips=0",))
    assert adapter(folder / "alone" / "adapter") == adapter(folder / "run" / "members" / "seed23" / "adapter")
    log = (folder / "alone" / "log.jsonl").read_bytes()
    assert log == (folder / "run" / "members" / "seed23" / "log.jsonl").read_bytes()
    assert found["training"]["supervised_tokens"] == member["tokens"]
    mine, theirs = rows(document)["member seed23"], found["systems"][-1]
    assert mine["metrics"]["wer"] == theirs["metrics"]["wer"]
    assert mine["metrics"]["nats_per_token"] == theirs["metrics"]["nats_per_token"]


def test_a_result_has_members_mean_ensemble_and_the_best_last(speech: tuple[Path, dict[str, Any]]) -> None:
    folder, document = speech
    names = [row["name"] for row in document["systems"]]
    best = document["cohort"]["best"]
    assert names[-7:] == [
        "member low",
        "member bag",
        "member seed23",
        "mean of 3 members",
        "ensemble of 3 members",
        "ROVER of 3 members",
        f"best member ({best})",
    ]
    named = rows(document)
    each = {name: named[f"member {name}"]["metrics"]["nats_per_token"]["value"] for name in ("low", "bag", "seed23")}
    assert best == min(each, key=each.__getitem__)
    mean, ensemble = named["mean of 3 members"]["metrics"], named["ensemble of 3 members"]["metrics"]
    assert abs(mean["nats_per_token"]["value"] - sum(each.values()) / 3) < SAME
    assert mean["nats_per_token"]["low"] < mean["nats_per_token"]["value"] < mean["nats_per_token"]["high"]
    assert ensemble["nats_per_token"]["value"] <= mean["nats_per_token"]["value"] + TOGETHER  # Jensen
    assert ensemble["wer"]["value"] is not None
    spread = document["cohort"]["spread"]["nats_per_token"]
    assert (spread["lowest"], spread["highest"]) == (min(each.values()), max(each.values()))
    compared = {
        row["metric"]: row
        for row in document["cohort"]["comparisons"]
        if row["candidate_name"] == "ensemble of 3 members"
    }
    difference = ensemble["nats_per_token"]["value"] - mean["nats_per_token"]["value"]
    assert abs(compared["nats_per_token"]["difference"]["value"] - difference) < SAME
    assert "wer" in compared
    assert [warning["code"] for warning in document["warnings"]] == ["best-of-members"]
    assert adapter(folder / "run" / "adapter") == adapter(folder / "run" / "members" / best / "adapter")


def test_the_members_vote_is_a_row_of_error_rates_alone(speech: tuple[Path, dict[str, Any]]) -> None:
    folder, document = speech
    named = rows(document)
    row, ensemble = named["ROVER of 3 members"], named["ensemble of 3 members"]
    files = [folder / "run" / "members" / name / "transcripts.jsonl" for name in ("low", "bag", "seed23")]
    said = [[json.loads(line)["transcript"] for line in file.read_text().splitlines()] for file in files]
    lines = [json.loads(line) for line in (folder / "run" / "rover" / "transcripts.jsonl").read_text().splitlines()]
    normalise = whisper_normaliser("es")
    assert [line["transcript"] for line in lines] == vote_each(said, normalise)
    assert [line["reference"] for line in lines] == list(SENTENCES[TRAINED:])
    scored = score_transcripts(SENTENCES[TRAINED:], vote_each(said, normalise), normalise)
    assert row["metrics"]["wer"]["value"] == scored.wer.value
    assert row["metrics"]["wer"]["low"] is not None
    assert (row["metrics"]["nats_per_token"], row["calibration"], row["agreement"]) == (None, None, None)
    assert (row["params"], row["utterances"]) == (ensemble["params"], ensemble["utterances"])
    compared = [one for one in document["cohort"]["comparisons"] if one["candidate_name"] == "ROVER of 3 members"]
    assert [(one["baseline_name"], one["metric"]) for one in compared] == [("mean of 3 members", "wer")]
    mean = named["mean of 3 members"]["metrics"]["wer"]["value"]
    assert abs(compared[0]["difference"]["value"] - (scored.wer.value - mean)) < SAME


def test_the_vote_stands_in_table_card_and_report(speech: tuple[Path, dict[str, Any]]) -> None:
    folder, document = speech
    table = "\n".join(result_lines(document))
    assert "ROVER of 3 members against mean of 3 members" in table
    card = (folder / "run" / "student" / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in card.splitlines() if line.startswith("| ROVER of 3 members |")]
    assert line.endswith("| - |")
    assert "ROVER of 3 members less mean of 3 members" in report(str(folder / "run")).html


def test_the_document_is_of_the_cohort_and_every_kind_of_member_was_rehearsed(
    speech: tuple[Path, dict[str, Any]],
) -> None:
    _, document = speech
    resolved = document["recipe"]["resolved"]
    assert (resolved["students"], resolved["seed"], resolved["student"]["lora"]["rank"]) == (3, 7, 2)
    rehearsed = [check["name"] for check in document["preflight"]["checks"]]
    assert rehearsed.count("supervised positions") == 3
    members = {member["name"]: member for member in document["cohort"]["members"]}
    assert document["training"]["supervised_tokens"] == members[document["cohort"]["best"]]["tokens"]
    assert document["training"]["flops"]["student"] > 0


def test_the_terminal_shows_ensemble_and_members(speech: tuple[Path, dict[str, Any]]) -> None:
    _, document = speech
    lines = "\n".join(result_lines(document))
    assert "ensemble of 3 members against mean of 3 members" in lines
    assert f"nats per token; exported: {document['cohort']['best']}" in lines


def test_the_ledger_gets_the_mean_member_since_the_best_was_chosen(speech: tuple[Path, dict[str, Any]]) -> None:
    folder, document = speech
    (recorded,) = Ledger(folder / "ledger.db").runs()
    mean = rows(document)["mean of 3 members"]["metrics"]["nats_per_token"]["value"]
    assert abs(recorded.law.L_S - mean) < SAME
    named = rows(document)
    for short, row in (
        ("student", "mean of 3 members"),
        ("ensemble", "ensemble of 3 members"),
        ("best", f"best member ({document['cohort']['best']})"),
    ):
        assert recorded.scores[f"{short}.cer"].to_dict() == named[row]["metrics"]["cer"]
    assert abs(recorded.law.FLOPs - document["training"]["flops"]["total"] / 3) < 1


def test_every_member_is_kept_as_an_ordinary_adapter(speech: tuple[Path, dict[str, Any]]) -> None:
    folder, document = speech
    members = document["cohort"]["members"]
    assert [member["rank"] for member in members] == [1, 2, 2]
    assert members[1]["samples"]["drawn"] == TRAINED > members[1]["samples"]["distinct"]
    assert members[0]["samples"] is None
    for member in members:
        place = folder / "run" / "members" / member["name"]
        settings = json.loads((place / "adapter" / "adapter_config.json").read_text())
        assert (settings["peft_type"], settings["r"]) == ("LORA", member["rank"])
        assert settings["use_dora"] == (member["name"] == "low")
        lines = (place / "transcripts.jsonl").read_text().splitlines()
        assert len(lines) == len(SENTENCES) - TRAINED
        assert not any("base_layer" in name or "projector" in name for name in adapter(place / "adapter"))
    written = (folder / "run" / "ensemble" / "transcripts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["reference"] for line in written] == list(SENTENCES[TRAINED:])


class KilledError(Exception):
    """Stands for a kill inside this process."""


def test_a_killed_run_resumes_to_the_same_bytes(
    tmp_path: Path, speech: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_run(tmp_path, steps=4, extra=MEMBERS)

    def watch(progress: Any, talk: Any) -> Watch:
        def on_step(report: Any) -> None:
            if report.step == 4:
                raise KilledError

        return Watch(progress, talk, on_step)

    monkeypatch.setattr(learn, "Watch", watch)
    with pytest.raises(KilledError):
        run(recipe, overrides=("evaluation.speed_clips=0",))
    monkeypatch.setattr(learn, "Watch", Watch)
    document = run(recipe, overrides=("evaluation.speed_clips=0",), resume=True)
    folder, straight = speech
    for name in ("low", "bag", "seed23"):
        mine, theirs = (root / "run" / "members" / name for root in (tmp_path, folder))
        assert adapter(mine / "adapter") == adapter(theirs / "adapter")
        assert (mine / "log.jsonl").read_bytes() == (theirs / "log.jsonl").read_bytes()
    assert rows(document)["ensemble of 3 members"] == rows(straight)["ensemble of 3 members"]


def test_a_text_cohort_shares_the_blocks_below_its_adapters(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path, steps=3, student=ADAPTED, extra="students: 2\n")
    document = run(recipe)
    assert document["cohort"]["shared_blocks"] == 1
    assert [row["name"] for row in document["systems"]] == [
        "teacher",
        "student, before",
        "member seed0",
        "member seed1",
        "mean of 2 members",
        "ensemble of 2 members",
        f"best member ({document['cohort']['best']})",
    ]
    alone = tmp_path / "alone.yaml"
    alone.write_text(recipe.read_text().replace("students: 2\n", "seed: 1\ndata_seed: 0\n"))
    run(alone, "alone")
    assert adapter(tmp_path / "alone" / "adapter") == adapter(tmp_path / "run" / "members" / "seed1" / "adapter")
    assert (tmp_path / "run" / "members" / "seed0" / "documents.jsonl").is_file()


def test_a_member_that_diverges_is_reported_and_the_others_are_judged(tmp_path: Path) -> None:
    wild = "members:\n  - {name: wild, training: {learning_rate: 1e30, clip_norm: 1e30}}\n  - {name: tame}\n"
    document = run(write_text_run(tmp_path, steps=4, student=ADAPTED, extra=wild))
    members = {member["name"]: member for member in document["cohort"]["members"]}
    assert members["wild"]["status"] == "stopped"
    assert members["wild"]["adapter"] is None
    assert "not finite" in members["wild"]["stopped"]["reason"]
    assert members["tame"]["status"] == "finished"
    assert [warning["code"] for warning in document["warnings"]] == ["member-stopped"]
    assert "mean of 1 members" in rows(document)
    assert not (tmp_path / "run" / "members" / "wild" / "adapter").exists()


def write_slices(folder: Path) -> None:
    """A column `place` in the training manifest: the first four clips are by the sea."""
    path = folder / "data" / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [{**line, "place": "sea" if number < 4 else "hills"} for number, line in enumerate(lines)]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed))


def test_specialists_take_their_own_clips_of_the_shared_stream(tmp_path: Path) -> None:
    slices = (
        "members:\n  - {name: sea, only: {place: sea}}\n  - {name: hills, only: {place: [hills]}}\n  - {name: all}\n"
    )
    recipe = write_run(tmp_path, steps=3, extra=slices)
    write_slices(tmp_path)
    loaded = load_recipe(recipe)
    materials = gather_materials(loaded)
    columns = [clip.selectable for clip in materials.train.utterances]
    times = {one.name: one.draw_times(columns) for one in enrol(loaded)}
    assert times == {"sea": [1, 1, 1, 1, 0, 0], "hills": [0, 0, 0, 0, 1, 1], "all": None}
    found = {
        member["name"]: member for member in run(recipe, overrides=("evaluation.speed_clips=0",))["cohort"]["members"]
    }
    assert found["sea"]["tokens"] + found["hills"]["tokens"] == found["all"]["tokens"]


def test_a_specialists_run_counts_its_own_tokens(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, steps=3, extra="members:\n  - {name: sea, only: {place: sea}}\n")
    write_slices(tmp_path)
    document = run(recipe, overrides=("evaluation.speed_clips=0",))
    lines = (tmp_path / "run" / "members" / "sea" / "log.jsonl").read_text().splitlines()
    tokens = sum(json.loads(line)["positions"] for line in lines)
    assert document["training"]["supervised_tokens"] == document["law"]["D_S"] == tokens
    assert document["cohort"]["members"][0]["samples"] == {"distinct": 4, "drawn": 4}


def test_every_copy_of_an_augmented_clip_is_taken_as_often_as_the_clip() -> None:
    heard = [SimpleNamespace(clip=clip) for clip in (0, 0, 1, 2, 2)]
    room: Any = SimpleNamespace(training=SimpleNamespace(drawn=SimpleNamespace(heard=heard)))
    assert spread_speech(room, [2, 0, 1]) == [2, 2, 0, 1, 1]
    assert spread_speech(room, None) is None
    plain: Any = SimpleNamespace(training=SimpleNamespace(drawn=None))
    assert spread_speech(plain, [2, 0, 1]) == [2, 0, 1]


def test_a_slice_without_clips_is_refused_with_what_there_is(tmp_path: Path) -> None:
    slices = "members:\n  - {name: sea, only: {place: lake}}\n  - {name: hills, only: {speaker: a}}\n"
    recipe = write_run(tmp_path, extra=slices)
    write_slices(tmp_path)
    with pytest.raises(InputError) as caught:
        gather_materials(load_recipe(recipe))
    assert caught.value.faults == (
        "Member sea takes only rows whose place is lake; there are hills, sea.",
        "Member hills takes only rows by their speaker, and no row of the manifest has that column.",
    )


def draw(**settings: Any) -> list[int] | None:
    return Enrolled("one", SimpleNamespace(seed=3), MemberSettings(**settings)).draw_times([{}] * 50)


def test_samples_are_drawn_by_the_members_seed() -> None:
    assert draw() is None
    share = draw(sample_share=0.8)
    assert (sum(share), set(share)) == (40, {0, 1})
    assert share == draw(sample_share=0.8)
    bag = draw(bagging=True)
    assert sum(bag) == 50
    assert max(bag) > 1
    assert 25 < sum(map(bool, bag)) < 40  # 1 - 1/e of them
    assert sum(draw(bagging=True, sample_share=0.5)) == 25


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        ("students: 0\n", "students is 0; it must be from 1"),
        ("students: 1\nmembers: [{name: a}, {name: b}]\n", r"from 2 \(members given\) to 64"),
        ("members: [{name: a}, {name: a, seed: 5}]\n", "a comes twice"),
        ("members: [{name: a, seed: 5}, {name: b, seed: 5}]\n", "the same seed and the same settings"),
        ("members: [{name: stream}]\n", "may not be stream"),
        ("members: [{name: a, sample_share: 1.5}]\n", r"sample_share must lie in \(0, 1\], not 1\.5"),
        ("members: [{name: a, only: {}}]\n", "only names no column"),
        ("members: [{name: a, lora: {rank: 0}}]\n", "rank must be"),
        ("members: [{name: a, training: {steps: 3}}]\n", "members.0.training.steps: unknown key"),
        ("members: [{name: a, lora: {init: pissa}}]\n", "members.0.lora.init: unknown key"),
    ],
)
def test_faults_of_a_cohort_are_found_in_the_recipe(tmp_path: Path, extra: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        load_recipe(write_run(tmp_path, extra=extra))


def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, extra="students: 2\n")
    with pytest.raises(InputError, match=r"PiSSA .* changes the weights that a cohort shares"):
        load_recipe(recipe, ("student.lora.init=pissa",))
    with pytest.raises(InputError, match=r"does not offer training\.trackers"):
        load_recipe(recipe, ("training.trackers=[tensorboard]",))
    text = write_text_run(tmp_path, extra="members: [{name: a, only: {group: x}}]\n", student=ADAPTED)
    with pytest.raises(InputError, match="members take rows at random"):
        load_recipe(text)
    with pytest.raises(InputError, match=r"give student\.lora"):
        load_recipe(write_text_run(tmp_path, extra="students: 2\n"))


def test_seeds_of_cohorts_do_not_overlap(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, extra="students: 4\n")
    seeds = [[one.recipe.seed for one in enrol(load_recipe(recipe, seed=seed))] for seed in (0, 1)]
    assert seeds == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert {one.recipe.data_seed for one in enrol(load_recipe(recipe, seed=1))} == {1}


def test_recipes_without_a_cohort_keep_their_identity(tmp_path: Path) -> None:
    materials = gather_materials(load_recipe(write_run(tmp_path)))
    assert not {"students", "members", "data_seed"} & set(materials.identity)
    cohort = gather_materials(load_recipe(write_run(tmp_path, extra="students: 2\n")))
    assert cohort.identity["students"] == 2
    assert cohort.recipe_hash != materials.recipe_hash


def test_a_dry_run_counts_every_member(tmp_path: Path) -> None:
    document, human = forecast(gather_materials(load_recipe(write_run(tmp_path, extra=MEMBERS))))
    members = document.body["cohort"]["members"]
    assert [member["name"] for member in members] == ["low", "bag", "seed23"]
    assert "member low: seed 21, trains" in human
    flops, each = document.body["cohort"]["expected"]["flops"], [one["expected"]["flops"] for one in members]
    assert flops["student"] == sum(one["student"] for one in each)
    assert flops["teacher"] == each[0]["teacher"] > 0  # once
    with pytest.raises(InputError, match=r"^member low: "):
        forecast(gather_materials(load_recipe(tmp_path / "recipe.yaml", ("members.0.lora.rank=500",))))


def test_the_mean_member_is_over_members_and_has_their_spread() -> None:
    verdicts = [
        SimpleNamespace(sums=lambda e=e: {"wer": sum_by_group(e, [4, 4], ["x", "y"])}) for e in ([1, 1], [3, 1])
    ]
    stacked = stack_members(verdicts)
    assert stacked["wer"].ratio == (2 / 8 + 4 / 8) / 2
    assert spread_of(stacked)["wer"] == {
        "lowest": 0.25,
        "highest": 0.5,
        "standard_deviation": pytest.approx(0.1767767),
    }


def test_a_manifest_keeps_what_clips_are_selected_by(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    path = write_manifest(data, "train.jsonl", list(enumerate(SENTENCES))[:6])
    plain = read_manifest(path)
    assert plain.utterances[0].selectable == {"group": "tone0"}
    write_slices(tmp_path)
    sliced = read_manifest(path)
    assert sliced.utterances[0].selectable == {"group": "tone0", "place": "sea"}
    assert sliced.sha256 != plain.sha256  # what members take depends on it
    assert len({*sliced.utterances}) == 6
