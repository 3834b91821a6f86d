"""Teacher, student and what lies between them, built from a recipe and ready to train.

Covers loading, shrinking, the layer map, the budget, adapters and projectors. Does not cover data (`materials`),
encoder outputs, training or judging (`distil`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from tutelage.models.compute import dora_pass_flops
from tutelage.models.load import SpeechModel, count_params, load_meta, load_speech_model
from tutelage.objectives.objective import Objective
from tutelage.objectives.terms import LayerPair
from tutelage.runs.speech.materials import SpeechMaterials
from tutelage.runs.speech.recipe import SpeechRecipe
from tutelage.runs.speech.teachers import (
    SpeechTeacher,
    cut_teacher,
    load_teacher,
    load_teachers,
    tell_encoders,
)
from tutelage.students.budget import Budget, BudgetReport, choose_rank
from tutelage.students.cohort import share_weights
from tutelage.students.feedback import add_feedback, count_feedback_params
from tutelage.students.layer_map import map_layers
from tutelage.students.lora import adapter_trainables, add_lora, module_ranks
from tutelage.students.projection import count_projector_params, make_projectors
from tutelage.students.sensitivity import LayerChoice
from tutelage.students.shrink import ShrunkModel, shrink_speech_model


@dataclass(frozen=True)
class Outline:
    """Teacher and student before adapters: enough to count.

    Args:
        stock: The teacher as it came, with its own window; of a committee the leading member.
        teacher: The same with the student's window.
        student: The student cut to size, without adapters.
        pairs: The layer map; empty where nothing is aligned.
        budget: What is trained, as a share of the teacher.
        adapted: Full names of the student's layers that get an adapter, with its rank.
        pass_flops: What the adapters take in every pass, however many positions there are.
        teachers: Everyone who teaches, the leading one first.
        source: What the student was cut out of.
        choice: How the decoder layers that stay were measured; None where they were not.
        fed_params: Parameters of the projection that the decoder hears at every encoder position; 0 without one.
    """

    stock: SpeechModel
    teacher: SpeechModel
    student: ShrunkModel
    pairs: tuple[LayerPair, ...]
    budget: BudgetReport
    adapted: Mapping[str, int]
    pass_flops: float = 0.0
    teachers: tuple[SpeechTeacher, ...] = ()
    source: SpeechModel | None = None
    choice: LayerChoice | None = None
    fed_params: int = 0

    @property
    def trains_encoder(self) -> bool:
        """Whether the student's encoder has adapters, so that its outputs change while it learns."""
        return any(name.startswith("model.encoder.") for name in self.adapted)


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


def load_outline(
    materials: SpeechMaterials, device: str = "cpu", choose: Callable[[SpeechModel], LayerChoice] | None = None
) -> Outline:
    """Load everyone who teaches, and the student, and cut it to size.

    Args:
        materials: The recipe with its data and models.
        device: Where the models go.
        choose: Measures which decoder layers of the student's beginning stay, where the recipe asks for it; without it
            they are spaced.

    Raises:
        InputError: The design does not fit the models, or an adapter does not.
    """
    settings, lead = materials.recipe.teacher, materials.teachers[0]
    stocks = load_teachers(materials.teachers, settings, device)
    copied = materials.student is None
    if materials.student is not None:
        source = load_speech_model(materials.student.path, device)
    elif settings.dtype == "float32" and settings.device in (None, device):
        source = stocks[lead.name]
    else:  # what is trained is float32, on the device of the run
        source = load_teacher(lead, device, "float32")
    choice = None
    if choose is not None and materials.recipe.student.keep == "sensitivity":
        choice = choose(source)
    outline = outline_models(materials.recipe, stocks, source, choice, copied=copied)
    return replace(outline, teachers=tell_encoders(outline.teachers, outline.student.model))


def load_meta_outline(materials: SpeechMaterials) -> Outline:
    """The same from folders of configuration alone, on the meta device: shapes and no weights.

    Without weights an encoder counts as the student's where the folder is the one that the student comes from.
    """
    folders, student = materials.teachers, materials.student
    stocks = {one.name: SpeechModel(load_meta(one.model.path), None) for one in folders}
    source = stocks[folders[0].name] if student is None else SpeechModel(load_meta(student.path), None)
    outline = outline_models(materials.recipe, stocks, source, copied=student is None)
    own = (student or folders[0].model).sha256
    teachers = tuple(
        replace(teacher, encoder=None if one.model.sha256 == own else one.sha256)
        for teacher, one in zip(outline.teachers, folders, strict=True)
    )
    return replace(outline, teachers=teachers)


def outline_models(
    recipe: SpeechRecipe,
    stocks: Mapping[str, SpeechModel],
    source: SpeechModel,
    choice: LayerChoice | None = None,
    *,
    copied: bool,
) -> Outline:
    """Cut the student, map its layers and count what would be trained.

    Args:
        recipe: The recipe.
        stocks: Everyone who teaches, by name, the leading one first: layers are mapped to it, and the largest of all is
            what the budget is a share of.
        source: What the student is cut out of.
        choice: The decoder layers that stay, where they were measured.
        copied: Whether that is the leading teacher, so that layers have an origin in it.

    Raises:
        InputError: Layers, windows, targets or the budget do not fit.
    """
    design = recipe.student
    stock = next(iter(stocks.values()))
    layers = design.decoder_layers if choice is None else choice.layers
    student = shrink_speech_model(source, layers, design.window_seconds, design.keep)
    teachers = tuple(cut_teacher(name, one, student.speech.window_seconds) for name, one in stocks.items())
    largest = max(count_params(one.model) for one in stocks.values())
    trained = count_trained(recipe, student, stock, largest, copied=copied)
    widths = (student.model.config.d_model, stock.model.config.d_model)
    fed = 2 * count_feedback_params(*widths) if design.feedback else 0
    return Outline(stock, teachers[0].cut, student, *trained, teachers, source, choice, fed)


def count_trained(
    recipe: SpeechRecipe, student: ShrunkModel, stock: SpeechModel, largest: int, *, copied: bool
) -> tuple[tuple[LayerPair, ...], BudgetReport, Mapping[str, int], float]:
    """The layer map, the budget, the adapters' ranks and their FLOPs in a pass, of a student that is cut.

    Args:
        recipe: The recipe.
        student: Cut, without adapters.
        stock: The teacher that layers are mapped to.
        largest: Parameters of the largest teacher, which the budget is a share of.
        copied: As in `outline_models`.

    Raises:
        InputError: Layers, targets or the budget do not fit.
    """
    design = recipe.student
    pairs: tuple[LayerPair, ...] = ()
    if recipe.aligns and design.align != "encoder":
        pairs = map_layers(
            design.layer_map,
            student.model.config.decoder_layers,
            stock.model.config.decoder_layers,
            student.origins if copied else None,
        )
    if recipe.aligns and design.align != "decoder":
        encoders = (student.model.config.encoder_layers, stock.model.config.encoder_layers)
        pairs = (*pairs, LayerPair(*encoders, side="encoder"))
    widths = (student.model.config.d_model, stock.model.config.d_model)
    projectors = len(pairs) * count_projector_params(design.projector, *widths) if recipe.projects else 0
    projectors += count_feedback_params(*widths) if design.feedback else 0
    trainables = adapter_trainables(student.model, design.lora, projectors)
    report = choose_rank(Budget(largest, design.budget_share, design.allow_over_budget), trainables, design.lora.rank)
    ranks = module_ranks(student.model, design.lora, report.rank)
    per_pass = dora_pass_flops(student.model, ranks) if design.lora.use_dora else 0.0
    return pairs, report, ranks, per_pass


def assemble(recipe: SpeechRecipe, outline: Outline) -> Assembly:
    """Add adapters and projectors, drawn from the recipe's seed.

    The outline of a cohort stays without adapters, since every member wraps a copy that shares its weights.
    """
    design = recipe.student
    base = share_weights(outline.student.model) if recipe.is_cohort else outline.student.model
    peft_model = add_lora(base, design.lora, outline.budget.rank, recipe.seed)
    config = outline.student.model.config
    projected = outline.pairs if recipe.projects else ()
    projectors = make_projectors(
        design.projector, projected, config.d_model, outline.teacher.model.config.d_model, recipe.seed
    )
    projectors = projectors.to(outline.student.model.device)
    if design.feedback:
        (encoder,) = (pair for pair in outline.pairs if pair.side == "encoder")
        add_feedback(peft_model, projectors[encoder.name])
    return Assembly(outline, peft_model, projectors, Objective(recipe.objective, outline.pairs))
