"""z_S fed back: the decoder hears the encoder's states with what their projection adds (a reconstruction of yang2026).

Covers the trained map on the way from encoder to decoder, and folding it into the decoder's weights, so that what is
exported is an ordinary model. Does not cover the projector itself (`projection`) or its alignment (`objectives`).

With a frozen encoder an alignment of its states could train the projector alone. Fed back, z_S is what the decoder
hears, so the alignment reaches what the student says.

Shape letters: B batch, S encoder positions, H student width, K teacher width, D output width of a linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

NAME = "feedback"
"""The map's place in the decoder, and so in the names of what is trained."""


class Feedback(nn.Module):
    """h' = h + Q z_S with z_S = P h + b; Q (H, K) starts at zero, so that the student starts as it was.

    Args:
        projector: P and b, the linear projector (H to K) of the encoder's aligned states, which is this very one.
    """

    def __init__(self, projector: nn.Linear) -> None:
        super().__init__()
        self.projector = projector
        self.back = nn.Linear(projector.out_features, projector.in_features, bias=False)
        nn.init.zeros_(self.back.weight)

    def forward(self, h_BSH: Tensor) -> Tensor:
        """What the decoder hears, (B, S, H)."""
        heard: Tensor = h_BSH + self.back(self.projector(h_BSH))
        return heard


def count_feedback_params(student_width: int, teacher_width: int) -> int:
    """Parameters of Q; those of P are the projector's."""
    return student_width * teacher_width


def add_feedback(student: Any, projector: Any) -> None:
    """Put the map before a Whisper student's decoder, as a part of the student.

    Args:
        student: With adapters (PEFT) or plain; changed in place.
        projector: The linear one of the encoder's pair, on the student's device.
    """
    whole = student.get_base_model() if hasattr(student, "get_base_model") else student
    decoder = whole.model.decoder
    decoder.add_module(NAME, Feedback(projector).to(projector.weight.device))
    decoder.register_forward_pre_hook(_feed, with_kwargs=True)


def fold_feedback(model: Any) -> None:
    """Add the map into the weights that hear the encoder, and take it away; nothing where there is none.

    Every block's W_k and W_v become W (I + Q P), and the bias of the values grows by W_v Q b. Whisper's keys have no
    bias: they would grow by W_k Q b at every encoder position alike, which the softmax over positions does not see.

    Args:
        model: A plain Whisper model, its adapters merged; changed in place.
    """
    decoder = getattr(getattr(model, "model", None), "decoder", None)
    feedback = getattr(decoder, NAME, None)
    if decoder is None or feedback is None:
        return
    with torch.no_grad():
        back_HK = feedback.back.weight.double()
        change_HH = back_HK @ feedback.projector.weight.double()
        shift_H = back_HK @ feedback.projector.bias.double()
        for block in decoder.layers:
            keys, values = block.encoder_attn.k_proj, block.encoder_attn.v_proj
            values.bias += (values.weight.double() @ shift_H).to(values.bias)
            for linear in (keys, values):
                linear.weight += (linear.weight.double() @ change_HH).to(linear.weight)
    delattr(decoder, NAME)


def _feed(decoder: nn.Module, words: tuple[Any, ...], settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    feedback = getattr(decoder, NAME, None)  # none once it is folded
    heard = settings.get("encoder_hidden_states")
    if feedback is None or heard is None:
        return words, dict(settings)
    return words, {**settings, "encoder_hidden_states": feedback(heard)}
