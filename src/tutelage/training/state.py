"""What a training carries from one step to the next, as tensors: weights, optimiser moments, random states.

Covers taking them out of live objects and putting them back, bit for bit. Does not cover files (`checkpoint`). Nothing
here pickles. Buffers are not carried: neither adapters, projectors nor Whisper have one that training changes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.errors import InputError

PYTHON_GENERATOR_VERSION = 3  # of random.getstate(); unchanged since Python 3.2


def capture_weights(trainable: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Copies on the CPU, by name."""
    return {name: parameter.detach().to("cpu", copy=True).contiguous() for name, parameter in trainable.items()}


@torch.no_grad()
def restore_weights(trainable: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    """Write saved weights into the live parameters.

    Raises:
        InputError: If names or shapes differ: the checkpoint belongs to another student.
    """
    faults = [f"The checkpoint lacks {name}." for name in trainable if name not in weights]
    faults += [
        f"The checkpoint holds {name}, which this student does not train." for name in set(weights) - {*trainable}
    ]
    faults += [
        f"{name} has shape {tuple(weights[name].shape)} in the checkpoint and {tuple(parameter.shape)} in the student."
        for name, parameter in trainable.items()
        if name in weights and weights[name].shape != parameter.shape
    ]
    if faults:
        raise InputError(sorted(faults))
    for name, parameter in trainable.items():
        parameter.copy_(weights[name])


def capture_moments(optimizer: torch.optim.Optimizer, trainable: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Every tensor of the optimiser's state under KIND/PARAMETER, step counters too; empty before the first step."""
    moments = {}
    for name, parameter in trainable.items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            moments[f"{kind}/{name}"] = torch.as_tensor(value).detach().to("cpu", copy=True).contiguous()
    return moments


def restore_moments(
    optimizer: torch.optim.Optimizer, trainable: Mapping[str, nn.Parameter], moments: Mapping[str, Tensor]
) -> None:
    """Put saved moments back; the optimiser's settings stay as they were built."""
    order = {
        id(parameter): index
        for index, parameter in enumerate(
            parameter for group in optimizer.param_groups for parameter in group["params"]
        )
    }
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        kind, name = key.split("/", 1)
        states.setdefault(order[id(trainable[name])], {})[kind] = value.clone()
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def capture_randomness() -> dict[str, Tensor]:
    """The states of the global generators of torch (CPU and the current accelerator), NumPy and Python."""
    _, words, position, has_gauss, gauss = np.random.get_state(legacy=True)
    _, python_words, python_gauss = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        "numpy.words": torch.from_numpy(np.asarray(words).astype(np.int64)),
        "numpy.position": torch.tensor([position, has_gauss], dtype=torch.int64),
        "numpy.gauss": torch.tensor(gauss, dtype=torch.float64),
        "python.words": torch.tensor(python_words, dtype=torch.int64),
        "python.gauss": torch.tensor([python_gauss is not None, python_gauss or 0.0], dtype=torch.float64),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_randomness(states: Mapping[str, Tensor]) -> None:
    """Put the global generators where `capture_randomness` found them."""
    torch.set_rng_state(states["torch"])
    position, has_gauss = (int(value) for value in states["numpy.position"])
    words = states["numpy.words"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, position, has_gauss, float(states["numpy.gauss"])))
    has_python_gauss, python_gauss = (float(value) for value in states["python.gauss"])
    python_words = tuple(int(word) for word in states["python.words"])
    random.setstate((PYTHON_GENERATOR_VERSION, python_words, python_gauss if has_python_gauss else None))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def seed_randomness(seed: int) -> None:
    """Seed the global generators of torch (every device), NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
