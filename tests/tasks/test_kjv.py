"""The text set that ships: its split leaks nothing, its tokenizer writes it, its page has the true counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tutelage.models.causal import load_meta_causal, load_tokenizer
from tutelage.models.load import count_params
from tutelage.tasks.text.codec import TextCodec
from tutelage.tasks.text.documents import Corpus, read_documents, shared_documents

PARTS = ("teacher", "student", "held_out")
LARGEST = 1_500_000  # bytes of the folder
SHARED_WORDS = 8


@pytest.fixture(scope="module")
def parts(root: Path) -> dict[str, Corpus]:
    return {part: read_documents(root / "examples" / "kjv" / f"{part}.jsonl.gz") for part in PARTS}


def test_no_group_chapter_or_long_verse_is_on_two_sides(parts: dict[str, Corpus]) -> None:
    def verses(corpus: Corpus) -> set[tuple[str, ...]]:
        words = (tuple(re.findall(r"[a-z]+", line.lower())) for d in corpus.documents for line in d.text.splitlines())
        return {verse for verse in words if len(verse) >= SHARED_WORDS}

    for one, other in (("teacher", "student"), ("teacher", "held_out"), ("student", "held_out")):
        assert not {d.group for d in parts[one].documents} & {d.group for d in parts[other].documents}
        assert not shared_documents(parts[one], parts[other])
        assert not verses(parts[one]) & verses(parts[other])


def test_the_page_has_the_true_counts(parts: dict[str, Corpus], root: Path) -> None:
    codec = TextCodec(load_tokenizer(root / "examples" / "kjv" / "tokenizer"))
    page = (root / "examples" / "kjv" / "README.md").read_text(encoding="utf-8")
    for name, corpus in parts.items():
        size = sum(len(document.text.encode("utf-8")) for document in corpus.documents)
        tokens = sum(len(encoded) for encoded in codec.encode_all(corpus.documents))
        groups = len({document.group for document in corpus.documents})
        assert f"| {name}.jsonl.gz | {len(corpus.documents)} | {groups} | {size:,} | {tokens:,} |" in page


def test_the_tokenizer_writes_every_chapter_back(parts: dict[str, Corpus], root: Path) -> None:
    codec = TextCodec(load_tokenizer(root / "examples" / "kjv" / "tokenizer"))
    for document in parts["held_out"].documents:
        assert codec.decode(codec.encode(document).labels) == document.text


def test_the_shapes_are_those_of_the_recipes(root: Path) -> None:
    sizes = {name: load_meta_causal(root / "examples" / "kjv" / "configs" / name) for name in ("teacher", "student")}
    assert {name: count_params(text.model) for name, text in sizes.items()} == {"teacher": 922_752, "student": 164_672}


def test_the_folder_is_small_enough_to_ship(root: Path) -> None:
    files = [file for file in (root / "examples" / "kjv").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < LARGEST
