"""Where a training runs: the device, its precision, its threads, its optimiser kernels.

Covers what Accelerate is asked for and what is refused. Does not cover placing modules and batches there (the caller)
or the loop.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import nn

from tutelage.errors import InputError
from tutelage.records.provenance import cpu_model, version_of
from tutelage.training.optimisation import Optimisation

Precision = Literal["no", "bf16"]
NUMERIC_PACKAGES = ("tutelage", "torch", "numpy", "transformers", "peft", "accelerate")
"""Packages whose version can change a number of a training."""

WAIT = timedelta(hours=24)
"""How long processes wait for each other; the others wait while the main one judges models on held-out data."""


def open_accelerator(device: str = "auto", precision: Precision = "no") -> Accelerator:
    """Accelerate's view of this process.

    Args:
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "mps".
        precision: "no" (float32) or "bf16".

    Raises:
        InputError: If the device does not exist here, or the precision does not fit it.
    """
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise InputError(f'The device must be "auto", "cpu", "cuda" or "mps", not {device!r}.')
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device in present and not present[device]:
        raise InputError(f"The device is {device}, but torch {torch.__version__} sees none here. Use --device cpu.")
    on_cpu = device == "cpu" or not any(present.values())
    require_precision("cpu" if on_cpu else "gpu", precision)
    waiting = InitProcessGroupKwargs(timeout=WAIT)
    return Accelerator(cpu=on_cpu, mixed_precision=precision, kwargs_handlers=[waiting])


def require_precision(device_type: str, precision: str) -> None:
    """Refuse a precision that a training here cannot use.

    On a CPU bf16 is slow, and a bf16 log-softmax is 3 to 87 % off in the gradient of a small divergence.

    Raises:
        InputError: For fp16 anywhere and bf16 on a CPU.
    """
    if precision not in ("no", "bf16"):
        raise InputError(
            f'The precision must be "no" (float32) or "bf16", not {precision!r}; fp16 would need a loss scaler, whose '
            "state no checkpoint here carries."
        )
    if precision == "bf16" and device_type == "cpu":
        raise InputError("Mixed precision bf16 is refused on a CPU: slower there, and less exact. Use float32.")


def make_optimizer(parameters: Sequence[nn.Parameter], settings: Optimisation) -> torch.optim.AdamW:
    """AdamW in one fused kernel where the device has it (measured on a CPU: 2 to 3 times faster), else over lists."""
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    try:
        return torch.optim.AdamW(parameters, fused=True, **options)
    except RuntimeError:  # no fused kernel for this device or dtype
        return torch.optim.AdamW(parameters, foreach=True, **options)


@contextmanager
def limit_threads(threads: int | None) -> Iterator[None]:
    """Run with this many threads an operation (None: as many as before), then go back."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if threads is None else threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe_environment(accelerator: Accelerator, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What the last bits of a number may depend on, as plain JSON values."""
    fused = bool(optimizer.param_groups[0].get("fused"))
    return {
        **{name: version_of(name) for name in NUMERIC_PACKAGES},
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "device": accelerator.device.type,
        "precision": accelerator.mixed_precision,
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "optimizer": "AdamW, fused" if fused else "AdamW, foreach",
    }
