"""A vote as a system: the words of the majority are scored, on the same clips, and two members have none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.evaluation.wer import RAW, score_transcripts
from tutelage.runs.speech.judge import Verdict
from tutelage.runs.speech.voting import judge_vote, vote_speech

SAID = ["uno dos tres", "cuatro cinco"]


def wrote(*transcripts: str, ids: tuple[str, ...] = ("a", "b"), window: float = 10.0) -> Verdict:
    score = score_transcripts(SAID, transcripts, RAW, groups=["g", "h"], ids=ids)
    return Verdict("one", window, 7, score, {})


def test_the_majoritys_words_are_scored_and_nothing_but_them() -> None:
    members = [
        wrote("uno dos res", "cuatro cinco"),
        wrote("uno dos tres", "cuatro zinc", window=5.0),
        wrote("un dos tres", "cuatro zinc"),
    ]
    voted = judge_vote("vote", members, RAW, 21)
    assert [clip.raw.hypothesis for clip in voted.score.utterances] == ["uno dos tres", "cuatro zinc"]
    assert [clip.id for clip in voted.score.utterances] == ["a", "b"]
    assert voted.score.wer.value == 1 / 5
    assert voted.score.groups == ("g", "h")
    assert (voted.params, voted.window_seconds, voted.loss, voted.calibration) == (21, 5.0, None, None)


def test_members_of_other_clips_do_not_vote() -> None:
    with pytest.raises(ValueError, match="same clips in the same order"):
        judge_vote("vote", [wrote(*SAID), wrote(*SAID, ids=("b", "a")), wrote(*SAID)], RAW, 1)


def test_two_members_have_no_vote() -> None:
    room: Any = SimpleNamespace(materials=SimpleNamespace(normaliser=RAW))
    assert vote_speech(room, [wrote(*SAID)] * 2, wrote(*SAID)) is None
    voted = vote_speech(room, [wrote(*SAID)] * 3, wrote(*SAID))
    assert voted is not None
    assert voted.name == "ROVER of 3 members"
