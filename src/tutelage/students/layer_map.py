"""Which student block is compared with which teacher block.

Covers maps by name and explicit pairs, their validation and their description for people. Does not cover the rules
(`layer_maps`, one file each), reading states (`tasks.speech.forward`) or comparing them (`objectives.state_terms`).
Loads without torch.

Convention, everywhere in this package: block outputs are counted from 1; 0 is the embedding output, which no adapter
can move, so no map may name it. The last block is read after the final layer norm, as transformers reports it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.errors import InputError
from tutelage.objectives.terms import LayerPair
from tutelage.students.design import LayerMap
from tutelage.students.layer_maps import NamedMap, layer_maps

__all__ = ["LayerPair", "describe", "map_layers"]


def map_layers(
    layer_map: LayerMap,
    n_student: int,
    n_teacher: int,
    origins: Sequence[int] | None = None,
) -> tuple[LayerPair, ...]:
    """The pairs of a layer map, by rising student block.

    By name as in `layer_maps` (last, uniform, origin), or pairs as given.

    Args:
        layer_map: A name, or (student, teacher) pairs counted from 1.
        n_student: Decoder blocks of the student.
        n_teacher: Decoder blocks of the teacher.
        origins: For `origin`: per student block, the index of the teacher block that it was copied from, counted from
            0 as in `Design.decoder_layers` and `ShrunkModel.origins`. None: the student was not cut out of the teacher.

    Raises:
        InputError: All faults of the map at once, with the layers that do exist.

    Source:
        yang2026 (reconstruction): layer-wise mapping; the rounding is ours.

    Example:
        >>> [(pair.student, pair.teacher) for pair in map_layers("uniform", 4, 6)]
        [(1, 2), (2, 3), (3, 5), (4, 6)]
    """
    if n_student < 1 or n_teacher < 1:
        raise InputError(f"a layer map needs at least one block on each side, not {n_student} and {n_teacher}")
    if isinstance(layer_map, str):
        named = layer_maps()[layer_map]
        checked = _check_origins(named, origins, n_student, n_teacher)
        pairs = list(named.pairs(n_student, n_teacher, checked))
    else:
        pairs = list(layer_map)
    _refuse_faults(pairs, n_student, n_teacher)
    return tuple(sorted(LayerPair(student, teacher) for student, teacher in pairs))


def describe(pairs: Sequence[LayerPair], n_student: int, n_teacher: int) -> str:
    """The map as lines of text, with its convention, to be printed when a run starts."""
    lines = ["layer map (decoder blocks counted from 1; the last one is read after the final layer norm):"]
    for pair in pairs:
        if pair.side == "encoder":
            lines.append(
                f"  encoder: student {pair.student} -> teacher {pair.teacher}, last to last, where sound is heard"
            )
            continue
        both_last = ", last to last" if (pair.student, pair.teacher) == (n_student, n_teacher) else ""
        lines.append(f"  student {pair.student} of {n_student} -> teacher {pair.teacher} of {n_teacher}{both_last}")
    return "\n".join(lines)


def _check_origins(
    named: NamedMap, origins: Sequence[int] | None, n_student: int, n_teacher: int
) -> tuple[int, ...] | None:
    """The teacher block, from 1, that each student block was copied from."""
    if origins is None:
        if not named.needs_origins:
            return None
        raise InputError(
            f'layer map "{named.kind}" needs a student whose blocks were copied from the teacher; '
            f'this one has {n_student} blocks of its own. Choose "uniform", "last" or a list of pairs.'
        )
    if len(origins) != n_student:
        raise InputError(f"the student has {n_student} decoder blocks, but the origins of {len(origins)} are given")
    foreign = [index for index in origins if not 0 <= index < n_teacher]
    if foreign:
        raise InputError(
            f"origins {foreign} are no blocks of the teacher, whose {n_teacher} count from 0 to {n_teacher - 1}"
        )
    return tuple(index + 1 for index in origins)


def _refuse_faults(pairs: Sequence[tuple[int, int]], n_student: int, n_teacher: int) -> None:
    faults = [] if pairs else ["the layer map is empty; list at least one (student, teacher) pair"]
    for student, teacher in pairs:
        for owner, layer, layers in (("student", student, n_student), ("teacher", teacher, n_teacher)):
            if 1 <= layer <= layers:
                continue
            zero = " (0 is the embedding output, which no adapter can move)" if layer == 0 else ""
            valid = ", ".join(str(number) for number in range(1, layers + 1))
            faults.append(
                f"layer pair ({student}, {teacher}): the {owner} has no block {layer}{zero}; valid blocks: {valid}"
            )
    repeated = sorted({pair for pair in pairs if list(pairs).count(pair) > 1})
    faults += [f"layer pair {pair} is listed more than once" for pair in repeated]
    if faults:
        raise InputError(faults)
