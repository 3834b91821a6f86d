"""Builds `examples/kjv`, the small text set that ships with the repository: the King James Bible, chapter by chapter.

Source: Debian packages `bible-kjv` and `bible-kjv-text`, version 4.38 (the text's copyright is expired).

    apt-get install bible-kjv bible-kjv-text
    bible -f gen1:1-rev22:21 > kjv.txt
    python scripts/build_kjv.py kjv.txt examples/kjv

A document is a chapter. Chapters that share verses word for word (Kings and Isaiah, Samuel and the Psalms) are one
group, and the seeded split into the teacher's part, the student's part and the held-out part is by group, so that none
is on two sides. The tokenizer is trained on the first two parts. Deterministic: the same text and the same tokenizers
library give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
from collections import defaultdict
from pathlib import Path

from tutelage.tasks.speech.groups import DisjointSets

SEED = 1611
SHARES = {"teacher": 0.45, "student": 0.45, "held_out": 0.10}
SHARED_WORDS = 8  # a verse of so many words that stands in two chapters joins them
VOCABULARY = 1024
LINE = re.compile(r"(?P<book>\S*?[A-Za-z]+)(?P<chapter>\d+):(?P<verse>\d+) (?P<text>.+)")
SHAPES = {
    "teacher": {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4},
    "student": {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 4},
}


def main() -> None:
    """Read the text, split it, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="what `bible -f gen1:1-rev22:21` printed")
    parser.add_argument("out", type=Path, help="the folder, for example examples/kjv")
    arguments = parser.parse_args()
    chapters = read_chapters(arguments.text)
    groups = group_chapters(chapters)
    parts = split(chapters, groups)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part, names in parts.items():
        rows = [{"id": name, "text": "\n".join(chapters[name]), "group": groups[name]} for name in names]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (arguments.out / f"{part}.jsonl.gz").write_bytes(gzip.compress(lines.encode("utf-8"), mtime=0))
        print(f"{part}: {len(rows)} chapters, {sum(len(row['text']) for row in rows):,} bytes")
    train_tokenizer(
        ["\n".join(chapters[name]) for part in ("teacher", "student") for name in parts[part]], arguments.out
    )
    for name, shape in SHAPES.items():
        write_config(arguments.out / "configs" / name, shape)


def read_chapters(path: Path) -> dict[str, list[str]]:
    """Verses by chapter, in the order of the text."""
    chapters: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        found = LINE.fullmatch(line.strip())
        if found is None:
            raise SystemExit(f"{path}: {line!r} is no verse")
        chapters[f"{found['book']} {found['chapter']}"].append(found["text"].strip())
    return dict(chapters)


def group_chapters(chapters: dict[str, list[str]]) -> dict[str, str]:
    """For every chapter the first one of its group."""
    names = list(chapters)
    sets = DisjointSets(len(names))
    first: dict[tuple[str, ...], int] = {}
    for index, name in enumerate(names):
        for verse in chapters[name]:
            words = tuple(re.findall(r"[a-z]+", verse.lower()))
            if len(words) >= SHARED_WORDS:
                sets.join(first.setdefault(words, index), index)
    return {name: names[sets.find(index)] for index, name in enumerate(names)}


def split(chapters: dict[str, list[str]], groups: dict[str, str]) -> dict[str, list[str]]:
    """Chapters by part, whole groups each, filled in a seeded order up to the shares; in the order of the text."""
    members: dict[str, list[str]] = defaultdict(list)
    for name, group in groups.items():
        members[group].append(name)
    order = sorted(members)
    random.Random(SEED).shuffle(order)
    total = sum(len(verse) for verses in chapters.values() for verse in verses)
    chosen: dict[str, str] = {}
    filled = dict.fromkeys(SHARES, 0.0)
    for group in order:
        part = min(SHARES, key=lambda part: filled[part] / SHARES[part])
        for name in members[group]:
            chosen[name] = part
            filled[part] += sum(len(verse) for verse in chapters[name]) / total
    return {part: [name for name in chapters if chosen[name] == part] for part in SHARES}


def train_tokenizer(texts: list[str], out: Path) -> None:
    """A byte-level BPE tokenizer, saved as every supported transformers reads it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=[end], initial_alphabet=alphabet, show_progress=False
        ),
    )
    folder = out / "tokenizer"
    folder.mkdir(exist_ok=True)
    bpe.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 256,
        "clean_up_tokenization_spaces": False,
    }
    settings |= {f"{role}_token": end for role in ("bos", "eos", "pad")}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    print(f"tokenizer: {hashlib.sha256((folder / 'tokenizer.json').read_bytes()).hexdigest()}")


def write_config(folder: Path, shape: dict[str, int]) -> None:
    """The shape of a Llama of these sizes."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
        **shape,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
