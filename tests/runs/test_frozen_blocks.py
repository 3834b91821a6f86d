"""Runs on text whose students leave their lower blocks frozen: beside the cache of these they end in the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny_text import tiny_text
from tiny_text_run import write_text_run
from tutelage.cli.main import main
from tutelage.config import load_recipe
from tutelage.errors import InputError, PreflightError, TutelageError
from tutelage.runs.attempt import Attempt
from tutelage.runs.distil import distil
from tutelage.runs.tasks import gather_materials
from tutelage.runs.text import classroom
from tutelage.runs.text.assembly import TextAssembly, assemble
from tutelage.students.cohort import SharedPrefix, blocks_of
from tutelage.teachers import block_cache
from tutelage.teachers.block_cache import BlockCache
from tutelage.teachers.entries import EntryStore

FIRST = 2  # blocks that are frozen, of three
SIZE = 0.05  # relative: how near the announced bytes are
TARGETS = {"llama": "q_proj, v_proj", "gpt_neox": "query_key_value", "gpt2": "c_attn"}
ALIGNED = "- {kind: kl, temperature: 2.0}\n  - {kind: angle, weight: 0.5}"
KEPT = "student.cache_prefix=true"


def write(folder: Path, layout: str = "llama", data: str = "packing: stream", first: int = FIRST, **more: Any) -> Path:
    """A student of three blocks, the lower ones frozen."""
    lora = f"lora: {{rank: 2, targets: [{TARGETS[layout]}], dropout: 0.3, first_block: {first}}}"
    student = f"layers: 3\n  layer_map: last\n  budget_share: 0.9\n  {lora}"
    settings = {"steps": 6, "objective": ALIGNED, **more}
    return write_text_run(folder, layout=layout, student=student, data=data, **settings)


def run(recipe: Path, out: str, *overrides: str) -> tuple[dict[str, bytes], list[str]]:
    """The files that a run leaves and that say no time, and what it said."""
    said: list[str] = []
    folder = recipe.parent / out
    distil(gather_materials(load_recipe(recipe, overrides)), Attempt(folder, "", device="cpu", talk=said.append))
    names = [*folder.rglob("log.jsonl"), *folder.rglob("*.safetensors")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in names if "checkpoints" not in str(file)}, said


def entries(cache: Path) -> list[Path]:
    return sorted((cache / block_cache.FOLDER).rglob("*.safetensors"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of caches."""
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For every batch of a run whether its frozen blocks were replayed."""
    asked, outputs = [], BlockCache.outputs

    def note(self: BlockCache, batch: Any) -> tuple[Any, ...]:
        found = outputs(self, batch)
        asked.append(bool(found))
        return found

    monkeypatch.setattr(BlockCache, "outputs", note)
    return asked


@pytest.mark.parametrize("layout", TARGETS)
def test_a_run_beside_the_cache_ends_in_the_same_bytes(tmp_path: Path, replayed: list[bool], layout: str) -> None:
    recipe = write(tmp_path, layout)
    plain, _ = run(recipe, "plain")
    first, said = run(recipe, "first", KEPT)
    later, again = run(recipe, "later", KEPT)
    assert plain == first == later
    assert len(plain) == 3  # log, adapter, student
    assert sum(replayed) >= 2 * 6
    assert any("0 rows were there" in line for line in said)
    assert any("0 were computed" in line for line in again)


def test_documents_in_rows_of_their_own_lengths_change_no_byte(tmp_path: Path, replayed: list[bool]) -> None:
    recipe = write(tmp_path, data="packing: documents")
    plain, _ = run(recipe, "plain", "data.length=12")
    kept, said = run(recipe, "kept", "data.length=12", KEPT)
    assert plain == kept
    assert any(replayed)
    assert not all(replayed)  # a batch without a full row is run
    assert any("of batches hold a full row" in line for line in said)


@pytest.mark.parametrize("step", ["in_turn", "stacked"])
def test_a_cohort_beside_the_cache_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replayed: list[bool], step: str
) -> None:
    recipe = write(tmp_path, extra="members: [{name: a}, {name: b, lora: {first_block: 1}}]")
    plain, _ = run(recipe, "plain", f"members_step={step}")
    kept, said = run(recipe, "kept", f"members_step={step}", KEPT)
    assert plain == kept
    assert {"members/a/log.jsonl", "members/b/log.jsonl"} < set(plain)
    assert sum(replayed) >= 6
    assert any("the lowest 1 put out" in line for line in said)  # of the member that adapts more
    recorded, record = [], SharedPrefix.record
    monkeypatch.setattr(SharedPrefix, "record", lambda *words: (recorded.append(1), record(*words))[1])
    replayed.clear()
    again, _ = run(recipe, "again", f"members_step={step}", KEPT)
    assert plain == again
    assert len(recorded) == 1 + replayed.count(False)  # once for what an answer looks like, then what is not known


def test_the_size_is_said_before_anything_is_written(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path)
    assert main(["distill", str(recipe), "--dry-run", "--json", "--set", KEPT]) == 0
    planned = json.loads(capsys.readouterr().out)["expected"]["frozen_blocks"]
    assert not cache.exists()
    assert planned["blocks"] == FIRST
    short = 1 / planned["rows"]  # a stream's last row
    assert planned["replayed"] == pytest.approx(1 - short**2)  # of batches of two
    run(recipe, "kept", KEPT)
    assert len(entries(cache)) == planned["rows"]
    assert sum(file.stat().st_size for file in entries(cache)) == pytest.approx(planned["bytes"], rel=SIZE)


def test_a_killed_build_goes_on(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write(tmp_path)
    plain, _ = run(recipe, "plain")
    wrote = EntryStore.write

    def stop(self: EntryStore, key: str, tensor: Any) -> None:
        if len(entries(cache)) == 3:
            raise KeyboardInterrupt
        wrote(self, key, tensor)

    with monkeypatch.context() as patch:
        patch.setattr(EntryStore, "write", stop)
        with pytest.raises(TutelageError, match="outputs of frozen layers that were computed are kept"):
            run(recipe, "kept", KEPT)
    assert not (tmp_path / "kept").exists()
    kept, said = run(recipe, "kept", KEPT)
    assert plain == kept
    assert any("3 rows were there" in line for line in said)


def test_a_damaged_entry_is_computed_again_and_one_that_goes_in_a_run_is_named(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write(tmp_path)
    plain, _ = run(recipe, "plain")
    run(recipe, "first", KEPT)
    (damaged, *_), content = entries(cache), bytearray(entries(cache)[0].read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    kept, said = run(recipe, "second", KEPT)
    assert plain == kept
    assert any(damaged.name in line and "computed again" in line for line in said)
    fill = BlockCache.fill

    def lose(self: BlockCache, *words: Any) -> Any:
        use = fill(self, *words)
        for file in entries(cache):
            file.unlink()
        return use

    monkeypatch.setattr(BlockCache, "fill", lose)
    with pytest.raises(TutelageError, match="It was there when this run began"):
        run(recipe, "third", KEPT)


def test_other_weights_below_are_other_rows_and_an_older_run_has_no_key_of_it(tmp_path: Path, cache: Path) -> None:
    recipe = write(tmp_path)
    run(recipe, "first", KEPT)
    before = len(entries(cache))
    run(recipe, "other", KEPT, f"teacher.model={tiny_text(tmp_path / 'other', seed=5)}")
    assert len(entries(cache)) == 2 * before
    plain, kept = (gather_materials(load_recipe(recipe, words)).identity for words in ([], [KEPT]))
    assert "cache_prefix" not in plain["student"]
    assert kept["student"]["cache_prefix"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["student.lora.first_block=0"], "none is frozen"),
        (["student.lora=null"], "none is frozen"),
        (["training.gradient_checkpointing=true"], "gradient_checkpointing runs them again"),
        (["data.length=100", "data.packing=documents"], "the longest row has"),
        (["members=[{name: a}, {name: b, lora: {first_block: 0}}]"], "none is frozen"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    recipe = write(tmp_path)
    sets = [part for word in [KEPT, *words] for part in ("--set", word)]
    for more in (["--dry-run"], ["--out", str(tmp_path / "run")]):
        assert main(["distill", str(recipe), "--quiet", *more, *sets]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert not cache.exists()


def test_a_model_that_drops_at_random_is_refused_by_the_setting(tmp_path: Path) -> None:
    recipe = write(tmp_path, "gpt2")
    model = tiny_text(tmp_path / "dropping", "gpt2")
    file = model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "attn_pdrop": 0.1}))
    with pytest.raises(InputError, match=r"drops at random while it trains \(attn_pdrop 0\.1\)"):
        run(recipe, "run", KEPT, f"teacher.model={model}")


@pytest.mark.parametrize("words", [[], [KEPT]])
def test_preflight_sees_a_frozen_block_that_looks_at_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Rows are found by their real tokens, so kept outputs would answer for other padding as for its own."""

    def assemble_leaking(*words: Any) -> TextAssembly:
        assembly = assemble(*words)
        blocks_of(assembly.model)[0].mlp.register_forward_hook(lambda _m, _given, out: out + out.mean(1, keepdim=True))
        return assembly

    monkeypatch.setattr(classroom, "assemble", assemble_leaking)
    with pytest.raises(PreflightError, match="the models look at padding"):
        run(write(tmp_path), "run", *words)


def test_held_out_rows_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    replay = SharedPrefix.replay

    def note(self: SharedPrefix, student: Any, outputs: Any) -> Any:
        seen.append(bool(outputs))
        return replay(self, student, outputs)

    monkeypatch.setattr(SharedPrefix, "replay", note)
    run(write(tmp_path), "kept", KEPT)
    assert not seen[-1]  # the angle on held-out rows
    assert any(seen)
