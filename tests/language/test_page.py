"""The examples of docs/language.md: each is right, warned about, or refused, as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gdsl.language.errors import LanguageError
from gdsl.language.lint import lint
from gdsl.language.parse import parse
from gdsl.language.placeholders import check_any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "language.md"
EXAMPLES = re.findall(r"^```gdsl ?(\w*)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_there_are_examples() -> None:
    assert {kind for kind, _ in EXAMPLES} == {"", "refused", "warned"}


@pytest.mark.parametrize(("kind", "text"), EXAMPLES, ids=[text.split("(")[0] for _, text in EXAMPLES])
def test_example(kind: str, text: str) -> None:
    layer = parse(text).layer()
    if kind == "refused":
        with pytest.raises(LanguageError):
            check_any(layer)
        return
    assert check_any(layer)
    assert bool(lint(layer)) == (kind == "warned")
