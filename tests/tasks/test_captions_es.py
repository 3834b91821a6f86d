"""The shipped Spanish captions are what their README says, and no group is on both sides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tutelage.tasks.speech.audio import content_hash, read_audio
from tutelage.tasks.speech.groups import group_utterances, words_of
from tutelage.tasks.speech.manifest import Manifest, read_manifest

CAPTIONS = Path(__file__).parents[2] / "examples" / "captions_es"
MOST_BYTES = 8_000_000  # what a clone can bear
NAMES = ("train", "held_out")


@pytest.fixture(scope="module")
def manifests() -> dict[str, Manifest]:
    return {name: read_manifest(CAPTIONS / f"{name}.jsonl", window_seconds=10.0) for name in NAMES}


def test_no_group_recording_or_transcript_is_on_both_sides(manifests: dict[str, Manifest]) -> None:
    train, held_out = (manifests[name].utterances for name in NAMES)
    both = [*train, *held_out]
    assert len({u.id for u in both}) == len(both)
    assert not {u.group for u in train} & {u.group for u in held_out}
    recordings = [content_hash(read_audio(u.audio)) for u in both]
    assert len(set(recordings)) == len(both), "a recording is there twice"
    # Grouping the whole set anew gives the groups that the manifests name.
    firsts = group_utterances([u.text for u in both], recordings)
    ours = {}
    for utterance, first in zip(both, firsts, strict=True):
        assert ours.setdefault(first, utterance.group) == utterance.group
    assert len(ours) == len({u.group for u in both})
    assert not {words_of(u.text) for u in train} & {words_of(u.text) for u in held_out}


def test_clips_are_what_the_rules_let_through(manifests: dict[str, Manifest]) -> None:
    for manifest in manifests.values():
        for utterance in manifest.utterances:
            assert 0.8 <= utterance.duration <= 10.0
            assert words_of(utterance.text)
            assert not re.search(r"[0-9$€¥]", utterance.text)
            assert utterance.audio.suffix == ".ogg"


def test_the_readme_counts_are_right(manifests: dict[str, Manifest]) -> None:
    readme = (CAPTIONS / "README.md").read_text(encoding="utf-8")
    kept = 0
    for name, manifest in manifests.items():
        clips = manifest.utterances
        words = sum(len(u.text.split()) for u in clips)
        row = (
            f"| {name}.jsonl | {len(clips)} | {len({u.group for u in clips})} | {words} | {manifest.seconds / 60:.1f} |"
        )
        assert row in readme
        kept += len(clips)
    dropped = [int(count) for count in re.findall(r"^\| (\d+) \| ", readme, flags=re.MULTILINE)]
    assert f"Of {kept + sum(dropped)} captions {kept} are kept" in readme


def test_the_folder_is_small_licensed_and_complete(manifests: dict[str, Manifest]) -> None:
    audio = {u.audio for manifest in manifests.values() for u in manifest.utterances}
    assert set((CAPTIONS / "audio").iterdir()) == audio
    assert sum(path.stat().st_size for path in CAPTIONS.rglob("*") if path.is_file()) < MOST_BYTES
    assert "GNU GENERAL PUBLIC LICENSE\n                       Version 2" in (CAPTIONS / "LICENSE").read_text()
    readme = (CAPTIONS / "README.md").read_text(encoding="utf-8")
    for needed in ("tuxpaint-stamps-default", "2022.06.04-1", "Estefanía Ortiz", "One voice", "Bill Kendrick"):
        assert needed in readme
