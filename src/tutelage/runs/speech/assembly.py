"""Teacher, student and what lies between them, built from a recipe and ready to train.

Covers loading, shrinking, the layer map, the budget, adapters and projectors. Does not cover data (`materials`),
encoder outputs, training or judging (`distil`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from tutelage.errors import InputError
from tutelage.models.compute import dora_pass_flops
from tutelage.models.load import SpeechModel, count_params, load_meta, load_speech_model
from tutelage.objectives.objective import Objective
from tutelage.objectives.terms import LayerPair
from tutelage.runs.speech.materials import SpeechMaterials
from tutelage.runs.speech.recipe import SpeechRecipe
from tutelage.students.budget import Budget, BudgetReport, choose_rank
from tutelage.students.layer_map import map_layers
from tutelage.students.lora import adapter_trainables, add_lora, module_ranks
from tutelage.students.projection import count_projector_params, make_projectors
from tutelage.students.shrink import ShrunkModel, shrink_speech_model
from tutelage.tasks.speech.features import fingerprint


@dataclass(frozen=True)
class Outline:
    """Teacher and student before adapters: enough to count.

    Args:
        stock: The teacher as it came, with its own window.
        teacher: The teacher with the student's window.
        student: The student cut to size, without adapters.
        pairs: The layer map; empty where nothing is aligned.
        budget: What is trained, as a share of the teacher.
        adapted: Full names of the student's layers that get an adapter, with its rank.
        pass_flops: What the adapters take in every pass, however many positions there are.
    """

    stock: SpeechModel
    teacher: SpeechModel
    student: ShrunkModel
    pairs: tuple[LayerPair, ...]
    budget: BudgetReport
    adapted: Mapping[str, int]
    pass_flops: float = 0.0


@dataclass(frozen=True)
class Assembly:
    """What is about to be trained, with its teacher.

    Args:
        outline: Teacher and student; the student's layers carry the adapters now.
        peft_model: The student with adapters.
        projectors: One a layer pair, dropped at export.
        objective: The weighted terms.
    """

    outline: Outline
    peft_model: Any
    projectors: nn.ModuleDict
    objective: Objective

    @property
    def student(self) -> SpeechModel:
        """The student with adapters and its processor."""
        return SpeechModel(self.peft_model, self.outline.student.processor)


def load_outline(materials: SpeechMaterials, device: str = "cpu") -> Outline:
    """Load teacher and student and cut the student to size.

    Raises:
        InputError: The design does not fit the models, or a student of another model has another encoder.
    """
    stock = load_speech_model(materials.teacher.path, device)
    source = None if materials.student is None else load_speech_model(materials.student.path, device)
    outline = outline_models(materials.recipe, stock, source)
    if source is not None:
        _require_one_encoder(outline)
    return outline


def load_meta_outline(materials_recipe: SpeechRecipe, teacher: Any, student: Any | None) -> Outline:
    """The same from folders of configuration alone, on the meta device: shapes and no weights.

    Args:
        materials_recipe: The recipe.
        teacher: Folder of the teacher.
        student: Folder that the student starts from; None for a copy of the teacher.
    """
    stock = SpeechModel(load_meta(teacher), None)
    source = None if student is None else SpeechModel(load_meta(student), None)
    return outline_models(materials_recipe, stock, source)


def outline_models(recipe: SpeechRecipe, stock: SpeechModel, source: SpeechModel | None) -> Outline:
    """Cut the student, map its layers and count what would be trained.

    Raises:
        InputError: Layers, windows, targets or the budget do not fit.
    """
    design = recipe.student
    student = shrink_speech_model(source or stock, design.decoder_layers, design.window_seconds)
    teacher = stock
    if student.speech.window_seconds < stock.window_seconds:
        teacher = shrink_speech_model(stock, None, student.speech.window_seconds).speech
    pairs: tuple[LayerPair, ...] = ()
    if recipe.aligns:
        pairs = map_layers(
            design.layer_map,
            student.model.config.decoder_layers,
            stock.model.config.decoder_layers,
            student.origins if source is None else None,
        )
    widths = (student.model.config.d_model, stock.model.config.d_model)
    projectors = len(pairs) * count_projector_params(design.projector, *widths) if recipe.projects else 0
    trainables = adapter_trainables(student.model, design.lora, projectors)
    budget = Budget(count_params(stock.model), design.budget_share, design.allow_over_budget)
    report = choose_rank(budget, trainables, design.lora.rank)
    ranks = module_ranks(student.model, design.lora, report.rank)
    per_pass = dora_pass_flops(student.model, ranks) if design.lora.use_dora else 0.0
    return Outline(stock, teacher, student, pairs, report, ranks, per_pass)


def assemble(recipe: SpeechRecipe, outline: Outline) -> Assembly:
    """Add adapters and projectors, drawn from the recipe's seed."""
    design = recipe.student
    peft_model = add_lora(outline.student.model, design.lora, outline.budget.rank, recipe.seed)
    config = outline.student.model.config
    projected = outline.pairs if recipe.projects else ()
    projectors = make_projectors(
        design.projector, projected, config.d_model, outline.teacher.model.config.d_model, recipe.seed
    )
    return Assembly(
        outline, peft_model, projectors.to(outline.student.model.device), Objective(recipe.objective, outline.pairs)
    )


def _require_one_encoder(outline: Outline) -> None:
    """One encoder pass serves teacher and student, so they must have the same encoder."""
    encoders = [speech.model.get_encoder() for speech in (outline.teacher, outline.student)]
    if fingerprint(encoders[0]) != fingerprint(encoders[1]):
        config, other = outline.student.model.config, outline.teacher.model.config
        raise InputError(
            "The student starts from another model than the teacher and has another encoder "
            f"({config.num_mel_bins} mel bins, width {config.d_model}; the teacher {other.num_mel_bins} and "
            f"{other.d_model}). One encoder pass serves both here, so leave student.model out, or count with --dry-run."
        )
