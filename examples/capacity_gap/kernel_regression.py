"""The capacity gap in closed form: kernel regression under a norm cap (`busbridge2025`, Appendix C.1).

    python examples/capacity_gap/kernel_regression.py [--out DIR [--force] [--quick]]

The target is a sum of 1000 orthonormal basis functions with coefficients a_i ~ U[-1, 1]. A teacher fits it with the
first m of them under a cap on its norm; a student fits the *teacher* with the first n under a smaller cap. Every error
has a closed form, so nothing is trained and no optimiser can be blamed. Writes the figure and results/, or both
to --out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from outputs import COLOURS, keep, new_figure, read_arguments, run

from tutelage.records.provenance import collect_provenance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

FUNCTIONS = 1000  # basis functions of the target
TEACHER_CAP = 5.0  # T, the largest norm of a teacher's coefficients
STUDENT_CAP = 4.5  # D, likewise of a student's
STUDENTS = (50, 100, 400)  # n, the student's basis functions
SEED = 0  # of the target whose errors are printed
OTHER_TARGETS = 200  # further targets, seeds 1 and up: the figure shows their median and 25-75 % range
QUICK_TARGETS = 5
BAND = {"low": 0.25, "median": 0.5, "high": 0.75}
ROUNDING = 1e-12  # errors that differ by less are equal: the student's curve is flat until its own cap binds no more


@dataclass(frozen=True)
class Target:
    """The function to learn, by its coefficients.

    Args:
        coefficients: a_i in the order in which models take up basis functions, shape (functions,).
    """

    coefficients: Floats

    @property
    def norm(self) -> float:
        """The norm of the target, which is the error of a model that always says zero."""
        return float(np.sqrt(self._inside(FUNCTIONS)))

    def _inside(self, functions: int | npt.NDArray[np.int64]) -> Floats:
        """Sum of a_i^2 over the first `functions`."""
        sums: Floats = np.concatenate([[0.0], np.cumsum(self.coefficients**2)])
        return sums[functions]

    def teacher_scale(self, m: npt.NDArray[np.int64]) -> Floats:
        """C, by which a teacher's coefficients fall short of the target's because of its cap."""
        return np.minimum(1.0, TEACHER_CAP / np.sqrt(self._inside(m)))

    def _error(self, scale: Floats, functions: npt.NDArray[np.int64]) -> Floats:
        """Distance of `scale` times the first `functions` from the target."""
        inside = self._inside(functions)
        error: Floats = np.sqrt((scale - 1.0) ** 2 * inside + (self._inside(FUNCTIONS) - inside))
        return error

    def teacher_error(self, m: npt.NDArray[np.int64]) -> Floats:
        """e_teacher, the distance of the teacher with the first m basis functions from the target."""
        return self._error(self.teacher_scale(m), m)

    def student_error(self, m: npt.NDArray[np.int64], n: int) -> Floats:
        """e_student, the distance from the target of the student with n basis functions that fits that teacher."""
        k = np.minimum(m, n)
        teacher = self.teacher_scale(m)
        fitted = np.minimum(1.0, STUDENT_CAP / (teacher * np.sqrt(self._inside(k))))
        return self._error(teacher * fitted, k)


def draw_target(seed: int) -> Target:
    """The target of one seed."""
    return Target(np.random.default_rng(seed).uniform(-1.0, 1.0, FUNCTIONS))


def measure(targets: int) -> dict[str, Any]:
    """Errors against the teacher's size: of the target of `SEED`, and their spread over more targets."""
    m = np.arange(1, FUNCTIONS + 1)
    kept = np.union1d(np.geomspace(1, FUNCTIONS, 60).round().astype(int), STUDENTS)  # the sizes that are drawn
    shown = draw_target(SEED)
    others = [draw_target(SEED + 1 + k) for k in range(targets)]
    norms = np.array([[target.norm] for target in others])
    students = []
    for n in STUDENTS:
        curve = shown.student_error(m, n)
        every = np.array([target.student_error(m, n) for target in others])
        rises = (every[:, -1] - every[:, n - 1]) / norms[:, 0]
        students.append(
            {
                "n": n,
                "best_m": int(m[np.argmin(curve)]),
                "best_error": float(curve[n - 1]),
                "error_at_largest_m": float(curve[-1]),
                "other_targets": {
                    "best_at_n": int((every[:, n - 1] <= every.min(axis=1) * (1 + ROUNDING)).sum()),
                    "relative_rise": dict(zip(BAND, np.quantile(rises, list(BAND.values())).tolist(), strict=True)),
                },
                "error": curve[kept - 1].tolist(),
                "relative_error": bands(every[:, kept - 1] / norms),
            }
        )
    return {
        "schema": {"name": "tutelage.capacity_gap.kernel_regression", "version": 1},
        "settings": {
            "functions": FUNCTIONS,
            "teacher_cap": TEACHER_CAP,
            "student_cap": STUDENT_CAP,
            "seed": SEED,
            "other_targets": targets,
            "band": "25-75 % of the other targets; relative errors are divided by the norm of their target",
        },
        "target_norm": shown.norm,
        "m": kept.tolist(),
        "teacher_error": shown.teacher_error(kept).tolist(),
        "teacher_relative_error": bands(np.array([target.teacher_error(kept) for target in others]) / norms),
        "students": students,
        "provenance": collect_provenance().to_dict(),
    }


def bands(every: Floats) -> dict[str, list[float]]:
    """Quartiles over targets, `every` of shape (targets, sizes)."""
    return {name: np.quantile(every, share, axis=0).tolist() for name, share in BAND.items()}


def draw(numbers: dict[str, Any]) -> Figure:
    """Teachers on the left, the students that they make on the right."""
    figure = new_figure(2)
    left, right = figure.subplots(1, 2)
    m = numbers["m"]
    draw_band(left, m, numbers["teacher_relative_error"], COLOURS[-1])
    left.set(title="The teacher only gets better with its size", ylabel="teacher's error / norm of the target")
    for colour, student in zip(COLOURS, numbers["students"], strict=False):
        n, middle = student["n"], student["relative_error"]["median"]
        draw_band(right, m, student["relative_error"], colour)
        right.plot(n, middle[m.index(n)], "o", color=colour)
        place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        right.annotate(f"n = {n}", (m[-1], middle[-1]), color=colour, annotation_clip=False, **place)
    right.set(title="Its student is best when both are of one size", ylabel="student's error / norm of the target")
    for axes in (left, right):
        axes.set(xlabel="basis functions of the teacher, m", xscale="log")
    return figure


def draw_band(axes: Axes, m: list[int], spread: dict[str, list[float]], colour: str) -> None:
    """A median line in its 25-75 % band."""
    axes.fill_between(m, spread["low"], spread["high"], color=colour, alpha=0.2, linewidth=0)
    axes.plot(m, spread["median"], color=colour)


def main() -> int:
    """Compute, draw, write."""
    arguments, places = read_arguments(__doc__ or "", "kernel_regression", "capacity_gap_kernel_regression.json")

    def work() -> None:
        numbers = measure(QUICK_TARGETS if arguments.quick else OTHER_TARGETS)
        keep(places, draw(numbers), numbers)

    return run(work)


if __name__ == "__main__":
    sys.exit(main())
