"""What a training batch of speech is.

Covers: collation with masks made from lengths, and the examples of a run as batches by position.
Does not cover: label ids (`labels`), the order of clips (`sampler`), encoder outputs (`features`,
`teachers.prefix_cache`), any forward pass (`forward`).

Shape letters: B batch, T decoder positions, S encoder positions, H hidden, M mel bins, F frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutelage.models.layout import POSITIONS_PER_SECOND
from tutelage.records.hashing import sha256_json
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.manifest import Utterance


@dataclass(frozen=True)
class SpeechBatch:
    """Clips with their transcripts, ready for a teacher-forced pass; labels are shifted already.

    Args:
        ids: The clips.
        encoder_BSH: Output of the frozen encoder, float32.
        decoder_input_ids_BT: Prompt, then text; padded on the right with end-of-text.
        labels_BT: The token that follows each position; its value where `keep_BT` is False means nothing.
        keep_BT: True where a position is supervised: the text tokens and the one end-of-text that closes them.
        features_BMF: Log-mel features for an encoder that is trained; None where the student's is frozen too.
        heard_BS: True at encoder positions that hold sound, False at those that fill the window.
        token_hashes: `token_hash` of each clip; with `ids` the key of a cache.
    """

    ids: tuple[str, ...]
    encoder_BSH: Tensor
    decoder_input_ids_BT: Tensor
    labels_BT: Tensor
    keep_BT: Tensor
    features_BMF: Tensor | None = None
    heard_BS: Tensor | None = None
    token_hashes: tuple[str, ...] = ()

    @property
    def supervised_tokens(self) -> int:
        """How many positions are supervised."""
        return int(self.keep_BT.sum())

    def to(self, device: torch.device | str) -> SpeechBatch:
        """The same batch on another device."""
        return replace(
            self,
            encoder_BSH=self.encoder_BSH.to(device),
            decoder_input_ids_BT=self.decoder_input_ids_BT.to(device),
            labels_BT=self.labels_BT.to(device),
            keep_BT=self.keep_BT.to(device),
            features_BMF=None if self.features_BMF is None else self.features_BMF.to(device),
            heard_BS=None if self.heard_BS is None else self.heard_BS.to(device),
        )


def collate(
    ids: Sequence[str], encoder_SH: Sequence[Tensor], text_ids: Sequence[Sequence[int]], codec: LabelCodec
) -> SpeechBatch:
    """One batch: right padding with end-of-text, masks from lengths and never from ids (end-of-text is a label too).

    Args:
        ids: Clip ids.
        encoder_SH: Encoder output of each clip; all of one shape.
        text_ids: Label ids of each transcript, from `LabelCodec.encode`.
        codec: Gives prompt and end-of-text.

    Raises:
        ValueError: The sequences differ in length, or there is no clip.

    Example: a prompt (1, 2), texts (7, 8) and (9,), end-of-text 0:
        inputs  1 2 7 8    labels  2 7 8 0    keep  . x x x
                1 2 9 0            2 9 0 0          . x x .
    """
    if not ids or not len(ids) == len(encoder_SH) == len(text_ids):
        raise ValueError(
            f"a batch needs as many ids as encoder outputs and texts, and at least one: "
            f"{len(ids)}, {len(encoder_SH)}, {len(text_ids)}."
        )
    prompt, end = codec.prompt, codec.end_of_text
    length = len(prompt) + max(len(text) for text in text_ids)
    inputs_BT = torch.full((len(ids), length), end, dtype=torch.long)
    labels_BT = torch.full((len(ids), length), end, dtype=torch.long)
    keep_BT = torch.zeros((len(ids), length), dtype=torch.bool)
    for row, text in enumerate(text_ids):
        sequence = torch.tensor([*prompt, *text, end])
        used = len(sequence) - 1
        inputs_BT[row, :used] = sequence[:-1]
        labels_BT[row, :used] = sequence[1:]
        # The last prompt position predicts the first text token; the last text position predicts end-of-text.
        keep_BT[row, len(prompt) - 1 : used] = True
    encoder_BSH = torch.stack([tensor.float() for tensor in encoder_SH])
    return SpeechBatch(tuple(ids), encoder_BSH, inputs_BT, labels_BT, keep_BT)


def token_hash(codec: LabelCodec, text_ids: Sequence[int], audio_sha256: str) -> str:
    """Hash (hex) of what a teacher is shown of a clip: prompt, text and recording."""
    return sha256_json([list(codec.prompt), list(text_ids), codec.end_of_text, audio_sha256])


class SpeechExamples:
    """Everything that a training run draws its batches from.

    Args:
        utterances: In the order of the manifest, which the sampler's indices refer to.
        encoder_outputs: By utterance id, (S, H) each; read when a batch is made, so a mapping that loads from disk
            keeps memory flat.
        codec: Prompt and end-of-text.
        max_positions: Decoder positions of the smaller of the two models.
        features: By utterance id, (M, F) each, for a student whose encoder is trained; read when a batch is made.

    Raises:
        InputError: Transcripts too long for the decoder.
        ValueError: Utterances without an encoder output.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        encoder_outputs: Mapping[str, Tensor],
        codec: LabelCodec,
        max_positions: int,
        features: Mapping[str, Tensor] | None = None,
    ) -> None:
        lacking = [utterance.id for utterance in utterances if utterance.id not in encoder_outputs]
        if lacking:
            raise ValueError(f"{len(lacking)} utterances have no encoder output, the first is {lacking[0]!r}.")
        self.codec = codec
        self.text_ids = codec.encode_all(utterances, max_positions)
        self._ids = tuple(utterance.id for utterance in utterances)
        self.encoder_outputs = encoder_outputs
        self._features = features
        self._hashes = {one.id: token_hash(codec, self.text_ids[one.id], one.sha256) for one in utterances}
        self._heard = {one.id: math.ceil(one.duration * POSITIONS_PER_SECOND) for one in utterances}

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def supervised_tokens(self) -> int:
        """Supervised positions in one epoch: text tokens and one end-of-text a clip."""
        return sum(len(text) + 1 for text in self.text_ids.values())

    def token_hash(self, name: str) -> str:
        """Of a clip, by its id."""
        return self._hashes[name]

    def batch(self, indices: Sequence[int]) -> SpeechBatch:
        """The clips at these positions of the manifest, as one batch on the CPU."""
        ids = [self._ids[index] for index in indices]
        batch = collate(ids, [self.encoder_outputs[i] for i in ids], [self.text_ids[i] for i in ids], self.codec)
        heard_B1 = torch.tensor([[self._heard[i]] for i in ids])
        heard_BS = torch.arange(batch.encoder_BSH.shape[1]) < heard_B1
        batch = replace(batch, token_hashes=tuple(self._hashes[i] for i in ids), heard_BS=heard_BS)
        if self._features is None:
            return batch
        return replace(batch, features_BMF=torch.stack([self._features[i] for i in ids]))
