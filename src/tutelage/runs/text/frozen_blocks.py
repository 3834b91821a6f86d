"""The frozen lower blocks of a run's students, kept on disk: what it takes, what is refused, and filling the cache.

Covers `student.cache_prefix` of a single run and of a cohort. Does not cover the cache itself (`teachers.block_cache`)
or the speech student, whose encoder outputs are always kept (`teachers.prefix_cache`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from accelerate import Accelerator

from tutelage.errors import InputError
from tutelage.records.locations import cache_folder
from tutelage.runs.attempt import Attempt
from tutelage.runs.text.assembly import TextAssembly
from tutelage.runs.text.corpus import TokenSet
from tutelage.runs.text.recipe import TextRecipe
from tutelage.students.cohort import SharedPrefix, drops_at_random
from tutelage.tasks.text.batch import TextBatch
from tutelage.tasks.text.forward import read
from tutelage.teachers.block_cache import FOLDER, BlockCache, FrozenBlocks, identify_blocks

_ENTRY = 250  # bytes of a file beside its numbers: name, shape, type and hash


@dataclass(frozen=True)
class BlockPlan:
    """What a cache of frozen blocks takes.

    Args:
        blocks: Frozen blocks, from the bottom; the output of the last is kept.
        rows: Training rows.
        bytes: On the disk.
        replayed: Share of random batches that hold a full row, so that the blocks need not be run for them.
    """

    blocks: int
    rows: int
    bytes: int
    replayed: float

    def describe(self) -> str:
        """One line."""
        return (
            f"frozen blocks: what the lowest {self.blocks} put out on {self.rows:,} rows is kept, "
            f"{self.bytes / 1e6:.1f} MB in {cache_folder() / FOLDER}; {self.replayed:.0%} of batches hold a full row "
            "and are replayed"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def plan_blocks(recipe: TextRecipe, model: Any, depth: int, train: TokenSet) -> BlockPlan:
    """Count a cache.

    Args:
        recipe: Says how long a full row is, and how many rows a batch has.
        model: A student, on any device.
        depth: Blocks that no student trains.
        train: The rows.

    Raises:
        InputError: The blocks draw random numbers, none is frozen, or no row is full.
    """
    drops = drops_at_random(model)
    if drops:
        raise InputError(
            "student.cache_prefix keeps what frozen blocks put out, and this model drops at random while it trains "
            f"({', '.join(f'{name} {value:g}' for name, value in drops.items())}), so no output comes twice. Leave it "
            "out."
        )
    if depth == 0:
        raise InputError(
            "student.cache_prefix keeps what frozen blocks put out, and some student trains the lowest block; set "
            "lora.first_block of all of them to 1 or more, or leave it out."
        )
    rows, length = train.examples.packed.rows, recipe.data.length
    full = sum(len(row) == length for row in rows) / len(rows)
    if full == 0:
        longest = max(map(len, rows))
        raise InputError(
            f"student.cache_prefix replays batches that hold a full row of data.length {length}, and the longest row "
            f"has {longest}; set data.length to {longest}, or leave it out."
        )
    width, size = int(model.config.hidden_size), next(model.parameters()).element_size()
    count = size * width * train.examples.packed.tokens + _ENTRY * len(rows)
    return BlockPlan(depth, len(rows), count, 1 - (1 - full) ** recipe.training.batch_size)


def open_block_cache(
    recipe: TextRecipe, assemblies: Sequence[TextAssembly], train: TokenSet, accelerator: Accelerator, attempt: Attempt
) -> BlockCache:
    """Find or compute what the blocks that all of these students leave frozen put out on every row.

    Args:
        recipe: Of the run.
        assemblies: Of the student, or of a cohort's members.
        train: The rows.
        accelerator: The device and the precision of passes.
        attempt: Told of the size before anything is written, and of each row.

    Raises:
        InputError: As `plan_blocks`.
    """
    first = assemblies[0].model
    prefix = SharedPrefix([one.model for one in assemblies])
    plan = plan_blocks(recipe, first, prefix.depth, train)
    attempt.talk(plan.describe())

    def forward(batch: TextBatch) -> object:
        with accelerator.autocast():
            return read(first, batch)

    identity = identify_blocks(first, prefix.depth, str(accelerator.mixed_precision))
    cache = BlockCache(FrozenBlocks(prefix, forward, recipe.data.length, identity), talk=attempt.talk)
    use = cache.fill(train.examples, recipe.training.batch_size, accelerator.device, attempt.progress)
    attempt.talk(f"frozen blocks: {use.hits:,} rows were there, {use.misses:,} were computed")
    return cache
