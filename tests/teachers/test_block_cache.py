"""A cache of what frozen blocks put out: the live bits, what a row is found by, and whose outputs they are."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tiny_text import VOCABULARY, shared_tiny_text
from tutelage.students.cohort import SharedPrefix, blocks_of
from tutelage.tasks.text.batch import TextBatch, TextExamples
from tutelage.tasks.text.codec import Encoded
from tutelage.tasks.text.forward import read
from tutelage.tasks.text.packing import Packing, pack
from tutelage.teachers.block_cache import BlockCache, FrozenBlocks, identify_blocks

DEPTH = 2  # frozen blocks, of four
LENGTH = 12
DOCUMENTS = (12, 12, 9, 3, 5, 4)  # tokens; rows of their own: 12, 12, 9 + 3, 5 + 4
CPU = torch.device("cpu")


def make_examples(packing: Packing = "documents") -> TextExamples:
    """Documents of random tokens, in rows."""
    draw = np.random.default_rng(0)
    documents = []
    for number, count in enumerate(DOCUMENTS):
        ids = draw.integers(3, VOCABULARY, count + 1).astype(np.int32)
        documents.append(Encoded(f"d{number}", "", ids[:-1], ids[1:], np.ones(count, dtype=np.bool_), count))
    return TextExamples(pack(documents, LENGTH, packing), documents, 0, LENGTH)


def frozen(layout: str = "llama") -> Any:
    """A student whose lower blocks are frozen."""
    model = AutoModelForCausalLM.from_pretrained(shared_tiny_text(layout)).requires_grad_(False)
    blocks_of(model)[DEPTH].requires_grad_(True)
    return model


def cache_of(model: Any, folder: Path) -> tuple[BlockCache, SharedPrefix]:
    prefix = SharedPrefix([model])
    identity = identify_blocks(model, DEPTH, "no")
    return BlockCache(FrozenBlocks(prefix, lambda batch: read(model, batch), LENGTH, identity), folder), prefix


def state(answer: Any) -> torch.Tensor:
    found: torch.Tensor = answer[0] if isinstance(answer, tuple) else answer
    return found


@pytest.mark.parametrize("packing", ["documents", "stream"])
@pytest.mark.parametrize("layout", ["llama", "gpt_neox"])
def test_rows_beside_any_others_have_the_live_bits(tmp_path: Path, layout: str, packing: Packing) -> None:
    model, examples = frozen(layout), make_examples(packing)
    cache, prefix = cache_of(model, tmp_path)
    cache.fill(examples, 3, CPU)
    replayed = 0
    places = range(len(examples))
    for chosen in chain(combinations(places, 1), combinations(places, 2)):
        batch = examples.batch(chosen)
        found = cache.outputs(batch)
        if batch.input_ids_BT.shape[1] < LENGTH:
            assert not found
            continue
        *_, live = prefix.record(lambda batch=batch: read(model, batch))
        held_BT = batch.pieces_BT > 0
        for one in found:
            assert torch.equal(state(one)[held_BT], state(live)[held_BT]), chosen
        replayed += bool(found)
    assert replayed >= len(examples) - 1


def test_a_row_is_found_by_its_tokens_and_pieces_not_by_name_or_padding(tmp_path: Path) -> None:
    examples = make_examples()
    cache, _ = cache_of(frozen(), tmp_path)
    cache.fill(examples, 2, CPU)
    batch = examples.batch([0, 3])
    assert int((batch.pieces_BT[1] == 0).sum()) == 3  # it has padding
    known = {
        "as it is": batch,
        "renamed": replace(batch, ids=("x", "y"), token_hashes=("", "")),
        "other padding": replace(batch, input_ids_BT=batch.input_ids_BT.where(batch.pieces_BT > 0, torch.tensor(9))),
    }
    ids_BT = batch.input_ids_BT.clone()
    ids_BT[1, 0] += 1
    unknown = {
        "another token": replace(batch, input_ids_BT=ids_BT),
        "other pieces": replace(batch, pieces_BT=batch.pieces_BT.clamp(max=1)),
        "not isolated": replace(batch, isolated=False),
    }
    assert [name for name, one in known.items() if not cache.outputs(one)] == []
    assert [name for name, one in unknown.items() if cache.outputs(one)] == []


def test_rows_of_another_run_are_not_known_until_they_are_asked_for(tmp_path: Path) -> None:
    model, examples = frozen(), make_examples()
    assert cache_of(model, tmp_path)[0].fill(examples, 2, CPU).misses == len(examples)
    later, _ = cache_of(model, tmp_path)
    assert later.outputs(examples.batch([0])) == ()
    use = later.fill(examples, 2, CPU)
    assert (use.hits, use.misses, use.bytes_written) == (len(examples), 0, 0)
    assert later.outputs(examples.batch([0]))


def changed(model: Any, what: str) -> Any:
    blocks = blocks_of(model)
    if what == "embeddings":
        model.get_input_embeddings().weight.data[5, 0] += 1
    elif what == "lower block":
        next(iter(blocks[DEPTH - 1].parameters())).data.view(-1)[0] += 1
    elif what == "upper block":
        next(iter(blocks[DEPTH].parameters())).data.view(-1)[0] += 1
    elif what == "configuration":
        model.config.rms_norm_eps *= 2
    elif what == "type":
        model = model.double()
    return model


@pytest.mark.parametrize("what", ["embeddings", "lower block", "configuration", "type"])
def test_what_moves_the_outputs_makes_other_rows(tmp_path: Path, what: str) -> None:
    examples = make_examples()
    cache_of(frozen(), tmp_path)[0].fill(examples, 2, CPU)
    assert cache_of(changed(frozen(), what), tmp_path)[0].fill(examples, 2, CPU).hits == 0


def test_trained_blocks_make_no_other_rows_but_depth_and_precision_do() -> None:
    plain = identify_blocks(frozen(), DEPTH, "no")
    assert identify_blocks(changed(frozen(), "upper block"), DEPTH, "no") == plain
    for other in (identify_blocks(frozen(), DEPTH - 1, "no"), identify_blocks(frozen(), DEPTH, "fp16")):
        assert other != plain


def test_the_size_of_a_pass_changes_no_entry(tmp_path: Path) -> None:
    def entries(name: str, size: int) -> dict[str, Any]:
        cache_of(frozen(), tmp_path / name)[0].fill(make_examples(), size, CPU)
        return {file.name: load_file(file)["output"].tolist() for file in (tmp_path / name).rglob("*.safetensors")}

    one = entries("one", 1)
    assert one == entries("all", 4)
    assert sum(map(len, one.values())) == sum(DOCUMENTS)  # padding is not kept


def pieces_of(batch: TextBatch) -> list[int]:
    return batch.pieces_BT.amax(1).tolist()


def test_the_rows_of_these_tests_are_of_every_kind() -> None:
    batch = make_examples().batch(range(4))
    assert sorted(pieces_of(batch)) == [1, 1, 2, 2]
    assert sorted((batch.pieces_BT > 0).sum(1).tolist()) == [9, 12, 12, 12]
