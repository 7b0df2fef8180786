"""Each word and function of the language has a line that says what it means, and nothing else has."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gdsl.ir.types import EDGES_OF_PAIRS, ENDS
from gdsl.language import meanings
from gdsl.language.check import check
from gdsl.language.errors import LanguageError
from gdsl.language.forms import SPECIAL
from gdsl.language.functions import DIM_REDUCERS, FUNCTIONS, ORDERED_REDUCERS, SEGMENT_REDUCERS
from gdsl.language.parse import parse
from gdsl.language.program import INITS, NORMS
from gdsl.language.recover import KEYWORDS, OWNED
from gdsl.language.transforms import TRANSFORMS
from gdsl.language.tree import CONSTANTS


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (meanings.FUNCTIONS, [*FUNCTIONS, *SPECIAL, *SEGMENT_REDUCERS, *ORDERED_REDUCERS, *DIM_REDUCERS]),
        (meanings.WORDS, [*KEYWORDS, *OWNED, "from", "over"]),
        (meanings.TRANSFORMS, TRANSFORMS),
        (meanings.INITS, INITS),
        (meanings.ENDS, [*ENDS, *EDGES_OF_PAIRS, "reverse"]),
        (meanings.CONSTANTS, CONSTANTS),
        (meanings.NORMS, NORMS),
    ],
    ids=["functions", "words", "transforms", "inits", "ends", "constants", "norms"],
)
def test_all_of_them(table: dict[str, tuple[meanings.Meaning, ...]], words: Iterable[str]) -> None:
    assert set(table) == set(words)
    for word, found in table.items():
        for m in found:
            assert word in m.form
            assert len(m.form) <= 80
            assert m.says
            assert "\n" not in m.says


def test_a_function_says_each_of_its_forms() -> None:
    """``sum(m)`` over edges, ``sum[d](x)`` along a dim, ``max(a, b)`` of values."""
    for word, found in meanings.FUNCTIONS.items():
        along = any(m.form.startswith(f"{word}[d]") for m in found)
        assert along == (word in DIM_REDUCERS), word


def test_kinds_are_those_that_the_checker_takes() -> None:
    for word in meanings.KINDS:
        bound = "(3)" if word == "int" else ""
        (layer,) = parse(f"layer A {{ node x[2] edge e: {word}{bound} update y = x }}").layers
        assert check(layer, {}).of_role("input")[1].type is not None
    with pytest.raises(LanguageError, match="there are int"):
        check(parse("layer A { node x: long update y = x }").layers[0], {})
