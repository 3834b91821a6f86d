from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jiwer
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tutelage.errors import InputError, MissingExtraError
from tutelage.evaluation.bootstrap import Resampling
from tutelage.evaluation.wer import KINDS, METRICS, RAW, Normaliser, TranscriptScore, count_edits, score_transcripts
from tutelage.records.document import jsonable

LOWER = Normaliser("lower", str.lower)
FAST = Resampling(draws=100)
PARITY = 1e-12
"""Two sums of the same integers, divided once."""

words = st.lists(st.sampled_from(["uno", "dos", "tres", "año", "Uno"]), max_size=6).map(" ".join)
corpora = st.lists(st.tuples(words, words), min_size=1, max_size=8)


def score(pairs: list[tuple[str, str]], **options: object) -> TranscriptScore:
    references, hypotheses = zip(*pairs, strict=True)
    return score_transcripts(references, hypotheses, LOWER, resampling=FAST, **options)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(corpora)
def test_pooled_rates_agree_with_jiwer(pairs: list[tuple[str, str]]) -> None:
    assume(any(reference for reference, _ in pairs))
    found = score(pairs)
    references, hypotheses = [list(side) for side in zip(*pairs, strict=True)]
    assert found.raw_wer.value == pytest.approx(jiwer.wer(references, hypotheses), abs=PARITY)
    assert found.raw_cer.value == pytest.approx(jiwer.cer(references, hypotheses), abs=PARITY)
    lower = [[text.lower() for text in side] for side in (references, hypotheses)]
    assert found.wer.value == pytest.approx(jiwer.wer(*lower), abs=PARITY)
    assert found.cer.value == pytest.approx(jiwer.cer(*lower), abs=PARITY)


def test_the_corpus_rate_is_no_mean_of_rates() -> None:
    """One word wrong of one, none of nine: 1 / 10, where the mean of rates says 1 / 2."""
    found = score([("uno", "dos"), ("a b c d e f g h i", "a b c d e f g h i")])
    assert found.wer.value == 0.1


def test_kinds_of_edits() -> None:
    edits = count_edits("a b c d", "a x c d e f", "words")
    assert (edits.hits, edits.substitutions, edits.deletions, edits.insertions) == (3, 1, 0, 2)
    assert (edits.errors, edits.length) == (3, 4)
    assert count_edits("a b", "", "words").deletions == 2
    assert count_edits("ab c", "abc", "characters").deletions == 1


@settings(deadline=None, max_examples=40)
@given(corpora, st.randoms(use_true_random=False))
def test_order_is_no_matter(pairs: list[tuple[str, str]], random: object) -> None:
    assume(any(reference for reference, _ in pairs))
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = score(pairs), score(shuffled)
    assert {name: one.metrics()[name].value for name in METRICS} == pytest.approx(
        {name: other.metrics()[name].value for name in METRICS}, abs=PARITY
    )


@settings(deadline=None, max_examples=40)
@given(corpora, st.integers(2, 4))
def test_copies_in_their_groups_change_neither_value_nor_interval(pairs: list[tuple[str, str]], times: int) -> None:
    """A recording that is there twice is no more evidence, once it is in one group."""
    assume(any(reference for reference, _ in pairs))
    names = [str(i) for i in range(len(pairs))]
    once, often = score(pairs, groups=names), score(pairs * times, groups=names * times)
    for metric in METRICS:
        a, b = once.metrics()[metric], often.metrics()[metric]
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=PARITY)


@settings(deadline=None, max_examples=40)
@given(corpora)
def test_bounds(pairs: list[tuple[str, str]]) -> None:
    assume(any(reference for reference, _ in pairs))
    found = score(pairs)
    assert 0 <= found.capped_wer.value <= min(1, found.wer.value + PARITY)
    assert 0 <= found.loop_rate.value <= 1
    for estimate in found.metrics().values():
        if estimate.low is not None and estimate.high is not None:
            assert estimate.low <= estimate.high


def test_identical_texts_have_no_error() -> None:
    found = score([("Uno dos", "uno  DOS"), ("tres", "tres ")])
    assert found.wer.value == found.cer.value == 0
    assert found.raw_wer.value == pytest.approx(2 / 3)
    assert found.wer.method == "no errors: binomial bound on 2 groups"


class TestEmptyReferences:
    def test_insertions_count_and_words_do_not(self) -> None:
        found = score([("", "uno dos"), ("tres cuatro", "tres cuatro")])
        assert found.wer.value == 2 / 2
        assert found.capped_wer.value == 0
        assert found.to_dict()["empty_references"] == 1

    def test_both_empty_is_right(self) -> None:
        assert score([("", ""), ("uno", "uno")]).wer.value == 0

    def test_empty_only_after_the_normaliser(self) -> None:
        hush = Normaliser("letters", lambda text: "".join(c for c in text if c.isalpha() or c == " "))
        found = score_transcripts(["...", "uno"], ["dos", "uno"], hush, resampling=FAST)
        assert (found.raw_wer.value, found.wer.value) == (1 / 2, 1 / 1)

    @pytest.mark.parametrize(("references", "name"), [(["", "  "], "raw"), (["", "..."], "nothing"), ([], "raw")])
    def test_a_corpus_without_words_has_no_rate(self, references: list[str], name: str) -> None:
        nothing = Normaliser("nothing", lambda _: "")
        with pytest.raises(InputError, match=f"none of the {len(references)} references.*'{name}'"):
            score_transcripts(references, ["a"] * len(references), nothing)


def test_a_loop_dominates_the_rate_but_not_the_capped_one() -> None:
    loop = ("uno dos", "no " * 20)
    found = score([loop, ("uno dos", "uno dos")])
    assert found.wer.value == 20 / 4
    assert found.capped_wer.value == 2 / 4
    assert found.loop_rate.value == 1 / 2


def test_a_stopped_decoder_is_a_loop() -> None:
    pairs = [("uno dos", "uno dos y"), ("tres", "tres")]
    assert score(pairs).loop_rate.value == 0
    assert score(pairs).to_dict()["hit_cap"] is None
    stopped = score(pairs, hit_cap=[True, False])
    assert stopped.loop_rate.value == 0.5
    assert stopped.to_dict()["hit_cap"] == 1


def test_groups_widen_the_interval() -> None:
    """Forty utterances that come in four groups of like ones are not forty."""
    pairs = [("uno dos tres", "uno dos tres")] * 20 + [("uno dos tres", "x y z")] * 20
    alone, grouped = score(pairs), score(pairs, groups=[str(i // 10) for i in range(40)])
    assert alone.wer.low is not None
    assert grouped.wer.low is not None
    assert grouped.wer.low < alone.wer.low
    assert (grouped.status.kind, alone.status.kind) == ("few-groups", "done")
    assert grouped.status.remedy


def test_the_document_names_the_normaliser_and_counts() -> None:
    found = score([("Uno dos", "uno tres cuatro")], ids=["clip"], groups=["g"])
    body = json.loads(json.dumps(jsonable(found.to_dict(utterances=True)), allow_nan=False))
    assert body["normaliser"] == "lower"
    assert set(body["metrics"]) == set(METRICS)
    assert body["words"]["errors"] == 2
    assert body["words"]["reference"] == 2
    assert body["by_utterance"][0]["id"] == "clip"
    assert body["by_utterance"][0]["raw"]["reference"] == "Uno dos"
    assert "by_utterance" not in found.to_dict()


def test_one_utterance_has_a_point_and_no_interval() -> None:
    found = score([("uno dos", "uno")])
    assert (found.wer.value, found.wer.low, found.wer.level) == (0.5, None, None)
    assert found.status.kind == "few-groups"


def test_kinds_of_errors_are_shares_of_the_words_that_sum_to_the_rate() -> None:
    found = score([("Uno dos tres cuatro", "uno DOS tres x y"), ("cinco seis", "seis")] * 20)
    kinds = found.kinds()
    assert {name: round(kinds[name].value * 6, 9) for name in kinds if "character" not in name} == {
        "substitutions": 1,
        "deletions": 1,
        "insertions": 1,
        "raw_substitutions": 3,
        "raw_deletions": 1,
        "raw_insertions": 1,
    }
    rates = {"": found.wer, "raw_": found.raw_wer, "character_": found.cer, "raw_character_": found.raw_cer}
    assert len(kinds) == len(rates) * len(KINDS)
    for prefix, rate in rates.items():
        assert sum(kinds[prefix + kind].value for kind in KINDS) == pytest.approx(rate.value)
    assert kinds["deletions"].low is not None
    body = found.to_dict()
    assert body["kinds"]["insertions"]["value"] == pytest.approx(1 / 6)
    assert (body["words"]["substitutions"], body["raw_words"]["substitutions"]) == (20, 60)
    assert body["raw_words"]["reference"] == 120


@pytest.mark.parametrize("name", ["groups", "hit_cap", "ids"])
def test_lengths_must_agree(name: str) -> None:
    with pytest.raises(ValueError, match=f"1 references but 2 {name}"):
        score([("a", "a")], **{name: [False, False]})
    with pytest.raises(ValueError, match="1 references but 0 hypotheses"):
        score_transcripts(["a"], [], RAW)


def test_without_jiwer_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingExtraError, match=r"jiwer is not installed.*tutelage\[speech\]"):
        score([("a", "b")])


def test_scoring_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    program = (
        "import sys; from tutelage.evaluation.wer import RAW, score_transcripts; import tutelage.evaluation.compare;"
        "score_transcripts(['a b', 'c'], ['a', 'c'], RAW);"
        "print(sorted({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert answer.stdout.strip() == "[]"
