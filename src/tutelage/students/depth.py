"""Which layers of a model stay, and language models cut to them.

Covers the choice (spaced, first, last, a list), the renumbering of weights, and causal language models of every known
layout, whose layer numbers in the key-value cache are right by construction. Does not cover Whisper (`shrink`),
narrower layers, or a choice by measured losses (`sensitivity`). The source is left as it was and shares nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tutelage.errors import InputError
from tutelage.models.causal import TextModel, build_causal
from tutelage.models.verify import architecture_of
from tutelage.students.design import Keep


@dataclass(frozen=True)
class ShallowModel:
    """A student cut out of a larger language model.

    Args:
        text: Model and tokenizer of its own.
        origins: For each block in order, the index from 0 of the block that it was copied from.
    """

    text: TextModel
    origins: tuple[int, ...]


def spaced_layers(layers: int, kept: int) -> tuple[int, ...]:
    """Which `kept` of `layers` layers stay so that they are spaced as widely as possible.

    The first and the last are always among them (one alone is the last, which feeds the head); halves round up.

    Source: the initialisation of Distil-Whisper (arXiv:2311.00430, Sec. 3), with rounding instead of truncation.

    Raises:
        InputError: Fewer than one layer, or more than there are.

    Example:
        >>> spaced_layers(6, 3)
        (0, 3, 5)
    """
    _refuse_count(layers, kept)
    if kept == 1:
        return (layers - 1,)
    gaps = kept - 1
    return tuple((2 * index * (layers - 1) + gaps) // (2 * gaps) for index in range(kept))


def choose_layers(layers: int, wanted: int | tuple[int, ...] | None, keep: Keep = "spaced") -> tuple[int, ...]:
    """The layers that stay, counted from 0.

    Args:
        layers: How many there are.
        wanted: How many stay, or which; None keeps all.
        keep: Which ones, where their number is given. Those that "sensitivity" would choose are not known here, and
            stand as spaced.

    Raises:
        InputError: Layers that do not exist.

    Example:
        >>> choose_layers(6, 2), choose_layers(6, 2, "first"), choose_layers(6, 2, "last"), choose_layers(6, (1, 4))
        ((0, 5), (0, 1), (4, 5), (1, 4))
    """
    if wanted is None:
        return tuple(range(layers))
    if isinstance(wanted, int):
        _refuse_count(layers, wanted)
        chosen = {"first": tuple(range(wanted)), "last": tuple(range(layers - wanted, layers))}
        return chosen.get(keep) or spaced_layers(layers, wanted)
    missing = [layer for layer in wanted if not 0 <= layer < layers]
    if missing or not wanted:
        raise InputError(
            f"The decoder has layers 0 to {layers - 1}; there is no layer {', '.join(map(str, missing)) or 'to keep'}."
        )
    return tuple(wanted)


def renumber(state: Mapping[str, torch.Tensor], prefix: str, origins: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Copies of the weights that stay, under their new names.

    Args:
        state: Weights by name.
        prefix: What the names of the layers' weights begin with, before the number: "model.decoder.layers.".
        origins: The layers that stay, in order.
    """
    new_number = {str(old): str(new) for new, old in enumerate(origins)}
    kept: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if not name.startswith(prefix):
            kept[name] = tensor.detach().clone()
            continue
        old, _, rest = name.removeprefix(prefix).partition(".")
        if old in new_number:
            kept[f"{prefix}{new_number[old]}.{rest}"] = tensor.detach().clone()
    return kept


def shrink_text_model(
    source: TextModel, layers: int | tuple[int, ...] | None = None, keep: Keep = "spaced"
) -> ShallowModel:
    """A copy of a language model with fewer blocks.

    Works on the meta device too, where it only has shapes.

    Args:
        source: The model to cut; it is not changed.
        layers: How many blocks stay, or which, counted from 0; None keeps all.
        keep: Which ones, where their number is given.

    Raises:
        InputError: Layers that do not exist.
    """
    config = copy.deepcopy(source.model.config)
    origins = choose_layers(source.blocks, layers, keep)
    kinds = getattr(config, "layer_types", None)
    config.num_hidden_layers = len(origins)
    if kinds is not None:  # what kind of attention each block has
        config.layer_types = [kinds[index] for index in origins]
    sample = next(source.model.parameters())
    # Built from its own configuration, so that the numbers which blocks have in the cache are right by construction.
    with torch.random.fork_rng(devices=[]), torch.device("meta" if sample.is_meta else "cpu"):
        model = build_causal(config)
    if not sample.is_meta:
        prefix = f"{architecture_of(config.to_dict()).blocks}."
        model.load_state_dict(renumber(source.model.state_dict(), prefix, origins), strict=True, assign=True)
        model.tie_weights()
        model.to(sample.device)  # what is no weight: the frequencies of rotary positions
        model.generation_config = copy.deepcopy(source.model.generation_config)
    model.train(source.model.training)
    return ShallowModel(TextModel(model, source.tokenizer), origins)


def _refuse_count(layers: int, kept: int) -> None:
    if not 1 <= kept <= layers:
        raise InputError(f"The student cannot keep {kept} decoder layers: the model has {layers}, and one must stay.")
