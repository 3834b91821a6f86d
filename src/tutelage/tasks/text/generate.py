"""Continuations: what a model writes after the beginning of a document, so that people can read what it learned.

Covers greedy decoding of one prompt with the key-value cache. Does not cover sampling, or scoring what was written.
"""

from __future__ import annotations

from typing import Any

import torch

from tutelage.tasks.text.codec import Encoded, TextCodec


@torch.no_grad()
def continue_text(model: Any, codec: TextCodec, prompt: list[int], new_tokens: int) -> str:
    """The most probable continuation, token by token, up to end-of-text.

    Args:
        model: A causal language model in evaluation mode.
        codec: Writes the ids.
        prompt: Ids, the start among them.
        new_tokens: At most so many.
    """
    return codec.decode(write_tokens(model, prompt, new_tokens, codec.end))


@torch.no_grad()
def write_tokens(model: Any, prompt: list[int], new_tokens: int, end: int | None = None) -> list[int]:
    """The ids of the most probable continuation.

    Args:
        model: A causal language model in evaluation mode.
        prompt: Ids, the start among them.
        new_tokens: At most so many.
        end: End-of-text; None writes all `new_tokens`, so that models can be timed on equal work.
    """
    inputs = torch.tensor([prompt], device=next(model.parameters()).device)
    stop: dict[str, Any] = {"eos_token_id": end, "pad_token_id": end}
    if end is None:
        stop = {"min_new_tokens": new_tokens, "pad_token_id": 0}
    written = model.generate(
        input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=new_tokens, do_sample=False, **stop
    )
    return [int(token) for token in written[0, inputs.shape[1] :]]


def split_document(document: Encoded, tokens: int) -> tuple[list[int], list[int]]:
    """The first `tokens` inputs of a document (at most half of it), and the labels that follow them.

    For a conversation the prompt ends where the assistant begins.
    """
    first_kept = int(document.keep.argmax())
    cut = first_kept + 1 if first_kept else max(1, min(tokens, len(document) // 2))
    return document.inputs[:cut].tolist(), document.labels[cut - 1 :].tolist()
