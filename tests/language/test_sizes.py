"""Equal size expressions give equal names."""

from __future__ import annotations

import pytest

from gdsl.language import ast
from gdsl.language.forms import Forms
from gdsl.language.parse import parse
from gdsl.language.sizes import Size
from gdsl.language.values import Scope


def name_of(text: str) -> tuple[str, int]:
    (rule,) = parse(f"layer A {{ x = {text} }}").layer().body
    assert isinstance(rule, ast.Rule)
    size, value = Forms(Scope({"a": 4, "b": 6, "K": 3}), training=False).size(rule.value)
    return str(size), value


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("a", "a", 4),
        ("a'", "a'", 4),
        ("7", "7", 7),
        ("3'", "3'", 3),
        ("a * b", "a*b", 24),
        ("b * a", "b*a", 24),
        ("2 * a", "2*a", 8),
        ("a * 2", "2*a", 8),
        ("a + a", "2*a", 8),
        ("a + 1", "a+1", 5),
        ("1 + a", "a+1", 5),
        ("a + b + a", "2*a+b", 14),
        ("(a + b) * 2", "2*a+2*b", 20),
        ("K - 1 + 1", "K", 3),
        ("a - a + 2", "2", 2),
        ("b / 2", "b/2", 3),
        ("(a + b) / 5", "(a+b)/5", 2),
        ("2 ** 3", "8", 8),
        ("K ** 2", "K**2", 9),
        ("K ** 2 * a", "K**2*a", 36),
        ("max(a, b)", "max(a,b)", 6),
    ],
)
def test_name(text: str, name: str, value: int) -> None:
    assert name_of(text) == (name, value)


def test_arithmetic() -> None:
    a, b = Size.symbol("a"), Size.symbol("b")
    assert str(a + b - a) == "b"
    assert str(a - b) == "a-b"
    assert str(a * (b + Size.number(1))) == "a*b+a"
    assert str(a - a) == "0"
    assert Size.number(3).as_number() == 3
    assert a.as_number() is None
