"""What caching a teacher's signal saves, costs on the disk, and does to the student: five parts, one document.

    python benchmarks/caches.py --teacher FOLDER --student FOLDER [--part a b c d e] [--out FILE]

FOLDERs are trained by recipes/text_teacher.yaml and text_ce.yaml. Finished parts stay in --out; one is run again only
where `--part` names it. Part d also keeps every finished training in --work, and goes on from there.

`a` steps of text_distil.yaml's student (0.5 cross-entropy, 0.5 KL) with a cached and a live teacher, over the plain
cross-entropy step of the same student; the step reads the cache. Goal: 1.10. Beside each ratio, `flop_bound`: what it
would be if matrix products were all that takes time (cached hidden states replay the teacher's head). `b` bytes a token
on disk beside the estimate of planning/storage. `c` squared bias and variance of sparse targets over the squared norm
of what they estimate, float64: of the distribution itself, and of the gradient of the student's head over all positions
at once; at equal draws and at equal bytes. A bias within two standard errors of zero is none that could be seen; `topk`
divides its rest as the student does, `topk, no rest` scales its k up to one. `d` held-out nats per token of students
trained from every cache, paired with the live one by document and seed (candidate minus live). `e` speech: training all
of a four-layer decoder, encoder outputs from the cache or computed in every step.

Times are CPU seconds of one thread, arms in turn, ratios to the first arm of the same round, median and range over
rounds. Each part says on what machine it ran (`--machine`); a busy one shows in the ranges.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache_bias import bytes_of, entries, errors_of, make_draw, moments, size_for_bytes
from tutelage.config import dump_recipe, load_recipe
from tutelage.evaluation.bootstrap import GroupSums, Resampling, stack_seeds
from tutelage.evaluation.compare import compare_sums
from tutelage.laws.architecture import count_flops
from tutelage.models.resolve import resolve_model
from tutelage.objectives.objective import Objective
from tutelage.objectives.terms import Term
from tutelage.records.files import write_json
from tutelage.records.provenance import collect_provenance
from tutelage.runs.attempt import Attempt
from tutelage.runs.text.caching import build_text_cache, plan_text_cache
from tutelage.runs.text.classroom import TextClassroom, open_text_classroom
from tutelage.runs.text.judge import TextBench, judge
from tutelage.runs.text.materials import gather_text
from tutelage.tasks.text.forward import read
from tutelage.teachers.target_cache.contents import CacheSettings
from tutelage.teachers.target_cache.manifest import MANIFEST
from tutelage.training.device import make_optimizer, open_accelerator
from tutelage.training.loop import Keeping, train
from tutelage.training.step import Stepper

ROOT = Path(__file__).resolve().parents[1]
RECIPE, KJV = ROOT / "recipes" / "text_distil.yaml", ROOT / "examples" / "kjv"
KINDS = {"hidden": 0, "topk": 16, "systematic": 32, "multinomial": 32}
TIMED = ("hidden", "topk", "systematic")
STEPS, BATCH, SEEDS = 60, 16, (0, 1, 2)
SHARED = "2 cores, shared with other work, which was running: no idle machine"
TRAIN_DOCUMENTS, HELD_OUT_DOCUMENTS, FEW_DOCUMENTS = 185, 40, 16  # parts b and d; d; the large model of part a
LARGE = {"vocab_size": 8192, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4}
POSITIONS, DRAWS, BUDGET = 512, 64, 52.0  # part c; bytes of top-k with k 12
CLIPS, WINDOW_SECONDS, DECODER_LAYERS = 8, 10, 4


def shorten(source: Path, documents: int, folder: Path) -> Path:
    """The first documents of a file, as a file in `folder`."""
    target = folder / f"{source.name.split('.')[0]}-{documents}.jsonl"
    with gzip.open(source, "rt", encoding="utf-8") as file:
        target.write_text("".join(line for line, _ in zip(file, range(documents), strict=False)), encoding="utf-8")
    return target


def overrides(arguments: argparse.Namespace, train_documents: int = TRAIN_DOCUMENTS, **more: Any) -> list[str]:
    """The shipped recipe, made short."""
    settings = {
        "teacher.model": arguments.teacher,
        "data.train": shorten(KJV / "student.jsonl.gz", train_documents, arguments.work),
        "data.held_out": shorten(KJV / "held_out.jsonl.gz", HELD_OUT_DOCUMENTS, arguments.work),
        "training.steps": STEPS,
        "training.warmup_steps": STEPS // 10,
        "training.checkpoint_every": STEPS,
    }
    return [f"{name}={value}" for name, value in {**settings, **more}.items()]


def build(arguments: argparse.Namespace, kind: str, changes: list[str], name: str = "") -> dict[str, Any]:
    """A cache, or what is missing of it; returns its document."""
    folder = arguments.work / f"cache{name}-{kind}"
    materials = gather_text(load_recipe(RECIPE, changes))
    attempt = Attempt(folder, "", device="cpu")
    body: dict[str, Any] = build_text_cache(
        plan_text_cache(materials, CacheSettings(kind, KINDS[kind]), attempt), attempt
    ).body
    return body


def enter(changes: list[str]) -> TextClassroom:
    """Everything alive during a run."""
    attempt = Attempt(Path("none"), "", device="cpu")
    return open_text_classroom(gather_text(load_recipe(RECIPE, changes)), open_accelerator("cpu"), attempt)


def alternate(arms: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """CPU seconds of every arm, in turn, after one call each that is not counted; ratios to the first arm."""
    spent: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        arm()
    for _ in range(rounds):
        for name, arm in arms.items():
            start = time.process_time()
            arm()
            spent[name].append(time.process_time() - start)
    first = spent[next(iter(arms))]
    return {
        name: {
            "seconds": statistics.median(found),
            "ratio": spread([one / base for one, base in zip(found, first, strict=True)]),
        }
        for name, found in spent.items()
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Median and range."""
    found = {"value": statistics.median(values), "low": min(values), "high": max(values)}
    return {**found, "level": None, "method": f"median and range of {len(values)} rounds"}


def part_a(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Cached steps over plain ones, for three students."""
    large = write_large_teacher(arguments.work)
    cases = [
        ("kjv student", overrides(arguments), "", BATCH, 15),
        ("kjv teacher", overrides(arguments, **{"student.config": KJV / "configs" / "teacher"}), "", BATCH, 9),
        (
            "vocabulary 8192",
            overrides(arguments, FEW_DOCUMENTS, **{"teacher.model": large, "student.config": large}),
            "-large",
            BATCH // 2,
            7,
        ),
    ]
    rows = []
    for name, changes, cache, batch, rounds in cases:
        arms = {"cross-entropy": step_of(changes, batch, alone=True), "live": step_of(changes, batch)}
        for kind in TIMED:
            build(arguments, kind, changes, cache)
            cached = [*changes, f"teacher.cache={arguments.work / f'cache{cache}-{kind}'}"]
            arms[f"{kind} {KINDS[kind] or ''}".strip()] = step_of(cached, batch)
        bounds = flop_bounds(changes)
        timed = {arm: {**found, "flop_bound": bounds.get(arm, 1.0)} for arm, found in alternate(arms, rounds).items()}
        rows.append({"student": name, "rows": batch, "arms": timed})
    return rows


def flop_bounds(changes: list[str]) -> dict[str, float]:
    """Steps over plain ones by FLOPs of matrix products, of the arms that add some; a softmax counts as none."""
    room = enter(changes)
    teacher, *_ = room.assembly.outline.teachers.values()
    length = room.train.examples.batch(range(1)).input_ids_BT.shape[1]
    taught, plain = (count_flops(one.config.to_dict(), length) for one in (teacher.model, room.assembly.model))
    return {"live": 1.0 + taught.forward / plain.training, "hidden": 1.0 + taught.head / plain.training}


def step_of(changes: list[str], rows: int, *, alone: bool = False) -> Callable[[], Any]:
    """One optimiser step on the same rows, as the training loop takes it."""
    room = enter(changes)
    lesson = room.lesson
    if alone:
        lesson = replace(lesson, objective=Objective((Term("cross_entropy"),)), teacher_forward=None)
    optimizer = make_optimizer(list(lesson.trainable().values()), room.recipe.training)
    stepper = Stepper(lesson, optimizer, 1.0, room.accelerator)
    lesson.set_training(True)
    return lambda: stepper.take(1, [room.train.examples.batch(range(rows))], 1e-4)


def write_large_teacher(work: Path) -> Path:
    """A larger language model of random weights, whose distributions are nearly flat: no draw falls on another."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = work / "large"
    if not folder.exists():
        torch.manual_seed(0)
        ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
        config = LlamaConfig(**LARGE, **ends, num_attention_heads=4, max_position_embeddings=256)
        LlamaForCausalLM(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(KJV / "tokenizer").save_pretrained(folder)
    return folder


def part_b(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Bytes of every kind."""
    rows = []
    for kind, size in KINDS.items():
        body = build(arguments, kind, overrides(arguments))
        expected, found = body["expected"], body["built"]["bytes"]
        row = {"kind": kind, "size": size, "positions": expected["positions"], "rows": expected["rows"]}
        row |= {"estimated_bytes_per_token": expected["bytes_per_token"]}
        row |= {"disk_bytes_per_token": found / expected["positions"], "disk_over_expected": found / expected["bytes"]}
        rows.append(row)
    return rows


def part_c(arguments: argparse.Namespace) -> dict[str, Any]:
    """Bias and variance on a trained teacher, seen by a trained student."""
    from tutelage.models.causal import load_text_model

    room = enter(overrides(arguments, FEW_DOCUMENTS))
    batch = room.held_out.examples.batch(range(0, len(room.held_out.examples), 16))
    with torch.no_grad():
        teacher, student = (load_text_model(folder) for folder in (arguments.teacher, arguments.student))
        found = [read(one.model, batch, {one.blocks}) for one in (teacher, student)]
    logits_NV, seen_NV = (one.scores[batch.keep_BT][:POSITIONS].double() for one in found)
    states_NH = found[1].states[student.blocks][batch.keep_BT][:POSITIONS].double()
    labels_N = batch.labels_BT[batch.keep_BT][:POSITIONS]
    p_NV, q_NV = logits_NV.softmax(-1), seen_NV.softmax(-1)
    norms = {"distribution": p_NV.square().sum(), "head_gradient": ((q_NV - p_NV).T @ states_NH / POSITIONS).square()}
    rows = []
    for at, wanted in (("equal draws, 12", None), (f"equal bytes, {BUDGET:g}", BUDGET)):
        for kind in ("topk", "topk, no rest", "systematic", "multinomial"):
            size = 12 if wanted is None else size_for_bytes(kind, logits_NV, labels_N, wanted)
            draw = make_draw(kind, logits_NV, labels_N, size)
            row: dict[str, Any] = {"at": at, "kind": kind, "size": size, "entries": entries(draw(0))}
            row["bytes_per_token"] = bytes_of(kind, draw(0))
            for name, norm in norms.items():
                states = states_NH if name == "head_gradient" else None
                one = moments(errors_of(draw, p_NV, q_NV, 1 if kind.startswith("topk") else DRAWS, states))
                scale = float(norm.sum())
                shares = {"bias_squared": one.bias, "standard_error": one.bias_error, "variance": one.variance}
                row[name] = {key: value / scale for key, value in shares.items()}
            rows.append(row)
    return {"positions": POSITIONS, "draws": DRAWS, "rows": rows}


def part_d(arguments: argparse.Namespace) -> dict[str, Any]:
    """Students of every cache against those of the live teacher."""
    arms: dict[str, list[GroupSums]] = {"live": [], **{kind: [] for kind in KINDS}}
    seconds = 0.0  # of every student, those of earlier calls among them; the caches' builds left out
    for seed in arguments.seeds:
        for arm, sums in arms.items():
            found, spent = learn(arguments, arm, seed)
            sums.append(found)
            seconds += spent
    resampling = Resampling(draws=1000)
    live = stack_seeds(arms["live"])
    rows = {
        arm: compare_sums("nats_per_token", live, stack_seeds(sums), resampling).to_dict() for arm, sums in arms.items()
    }
    settings = {"steps": STEPS, "rows_a_step": BATCH, "seeds": arguments.seeds, "sizes": KINDS}
    settings["held_out_documents"] = HELD_OUT_DOCUMENTS
    return {**settings, "students_cpu_seconds": round(seconds, 1), "arms": rows}


def learn(arguments: argparse.Namespace, arm: str, seed: int) -> tuple[GroupSums, float]:
    """One student's sums on the held-out documents and its CPU seconds; a finished one is found again."""
    file = arguments.work / f"{arm}-{seed}.npz"
    if not file.exists():
        changes = overrides(arguments, seed=seed)
        if arm != "live":
            if not (arguments.work / f"cache-{arm}" / MANIFEST).exists():
                build(arguments, arm, changes)
            changes.append(f"teacher.cache={arguments.work / f'cache-{arm}'}")
        start = time.process_time()
        room = enter(changes)
        with tempfile.TemporaryDirectory() as folder:
            keeping = Keeping(Path(folder), {"recipe": dump_recipe(room.recipe)})
            train(room.lesson, room.stream(), room.recipe.training, keeping, room.accelerator, seed)
        bench = TextBench(room.held_out.examples, Resampling(draws=1000), 32)
        sums = judge("student", room.assembly.model, bench).by_group("nats_per_token")
        seconds = time.process_time() - start
        np.savez(file, errors_SG=sums.errors_SG, units_G=sums.units_G, cpu_seconds=seconds)
    found = np.load(file)
    spent = float(found["cpu_seconds"]) if "cpu_seconds" in found else math.nan  # null: made before they were kept
    return GroupSums(found["errors_SG"], found["units_G"], False), spent


def part_e(arguments: argparse.Namespace) -> dict[str, Any]:
    """The encoder's pass in every step, or its output from the cache."""
    from tutelage.models.load import load_speech_model
    from tutelage.students.shrink import shrink_speech_model
    from tutelage.tasks.speech.audio import read_audio
    from tutelage.tasks.speech.batch import collate
    from tutelage.tasks.speech.features import FrozenEncoder
    from tutelage.tasks.speech.forward import decode
    from tutelage.tasks.speech.labels import LabelCodec
    from tutelage.tasks.speech.manifest import read_manifest
    from tutelage.teachers.prefix_cache import PrefixCache

    source = load_speech_model(resolve_model("openai/whisper-base", None, task="speech").path)
    speech = shrink_speech_model(source, DECODER_LAYERS, WINDOW_SECONDS).speech
    manifest = read_manifest(ROOT / "examples" / "captions_es" / "held_out.jsonl", window_seconds=WINDOW_SECONDS)
    clips = manifest.utterances[:CLIPS]
    encoder, codec = (
        FrozenEncoder(speech.model, speech.processor.feature_extractor),
        LabelCodec(speech.processor.tokenizer, "es"),
    )
    cached = PrefixCache(encoder, arguments.work).get_or_compute(clips)
    ids, texts = [clip.id for clip in clips], [codec.encode(clip.text) for clip in clips]
    speech.model.get_encoder().requires_grad_(False)
    optimizer = torch.optim.AdamW([one for one in speech.model.parameters() if one.requires_grad], lr=1e-5)

    def step(outputs: list[torch.Tensor]) -> None:
        batch = collate(ids, outputs, texts, codec)
        logits_NV = decode(speech.model, batch).scores[batch.keep_BT]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits_NV, batch.labels_BT[batch.keep_BT]).backward()
        optimizer.step()

    def live() -> None:
        step(list(encoder([read_audio(clip.audio) for clip in clips])))

    arms = {"encoder outputs cached": lambda: step([cached[one] for one in ids]), "encoder in every step": live}
    settings = {"model": "openai/whisper-base", "window_seconds": WINDOW_SECONDS, "decoder_layers": DECODER_LAYERS}
    return {**settings, "clips": CLIPS, "trained": "all of the decoder", "arms": alternate(arms, 4)}


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "b_bytes": part_b,
    "a_text_steps": part_a,
    "c_bias_and_variance": part_c,
    "d_held_out_loss": part_d,
    "e_speech_steps": part_e,
}


def main() -> None:
    """Run the parts that are asked for, or all that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--teacher", type=Path, default=ROOT / "runs" / "text-teacher" / "student")
    parser.add_argument("--student", type=Path, default=ROOT / "runs" / "text-ce" / "student")
    parser.add_argument("--part", nargs="+", choices=[name[0] for name in PARTS])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="of part d's students")
    parser.add_argument("--machine", default=SHARED, help="what the parts run on, in words")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "caches")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "caches.json")
    arguments = parser.parse_args()
    for name in ("teacher", "student", "work", "out"):
        setattr(arguments, name, getattr(arguments, name).resolve())
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, part in PARTS.items():
        there = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
        if name[0] in arguments.part if arguments.part else name not in there.get("parts", {}):
            start = time.process_time()
            found = part(arguments)
            there = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
            cost = {"cpu_seconds": round(time.process_time() - start, 1), "provenance": collect_provenance().to_dict()}
            parts = {**there.get("parts", {}), name: {"found": found, "machine": arguments.machine, **cost}}
            write_json(arguments.out, {"benchmark": "caches", "parts": parts})
    print(arguments.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
