"""docs/functions.md has all that the language has, and its examples are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.site import functions
from gdsl.language.errors import LanguageError
from gdsl.language.parse import parse
from gdsl.language.placeholders import check_any

PARTS = (functions.OF_VALUES, functions.OF_DIMS, functions.OF_EDGES, functions.OF_SHAPES, functions.GRAPH)
EXAMPLES = {f"{name}: {value}": value for part in PARTS for name, value in part.items()}


def test_the_page_is_up_to_date(repository: Path) -> None:
    page = (repository / "docs" / "functions.md").read_text(encoding="utf-8")
    assert page == functions.text(), "make it again: python -m docs.site.functions > docs/functions.md"


def test_examples_are_of_functions_that_are_there() -> None:
    tables = (
        functions.FUNCTIONS,
        functions.DIM_REDUCERS,
        {**functions.SEGMENT_REDUCERS, **functions.ORDERED_REDUCERS},
        functions.SPECIAL,
        functions.TRANSFORMS,
    )
    for words, there in zip(PARTS, tables, strict=True):
        assert words.keys() == there.keys()


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_example(example: str) -> None:
    mistakes = []
    for text in functions.program(example):
        try:
            assert check_any(parse(text).layer())
            return
        except LanguageError as error:
            mistakes.append(error)
    pytest.fail("\n".join(error.render() for error in mistakes))
