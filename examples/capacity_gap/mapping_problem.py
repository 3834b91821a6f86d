"""The capacity gap in small networks: the mapping problem (`busbridge2025`, Appendix C.2).

    python examples/capacity_gap/mapping_problem.py [--out DIR [--force] [--quick]]

Input: a context of C integers in {0, 1, 2} and a one-hot position i. If context[i] is 0 the label is i; otherwise it is
the other position that holds the same value. MLPs with two equal ReLU layers learn it; a student of fixed width is then
distilled from teachers of growing width. The source gives the rule, the optimiser (Adam 3e-4, cosine, 5 % warm-up),
the batch (512) and that samples never repeat. C, the widths, the steps, the share of easy samples and the encoding of
the context as plain numbers are choices made here. Writes the figure and results/, or both to --out.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from networks import Networks, cross_entropy, train
from outputs import COLOURS, keep, new_figure, read_arguments, run

from tutelage.errors import MissingExtraError
from tutelage.records.provenance import collect_provenance

try:
    import torch
    from torch.nn import functional
except ImportError as error:
    raise SystemExit(f"error: {MissingExtraError('torch', 'speech')}") from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Shapes: M networks side by side, R trials, B samples, C positions.
RULE = "the rule"  # the teacher that grows without end: its targets are the labels themselves


@dataclass(frozen=True)
class Settings:
    """One demonstration. What the source does not give is chosen so that a run takes minutes on one thread.

    Args:
        positions: C, the length of the context.
        easy_share: Share of samples whose label is the position itself.
        teacher_widths: Hidden widths of the teachers.
        students: Hidden width and training steps of each kind of student.
        teacher_steps: Training steps of a teacher.
        trials: Independent repetitions, each with its own samples and initial weights.
        batch: Samples a step.
        learning_rate: Peak of the schedule.
        test_samples: Samples that every network is judged on.
        seed: Seed of everything.
    """

    positions: int = 8
    easy_share: float = 0.5
    teacher_widths: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    students: tuple[tuple[int, int], ...] = ((8, 3000), (16, 3000), (16, 12_000))
    teacher_steps: int = 8000
    trials: int = 5
    batch: int = 512
    learning_rate: float = 3e-4
    test_samples: int = 20_000
    seed: int = 0


QUICK = Settings(teacher_widths=(8, 32), students=((8, 40),), teacher_steps=40, trials=2, batch=64)


def label(context: list[int], i: int) -> int:
    """The rule: i where context[i] is 0, else the other position that holds the same value.

    Example:
        >>> label([1, 1, 2, 0, 1, 2, 0, 0], 5)
        2
    """
    if context[i] == 0:
        return i
    (other,) = (j for j, value in enumerate(context) if value == context[i] and j != i)
    return other


class Samples:
    """An endless stream of samples for R trials at once; none is drawn twice on purpose.

    Args:
        settings: What to draw.
        stream: Number of the stream; another stream holds other samples.
    """

    def __init__(self, settings: Settings, stream: int) -> None:
        self.settings = settings
        self.generator = torch.Generator().manual_seed(1_000_003 * settings.seed + stream)

    def draw(self, trials: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs of shape (R, B, 2C), context and one-hot, and labels of shape (R, B)."""
        C, shape, generator = self.settings.positions, (trials, count, 1), self.generator
        i = torch.randint(C, shape, generator=generator)
        j = (i + torch.randint(1, C, shape, generator=generator)) % C
        value = torch.randint(1, 3, shape, generator=generator)
        easy = torch.randint(3, (trials, count, C), generator=generator).scatter(2, i, 0)
        rest = torch.randint(2, (trials, count, C), generator=generator) * (3 - value)  # 0 or the value not asked for
        hard = rest.scatter(2, i, value).scatter(2, j, value)
        is_easy = torch.rand(shape, generator=generator) < self.settings.easy_share
        one_hot = torch.zeros(trials, count, C).scatter(2, i, 1.0)
        inputs = torch.cat([torch.where(is_easy, easy, hard).float(), one_hot], dim=2)
        return inputs, torch.where(is_easy, i, j).squeeze(2)


@dataclass(frozen=True)
class Judge:
    """The held-out samples, the same for every network."""

    inputs: torch.Tensor
    labels: torch.Tensor

    def score(self, networks: Networks) -> list[float]:
        """Cross-entropy of each network, nats per sample."""
        count = networks.count
        with torch.no_grad():
            logits = networks(self.inputs.expand(count, -1, -1))
            return cross_entropy(logits, self.labels.expand(count, -1)).tolist()


def train_teachers(settings: Settings, width: int) -> Networks:
    """Teachers of one width, one a trial, on labels."""
    samples = Samples(settings, stream=1)  # every width sees the same stream
    teachers = Networks(settings.trials, settings.positions, width, seed=settings.seed)

    def loss(networks: Networks) -> torch.Tensor:
        inputs, labels = samples.draw(settings.trials, settings.batch)
        return cross_entropy(networks(inputs), labels).sum()

    train(teachers, settings.teacher_steps, settings.learning_rate, loss)
    return teachers


def train_students(settings: Settings, teachers: list[Networks], width: int, steps: int) -> Networks:
    """Students of one width by forward KL at temperature 1: R of each teacher's, then R of the rule's own labels.

    Within a trial, the students of all teachers start from the same weights and see the same samples, so that they
    differ by their teacher alone.
    """
    samples = Samples(settings, stream=2)
    sources = len(teachers) + 1
    students = Networks(settings.trials, settings.positions, width, seed=settings.seed + 1).repeat(sources)

    def loss(networks: Networks) -> torch.Tensor:
        inputs, labels = samples.draw(settings.trials, settings.batch)
        with torch.no_grad():
            targets = [torch.softmax(teacher(inputs), dim=-1) for teacher in teachers]
            targets.append(functional.one_hot(labels, settings.positions).float())
        log_student = torch.log_softmax(networks(inputs.repeat(sources, 1, 1)), dim=-1)
        # the teacher's entropy, which makes this a divergence, has no gradient in the student
        return -(torch.cat(targets) * log_student).sum(-1).mean(-1).sum()

    train(students, steps, settings.learning_rate, loss)
    return students


def measure(settings: Settings) -> dict[str, Any]:
    """Cross-entropies of teachers and of the students that they make."""
    start = time.process_time()
    torch.set_num_threads(1)
    judge = Judge(*Samples(settings, stream=0).draw(1, settings.test_samples))
    teachers, teacher_rows = [], []
    for width in settings.teacher_widths:
        teachers.append(train_teachers(settings, width))
        teacher_rows.append({"width": width, "cross_entropy": spread(judge.score(teachers[-1]))})
        print(f"teachers of width {width}: {time.process_time() - start:.0f} s", file=sys.stderr)
    students = []
    for width, steps in settings.students:
        scores = torch.tensor(judge.score(train_students(settings, teachers, width, steps))).view(-1, settings.trials)
        students.append({"width": width, "steps": steps, **describe([*settings.teacher_widths, RULE], scores)})
        print(f"students of width {width}, {steps} steps: {time.process_time() - start:.0f} s", file=sys.stderr)
    return {
        "schema": {"name": "tutelage.capacity_gap.mapping_problem", "version": 1},
        "settings": asdict(settings),
        "unit": "nats per sample",
        "teachers": teacher_rows,
        "students": students,
        "seconds": time.process_time() - start,
        "provenance": collect_provenance().to_dict(),
    }


def describe(teachers: list[int | str], scores: torch.Tensor) -> dict[str, Any]:
    """Students of one width by teacher, `scores` of shape (teachers, R), and how far they rise past the best.

    The best teacher is the one with the lowest median. Rises are paired: each trial's student against that trial's
    student of the best teacher.
    """
    best = int(scores.median(dim=1).values.argmin())
    rows = [
        {
            "teacher": teacher,
            "cross_entropy": spread(row.tolist()),
            "above_best": spread((row - scores[best]).tolist()),
            "trials_above_best": int((row > scores[best]).sum()),
        }
        for teacher, row in zip(teachers, scores, strict=True)
    ]
    return {"best_teacher": teachers[best], "by_teacher": rows}


def spread(values: list[float]) -> dict[str, Any]:
    """Median over trials with the 25-75 % band, and the trials themselves."""
    low, middle, high = torch.quantile(torch.tensor(values), torch.tensor([0.25, 0.5, 0.75])).tolist()
    return {"value": middle, "low": low, "high": high, "level": 0.5, "method": f"quartiles, {len(values)} trials"} | {
        "trials": values
    }


def draw(numbers: dict[str, Any]) -> Figure:
    """Cross-entropy of teachers and students on the left, each trial against its own best on the right."""
    figure = new_figure(2)
    left, right = figure.subplots(1, 2)
    names = [str(row["width"]) for row in numbers["teachers"]] + [RULE]
    teachers = [row["cross_entropy"] for row in numbers["teachers"]]
    band(left, names, teachers, COLOURS[-1], "")
    place = {"xytext": (-6, -12), "textcoords": "offset points", "ha": "right", "va": "top"}
    left.annotate("the teacher itself", (len(teachers) // 2, teachers[len(teachers) // 2]["value"]), **place)
    for colour, student in zip(COLOURS, numbers["students"], strict=False):
        rows, name = student["by_teacher"], f"student of width {student['width']}, {student['steps']:,} steps"
        band(left, names, [row["cross_entropy"] for row in rows], colour, name)
        band(right, names, [row["above_best"] for row in rows], colour, name)
    left.set(title="Teachers keep falling, students do not", ylabel="cross-entropy, nats per sample", ylim=(0, None))
    right.set(title="Past its best teacher a student gets worse", ylabel="student above its best, nats per sample")
    right.set_ylim(*right_limits(numbers["students"]))
    right.axhline(0, color="black", linewidth=0.6)
    right.legend(loc="upper right")
    for axes in (left, right):
        axes.set_xlabel("width of the teacher")
    return figure


def right_limits(students: list[dict[str, Any]]) -> tuple[float, float]:
    """Limits that show what happens from the best teacher on; weaker teachers may leave the panel."""
    highs = [student["by_teacher"][-1]["above_best"]["high"] for student in students]
    return -0.4 * max(*highs, 1e-3), 2.0 * max(*highs, 1e-3)


def band(axes: Axes, names: list[str], spreads: list[dict[str, Any]], colour: str, name: str) -> None:
    """A median line with markers in its 25-75 % band; the rule itself stands apart from the trained teachers."""
    places = range(len(spreads))
    axes.fill_between(places, [s["low"] for s in spreads], [s["high"] for s in spreads], color=colour, alpha=0.2, lw=0)
    axes.plot(places, [s["value"] for s in spreads], "o-", color=colour, label=name, markersize=4)
    axes.set_xticks(range(len(names)), names)


def main() -> int:
    """Train, draw, write."""
    arguments, places = read_arguments(__doc__ or "", "mapping_problem", "capacity_gap.json")

    def work() -> None:
        new_figure(1)  # a missing matplotlib is found before minutes of training
        numbers = measure(QUICK if arguments.quick else Settings())
        keep(places, draw(numbers), numbers)

    return run(work)


if __name__ == "__main__":
    sys.exit(main())
