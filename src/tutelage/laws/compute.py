"""What training and inference cost in FLOPs when only a parameter count is known.

Covers: the forward cost F(N) that belongs to a published law, training, and the cost of a distillation scenario. Does
not cover: a model whose configuration is known (count it, see `tutelage.laws.architecture`), hours, money or energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tutelage.laws.numbers import FloatArray, Numbers

BACKWARD_TO_FORWARD = 2.0
"""A backward pass computes a gradient for the inputs and one for the weights of every product."""
TRAINING_TO_FORWARD = 1.0 + BACKWARD_TO_FORWARD


@dataclass(frozen=True)
class ForwardCost:
    """F(N) = 2N (1 + s1 n_ctx N^(-1/3) + s2 n_vocab N^(-2/3)) FLOPs per token, at a fixed aspect ratio.

    s1 = (rho omega^2)^(-1/3) and s2 = (rho / omega)^(1/3). A context and a vocabulary of 0 give the rule of thumb 2N.

    Args:
        context: Context length n_ctx in tokens.
        vocabulary: Vocabulary size n_vocab.
        aspect: rho = d_model / n_layers.
        omega: Parameters of one layer over d_model squared.

    Source: `busbridge2025` App. H; the vocabulary is the one that its table of parameters implies (32768; its text
    says 32168).

    Example:
        >>> f"{ForwardCost(context=4096, vocabulary=32768).per_token(0.546e9):.4e}"
        '1.4171e+09'
    """

    context: int = 4096
    vocabulary: int = 32768
    aspect: float = 128.0
    omega: float = 12.0

    def per_token(self, params: Numbers) -> FloatArray:
        """Forward FLOPs per token of a model of `params` non-embedding parameters."""
        linear, attention, head = self.split(params)
        flops: FloatArray = linear + attention + head
        return flops

    def split(self, params: Numbers) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The three terms of F(N): products with the blocks' weights, of positions with positions, with the head."""
        attention = (self.aspect * self.omega**2) ** (-1.0 / 3.0) * self.context
        embedding = (self.aspect / self.omega) ** (1.0 / 3.0) * self.vocabulary
        N = np.asarray(params, dtype=np.float64)
        return 2.0 * N, 2.0 * attention * N ** (2.0 / 3.0), 2.0 * embedding * N ** (1.0 / 3.0)

    def training_per_token(self, params: Numbers) -> FloatArray:
        """FLOPs per token of training every weight: forward and backward, 3 F(N)."""
        return TRAINING_TO_FORWARD * self.per_token(params)


@dataclass(frozen=True)
class Costs:
    """What one distilled student costs, part by part, in FLOPs.

    Args:
        student: Training the student.
        logits: The teacher's forward passes over the student's tokens, as far as this student pays for them.
        teacher: Training the teacher, as far as this student pays for it.
    """

    student: FloatArray
    logits: FloatArray
    teacher: FloatArray

    @property
    def total(self) -> FloatArray:
        """The sum of the three, in FLOPs."""
        return self.student + self.logits + self.teacher


def distillation_cost(
    forward: ForwardCost,
    student: tuple[Numbers, Numbers],
    teacher: tuple[Numbers, Numbers],
    d_logits: float,
    d_pretrain: float,
) -> Costs:
    """The cost 3 F(N_S) D_S + F(N_T) (d_logits D_S + d_pretrain 3 D_T) of distilling, in FLOPs.

    Args:
        forward: The forward cost of both models.
        student: N_S and D_S.
        teacher: N_T and D_T; ignored as far as the two shares are 0.
        d_logits: Share of the teacher's forward passes that this student pays for, in 0..1.
        d_pretrain: Share of the teacher's training that this student pays for, in 0..1.

    Source: `busbridge2025`, the compute scenarios; F(N) from its App. H.
    """
    params, tokens = student
    teacher_params, teacher_tokens = teacher
    own = forward.training_per_token(np.asarray(params)) * np.asarray(tokens, dtype=np.float64)
    nothing = np.zeros_like(own)
    logits = d_logits * forward.per_token(np.asarray(teacher_params)) * tokens if d_logits else nothing
    training = (
        d_pretrain * forward.training_per_token(np.asarray(teacher_params)) * teacher_tokens if d_pretrain else nothing
    )
    return Costs(own, logits + nothing, training + nothing)
