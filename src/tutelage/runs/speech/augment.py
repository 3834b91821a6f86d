"""The training clips of a run as it hears them: as they are, or in the variants that its epochs draw.

Covers which copies a run hears, their encoder outputs (cached like all others) and the order of training. Does not
cover drawing (`tasks.speech.augment`) or changing the sound (`tasks.speech.perturb`). Student and teacher hear the same
copy: the teacher says what it hears of the changed clip, not what it would have heard of the clean one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from tutelage.models.load import SpeechModel
from tutelage.runs.attempt import Attempt
from tutelage.runs.speech.materials import SpeechMaterials
from tutelage.tasks.sampler import EpochSampler
from tutelage.tasks.speech.augment import Drawn, Variant, VariantSampler, draw_all
from tutelage.tasks.speech.live import ClipFeatures
from tutelage.tasks.speech.manifest import Utterance
from tutelage.tasks.speech.perturb import Perturbation, PerturbedEncoder, PerturbedFeatures
from tutelage.teachers.prefix_cache import PrefixCache
from tutelage.training.loop import Sampler


@dataclass(frozen=True)
class TrainingClips:
    """What a training hears.

    Args:
        clips: In the order that batches refer to; a copy is called by the clip's id and its variant.
        perturbations: One a clip; None where clips are heard as they are.
        drawn: Which copies there are; None likewise.
        materials: The recipe and its data.
    """

    clips: tuple[Utterance, ...]
    perturbations: tuple[Perturbation, ...] | None
    drawn: Drawn | None
    materials: SpeechMaterials

    def sampler(self) -> Sampler:
        """The order of training, from its beginning."""
        recipe = self.materials.recipe
        names = [clip.id for clip in self.materials.train.utterances]
        base = EpochSampler(len(names), recipe.training.batch_size, recipe.order_seed)
        if recipe.data.augment is None:
            return base
        places = None if self.drawn is None else self.drawn.places
        return VariantSampler(base, names, len(recipe.data.augment.variants), recipe.order_seed, places)

    def encode_all(self, speech: SpeechModel, attempt: Attempt, accelerator: Accelerator) -> Mapping[str, Tensor]:
        """An encoder's outputs of everything that the run hears, by id: training, held-out and dev clips.

        Raises:
            InputError: A clip cannot be read.
        """
        materials = self.materials
        dev = () if materials.dev is None else materials.dev.utterances
        plain = Perturbation(Variant(), None, 0)
        alike: dict[Perturbation, list[Utterance]] = {}
        for clip, perturbation in zip(self.clips, self.perturbations or repeat(plain), strict=False):
            alike.setdefault(perturbation, []).append(clip)
        alike.setdefault(plain, []).extend((*materials.held_out.utterances, *dev))
        parts, hits, misses = [], 0, 0
        for perturbation, clips in alike.items():
            encoder = PerturbedEncoder(speech.model, speech.processor.feature_extractor, perturbation)
            with accelerator.local_main_process_first():  # the others find in the cache what it computed
                outputs = PrefixCache(encoder, talk=attempt.talk).get_or_compute(clips, progress=attempt.progress)
            hits, misses = hits + outputs.use.hits, misses + outputs.use.misses
            parts.append(outputs)
        if self.drawn is not None:
            attempt.talk(f"training hears {len(self.clips)} copies of its clips")
        attempt.talk(f"encoder outputs: {hits} found in the cache, {misses} computed")
        return OneOf(parts)

    def features(self, extractor: Any, window_seconds: float) -> Mapping[str, Tensor]:
        """Log-mel features by id, for an encoder that is trained."""
        if self.perturbations is None:
            return ClipFeatures(self.clips, extractor, window_seconds)
        return PerturbedFeatures(list(zip(self.clips, self.perturbations, strict=True)), extractor, window_seconds)

    def describe(self) -> dict[str, Any] | None:
        """For `result.json`."""
        augment = self.materials.recipe.data.augment
        if augment is None:
            return None
        return {
            "variants": [str(variant) for variant in augment.variants],
            "copies_heard": len(self.clips),
            "teacher_hears": "the same copy",
        }


class OneOf(Mapping[str, Tensor]):
    """Several mappings of different names as one."""

    def __init__(self, parts: Sequence[Mapping[str, Tensor]]) -> None:
        self._part_of = {name: part for part in parts for name in part}

    def __getitem__(self, name: str) -> Tensor:
        return self._part_of[name][name]

    def __contains__(self, name: object) -> bool:
        return name in self._part_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._part_of)

    def __len__(self) -> int:
        return len(self._part_of)


def hear_training(materials: SpeechMaterials) -> TrainingClips:
    """The clips of a recipe's training, in the variants that its steps draw."""
    recipe, train = materials.recipe, materials.train.utterances
    plain = TrainingClips(train, None, None, materials)
    augment = recipe.data.augment
    if augment is None:
        return plain
    sampler = plain.sampler()
    assert isinstance(sampler, VariantSampler)  # for the type checker: there is an augmentation
    drawn = draw_all(sampler, recipe.training.steps * recipe.training.accumulate)
    variants = [Perturbation(one, augment.spec_augment, recipe.order_seed) for one in augment.variants]
    copies = []
    for heard in drawn.heard:
        clip, variant = train[heard.clip], augment.variants[heard.variant]
        copies.append(replace(clip, id=f"{clip.id}@{variant}", duration=clip.duration / variant.speed))
    return TrainingClips(tuple(copies), tuple(variants[heard.variant] for heard in drawn.heard), drawn, materials)
