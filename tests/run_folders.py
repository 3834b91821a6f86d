"""Folders of runs as they are left, written by hand without any training: finished and not, on speech and on text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STEPS = 60
TERMS = {"cross_entropy": 1.0, "kl": 0.8, "angle": 0.5}
SYSTEMS = ("teacher, 30 s window", "teacher, 10 s window", "student, before", "student, distilled")
CLIPS = (
    ("clip0", "Una rana verde.", "una rana verde"),
    ("clip1", "Dos casas blancas.", "dos cosas"),
    ("clip2", "El perro corre mucho.", "el perro corre mucho"),
    ("clip3", "La luna sale tarde.", "la luna sale muy tarde"),
    ("clip4", "Un tren muy largo.", "un tren muy largo"),
    ("clip5", "Tres libros viejos.", "otra cosa que nadie dijo"),
)
"""Name, what was said, what the student wrote; the teacher wrote what was said."""


def estimate(value: float, width: float = 0.02) -> dict[str, Any]:
    method = "group bootstrap, 100 draws of 40 groups"
    return {"value": value, "low": value - width, "high": value + width, "level": 0.95, "method": method}


def calibration(error: float) -> dict[str, Any]:
    bins = [
        {"low": low / 5, "high": (low + 1) / 5, "count": 10 * low, "confidence": low / 5 + 0.1, "accuracy": low / 5}
        for low in range(5)
    ]
    return {"ece": {"value": error, "low": None, "high": None}, "ece_null": estimate(0.01, 0.005), "bins": bins}


def steps(count: int = STEPS, terms: dict[str, float] | None = None) -> list[dict[str, Any]]:
    """Lines of log.jsonl: every term falls, the weight of the angle falls too, norms every 10 steps."""
    found = []
    for step in range(1, count + 1):
        losses = {name: 4.0 * weight - 0.05 * step * weight for name, weight in (terms or TERMS).items()}
        found.append(
            {
                "step": step,
                "total": sum(losses.values()),
                "terms": losses,
                "positions": 40,
                "learning_rate": 1e-3 * min(step / 10, 1.0),
                "gradient_norm": 2.0 + (step % 7) / 10,
                "term_gradient_norms": dict.fromkeys(losses, 1.0 + step / 100) if step % 10 == 1 else {},
                "weights": {name: 0.5 - step / 200 if name == "angle" else w for name, w in (terms or TERMS).items()},
            }
        )
    return found


def recipe(task: str, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "task": task,
        "teacher": {"model": "somewhere/teacher"},
        "objective": [{"kind": kind, "weight": weight} for kind, weight in TERMS.items()],
        "training": {"steps": STEPS},
        "seed": 3,
    }


def comparison(baseline: str, candidate: str, metric: str, difference: float, verdict: str) -> dict[str, Any]:
    return {
        "baseline_name": baseline,
        "candidate_name": candidate,
        "metric": metric,
        "difference": estimate(difference),
        "status": {"kind": "done", "text": "", "remedy": ""},
        "verdict": verdict,
    }


def _shared(task: str, name: str) -> dict[str, Any]:
    return {
        "schema": {"name": "tutelage.distill", "version": 1},
        "status": {"kind": "done", "text": "", "remedy": ""},
        "warnings": [{"code": "x", "input": "data", "value": 1, "range": None, "text": "One clip says 1e21 words."}],
        "recipe": {"name": name, "sha256": "a" * 64, "resolved": recipe(task, name)},
        "teacher": {"sha256": {"model.safetensors": "b" * 64, "config.json": "f" * 64}},
        "adapter": None,
        "trainable": {"params": 1000, "lora_params": 900, "teacher_params": 100_000, "share": 0.01, "limit": 0.02},
        "preflight": {"checks": [{"name": "one", "passed": True}, {"name": "two", "passed": True}]},
        "training": {
            "steps": STEPS,
            "seconds": 12.5,
            "supervised_tokens": 2400,
            "flops": {"encoder": 1e12, "teacher": 2e12, "student": 1e12, "total": 4e12},
            "best": None,
            "stopped_early": False,
        },
        "provenance": {"command": "tutelage distill recipe.yaml", "cpus": 2, "packages": {"numpy": "2.4.6"}},
    }


def speech_document() -> dict[str, Any]:
    """The result of a run on speech."""
    rates = (0.30, 0.31, 0.90, 0.45)
    systems = [
        {
            "name": name,
            "params": 72_000_000,
            "utterances": 2 if name == SYSTEMS[0] else len(CLIPS),
            "normaliser": "whisper-basic",
            "metrics": {"wer": estimate(rate), "raw_wer": estimate(rate + 0.1), "cer": estimate(rate / 2)}
            | {"nats_per_token": None if name == SYSTEMS[0] else estimate(1 + rate)},
            "kinds": {kind: estimate(rate / 3) for kind in ("substitutions", "deletions", "insertions")},
            "calibration": None if name == SYSTEMS[0] else calibration(rate / 10),
            "status": {"kind": "few-groups", "text": "2 groups: the interval is rough.", "remedy": "Hold out more."}
            if name == SYSTEMS[0]
            else {"kind": "done", "text": "", "remedy": ""},
        }
        for name, rate in zip(SYSTEMS, rates, strict=True)
    ]
    ratio = {"stock": 0.5, "window_only": 0.2, "layers_only": 0.45, "both": 0.15}
    return {
        **_shared("speech", "demo"),
        "systems": systems,
        "layer_map": [{"student": 1, "teacher": 1, "side": "decoder"}, {"student": 2, "teacher": 4, "side": "decoder"}],
        "alignment": {
            "1-1": {"angle": 0.2, "mean_vector": 0.8, "shuffled": 1.1},
            "2-4": {"angle": 1.3, "mean_vector": 0.7, "shuffled": 1.5},
        },
        "comparisons": [
            comparison(SYSTEMS[1], SYSTEMS[3], "wer", 0.14, "worse"),
            comparison(SYSTEMS[2], SYSTEMS[3], "wer", -0.45, "better"),
        ],
        "speed": {
            "real_time_factor": {name: estimate(value) for name, value in ratio.items()},
            "share_of_stock_time": {name: estimate(2 * value) for name, value in ratio.items() if name != "stock"},
            "saving": estimate(0.7),
            "window": estimate(0.86),
            "layers": estimate(0.14),
            "status": {"kind": "busy", "text": "other processes ran.", "remedy": "Time again."},
        },
        "data": {"language": "es", "held_out": {"clips": len(CLIPS), "groups": 5, "sha256": "c" * 64}},
        "student": {
            "params": 63_000_000,
            "share_of_teacher_params": 0.88,
            "bytes": 260_000_000,
            "share_of_teacher_bytes": 0.9,
        },
        "prediction": None,
    }


def text_document() -> dict[str, Any]:
    """The result of a run on text, which a law covers."""
    names = ("teacher", "student, before", "student, distilled")
    return {
        **_shared("text", "text-distil"),
        "systems": [
            {
                "name": name,
                "params": 922_752,
                "documents": 134,
                "metrics": {
                    "nats_per_token": estimate(loss),
                    "perplexity": estimate(2.718**loss),
                    "bits_per_byte": estimate(loss / 2),
                },
                "calibration": None,
                "status": {"kind": "done", "text": "", "remedy": ""},
            }
            for name, loss in zip(names, (3.0, 7.5, 3.6), strict=True)
        ],
        "layer_map": [],
        "alignment": {},
        "comparisons": [comparison("teacher", names[2], "nats_per_token", 0.001, "undecided")],
        "speed": None,
        "data": {"held_out": {"documents": 134, "sha256": "c" * 64}},
        "student": {"params": 164_672, "share_of_teacher_params": 0.18, "bytes": 716_600, "sha256": {}},
        "samples": [{"id": "Ge 8", "prompt": "And God", "reference": "made", "teacher": "said", "student": "the the"}],
        "prediction": {
            "law": "ours",
            "law_sha256": "d" * 64,
            "predicted": {**estimate(3.5), "method": "bootstrap, 21 draws", "level": 0.9},
            "achieved": estimate(3.6),
            "text": "ours predicts 3.500 nats per token; the student reached 3.600.",
            "warnings": [{"input": "student_params", "text": "student_params: a student's size of 99k is outside"}],
        },
    }


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl, one a step."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def transcripts() -> list[dict[str, Any]]:
    """Lines of transcripts.jsonl."""
    return [
        {
            "system": system,
            "id": clip,
            "group": clip,
            "reference": said,
            "transcript": wrote if system == SYSTEMS[3] else "" if system == SYSTEMS[2] else said,
        }
        for system in SYSTEMS
        for clip, said, wrote in CLIPS
    ]


def finished(folder: Path, task: str) -> Path:
    """A finished run's folder."""
    folder.mkdir()
    document = speech_document() if task == "speech" else text_document()
    (folder / "result.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "run.json").write_text("{}", encoding="utf-8")
    write_lines(folder / "log.jsonl", steps())
    if task == "speech":
        write_lines(folder / "transcripts.jsonl", transcripts())
    else:
        checks = [{"step": step, "metric": "loss", **estimate(abs(step - 40) / 20 + 3)} for step in (20, 40, 60)]
        write_lines(folder / "dev.jsonl", checks)
    return folder


def unfinished(folder: Path, count: int = 7) -> Path:
    """The folder of a run that was cut off in the middle of a line."""
    folder.mkdir()
    (folder / "run.json").write_text("{}", encoding="utf-8")
    (folder / "recipe.yaml").write_text(json.dumps(recipe("text", "cut-off")), encoding="utf-8")  # JSON is YAML
    lines = "".join(json.dumps(line) + "\n" for line in steps(count))
    (folder / "log.jsonl").write_text(lines + '{"step": 8, "tot', encoding="utf-8")
    return folder
