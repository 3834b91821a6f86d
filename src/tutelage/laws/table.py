"""The runs that a law is fitted on, as a frozen table of columns.

Covers: the table and its hash. Does not cover: reading it from files or the ledger (`tutelage.laws.reading`), nor which
columns a family needs (`tutelage.laws.family`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from tutelage.laws.numbers import FloatArray
from tutelage.records.hashing import sha256_json


@dataclass(frozen=True)
class RunTable:
    """Runs by column letter: the inputs of a family and its loss.

    Args:
        columns: Numbers by letter (N, D, L; N_S, D_S, L_T, L_S; U), all of one length.
        source: Where they were read from, for people.
        counting: What was counted as a parameter and as a token, in the user's words; empty where it was not stated.

    Raises:
        ValueError: The columns differ in length.
    """

    columns: Mapping[str, tuple[float, ...]]
    source: str = ""
    counting: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = {letter: tuple(map(float, values)) for letter, values in self.columns.items()}
        if len({len(values) for values in columns.values()}) > 1:
            raise ValueError("the columns of a table are of one length")
        object.__setattr__(self, "columns", MappingProxyType(columns))
        object.__setattr__(self, "counting", MappingProxyType(dict(self.counting)))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def arrays(self) -> dict[str, FloatArray]:
        """The columns as float64 arrays of shape (runs,)."""
        return {letter: np.array(values, dtype=np.float64) for letter, values in self.columns.items()}

    @property
    def sha256(self) -> str:
        """Hash of the numbers, whatever the order of the rows."""
        letters = sorted(self.columns)
        rows = sorted(zip(*(self.columns[letter] for letter in letters), strict=True))
        return sha256_json({"letters": letters, "rows": rows})

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "columns": {letter: list(values) for letter, values in self.columns.items()},
            "source": self.source,
            "counting": dict(self.counting),
            "sha256": self.sha256,
        }
