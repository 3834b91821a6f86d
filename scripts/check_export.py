"""Transcribe clips with an exported student, using transformers alone, and print one JSON document.

    python scripts/check_export.py FOLDER CLIP [CLIP ...] [--max-new-tokens N] [--word-timestamps]

This package is not imported, so the script can be run by the Python of any environment that has transformers and
soundfile. It loads strictly: a weight that is missing, left over or of another shape ends it with exit code 1. Clips
are 16 kHz; several channels are averaged. The language and the task are the folder's own defaults.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Run the check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--word-timestamps", action="store_true", help="also ask for the time of every token")
    arguments = parser.parse_args()

    import transformers

    model, processor, faults = load(arguments.folder)
    document: dict[str, Any] = {
        "transformers": transformers.__version__,
        "python": sys.version.split()[0],
        "folder": str(arguments.folder),
        "faults": faults,
        "window_seconds": processor.feature_extractor.chunk_length,
        "clips": [transcribe(model, processor, clip, arguments) for clip in arguments.clips],
        "tutelage_imported": "tutelage" in sys.modules,
    }
    print(json.dumps(document, ensure_ascii=False))
    return 1 if faults or document["tutelage_imported"] else 0


def load(folder: Path) -> tuple[Any, Any, list[str]]:
    """Model, processor, and what does not fit between the weights and the configuration."""
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    model, told = WhisperForConditionalGeneration.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    faults = [
        f"{kind}: {name}" for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in told[kind]
    ]
    return model.eval(), WhisperProcessor.from_pretrained(folder, local_files_only=True), faults


def transcribe(model: Any, processor: Any, clip: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The text, the token ids and, where asked, the times of one clip."""
    import soundfile
    import torch

    samples, rate = soundfile.read(clip, dtype="float32", always_2d=True)
    features = processor.feature_extractor(
        samples.mean(axis=1), sampling_rate=rate, return_tensors="pt", return_attention_mask=True
    )
    with torch.no_grad():
        made = model.generate(
            features.input_features,
            attention_mask=features.attention_mask,
            max_new_tokens=arguments.max_new_tokens,
            do_sample=False,
            num_beams=1,
            return_token_timestamps=arguments.word_timestamps,
        )
    tokens = made["sequences"] if arguments.word_timestamps else made
    answer = {
        "audio": clip.name,
        "seconds": round(len(samples) / rate, 3),
        "text": processor.tokenizer.decode(tokens[0], skip_special_tokens=True).strip(),
        "tokens": tokens[0].tolist(),
    }
    if arguments.word_timestamps:
        answer["token_seconds"] = [round(float(second), 2) for second in made["token_timestamps"][0]]
    return answer


if __name__ == "__main__":
    raise SystemExit(main())
