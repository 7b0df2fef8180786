"""Every kind of mistake and its exact message: mistakes.txt holds programs and what is said about them.

After a change that is meant, rewrite the file with
``GDSL_UPDATE=1 pytest tests/language/test_errors.py``, and review it like code.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from gdsl.errors import GdslError
from gdsl.language.check import check
from gdsl.language.errors import LanguageError
from gdsl.language.parse import MAX_TEXT, parse

GOLDEN = Path(__file__).parent / "mistakes.txt"

# The start of a program; a case marked `body` goes on from here.
HEAD = """layer A(d = 2, k = 3, flag = true) {
    node x[d]
    edge w[d]
    edge rel: int(k)
    param W[d, k] ~ glorot
"""


def cases() -> list[tuple[str, str, str]]:
    """(kind, program, message) for each block of the golden file."""
    found = []
    for block in GOLDEN.read_text().split("=== ")[1:]:
        kind, _, rest = block.partition("\n")
        program, _, message = rest.partition("\n--- says\n")
        found.append((kind, program.removesuffix("\n") if not message else program, message.removesuffix("\n")))
    return found


def message(kind: str, program: str) -> str:
    text = program
    if kind == "body":
        lines = program.split("\n")
        text = HEAD + "\n".join("    " + line for line in lines) + "\n}\n"
    with pytest.raises(LanguageError) as caught:
        check(parse(text).layer(), {})
    return str(caught.value)


if os.environ.get("GDSL_UPDATE"):
    blocks = [(kind, program, message(kind, program)) for kind, program, _ in cases()]
    GOLDEN.write_text("".join(f"=== {k}\n{p}\n--- says\n{m}\n" for k, p, m in blocks))


@pytest.mark.parametrize(("kind", "program", "expected"), cases())
def test_message(kind: str, program: str, expected: str) -> None:
    assert message(kind, program) == expected


def test_several_mistakes_at_once() -> None:
    source = """layer A(d) {
    node x[d]
    edge w[d]
    message m = x * w
    aggregate a = sum(m)
    update y = a + b
    z = tahn(x)
}"""
    with pytest.raises(LanguageError) as caught:
        check(parse(source).layer(), {"d": 2})
    # `a` comes from a statement with a mistake: nothing is said about it, and `b` is still looked at.
    assert [d.message for d in caught.value.diagnostics] == [
        "a node value and an edge value do not mix",
        "unknown name `b`",
        "unknown function `tahn`",
    ]
    assert [(d.span.line, d.span.column) for d in caught.value.diagnostics] == [(4, 17), (6, 20), (7, 9)]


def test_error_is_a_gdsl_error_and_a_value_error() -> None:
    with pytest.raises(LanguageError) as caught:
        parse("layer")
    assert isinstance(caught.value, GdslError)
    assert isinstance(caught.value, ValueError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_file_name_is_shown() -> None:
    with pytest.raises(LanguageError, match=r"--> conv.gdsl, line 1, column 1"):
        parse("", "conv.gdsl")


def test_arguments() -> None:
    layer = parse("layer Conv(in_channels, heads = 1) { node x[in_channels] update y = x }").layer()
    with pytest.raises(LanguageError, match="Conv needs a value for `in_channels`"):
        check(layer, {})
    with pytest.raises(LanguageError, match="Conv has no argument `haeds`") as caught:
        check(layer, {"in_channels": 2, "haeds": 2})
    assert caught.value.diagnostics[0].hint == "did you mean `heads`?"
    with pytest.raises(LanguageError, match="`heads` must be a number, true or false, a string or none, not list"):
        check(layer, {"in_channels": 2, "heads": [1]})


def test_module_that_does_not_fit() -> None:
    from torch import nn

    layer = parse("layer A(d) { module nn node x[d] update y = nn(x) }").layer()
    with pytest.raises(LanguageError, match="module `nn` takes 3 features, and dim `d` has 2"):
        check(layer, {"d": 2}, modules={"nn": nn.Linear(3, 4)})


# ---------------------------------------------------------------------- texts made to do harm


@pytest.mark.parametrize(
    "text",
    [
        "layer A { x = " + "(" * 5000 + "1" + ")" * 5000 + " }",
        "layer A { x = " + "-" * 5000 + "1 }",
        "layer A { x = " + "not " * 5000 + "true }",
        "layer A { x = " + "2 ** " * 5000 + "1 }",
        "layer A { x = 1" + " + 1" * 5000 + " }",
        "layer A { x = " + "exp(" * 3000 + "1" + ")" * 3000 + " }",
        "layer A { " + "if true { " * 3000 + "} " * 3000 + "}",
        "layer A { " + "if a { } else " * 3000 + "{ } }",
        "layer A { x = 1" + "[1]" * 5000 + " }",
        "layer A { x = " + "9" * 50_000 + " }",
        "layer A { x = 1e" + "9" * 5000 + " }",
        "#" * (MAX_TEXT + 1),
        "layer A { x = 9 ** 9 ** 9 ** 9 }",
        "layer A { for a in 1..9999 { for b in 1..9999 { x = 1 } } }",
        "layer A { for a in 1..1e300 { x = 1 } }",
        "layer A { for a in 1..inf { x = 1 } }",
        "layer A { param w[inf] ~ zeros }",
        "layer A { param w[" + "*".join(["(a + b)"] * 90) + "] ~ zeros }",
        "layer A { def f0(x) = x "
        + "".join(f"def f{k + 1}(x) = f{k}(x) + f{k}(x) " for k in range(39))
        + "y = f39(1) }",
        "layer A { def f(x) = f(x) + f(x) y = f(1) }",
        "\0",
        "layer A { x = \ud800 }",
    ],
    ids=range(22),
)
def test_hostile_text(text: str) -> None:
    with pytest.raises(LanguageError):
        check(parse(text).layer(), {})


def test_long_line_is_shown_in_part() -> None:
    with pytest.raises(LanguageError) as caught:
        parse("layer A { x = " + "1 + " * 1000 + "$ }")
    assert max(len(line) for line in str(caught.value).split("\n")) < 200
