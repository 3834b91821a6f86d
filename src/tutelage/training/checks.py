"""Checks that need numbers and names only: one measured number against one tolerance.

Covers the value `Check` and the checks on adapters, budget, tokenizers, settings and the teacher's frozen state. Does
not cover checks that run the objective (`training.term_checks`) or when checks are run (`training.preflight`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

# What a teacher and a student must share for their logits, features and generated tokens to mean the same.
SHARED_SETTINGS = (
    "vocab_size",
    "num_mel_bins",
    "decoder_start_token_id",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
NAMED_AT_MOST = 5  # examples listed in one line


@dataclass(frozen=True)
class Check:
    """One thing that was measured before the first training step.

    Args:
        name: What was checked.
        measured: The number found.
        tolerance: The bound it was held against; None where `detail` says what was asked.
        passed: Whether it holds.
        detail: The fact, the reason and the way out, when it failed; else a remark or nothing.
    """

    name: str
    measured: float
    tolerance: float | None
    passed: bool
    detail: str = ""

    @property
    def line(self) -> str:
        """The check in one line."""
        bound = "" if self.tolerance is None else f", allowed {self.tolerance:.4g}"
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.name} ({self.measured:.4g}{bound}){detail}"


def check_targets(matched: Sequence[str], expected: int) -> Check:
    """LoRA found as many modules as the recipe implies.

    Args:
        matched: Names of the modules that carry an adapter.
        expected: Targets times blocks times attentions.
    """
    passed = len(matched) == expected and expected > 0
    return Check(
        "LoRA targets matched",
        len(matched),
        expected,
        passed,
        "" if passed else f"the recipe implies {expected} adapted modules, found {_some(matched)}; see lora.targets",
    )


def check_budget(trainable: int, teacher_params: int, share: float, *, allow_over: bool = False) -> Check:
    """Adapters and projectors stay within their share of the teacher's parameters.

    Args:
        trainable: Parameters of adapters and projectors.
        teacher_params: Parameters of the (largest) teacher.
        share: Most that may be trained, as a share.
        allow_over: The recipe lets a student through that counts more.
    """
    measured = trainable / teacher_params
    within = measured <= share
    detail = "" if within else f"{trainable} of {teacher_params} parameters are trained, over the budget of {share:.2%}"
    if not within:
        detail += "; the recipe allows it" if allow_over else "; lower the rank or choose a smaller projector"
    return Check("share of the teacher's parameters that is trained", measured, share, within or allow_over, detail)


def check_tokens(
    ids: Iterable[int], student_token: Callable[[int], str | None], teacher_token: Callable[[int], str | None]
) -> Check:
    """Both tokenizers mean the same by every id that the data emits.

    Args:
        ids: Ids of decoder inputs and kept labels.
        student_token: The token string of an id, None if it has none (`tokenizer.convert_ids_to_tokens`).
        teacher_token: The same of the teacher's tokenizer.
    """
    differing = []
    for token_id in sorted(set(ids)):
        mine, theirs = student_token(token_id), teacher_token(token_id)
        if mine is None or mine != theirs:
            differing.append(f"id {token_id} is {mine!r} to the student and {theirs!r} to the teacher")
    detail = f"{_some(differing)}; use a teacher and a student of one tokenizer" if differing else ""
    return Check("token ids that the tokenizers disagree on", len(differing), 0, not differing, detail)


def shared_settings(config: object, names: Sequence[str] = SHARED_SETTINGS) -> dict[str, object]:
    """The settings of a model's configuration that its teacher must share; absent ones are None."""
    return {name: getattr(config, name, None) for name in names}


def check_settings(student: Mapping[str, object], teacher: Mapping[str, object]) -> list[Check]:
    """Vocabulary, mel bins and special ids agree: one check a setting, 1 where the two differ.

    Args:
        student: As `shared_settings` gives it; special ids of one's own may be added.
        teacher: The same of the teacher.
    """
    checks = []
    for name in dict.fromkeys([*student, *teacher]):
        mine, theirs = student.get(name), teacher.get(name)
        detail = "" if mine == theirs else f"the student has {mine!r} and the teacher {theirs!r}; they must agree"
        checks.append(Check(f"{name} of student and teacher", float(mine != theirs), 0, mine == theirs, detail))
    return checks


def check_teacher_frozen(teacher: nn.Module) -> list[Check]:
    """Nothing of the teacher is trained, and none of its modules is in training mode."""
    thawed = [name for name, parameter in teacher.named_parameters() if parameter.requires_grad]
    training = [name or "the model itself" for name, module in teacher.named_modules() if module.training]
    return [
        Check(
            "teacher parameters that require a gradient",
            len(thawed),
            0,
            not thawed,
            f"{_some(thawed)}; call requires_grad_(False) on a copy that the student does not share" if thawed else "",
        ),
        Check(
            "teacher modules in training mode",
            len(training),
            0,
            not training,
            f"{_some(training)}; call eval()" if training else "",
        ),
    ]


def check_trainable(trainable: Mapping[str, nn.Parameter], teacher: nn.Module | None) -> list[Check]:
    """The student has something to train, all of it can be trained, and none of it is the teacher's."""
    frozen = [name for name, parameter in trainable.items() if not parameter.requires_grad]
    checks = [
        Check(
            "trainable tensors of the student",
            len(trainable),
            None,
            bool(trainable),
            "" if trainable else "the student has no trainable parameter besides projectors; add adapters",
        ),
        Check(
            "trainable tensors that require no gradient",
            len(frozen),
            0,
            not frozen,
            f"{_some(frozen)}; call requires_grad_(True)" if frozen else "",
        ),
    ]
    if teacher is not None:
        theirs = {id(parameter) for parameter in teacher.parameters()}
        stolen = [name for name, parameter in trainable.items() if id(parameter) in theirs]
        detail = f"{_some(stolen)}; train a copy, or the target moves with the student" if stolen else ""
        checks.append(Check("trainable tensors that are the teacher's", len(stolen), 0, not stolen, detail))
    return checks


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return (", ".join(names[:NAMED_AT_MOST]) or "none") + more
