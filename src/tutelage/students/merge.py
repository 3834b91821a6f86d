"""Several adapters of one base made into one adapter: exactly, or at a lower rank.

Covers reading PEFT LoRA folders, the weighted sum of their updates, its best approximation at a given rank, and writing
the result as a PEFT folder. Does not cover which members deserve which weight (`runs`), or judging what came out.

With members k of weight w_k, sum over k of w_k = 1, whose updates are s_k B_k A_k (s: alpha / r, or alpha / sqrt(r)
where the member was trained with rsLoRA), the update of the merged adapter is

    D = sum over k of w_k s_k B_k A_k

    exact    A = [A_1; ...; A_K],  B = [w_1 s_1 B_1, ..., w_K s_K B_K]: D itself, at the sum of the ranks
    svd      A, B from the largest singular values of D: the nearest update of that rank (Eckart, Young)

A and B are never averaged apart: the mean of the B's times the mean of the A's is another update altogether, with
products of one member's B and another's A. A layer that a member does not adapt counts as an update of zero.

Shape letters: R rank, I inputs, O outputs of a layer.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import InputError

_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_KEPT = ("base_model_name_or_path", "revision", "task_type", "fan_in_fan_out", "peft_type", "auto_mapping")


@dataclass(frozen=True)
class Update:
    """The update B A of one layer's weight, its scale absorbed into B.

    Args:
        A_RI: (R, I), float64.
        B_OR: (O, R), float64.
    """

    A_RI: Tensor
    B_OR: Tensor

    @property
    def rank(self) -> int:
        """R."""
        return int(self.A_RI.shape[0])


@dataclass(frozen=True)
class Adapter:
    """A PEFT LoRA adapter as a folder holds it.

    Args:
        path: The folder.
        updates: By full name of the layer, without PEFT's prefix.
        settings: `adapter_config.json`.
        base: `base.json`: what the adapter fits; empty where the folder has none.
    """

    path: Path
    updates: Mapping[str, Update]
    settings: Mapping[str, Any]
    base: Mapping[str, Any]

    @property
    def rank(self) -> int:
        """Its largest rank."""
        return max(update.rank for update in self.updates.values())


@dataclass(frozen=True)
class Merged:
    """One adapter made of several.

    Args:
        updates: By full name of the layer.
        weights: What each member counted, in the order given; they sum to 1.
        lost: Share of the update's Frobenius norm that the lower rank left out, over all layers; 0 where exact.
        lost_by_layer: The same, layer by layer.
    """

    updates: Mapping[str, Update]
    weights: tuple[float, ...]
    lost: float
    lost_by_layer: Mapping[str, float]

    @property
    def params(self) -> int:
        """Parameters of the adapter."""
        return sum(update.A_RI.numel() + update.B_OR.numel() for update in self.updates.values())


def read_adapter(folder: Path) -> Adapter:
    """Read a PEFT LoRA folder.

    Raises:
        InputError: There is no adapter, or it is more than low-rank updates (DoRA, trained biases or whole layers).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        settings = json.loads((folder / "adapter_config.json").read_bytes())
        tensors = load_file(folder / "adapter_model.safetensors")
        base = json.loads((folder / "base.json").read_bytes()) if (folder / "base.json").is_file() else {}
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no PEFT adapter: there is no {Path(str(error.filename)).name} in it.") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"The adapter {folder} cannot be read: {error}") from error
    _require_low_rank(folder, settings, tensors)
    names = sorted(name.removeprefix(_PREFIX).removesuffix(_A) for name in tensors if name.endswith(_A))
    updates = {}
    for name in names:
        A_RI, B_OR = (tensors[f"{_PREFIX}{name}{part}"].double() for part in (_A, _B))
        updates[name] = Update(A_RI, _scale(settings, name, A_RI.shape[0]) * B_OR)
    return Adapter(folder, updates, settings, base)


def merge_exact(adapters: Sequence[Adapter], weights: Sequence[float] | None = None) -> Merged:
    """The weighted sum of the updates, at the sum of the ranks.

    Args:
        adapters: Of one base.
        weights: One a member, above 0, divided by their sum; None for equal ones.

    Raises:
        InputError: The adapters have different bases, or the weights are not usable.
    """
    shares = _shares(adapters, weights)
    updates = {}
    for name in sorted({name for adapter in adapters for name in adapter.updates}):
        parts = [(share, one.updates[name]) for share, one in zip(shares, adapters, strict=True) if name in one.updates]
        updates[name] = Update(
            torch.cat([update.A_RI for _, update in parts]),
            torch.cat([share * update.B_OR for share, update in parts], dim=1),
        )
    return Merged(updates, shares, 0.0, dict.fromkeys(updates, 0.0))


def merge_svd(adapters: Sequence[Adapter], weights: Sequence[float] | None = None, rank: int | None = None) -> Merged:
    """The weighted sum of the updates, at a lower rank.

    Args:
        adapters: Of one base.
        weights: As in `merge_exact`.
        rank: Of every layer, at most; None takes in each layer the largest rank that a member has there.

    Raises:
        InputError: As `merge_exact`, or the rank is below 1.
    """
    if rank is not None and rank < 1:
        raise InputError(f"The rank of a merged adapter must be a whole number from 1, not {rank}.")
    exact = merge_exact(adapters, weights)
    updates, lost, left_out, whole = {}, {}, 0.0, 0.0
    for name, update in exact.updates.items():
        own = max(adapter.updates[name].rank for adapter in adapters if name in adapter.updates)
        updates[name], singular_R = _truncate(update, min(rank or own, update.rank))
        squared_R = singular_R.square()
        tail, total = float(squared_R[updates[name].rank :].sum()), float(squared_R.sum())
        lost[name] = math.sqrt(tail / total) if total else 0.0
        left_out, whole = left_out + tail, whole + total
    return Merged(updates, exact.weights, math.sqrt(left_out / whole) if whole else 0.0, lost)


def write_merged(merged: Merged, like: Adapter, out: Path) -> Path:
    """Write a merged adapter as a PEFT folder; its scale is 1 in every layer.

    Args:
        merged: From `merge_exact` or `merge_svd`.
        like: One of the members: what the adapter fits is taken from it.
        out: The folder, which must not exist.

    Raises:
        InputError: `out` exists or cannot be written.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    from tutelage.records.files import write_json
    from tutelage.students.export import describe_adapter, new_folder

    ranks = {name: update.rank for name, update in merged.updates.items()}
    rank = max(ranks.values())
    others = {name: own for name, own in ranks.items() if own != rank}
    settings = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(ranks),
        rank_pattern=others,
        alpha_pattern=dict(others),
        inference_mode=True,
    ).to_dict()
    settings |= {name: like.settings[name] for name in _KEPT if name in like.settings}
    settings["target_modules"] = sorted(ranks)
    tensors = {}
    for name, update in merged.updates.items():
        tensors[f"{_PREFIX}{name}{_A}"] = update.A_RI.float().contiguous()
        tensors[f"{_PREFIX}{name}{_B}"] = update.B_OR.float().contiguous()
    with new_folder(out) as folder:
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(folder / "adapter_config.json", {name: _plain(value) for name, value in settings.items()})
        describe_adapter(folder, like.base)
    return out


def exchange_update(student: Path, out: Path, old: Adapter, new: Adapter | Merged) -> Path:
    """Write a student's folder anew with another update in its weights: W - (old B A) + (new B A), layer by layer.

    So every member of a cohort, and what they are merged to, comes out of the one student that the cohort exported;
    nothing else of the folder changes, but its card, which tells of the old student, is left out. In float32 the result
    differs from the base with the new adapter by the rounding of two additions.

    Args:
        student: A folder with merged weights in safetensors, into which `old` was added.
        out: The folder, which must not exist.
        old: The adapter that is in the weights.
        new: What shall be.

    Raises:
        InputError: `out` exists or cannot be written, or the student lacks a layer of the updates.
    """
    from safetensors.torch import load_file, save_file

    from tutelage.students.export import new_folder

    missing = {*old.updates, *new.updates}
    inputs_first = bool(old.settings.get("fan_in_fan_out"))  # GPT-2's layers
    with new_folder(out) as folder:
        shutil.copytree(student, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("README.md"))
        for file in sorted(folder.glob("*.safetensors")):
            tensors = load_file(file)
            for name in sorted(missing):
                key = f"{name}.weight"
                if key in tensors:
                    missing.discard(name)
                    change_OI = _dense(new.updates.get(name)) - _dense(old.updates.get(name))
                    change = change_OI.T if inputs_first else change_OI
                    tensors[key] = (tensors[key].double() + change).to(tensors[key].dtype).contiguous()
            save_file(tensors, file, metadata={"format": "pt"})
        if missing:
            raise InputError(f"{student} has no layer {sorted(missing)[0]}, which the adapters change.")
    return out


def _dense(update: Update | None) -> Tensor:
    """B A, or a zero of any shape."""
    return torch.zeros(1, 1, dtype=torch.float64) if update is None else update.B_OR @ update.A_RI


def _truncate(update: Update, rank: int) -> tuple[Update, Tensor]:
    """The nearest update of that rank, and all singular values; D itself (O, I) is never made."""
    left_OR, upper_RR = torch.linalg.qr(update.B_OR)
    right_IR, lower_RR = torch.linalg.qr(update.A_RI.T)
    U, singular_R, V = torch.linalg.svd(upper_RR @ lower_RR.T, full_matrices=False)
    root_R = singular_R[:rank].sqrt()
    return Update(root_R[:, None] * (V[:rank] @ right_IR.T), (left_OR @ U[:, :rank]) * root_R), singular_R


def _scale(settings: Mapping[str, Any], name: str, rank: int) -> float:
    """The factor of one layer's update, as PEFT reads the settings: a pattern ends the layer's full name."""
    patterns: Mapping[str, float] = settings.get("alpha_pattern") or {}
    found = [own for pattern, own in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", name)]
    alpha = float(found[0] if found else settings["lora_alpha"])
    return alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank


def _require_low_rank(folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    if settings.get("peft_type") != "LORA":
        raise InputError(f"{folder} is an adapter of kind {settings.get('peft_type')}; only LoRA adapters are merged.")
    if settings.get("use_dora"):
        raise InputError(
            f"{folder} is a DoRA adapter: its update is no product of two matrices, so a sum of such updates is no "
            "adapter. Train the members with plain LoRA, or distil them into one student."
        )
    foreign = sorted(name for name in tensors if not name.endswith((_A, _B)))
    if foreign:
        raise InputError(f"{folder} holds more than low-rank updates, such as {foreign[0]}; it cannot be merged.")
    if not tensors:
        raise InputError(f"{folder} holds no update.")


def _shares(adapters: Sequence[Adapter], weights: Sequence[float] | None) -> tuple[float, ...]:
    """The weights, divided by their sum."""
    if not adapters:
        raise InputError("There is no adapter to merge.")
    first = adapters[0]
    faults = [
        f"{adapter.path} fits another base than {first.path}: {_about(adapter)} and {_about(first)}; members of one "
        "cohort can be merged, others cannot."
        for adapter in adapters[1:]
        if _about(adapter) != _about(first)
    ]
    given = [1.0] * len(adapters) if weights is None else list(weights)
    if len(given) != len(adapters):
        faults.append(f"{len(given)} weights are given for {len(adapters)} adapters.")
    faults += [f"A weight is a finite number above 0, not {one:g}." for one in given if not 0 < one < math.inf]
    if faults:
        raise InputError(faults)
    whole = math.fsum(given)
    return tuple(one / whole for one in given)


def _about(adapter: Adapter) -> dict[str, Any]:
    named = {name: adapter.settings.get(name) for name in ("base_model_name_or_path", "revision")}
    return {**named, **adapter.base}


def _plain(value: Any) -> Any:
    """PEFT's settings as JSON: its sets as sorted lists, its enumerations as their values."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    return getattr(value, "value", value)
