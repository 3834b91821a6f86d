"""Where a teacher runs, and in which type: what cannot be is refused before its weights are loaded.

Covers the device and the dtype of a recipe's teacher. Does not cover moving batches and answers (`translated`).
"""

from __future__ import annotations

import torch

from tutelage.errors import InputError
from tutelage.teachers.settings import Teacher


def place_teacher(settings: Teacher, device: str) -> str:
    """The device that the teacher runs on.

    Args:
        settings: The recipe's; its `device` counts before the run's.
        device: The run's.

    Raises:
        InputError: There is no such device here, or it cannot compute in that dtype.
    """
    name = settings.device or device
    try:
        place = torch.device(name)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"teacher.device is {name!r}, and this machine has no such device: {reason}.") from error
    if place.type == "cpu" and settings.dtype == "float16":
        raise InputError(
            "teacher.dtype is float16, which a CPU computes slowly and in part not at all. Use bfloat16 (as small, "
            "less exact) or float32, or name a GPU in teacher.device."
        )
    return name
