"""Teacher, student and what lies between them, built from a recipe and ready to train.

Covers loading, shrinking, the layer map, the budget, adapters and projectors. Does not cover the data (`corpus`),
training or judging (`classroom`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tutelage.models.causal import (
    TextModel,
    initialise_text_model,
    load_meta_causal,
    load_text_model,
)
from tutelage.models.compute import dora_pass_flops
from tutelage.models.load import count_params
from tutelage.objectives.objective import Objective
from tutelage.objectives.terms import LayerPair
from tutelage.runs.text.materials import TextMaterials
from tutelage.runs.text.recipe import TextRecipe
from tutelage.runs.text.teachers import load_teacher, load_teachers, trains_as_is
from tutelage.students.budget import Budget, BudgetReport, choose_rank
from tutelage.students.cohort import share_weights
from tutelage.students.depth import shrink_text_model
from tutelage.students.layer_map import map_layers
from tutelage.students.lora import adapter_trainables, add_lora, module_ranks
from tutelage.students.projection import count_projector_params, make_projectors
from tutelage.students.sensitivity import LayerChoice


@dataclass(frozen=True)
class TextOutline:
    """Teacher and student before adapters: enough to count.

    Args:
        teacher: The teacher, of a committee the leading member; None where there is none.
        student: The student cut to size, without adapters.
        origins: For each block of the student the block, from 0, that it was copied from; None for random weights.
        pairs: The layer map; empty where nothing is aligned.
        projector_params: Parameters of all projectors.
        budget: What the adapters are, as a share of the teacher; None where every weight is trained.
        adapted: Full names of the student's layers that get an adapter, with its rank.
        pass_flops: What the adapters take in every pass, however many positions there are.
        choice: How the blocks that stay were measured; None where they were not.
        teachers: Everyone who teaches, by name, the leading one first.
    """

    teacher: TextModel | None
    student: TextModel
    origins: tuple[int, ...] | None
    pairs: tuple[LayerPair, ...]
    projector_params: int
    budget: BudgetReport | None
    adapted: Mapping[str, int]
    pass_flops: float = 0.0
    choice: LayerChoice | None = None
    teachers: Mapping[str, TextModel] = field(default_factory=dict)

    @property
    def teacher_params(self) -> int | None:
        """Parameters of the largest teacher; None without one."""
        return max((count_params(one.model) for one in self.teachers.values()), default=None)

    @property
    def trained_params(self) -> int:
        """Parameters that are trained, projectors among them."""
        of_student = count_params(self.student.model) if self.budget is None else self.budget.lora_params
        return of_student + self.projector_params

    def describe(self) -> str:
        """One line about what is trained."""
        if self.budget is not None:
            return self.budget.describe()
        of_teacher = ""
        if self.teacher_params is not None:
            of_teacher = f" ({count_params(self.student.model) / self.teacher_params:.1%} of the teacher's)"
        projectors = f" + {self.projector_params:,} of projectors" if self.projector_params else ""
        return f"trains every weight: {count_params(self.student.model):,} parameters{of_teacher}{projectors}"


@dataclass(frozen=True)
class TextAssembly:
    """What is about to be trained, with its teacher.

    Args:
        outline: Teacher and student; the student's layers carry the adapters now.
        model: The student, with its adapters where it has some.
        projectors: One a layer pair, dropped at export.
        objective: The weighted terms.
    """

    outline: TextOutline
    model: Any
    projectors: nn.ModuleDict
    objective: Objective


def load_outline(
    materials: TextMaterials,
    tokenizer: Any,
    device: str = "cpu",
    choose: Callable[[TextModel], LayerChoice] | None = None,
) -> TextOutline:
    """Load teacher and student and cut the student to size.

    Args:
        materials: The recipe with its data and models.
        tokenizer: Of the data; models that are loaded keep their own.
        device: Where the models go.
        choose: Measures which blocks of the student's beginning stay, where the recipe asks for it; without it they
            are spaced.

    Raises:
        InputError: The design does not fit the models.
    """
    recipe = materials.recipe
    teachers = load_teachers(materials.teachers, recipe.teacher, device)
    copied: TextModel | None = next(iter(teachers.values()), None)
    if recipe.student.config is not None:
        source: TextModel | None = initialise_text_model(recipe.student.config, tokenizer, recipe.seed, device)
    else:
        source = None if materials.student is None else load_text_model(materials.student.path, device)
    if source is None and not trains_as_is(recipe.teacher, device):
        copied = load_teacher(materials.teachers[0], device, "float32")  # what is trained is float32, on this device
    beginning, choice = source or copied, None
    if choose is not None and beginning is not None and recipe.student.keep == "sensitivity":
        choice = choose(beginning)
    return outline_models(recipe, teachers, source, choice, copied)


def load_meta_outline(materials: TextMaterials) -> TextOutline:
    """The same from configurations alone, on the meta device: shapes and no weights.

    Raises:
        InputError: The design does not fit the models.
    """
    teachers = {one.name: load_meta_causal(one.model.path) for one in materials.teachers}
    folder = materials.recipe.student.config
    if materials.student is not None:
        folder = materials.student.path
    return outline_models(materials.recipe, teachers, None if folder is None else load_meta_causal(folder))


def outline_models(
    recipe: TextRecipe,
    teachers: Mapping[str, TextModel],
    source: TextModel | None,
    choice: LayerChoice | None = None,
    copied: TextModel | None = None,
) -> TextOutline:
    """Cut the student, map its layers and count what would be trained.

    Args:
        recipe: The recipe.
        teachers: Everyone who teaches, by name, the leading one first: layers are mapped to it, and the largest of all
            is what a budget is a share of.
        source: What the student begins as; None for a copy of the leading teacher.
        choice: The blocks that stay, where they were measured.
        copied: The leading teacher as the student begins, where it teaches in another dtype or elsewhere.

    Raises:
        InputError: Layers, targets or the budget do not fit.
    """
    design = recipe.student
    teacher = next(iter(teachers.values()), None)
    beginning = source or copied or teacher
    if beginning is None:
        raise ValueError("a recipe without a teacher names what its student begins as")
    student, origins = beginning, None
    if source is None or design.layers is not None:
        cut = shrink_text_model(beginning, design.layers if choice is None else choice.layers, design.keep)
        student, origins = cut.text, cut.origins
    elif design.config is None:
        origins = tuple(range(student.blocks))
    largest = max(count_params(one.model) for one in (*teachers.values(), *([] if teachers else [beginning])))
    trained = count_trained(recipe, student, teacher, origins if source is None else None, largest)
    return TextOutline(teacher, student, origins, *trained, choice, teachers)


def count_trained(
    recipe: TextRecipe, student: TextModel, teacher: TextModel | None, origins: tuple[int, ...] | None, largest: int
) -> tuple[tuple[LayerPair, ...], int, BudgetReport | None, Mapping[str, int], float]:
    """The layer map, projectors, the budget, the adapters' ranks and their FLOPs in a pass, of a student that is cut.

    Args:
        recipe: The recipe.
        student: Cut, without adapters.
        teacher: The teacher that layers are mapped to, or None.
        origins: For each block of the student the teacher's block that it was copied from; None where it was not.
        largest: Parameters that the budget is a share of.

    Raises:
        InputError: Layers, targets or the budget do not fit.
    """
    design = recipe.student
    pairs: tuple[LayerPair, ...] = ()
    projector_params = 0
    if recipe.aligns and teacher is not None:
        pairs = map_layers(design.layer_map, student.blocks, teacher.blocks, origins)
        if recipe.projects:
            projector_params = len(pairs) * count_projector_params(design.projector, student.width, teacher.width)
    if design.lora is None:
        return pairs, projector_params, None, {}, 0.0
    trainables = adapter_trainables(student.model, design.lora, projector_params)
    limit = Budget(largest, design.budget_share, design.allow_over_budget)
    budget = choose_rank(limit, trainables, design.lora.rank)
    adapted = module_ranks(student.model, design.lora, budget.rank)
    per_pass = dora_pass_flops(student.model, adapted) if design.lora.use_dora else 0.0
    return pairs, projector_params, budget, adapted, per_pass


def assemble(recipe: TextRecipe, outline: TextOutline) -> TextAssembly:
    """Add adapters and projectors, drawn from the recipe's seed.

    The outline of a cohort stays without adapters, since every member wraps a copy that shares its weights.
    """
    design, student = recipe.student, outline.student
    model = share_weights(student.model) if recipe.is_cohort else student.model
    if design.lora is not None and outline.budget is not None:
        model = add_lora(model, design.lora, outline.budget.rank, recipe.seed)
    width = student.width if outline.teacher is None else outline.teacher.width
    projected = outline.pairs if recipe.projects else ()
    projectors = make_projectors(design.projector, projected, student.width, width, recipe.seed)
    objective = Objective(recipe.objective, outline.pairs)
    return TextAssembly(outline, model, projectors.to(next(student.model.parameters()).device), objective)
