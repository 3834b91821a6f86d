from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.records.hashing import sha256_file, sha256_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_file_longer_than_a_block(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_the_canonical_form_is_pinned() -> None:
    """Caches and ledgers keep these hashes for years: the form must not drift."""
    assert (
        sha256_json({"b": [1, 2.5, "é"], "a": None}) == hashlib.sha256(b'{"a":null,"b":[1,2.5,"\\u00e9"]}').hexdigest()
    )


@given(st.dictionaries(st.text(), json_values, min_size=2, max_size=5))
def test_the_order_of_keys_is_no_difference(value: dict[str, object]) -> None:
    assert sha256_json(value) == sha256_json(dict(reversed(value.items())))


def test_order_in_a_list_is_a_difference() -> None:
    assert sha256_json([1, 2]) != sha256_json([2, 1])
    assert sha256_json((1, 2)) == sha256_json([1, 2])


@pytest.mark.parametrize("value", [{1: "a"}, {"a": [{2: 3}]}, {"a": Path("x")}, {"a": b"x"}])
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        sha256_json(value)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_numbers_that_json_lacks_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        sha256_json(value)
