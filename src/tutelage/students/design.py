"""What a student is, as settings: which model it starts from, what is cut away, what is trained, what it may cost.

Covers the frozen values that a recipe is parsed into, with their ranges. Does not cover building anything from them
(`shrink`, `lora`, `projection`) or counting (`budget`); nothing here imports torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tutelage.students.layer_maps import layer_maps

DEFAULT_BUDGET_SHARE = 0.01
"""Trainable parameters over the teacher's parameters: below 1 % in yang2026's abstract."""

Scope = Literal["decoder", "encoder", "both"]
Initialisation = Literal["default", "pissa"]
ProjectorKind = Literal["none", "linear", "bottleneck", "ensemble", "mlp"]
LayerMap = str | tuple[tuple[int, int], ...]
Keep = Literal["spaced", "first", "last", "sensitivity"]


@dataclass(frozen=True)
class Lora:
    """The low-rank adapters of a student.

    Args:
        rank: Rank of every adapter, at least 1, or "auto" for the largest that fits the budget.
        alpha: Scale numerator; the update is multiplied by alpha / rank (alpha / sqrt(rank) with `use_rslora`). None
            is twice the rank, so that a chosen rank does not change the scale of the update.
        dropout: Dropout on the adapters' input, in [0, 1).
        targets: Names of the linear layers in a block that get an adapter, in self- and cross-attention alike; of
            Whisper any of q_proj, k_proj, v_proj, out_proj, fc1, fc2, of a language model its own names.
        scope: Which half of the model the targets are looked for in.
        use_rslora: Scale by alpha / sqrt(rank) instead.
        use_dora: Train the length of every output's weights too, apart from their direction (DoRA, liu2024).
        init: "default" starts the update at zero; "pissa" takes the largest singular parts out of the frozen weights
            and trains those (PiSSA, meng2024).
        ranks: Ranks of their own for some targets, by a name as in `targets` or by more of its path; where two names
            fit a layer, the longer one counts. The rest has `rank`.
        first_block: The lowest block that gets adapters, counted from 0 in the student. The blocks below stay frozen;
            a cohort runs them once a batch for all its members.
    """

    rank: int | Literal["auto"] = "auto"
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    scope: Scope = "decoder"
    use_rslora: bool = False
    use_dora: bool = False
    init: Initialisation = "default"
    ranks: Mapping[str, int] = field(default_factory=dict)
    first_block: int = 0

    def __post_init__(self) -> None:
        _require(
            self.first_block == 0 or _is_count(self.first_block),
            f"The first block with adapters must be a whole number from 0, not {self.first_block!r}.",
        )
        if self.rank != "auto":
            _require(_is_count(self.rank), f'The LoRA rank must be "auto" or a whole number from 1, not {self.rank!r}.')
        if self.alpha is not None:
            _require(_is_positive(self.alpha), f"The LoRA alpha must be a finite number above 0, not {self.alpha!r}.")
        _require(
            math.isfinite(self.dropout) and 0 <= self.dropout < 1,
            f"The LoRA dropout must lie in [0, 1), not {self.dropout!r}.",
        )
        _require(bool(self.targets), "LoRA needs at least one target, for example q_proj.")
        _require(
            all(name.strip() == name and name for name in self.targets),
            f"LoRA targets must be names of layers, not {list(self.targets)!r}.",
        )
        twice = sorted({name for name in self.targets if self.targets.count(name) > 1})
        _require(not twice, f"The LoRA targets name {', '.join(twice)} more than once.")
        _require(
            self.scope in ("decoder", "encoder", "both"),
            f'The LoRA scope must be "decoder", "encoder" or "both", not {self.scope!r}.',
        )
        _require(self.init in ("default", "pissa"), f'The LoRA init is "default" or "pissa", not {self.init!r}.')
        for name, rank in self.ranks.items():
            _require(_is_count(rank), f"The LoRA rank of {name} must be a whole number from 1, not {rank!r}.")

    def alpha_for(self, rank: int) -> float:
        """The scale numerator at `rank`: `alpha`, else twice the rank."""
        return float(2 * rank) if self.alpha is None else float(self.alpha)


@dataclass(frozen=True)
class Projector:
    """The trained map from a student's hidden width to the teacher's; dropped at export.

    Args:
        kind: "none" compares states as they are (equal widths only); "linear"; "bottleneck" (down to `width`, up
            again); "ensemble" (the mean of `members` bottlenecks); "mlp" (two layers at the teacher's width).
        width: Inner width of a bottleneck, at least 1; not used by the other kinds.
        members: Bottlenecks of an ensemble, at least 2; not used by the other kinds.
    """

    kind: ProjectorKind = "linear"
    width: int = 64
    members: int = 3

    def __post_init__(self) -> None:
        _require(
            self.kind in ("none", "linear", "bottleneck", "ensemble", "mlp"),
            f'A projector is "none", "linear", "bottleneck", "ensemble" or "mlp", not {self.kind!r}.',
        )
        _require(_is_count(self.width), f"The width of a bottleneck must be a whole number from 1, not {self.width!r}.")
        _require(
            _is_count(self.members) and self.members > 1,
            f"An ensemble has a whole number of projectors from 2, not {self.members!r}.",
        )


@dataclass(frozen=True)
class Design:
    """A speech student, before it is built.

    Args:
        model: Folder or hub name that the student starts from; None starts from a copy of the teacher.
        revision: Commit of `model` on the hub.
        decoder_layers: How many decoder layers stay, or which, counted from 0 in the model it starts from; None keeps
            all.
        keep: Which ones, where their number is given: spaced as widely as possible (first and last among them), the
            first, the last, or those that the model misses most on a few training batches (`sensitivity`).
        sensitivity_batches: How many batches, the first that training will draw.
        window_seconds: Audio window of the student in seconds; None keeps the model's.
        lora: The adapters.
        projector: The map to the teacher's width.
        layer_map: Which student layer is aligned with which teacher layer: a name in `layer_maps` ("last", "uniform",
            "origin"), or pairs (student, teacher) counted from 1.
        align: Which half's states the alignments compare: the decoder's by `layer_map`, the encoder's last block with
            the teacher's where sound is heard, or both. An encoder that is compared is one with adapters, or one whose
            projection is fed back.
        feedback: The decoder hears the encoder's states with what their projection adds (z_S fed back).
        budget_share: Most that adapters and projectors may count, as a share of the teacher's parameters, in (0, 1].
        allow_over_budget: Let a student through that counts more.
    """

    model: str | None = None
    revision: str | None = None
    decoder_layers: int | tuple[int, ...] | None = None
    keep: Keep = "spaced"
    sensitivity_batches: int = 8
    window_seconds: float | None = None
    lora: Lora = field(default_factory=Lora)
    projector: Projector = field(default_factory=Projector)
    layer_map: LayerMap = "origin"
    align: Scope = "decoder"
    feedback: bool = False
    budget_share: float = DEFAULT_BUDGET_SHARE
    allow_over_budget: bool = False

    def __post_init__(self) -> None:
        if self.model is not None:
            _require(bool(self.model.strip()), "The student's model must be a folder or a hub name, not an empty text.")
        if isinstance(self.decoder_layers, tuple):
            _require_layers(self.decoder_layers)
        elif self.decoder_layers is not None:
            _require(
                _is_count(self.decoder_layers),
                f"The number of decoder layers kept must be a whole number from 1, not {self.decoder_layers!r}.",
            )
        _require_measurable(self.keep, self.decoder_layers, self.sensitivity_batches, "decoder_layers")
        if self.window_seconds is not None:
            _require(
                _is_positive(self.window_seconds),
                f"The student's window must be a finite number of seconds above 0, not {self.window_seconds!r}.",
            )
        _require_share(self.budget_share)
        _require_layer_map(self.layer_map)
        _require(
            self.align == "decoder" or self.lora.scope != "decoder" or self.feedback,
            f"align: {self.align} compares encoder states, which no adapter of scope decoder can move; set "
            "lora.scope to encoder or both, or feedback to true.",
        )
        _require(
            not self.feedback or (self.align != "decoder" and self.projector.kind == "linear"),
            "feedback gives the decoder the linear projection of the encoder's aligned states: set align to encoder or "
            f"both and projector.kind to linear, not {self.align} and {self.projector.kind}, or leave it out.",
        )


@dataclass(frozen=True)
class TextDesign:
    """A language model as a student, before it is built: one of three beginnings, then what is cut and what is trained.

    It begins as a model (`model`), with random weights (`config`), or, where neither is named, as its teacher's copy.

    Args:
        model: Folder or hub name of a model with the teacher's tokenizer.
        revision: Commit of `model` on the hub.
        config: Folder whose config.json gives the shape of a model with random weights.
        layers: How many blocks stay, or which, counted from 0; None keeps all.
        keep: As in `Design`.
        sensitivity_batches: As in `Design`.
        lora: The adapters; None trains every weight.
        projector: The map to the teacher's width.
        layer_map: As in `Design`.
        budget_share: Most that adapters and projectors may count, as a share of the teacher's parameters (of the
            student's own, where there is no teacher), in (0, 1]. It binds adapters only.
        allow_over_budget: Let a student through that counts more.
        cache_prefix: Keep on disk what the blocks below `lora.first_block` put out on every training row, instead of
            running them at every step.
    """

    model: str | None = None
    revision: str | None = None
    config: Path | None = None
    layers: int | tuple[int, ...] | None = None
    keep: Keep = "spaced"
    sensitivity_batches: int = 8
    lora: Lora | None = None
    projector: Projector = field(default_factory=Projector)
    layer_map: LayerMap = "last"
    budget_share: float = DEFAULT_BUDGET_SHARE
    allow_over_budget: bool = False
    cache_prefix: bool = False

    def __post_init__(self) -> None:
        if self.model is not None:
            _require(bool(self.model.strip()), "The student's model must be a folder or a hub name, not an empty text.")
        if self.config is not None:
            _require(self.model is None, "A student begins as a model or with random weights: give model or config.")
            _require(self.layers is None, "A student of random weights has the layers that its config says.")
            _require(self.lora is None, "Adapters on random weights would have nothing to adapt; leave lora out.")
        if isinstance(self.layers, tuple):
            _require_layers(self.layers)
        elif self.layers is not None:
            _require(_is_count(self.layers), f"The number of layers kept must be from 1, not {self.layers!r}.")
        _require_measurable(self.keep, self.layers, self.sensitivity_batches, "layers")
        _require_share(self.budget_share)
        _require_layer_map(self.layer_map)
        _require(
            not self.cache_prefix or (self.lora is not None and self.lora.first_block > 0),
            "cache_prefix keeps what frozen blocks put out, and none is frozen: set lora.first_block to 1 or more, or "
            "leave it out.",
        )


def _require_share(share: float) -> None:
    _require(
        _is_positive(share) and share <= 1,
        f"The budget must be a share of the teacher's parameters in (0, 1], not {share!r}.",
    )


def _require_layer_map(layer_map: LayerMap) -> None:
    if isinstance(layer_map, tuple):
        _require(
            bool(layer_map) and all(len(pair) == 2 and min(pair) >= 1 for pair in layer_map),
            f"An explicit layer map is pairs (student, teacher) counted from 1, not {layer_map!r}.",
        )
    else:
        _require(
            layer_map in layer_maps(),
            f"The layer map must be one of {', '.join(layer_maps())}, or a list of pairs, not {layer_map!r}.",
        )


def _require_layers(layers: tuple[int, ...]) -> None:
    _require(
        bool(layers) and all(isinstance(layer, int) and layer >= 0 for layer in layers),
        f"The decoder layers kept must be numbers from 0, not {list(layers)!r}.",
    )
    _require(
        all(low < high for low, high in itertools.pairwise(layers)),
        f"The decoder layers kept must be in rising order without repeats, not {list(layers)!r}.",
    )


def _require_measurable(keep: Keep, layers: int | tuple[int, ...] | None, batches: int, name: str) -> None:
    _require(_is_count(batches), f"sensitivity_batches must be a whole number from 1, not {batches!r}.")
    if keep == "sensitivity":
        _require(
            isinstance(layers, int),
            f"keep: sensitivity chooses as many layers as {name} says; {name} is {layers!r}, so give a number.",
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)
