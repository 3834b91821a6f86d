"""ROVER as a system of its own: what models wrote is voted on and scored; no model runs again.

Covers the row of the vote. Does not cover the vote itself (`evaluation.rover`) or the models' own rows (`judge`).
"""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.evaluation.rover import FEWEST, vote_each
from tutelage.evaluation.wer import Normaliser, score_transcripts
from tutelage.runs.speech.classroom import SpeechClassroom
from tutelage.runs.speech.judge import Verdict


def vote_speech(room: SpeechClassroom, members: Sequence[Verdict], ensemble: Verdict) -> Verdict | None:
    """The vote of a cohort's members; None of so few that there is none.

    Args:
        room: Of any member.
        members: In the cohort's order.
        ensemble: Whose parameters a vote has as well.
    """
    if len(members) < FEWEST:
        return None
    return judge_vote(f"ROVER of {len(members)} members", members, room.materials.normaliser, ensemble.params)


def judge_vote(name: str, verdicts: Sequence[Verdict], normalise: Normaliser, params: int) -> Verdict:
    """The verdict on the transcripts that systems agree on: error rates alone, since a vote has no probabilities.

    Args:
        name: Of the row.
        verdicts: Of the systems on the same clips, the one that decides ties first: no order by their scores there, or
            the vote is chosen on what it is judged on.
        normalise: Makes words equal and is scored with.
        params: Parameters that the systems have together.
    """
    first = verdicts[0].score
    ids = [clip.id for clip in first.utterances]
    if any([clip.id for clip in verdict.score.utterances] != ids for verdict in verdicts):
        raise ValueError("a vote is on the same clips in the same order")
    voted = vote_each([[clip.raw.hypothesis for clip in verdict.score.utterances] for verdict in verdicts], normalise)
    score = score_transcripts(
        [clip.raw.reference for clip in first.utterances],
        voted,
        normalise,
        groups=first.groups,
        ids=ids,
        resampling=first.resampling,
    )
    return Verdict(name, min(verdict.window_seconds for verdict in verdicts), params, score, {})
