"""Runs on changed clips, on the teacher's transcripts and on datasets: what is heard, learned, counted and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from run_folders import read_log
from tiny import shared_tiny_whisper
from tiny_run import SENTENCES, TRAINED, write_manifest
from tiny_text_run import write_text_run
from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError, InterruptedRunError
from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.models.load import load_speech_model
from tutelage.records.locations import cache_folder
from tutelage.runs.attempt import Attempt
from tutelage.runs.distil import distil
from tutelage.runs.speech import pseudo_labels
from tutelage.runs.speech.augment import hear_training
from tutelage.runs.speech.evaluate import Examination, evaluate
from tutelage.runs.speech.pseudo_labels import TranscriptCache, choose_labels
from tutelage.runs.speech.recipe import PseudoLabels
from tutelage.runs.systems import Systems
from tutelage.runs.tasks import forecast, gather_materials
from tutelage.tasks.speech.audio import read_audio
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.generate import TokenCap, from_audio, transcribe
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.long import LongForm
from tutelage.tasks.speech.manifest import Utterance
from tutelage.tasks.speech.transcript import Transcript

Write = Callable[..., Path]
AUGMENT = "data.augment={speed: [0.9, 1.1], spec_augment: {variants: 2, time_width: 10, freq_width: 8}}"
LABELS = "data.pseudo_labels={max_wer: null}"
HALF = 1e-4
"""Relative: encoder outputs are kept as float16, each exact to 2^-11, with errors of both signs (seen: 1e-6)."""
NO_SPEED = ("evaluation.speed_clips=0", "evaluation.stock_clips=0")


def run(recipe: Path, *overrides: str, out: str = "run", resume: bool = False, said: list[str] | None = None) -> Any:
    loaded = load_recipe(recipe, (*NO_SPEED, *overrides))
    attempt = Attempt(
        recipe.parent / out,
        dump_recipe(loaded),
        device="cpu",
        resume=resume,
        talk=(lambda text: None) if said is None else said.append,
    )
    return json.loads(distil(gather_materials(loaded), attempt).read_text(encoding="utf-8"))


def losses(folder: Path) -> list[float]:
    return [line["total"] for line in read_log(folder)]


def test_a_run_hears_the_copies_that_its_epochs_draw_and_caches_them(
    write_recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))  # other tests hear the same clips
    recipe, said = write_recipe(steps=6), list[str]()
    document = run(recipe, AUGMENT, out="one", said=said)
    heard = hear_training(gather_materials(load_recipe(recipe, (*NO_SPEED, AUGMENT))))
    assert document["data"]["train"]["augment"] == {
        "variants": ["x0.9-m0", "x0.9-m1", "x1.1-m0", "x1.1-m1"],
        "copies_heard": len(heard.clips),
        "teacher_hears": "the same copy",
    }
    assert TRAINED < len(heard.clips) <= 2 * TRAINED, "two epochs of six clips"
    held_out = len(SENTENCES) - TRAINED
    assert f"encoder outputs: 0 found in the cache, {len(heard.clips) + held_out} computed" in said
    again = list[str]()
    run(recipe, AUGMENT, out="two", said=again)
    assert f"encoder outputs: {len(heard.clips) + held_out} found in the cache, 0 computed" in again
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
    run(recipe, out="plain")
    assert losses(tmp_path / "one") != losses(tmp_path / "plain")


def test_an_augmented_run_that_is_stopped_goes_on_to_the_same_losses(
    write_recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(steps=6)
    run(recipe, AUGMENT, out="straight")
    from tutelage.training import step

    take, count = step.Stepper.take, [0]

    def stop_at_fourth(self: Any, *arguments: Any) -> Any:
        count[0] += 1
        if count[0] == 4:
            raise InterruptedRunError("stopped")
        return take(self, *arguments)

    monkeypatch.setattr(step.Stepper, "take", stop_at_fourth)
    with pytest.raises(InterruptedRunError):
        run(recipe, AUGMENT, out="stopped")
    run(recipe, AUGMENT, out="stopped", resume=True)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "straight")


def test_an_encoder_that_is_trained_hears_the_copies_too(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe(steps=2)
    run(recipe, AUGMENT, "student.lora.scope=both", out="both")
    run(recipe, AUGMENT, out="decoder")
    run(recipe, "student.lora.scope=both", out="clean")
    # In the first step nothing has been learned: the encoder that is run says what was kept of it (as float16).
    first, kept, clean = (losses(tmp_path / name)[0] for name in ("both", "decoder", "clean"))
    assert first == pytest.approx(kept, rel=HALF)
    assert clean != pytest.approx(kept, rel=HALF)


def test_the_slowed_clip_must_fit_the_window(write_recipe: Write) -> None:
    recipe = write_recipe()
    slow = "data.augment={speed: [0.5, 1.0]}"
    with pytest.raises(InputError) as caught:
        gather_materials(load_recipe(recipe, (slow, "data.overlong=error")))
    assert "tone3 lasts 1.10 s, 2.20 s at speed 0.5, over the window of 2 s" in str(caught.value)
    dropped = gather_materials(load_recipe(recipe, (slow, "data.overlong=drop")))
    assert [clip.id for clip in dropped.train.dropped] == ["tone3"]
    assert not dropped.held_out.dropped, "what is judged is not played slower"


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("data.augment={}", "augment changes nothing"),
        ("data.augment={speed: [1.0]}", "augment changes nothing"),
        ("data.augment={speed: [0.1, 1.0]}", "speed must be from 0.5 to 2.0, not 0.1"),
        ("data.augment={speed: [1.1, 1.1]}", "a list of different numbers"),
        ("data.augment={spec_augment: {time_masks: 0, freq_masks: 0}}", "masks nothing"),
        ("data.augment={spec_augment: {variants: 0}}", "variants must be a whole number from 1"),
        ("data.pseudo_labels={max_wer: -0.1}", "max_wer must be a share from 0"),
        ("evaluation.beams=0", "beams must be a whole number from 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(write_recipe: Write, override: str, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(write_recipe(), [override])
    assert fault in str(caught.value)


def test_what_excludes_each_other_is_refused(write_recipe: Write) -> None:
    recipe = write_recipe()
    model = load_recipe(recipe).teacher.model
    committee = f"teacher={{members: [{{name: a, model: {model}}}, {{name: b, model: {model}}}], states_from: a}}"
    for overrides, fault in (
        ([AUGMENT, "students=2"], "data.augment changes which clip a sample is"),
        ([LABELS, committee], "data.pseudo_labels transcribes with one teacher"),
        (["evaluation.beams=2", committee], "evaluation.beams searches with one model"),
        (["evaluation.beams=2", "students=2"], "evaluation.beams searches with one model"),
    ):
        with pytest.raises(InputError) as caught:
            load_recipe(recipe, overrides)
        assert fault in str(caught.value)


def test_what_changes_the_data_is_part_of_a_runs_identity(write_recipe: Write) -> None:
    recipe = write_recipe()
    found = [
        gather_materials(load_recipe(recipe, overrides)).recipe_hash
        for overrides in ([], [AUGMENT], [LABELS], ["data.pseudo_labels={}"], ["evaluation.beams=2"])
    ]
    assert len(set(found)) == len(found)
    plain = gather_materials(load_recipe(recipe)).identity
    assert "augment" not in plain["data"]
    assert "pseudo_labels" not in plain["data"]
    assert "beams" not in plain["evaluation"]


def test_a_run_without_transcripts_learns_what_the_teacher_hears(
    write_recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe()
    manifest = tmp_path / "data" / "train.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    manifest.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "text"}) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"missing: text\."):
        gather_materials(load_recipe(recipe))
    assert forecast(gather_materials(load_recipe(recipe, [LABELS])))[0].body["expected"]["flops"]

    calls = []

    def hear(model: Any, clips: list[Utterance], *_: Any, **__: Any) -> list[Transcript]:
        calls.append(len(clips))
        # Text that fits the tiny decoder; the random teacher ends none of its own.
        return [Transcript(f"lo que oigo {clip.id}", (1, 2), clip.id == "tone5") for clip in clips]

    monkeypatch.setattr(pseudo_labels, "transcribe", hear)
    said: list[str] = []
    document = run(recipe, LABELS, out="one", said=said)
    assert "pseudo-labels: 0 found in the cache, 6 to transcribe" in said
    found = document["data"]["train"]["pseudo_labels"]
    assert found == {
        "max_wer": None,
        "normaliser": found["normaliser"],
        "clips": 6,
        "kept": 5,
        "dropped": {"wer": 0, "no_words": 0, "hit_cap": 1},
        "wer": None,
        "kept_wer": None,
    }
    assert document["data"]["train"]["clips"] == 5
    assert sum(calls) == 6
    run(recipe, LABELS, out="two")
    assert sum(calls) == 6, "what was transcribed is in the cache"
    assert losses(tmp_path / "one") == losses(tmp_path / "two")


def test_a_teacher_that_gets_every_clip_wrong_is_told_of_before_anything_is_written(write_recipe: Write) -> None:
    recipe = write_recipe()
    with pytest.raises(InputError) as caught:  # a random teacher says nonsense
        run(recipe, "data.pseudo_labels={}")
    assert "No training clip is left with the teacher's transcripts as labels: 0 of 6 clips kept" in str(caught.value)
    assert not (recipe.parent / "run").exists()
    said: list[str] = []
    with pytest.raises(InputError):
        run(recipe, "data.pseudo_labels={max_wer: 0.2}", said=said)
    assert "pseudo-labels: 6 found in the cache, 0 to transcribe" in said


def clip(name: str, text: str) -> Utterance:
    return Utterance(name, Path(f"{name}.wav"), text, 1.0, name, sha256=f"hash of {name}")


def test_clips_that_the_teacher_got_wrong_are_left_out_and_counted() -> None:
    clips = [clip("a", "¡Uno dos!"), clip("b", "uno dos tres"), clip("c", "uno dos"), clip("d", ""), clip("e", "uno")]
    heard = ["uno dos", "uno seis tres", " . ", "nada", "uno"]
    transcripts = [Transcript(text, (), name == "e") for text, name in zip(heard, "abcde", strict=True)]
    spanish = whisper_normaliser("es")
    found = choose_labels(clips, transcripts, PseudoLabels(max_wer=0.3), spanish)
    assert [(one.id, one.text) for one in found.clips] == [("a", "uno dos"), ("d", "nada")]
    assert [one.id for one in found.dropped] == ["b", "c", "e"]
    assert (found.over, found.wordless, found.stopped) == (1, 1, 1)
    assert found.wer is not None
    assert found.wer.value == pytest.approx(3 / 8)  # one of b, two of c, over 2 + 3 + 2 + 1 words
    assert found.kept_wer is not None
    assert found.kept_wer.value == 0.0
    free = choose_labels(clips, transcripts, PseudoLabels(max_wer=None), spanish)
    assert [one.id for one in free.clips] == ["a", "b", "d"]
    at_limit = choose_labels(clips[1:2], transcripts[1:2], PseudoLabels(max_wer=1 / 3), spanish)
    assert len(at_limit.clips) == 1


def test_lines_of_the_cache_that_are_damaged_are_made_again(tmp_path: Path) -> None:
    cache = TranscriptCache(tmp_path / "deep" / "cache.jsonl")
    clips = [clip(name, "") for name in "abc"]
    written = [Transcript(f"texto {name}", (1, 2), False) for name in "abc"]
    cache.add(clips, written)
    path = tmp_path / "deep" / "cache.jsonl"
    assert cache.read() == {one.sha256: two for one, two in zip(clips, written, strict=True)}
    path.write_bytes(path.read_bytes().replace(b"texto b", b"texto x")[:-5])
    assert set(cache.read()) == {"hash of a"}
    cache.add(clips[1:], written[1:])
    assert set(cache.read()) == {"hash of a", "hash of b", "hash of c"}


def test_transcripts_are_keyed_by_what_they_depend_on(write_recipe: Write) -> None:
    recipe = write_recipe()
    materials = gather_materials(load_recipe(recipe, [LABELS]))
    other = replace(materials, recipe=load_recipe(recipe, [LABELS, "data.task=translate"]))
    french = replace(materials, recipe=load_recipe(recipe, [LABELS, "data.language=fr"]))
    half = replace(materials, recipe=load_recipe(recipe, [LABELS, "teacher.dtype=bfloat16"]))
    assert len({pseudo_labels.key_of(one) for one in (materials, other, french, half)}) == 4
    strict = replace(materials, recipe=load_recipe(recipe, ["data.pseudo_labels={}"]))
    assert pseudo_labels.key_of(strict) == pseudo_labels.key_of(materials), "the filter is not part of a transcript"


def test_a_run_decodes_with_beams(write_recipe: Write) -> None:
    greedy, beams = (
        run(write_recipe(steps=1), out="greedy"),
        run(write_recipe(steps=1), "evaluation.beams=2", out="two"),
    )
    assert greedy["systems"][-1]["metrics"]["nats_per_token"] == beams["systems"][-1]["metrics"]["nats_per_token"]
    texts = [
        (write_recipe().parent / name / "transcripts.jsonl").read_text(encoding="utf-8") for name in ("greedy", "two")
    ]
    assert texts[0] != texts[1]


def save_dataset(folder: Path, rows: list[tuple[int, str]], *, as_bytes: bool, **columns: list[Any]) -> Path:
    """What `save_to_disk` writes, from the tones of a manifest."""
    import datasets

    paths = [folder.parent / "data" / f"tone{number}.wav" for number, _ in rows]
    held = [{"bytes": path.read_bytes(), "path": str(path)} for path in paths] if as_bytes else list(map(str, paths))
    made = datasets.Dataset.from_dict({"audio": held, "sentence": [text for _, text in rows], **columns})
    if as_bytes:
        made = made.cast_column("audio", datasets.Audio(decode=False))
    datasets.DatasetDict({"train": made}).save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_run_on_a_dataset_is_the_run_on_its_manifest(write_recipe: Write, tmp_path: Path, as_bytes: bool) -> None:
    recipe = write_recipe()
    rows = list(enumerate(SENTENCES))[:TRAINED]
    save_dataset(tmp_path / "clips", rows, as_bytes=as_bytes, name=[f"tone{number}" for number, _ in rows])
    source = "data.train={dataset: clips, split: train, text: sentence, id: name}"
    materials, plain = (gather_materials(load_recipe(recipe, given)) for given in ([source], []))
    assert [(one.id, one.text, one.sha256, one.group) for one in materials.train.utterances] == [
        (one.id, one.text, one.sha256, one.group) for one in plain.train.utterances
    ]
    assert materials.recipe_hash == plain.recipe_hash
    kept = {one.audio.is_relative_to(cache_folder() / "recordings") for one in materials.train.utterances}
    assert kept == {as_bytes}
    if as_bytes:
        run(recipe, source, out="set")
        run(recipe, out="file")
        assert losses(tmp_path / "set") == losses(tmp_path / "file")


def test_recordings_of_a_dataset_that_are_held_out_too_are_refused(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe()
    save_dataset(tmp_path / "clips", [(TRAINED, SENTENCES[TRAINED])], as_bytes=True)
    with pytest.raises(InputError, match=r"1 held-out recordings are among the training recordings"):
        gather_materials(load_recipe(recipe, ["data.train={dataset: clips, text: sentence}"]))


def test_faults_of_datasets_are_told_with_their_way_out(write_recipe: Write, tmp_path: Path) -> None:
    recipe = write_recipe()
    write_manifest(tmp_path / "data", "more.jsonl", [(0, "x")])
    save_dataset(tmp_path / "clips", [(0, "uno"), (1, "..."), (2, "tres")], as_bytes=True, of=["a", "b", None])
    given = "data.train={{dataset: {}, text: {}, {}}}"
    for source, fault in (
        (given.format("clips", "words", "split: train"), "has no column 'words' for text; it has audio, sentence, of."),
        (given.format("clips", "sentence", "split: test"), "has no split 'test'; choose one with split: train."),
        (given.format("nowhere/at-all", "sentence", "split: train"), "The dataset nowhere/at-all cannot be opened"),
        (given.format("clips", "sentence", "audio: of"), "row 2: the column 'of' holds no recording"),
        (given.format("clips", "sentence", "group: of"), "row 1: no words are left of the text '...'"),
    ):
        with pytest.raises(InputError) as caught:
            gather_materials(load_recipe(recipe, [source]))
        assert fault in str(caught.value)
    with pytest.raises(InputError, match=r"data\.train\.tekst: unknown key; did you mean 'text'"):
        load_recipe(recipe, ["data.train={dataset: clips, tekst: sentence}"])


def test_without_the_library_the_extra_is_named(
    write_recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'tutelage\[datasets\]'"):
        gather_materials(load_recipe(write_recipe(), ["data.train={dataset: clips}"]))


def test_documents_of_a_dataset_are_those_of_the_file(tmp_path: Path) -> None:
    import datasets

    recipe = write_text_run(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    made = datasets.Dataset.from_dict({"name": [row["id"] for row in rows], "body": [row["text"] for row in rows]})
    made.save_to_disk(str(tmp_path / "texts"))
    source = "data.train={dataset: texts, text: body, id: name}"
    materials, plain = (gather_materials(load_recipe(recipe, given)) for given in ([source], []))
    assert materials.train == plain.train
    assert materials.recipe_hash == plain.recipe_hash
    with pytest.raises(InputError, match=r"held-out documents are among the training documents"):
        gather_materials(load_recipe(recipe, [source, "data.held_out={dataset: texts, text: body}"]))


def test_long_clips_are_read_in_pieces_and_others_as_before(write_recipe: Write, tmp_path: Path) -> None:
    write_recipe()
    folder, other = tmp_path / "data", str(shared_tiny_whisper(seed=3))
    rows = [json.loads(line) for line in (folder / "held_out.jsonl").read_text(encoding="utf-8").splitlines()]
    together = np.concatenate([soundfile.read(folder / row["audio"])[0] for row in rows] * 3)
    soundfile.write(folder / "long.wav", together, 16000)
    long = {"id": "long", "audio": "long.wav", "text": "todas juntas", "duration": len(together) / 16000}
    manifest = folder / "with_long.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in [*rows, long]), encoding="utf-8")
    systems = Systems.of(str(shared_tiny_whisper()), other)
    given = {"systems": systems, "language": "es", "draws": 100, "speed_items": 1, "speed_rounds": 2, "device": "cpu"}
    with pytest.raises(InputError, match=r"such as long; cut them, .*\(--long chunk\)"):
        evaluate(Examination(manifest=manifest, **given))
    document = evaluate(Examination(manifest=manifest, long="chunk", beams=2, **given)).to_dict()
    assert document["decoding"] == {"beams": 2, "long": "chunk", "long_clips": 1}
    assert not document["warnings"] or all(one["code"] != "other-tokens" for one in document["warnings"])
    short = evaluate(Examination(manifest=folder / "held_out.jsonl", beams=2, **given)).to_dict()
    for row, alone in zip(document["models"], short["models"], strict=True):
        assert row["utterances"] == alone["utterances"] + 1
        assert row["metrics"]["nats_per_token"] is None
        assert alone["metrics"]["nats_per_token"] is not None
    compared = {one["metric"] for one in document["comparisons"]}
    assert compared == {"wer", "capped_wer"}


def test_a_recording_in_pieces_is_joined_from_all_of_them(write_recipe: Write, tmp_path: Path) -> None:
    write_recipe()
    speech = load_speech_model(shared_tiny_whisper(seed=3))
    codec = LabelCodec(speech.processor.tokenizer, "es")
    time = np.arange(16000 * 9) / 16000
    soundfile.write(tmp_path / "nine.wav", 0.3 * np.sin(2 * np.pi * 300 * time * (1 + time / 9)), 16000)
    long = LongForm(speech, codec, "es", cap=TokenCap(base=12, per_second=0))
    nine = Utterance("nine", tmp_path / "nine.wav", "x", 9.0)
    assert long.takes(nine)
    assert not long.takes(replace(nine, duration=4.0)), "the window is 4 s"
    whole = long.transcribe(nine).text
    soundfile.write(tmp_path / "four.wav", read_audio(nine.audio)[: 4 * 16000], 16000)
    encode = from_audio(FrozenEncoder(speech.model, speech.processor.feature_extractor))
    four = Utterance("four", tmp_path / "four.wav", "x", 4.0)
    (piece,) = transcribe(speech.model, [four], encode, codec, cap=long.cap)
    assert len(codec.encode(whole)) > len(piece.tokens) == 12, "more than one piece says"
