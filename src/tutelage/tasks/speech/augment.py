"""Changed copies of training clips: which there are, and which one a clip is heard as in an epoch.

    augment: {speed: [0.9, 1.0, 1.1], spec_augment: {time_masks: 2, time_width: 40, freq_masks: 2, freq_width: 20}}

The copies are finite in number, so that an encoder that does not change hears each of them once and training stays
cached: every speed, times `variants` drawings of the masks. Which copy a clip is in an epoch depends on seed, epoch
and id alone, so a run that is resumed hears the same. Covers the settings, the drawing, and the order of training.
Does not cover changing the sound (`perturb`). Torch-free.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tutelage.tasks.sampler import EpochSampler

SPEEDS = (0.5, 2.0)
"""Slowest and fastest playing that is taken; speech beyond is another task."""


@dataclass(frozen=True)
class SpecAugment:
    """Masks over the log-mel features: stretches of time and bands of frequency take the clip's mean (no warping).

    Args:
        time_masks: Stretches masked, each within the clip's own sound.
        time_width: Frames (10 ms) of the longest; each is 0 to this long, at most a fifth of the clip.
        freq_masks: Bands masked.
        freq_width: Mel bins of the widest; each is 0 to this wide.
        variants: Drawings of the masks of each clip.

    Source: `park2019`.
    """

    time_masks: int = 2
    time_width: int = 40
    freq_masks: int = 2
    freq_width: int = 20
    variants: int = 4

    def __post_init__(self) -> None:
        for name, least in (
            ("time_masks", 0),
            ("time_width", 1),
            ("freq_masks", 0),
            ("freq_width", 1),
            ("variants", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be a whole number from {least}, not {getattr(self, name)!r}.")
        if self.time_masks + self.freq_masks == 0:
            raise ValueError("spec_augment masks nothing: time_masks and freq_masks are both 0.")


@dataclass(frozen=True)
class Variant:
    """One way of changing a clip.

    Args:
        speed: Of playing, pitch included; 0.9 is slower and longer.
        masks: Which drawing of the masks; None for no masks.
    """

    speed: float = 1.0
    masks: int | None = None

    def __str__(self) -> str:
        return f"x{self.speed:g}" + ("" if self.masks is None else f"-m{self.masks}")

    @property
    def changes(self) -> bool:
        """Whether anything is changed."""
        return self.speed != 1.0 or self.masks is not None


@dataclass(frozen=True)
class Augment:
    """How training clips are changed.

    Args:
        speed: Speeds of playing.
        spec_augment: Masks; None for none.
    """

    speed: tuple[float, ...] = (1.0,)
    spec_augment: SpecAugment | None = None

    def __post_init__(self) -> None:
        low, high = SPEEDS
        outside = [speed for speed in self.speed if not low <= speed <= high]
        if outside:
            raise ValueError(f"speed must be from {low} to {high}, not {', '.join(f'{one:g}' for one in outside)}.")
        if not self.speed or len(set(self.speed)) < len(self.speed):
            raise ValueError("speed must be a list of different numbers, such as [0.9, 1.0, 1.1].")
        if not any(variant.changes for variant in self.variants):
            raise ValueError("augment changes nothing: give speed two numbers, or spec_augment, or leave it out.")

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every way of changing a clip."""
        drawings = [None] if self.spec_augment is None else range(self.spec_augment.variants)
        return tuple(Variant(speed, masks) for speed in self.speed for masks in drawings)

    @property
    def slowest(self) -> float:
        """The speed at which clips last longest; not above 1."""
        return min(1.0, *self.speed)


def draw_variant(variants: int, seed: int, epoch: int, name: str) -> int:
    """Which of `variants` a clip is heard as in an epoch."""
    return random.Random(f"augment/{seed}/{epoch}/{name}").randrange(variants)


@dataclass(frozen=True)
class Heard:
    """What a training hears: a clip in one of its variants.

    Args:
        clip: Its position in the manifest.
        variant: Its position in `Augment.variants`.
    """

    clip: int
    variant: int


class VariantSampler:
    """The order of an `EpochSampler`, each clip in the variant that its epoch has for it.

    Args:
        base: The order of the clips; its state is this sampler's.
        names: The clips' ids.
        variants: How many there are.
        seed: Of the drawing.
        places: The position of each copy in what the training hears; None where it is asked what there is to hear.
    """

    def __init__(
        self,
        base: EpochSampler,
        names: Sequence[str],
        variants: int,
        seed: int,
        places: Mapping[Heard, int] | None = None,
    ) -> None:
        self._base, self._names, self._variants, self._seed = base, names, variants, seed
        self._places = {} if places is None else places

    def next_heard(self) -> tuple[Heard, ...]:
        """The next copies."""
        before = self._base.state_dict()
        size, start = len(self._names), before["index"]
        return tuple(
            Heard(
                clip,
                draw_variant(self._variants, self._seed, before["epoch"] + (start + place) // size, self._names[clip]),
            )
            for place, clip in enumerate(self._base.next_batch())
        )

    def next_batch(self) -> tuple[int, ...]:
        """Their positions."""
        return tuple(self._places[heard] for heard in self.next_heard())

    def state_dict(self) -> dict[str, int]:
        """Of the order."""
        return self._base.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Of the order."""
        self._base.load_state_dict(state)


@dataclass(frozen=True)
class Drawn:
    """Every copy that a training will hear.

    Args:
        heard: Sorted by clip, then variant; none twice.
        places: The position of each in `heard`.
    """

    heard: tuple[Heard, ...]
    places: Mapping[Heard, int] = field(repr=False)


def draw_all(sampler: VariantSampler, batches: int) -> Drawn:
    """What so many batches hear.

    Args:
        sampler: At its beginning.
        batches: Micro-batches of the training.
    """
    found = {heard for _ in range(batches) for heard in sampler.next_heard()}
    ordered = tuple(sorted(found, key=lambda heard: (heard.clip, heard.variant)))
    return Drawn(ordered, {heard: place for place, heard in enumerate(ordered)})
