"""Folders of LoRA adapters: found, checked and hashed before anything heavy is loaded, then merged into their model.

Covers PEFT's LoRA (rsLoRA and DoRA too) in safetensors, from a run's `adapter` folder or anywhere else. Does not cover
making adapters (`students.lora`) or merging several into one (`students.merge`). torch and PEFT load when it is merged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.models.manifest import hash_folder

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "eva")
"""Beginnings that move the weights under the adapter, so that it does not fit the model as it was."""
_HASHED = (CONFIG, WEIGHTS)


@dataclass(frozen=True)
class AdapterFolder:
    """A folder with an adapter.

    Args:
        path: The folder.
        sha256: Hash of the adapter's settings and of its weights, by file.
    """

    path: Path
    sha256: Mapping[str, str]


def resolve_adapter(path: Path, model_layers: int | None = None) -> AdapterFolder:
    """Check an adapter's folder.

    Args:
        path: The folder.
        model_layers: Decoder blocks of the model that it is for; a run's adapter must be of all of them.

    Raises:
        InputError: Everything that keeps it from being merged, as far as its settings say.
    """
    if not path.is_dir():
        raise InputError(f"There is no folder {path}. An adapter is a PEFT folder, such as RUN/adapter.")
    missing = [name for name in _HASHED if not (path / name).is_file()]
    if missing:
        raise InputError(f"The folder {path} holds no {' and no '.join(missing)}, so it is no PEFT adapter.")
    settings = _read(path / CONFIG)
    faults = []
    if settings.get("peft_type") != "LORA":
        faults.append(f"The adapter in {path} is of type {settings.get('peft_type')!r}; LORA is merged here.")
    begun = settings.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(_CHANGES_BASE):
        faults.append(
            f"The adapter in {path} began as {begun}, which changes the weights under it, so it does not fit the model "
            "as it was. Name the merged model (RUN/student) as the teacher instead."
        )
    if (path / BASE).is_file() and model_layers is not None:
        base = _read(path / BASE)
        if base.get("adapter") is not None:
            faults.append(
                f"The adapter in {path} fits a model that another adapter ({base['adapter']}) was merged into. Name "
                "the merged model (RUN/student) as the teacher instead."
            )
        kept = base.get("decoder_layers", base.get("layers")) or []
        if list(kept) != list(range(model_layers)):
            faults.append(
                f"The adapter in {path} fits a model cut to layers {list(kept)}, and this one has {model_layers}. Name "
                "the merged model (RUN/student) as the teacher instead, or an adapter of the whole model."
            )
    if faults:
        raise InputError(faults)
    hashes = hash_folder(path, (".json", ".safetensors"))
    return AdapterFolder(path, {name: hashes[name] for name in _HASHED})


def merge_adapter(model: Any, adapter: AdapterFolder) -> Any:
    """The model with the adapter added into its weights, in evaluation mode; a plain model again.

    Args:
        model: In float32, so that nothing of the adapter is rounded away; changed in place.
        adapter: From `resolve_adapter`.

    Raises:
        InputError: The adapter names layers that the model does not have, or in other shapes, or its weights are not
            finite.
    """
    import torch
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict
    from safetensors import safe_open

    from tutelage.models.load import first_line

    place = adapter.path
    try:
        with torch.random.fork_rng(devices=[]):  # adapters are drawn before they are read
            wrapped = PeftModel.from_pretrained(model, str(place), is_trainable=False)
        with safe_open(place / WEIGHTS, framework="pt") as file:
            stored = set(file.keys())
        lacking = sorted(stored ^ set(get_peft_model_state_dict(wrapped, save_embedding_layers=False)))
        if lacking:
            raise InputError(
                f"The adapter in {place} and the layers that its settings name differ in {len(lacking)} tensors, such "
                f"as {lacking[0]}; it is of another model."
            )
        return wrapped.merge_and_unload(safe_merge=True).eval()
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise InputError(f"The adapter in {place} does not fit the model: {first_line(error)}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a mapping.")
    return found
