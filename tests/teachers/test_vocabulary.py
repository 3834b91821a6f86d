"""Classes that student and teacher share: matched by token string; divergences compare them and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tiny import tiny_whisper
from tutelage.errors import InputError
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.objectives.targets import top_k
from tutelage.objectives.terms import Term
from tutelage.teachers.vocabulary import Words, describe_sizes, in_common, share_vocabulary

EXACT = {"rtol": 1e-6, "atol": 1e-6}  # float32 softmax over the same numbers in another order of sums
KEEP = torch.tensor([[True, True, False]])
LABELS = torch.tensor([[1, 2, 0]])
KINDS = ("kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl")


def words(tokens, added=(), size=None):
    return Words({token: place for place, token in enumerate(tokens)}, frozenset(added), size or len(tokens))


def drawn(classes, seed):
    return torch.randn(1, 3, classes, generator=torch.Generator().manual_seed(seed))


PADDED, PLAIN = words("abcd", size=7), words("abcd")
NEWER, OLDER = words("abcX[]", "X[]"), words("abc[]", "[]")
"""The newer model has one added token more, before the others, which have shifted ids."""


def test_equal_vocabularies_are_left_alone():
    assert share_vocabulary(PLAIN, words("abcd")) is None
    assert share_vocabulary(PADDED, PADDED) is None
    assert share_vocabulary(words("abcd"), words("abdc")) is None  # ordinary tokens swapped: preflight sees the ids


def test_padding_is_not_shared():
    shared = share_vocabulary(PLAIN, PADDED)
    assert shared.student_S.tolist() == shared.teacher_S.tolist() == [0, 1, 2, 3]
    assert shared.to_dict() == {"student": 4, "teacher": 7, "shared": 4, "other_id": 0}
    assert share_vocabulary(PADDED, PLAIN).sizes == (7, 4)


def test_an_added_token_shifts_the_ids_behind_it():
    shared = share_vocabulary(OLDER, NEWER)
    assert shared.student_S.tolist() == [0, 1, 2, 3, 4]
    assert shared.teacher_S.tolist() == [0, 1, 2, 4, 5]
    assert shared.translate(torch.tensor([[4, 2]])).tolist() == [[5, 2]]
    back = share_vocabulary(NEWER, OLDER)
    assert back.student_S.tolist() == [0, 1, 2, 4, 5]
    assert [back.token_of(index) for index in (2, 3, 4, 6, -1)] == [2, None, 3, None, None]
    assert back.describe() == ("5 classes shared by token (the teacher scores 5, the student 6; 2 have another id)")


def test_other_ordinary_tokens_are_refused_by_name():
    with pytest.raises(InputError, match=r"member b has another tokenizer .*'e' has id 4 there and None here \(1 ord"):
        share_vocabulary(PLAIN, words("abcde"), "member b")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("student", "teacher"), [(PLAIN, PADDED), (PADDED, PLAIN), (OLDER, NEWER), (NEWER, OLDER)])
def test_a_divergence_is_that_over_the_shared_classes(kind, student, teacher):
    shared = share_vocabulary(student, teacher)
    mine, theirs = drawn(student.size, 0).requires_grad_(), drawn(teacher.size, 1)
    theirs[..., 4:] += 9.0  # padding, or what was added, takes most of the mass
    objective = Objective([Term(kind, temperature=2.0)])
    found = objective.evaluate(Signal(mine, {}), shared.cut(Signal(theirs, {})), LABELS, KEEP, {})[kind]
    cut = mine.detach()[..., shared.student_S].requires_grad_()
    plain = objective.evaluate(Signal(cut, {}), Signal(theirs[..., shared.teacher_S], {}), LABELS, KEEP, {})[kind]
    assert torch.allclose(found.total, plain.total, **EXACT)
    assert float(plain.total.detach()) > 1e-2
    (gradient,), (expected,) = (torch.autograd.grad(one.total, x) for one, x in ((found, mine), (plain, cut)))
    assert torch.allclose(gradient[..., shared.student_S], expected, **EXACT)
    others = [index for index in range(student.size) if index not in shared.student_S]
    assert not gradient[..., others].any()


def test_labels_keep_all_of_the_students_classes():
    shared = share_vocabulary(PADDED, PLAIN)
    objective = Objective([Term("cross_entropy"), Term("kl")])
    mine = drawn(7, 0)
    found = objective.evaluate(Signal(mine, {}), shared.cut(Signal(drawn(4, 1), {})), LABELS, KEEP, {})
    expected = torch.nn.functional.cross_entropy(mine[KEEP], LABELS[KEEP], reduction="sum")
    assert torch.allclose(found["cross_entropy"].total, expected, **EXACT)


def test_a_teacher_over_shared_classes_is_zero_beside_itself():
    signal = share_vocabulary(NEWER, OLDER).cut(Signal(drawn(5, 1), {}))
    found = Objective([Term("kl")]).evaluate(signal, signal, LABELS, KEEP, {})["kl"]
    assert abs(float(found.total)) < 1e-6
    assert signal.map(lambda values: values + 1).classes is signal.classes


def test_sparse_targets_are_refused_where_classes_differ():
    targets = top_k(drawn(4, 1)[0], LABELS[0], 2).map(lambda values: values[None])
    cut = replace(share_vocabulary(PADDED, PLAIN).cut(Signal(drawn(4, 1), {})), scores=targets)
    with pytest.raises(InputError, match="sparse targets are of all the student's classes"):
        Objective([Term("kl")]).evaluate(Signal(drawn(7, 0), {}), cut, LABELS, KEEP, {})


def test_a_class_that_one_member_lacks_is_cut_for_all():
    student = words("abX[]", "X[]")
    shared = {
        "same": share_vocabulary(student, student),
        "older": share_vocabulary(student, words("ab[]", "[]")),
        "padded": share_vocabulary(student, words("abX[]", "X[]", 9)),
    }
    met = in_common(shared, student.size)
    assert all(found.student_S.tolist() == [0, 1, 3, 4] for found in met.values())
    assert met["older"].teacher_S.tolist() == [0, 1, 2, 3]
    assert met["same"].teacher_S.tolist() == met["padded"].teacher_S.tolist() == [0, 1, 3, 4]
    assert (met["same"].same, met["padded"].same) == (True, False)
    assert in_common({"same": None}, 5) == {"same": None}


def test_logits_as_the_student_numbers_them_mask_what_is_lacking():
    shared = share_vocabulary(NEWER, OLDER)
    spread = shared.spread(torch.arange(5.0)[None, None])
    assert spread.tolist() == [[[0.0, 1.0, 2.0, -torch.inf, 3.0, 4.0]]]


def test_a_language_more_as_in_large_v3(tmp_path):
    from transformers import WhisperProcessor

    folders = [tiny_whisper(tmp_path / str(extra), extra_languages=extra, weights=False) for extra in (0, 1)]
    older, newer = (WhisperProcessor.from_pretrained(folder).tokenizer for folder in folders)
    shared = share_vocabulary(Words.of(older, 520), Words.of(newer, 521))
    assert len(shared.student_S) == 520
    for token, moved in (("<|endoftext|>", 0), ("<|fr|>", 0), ("<|transcribe|>", 1), ("<|notimestamps|>", 1)):
        mine = older.convert_tokens_to_ids(token)
        assert shared.token_of(mine) == newer.convert_tokens_to_ids(token) == mine + moved


def test_sizes_alone_say_what_will_be_done():
    (line,) = describe_sizes({"a": 5, "b": 4}, 4)
    assert line == "a: 5 classes, the student 4: divergences compare those that both have, matched by token"


def test_a_token_without_a_class_is_not_shared():
    shared = share_vocabulary(words("abc]", "]"), words("abc]", "]", size=3))
    assert shared.teacher_S.tolist() == [0, 1, 2]
    assert shared.token_of(3) is None
