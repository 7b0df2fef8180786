"""A text with mistakes as far as it parses."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdsl.editor.recovery import expected, trees_of
from gdsl.editor.tokens import UNKNOWN, TextLines, edited, tokens, units, with_comments
from gdsl.language.parse import parse

HEAD = "layer A(d) {\n    node x[d]\n    edge w\n"


def names(text: str) -> list[str]:
    return [getattr(s, "name", type(s).__name__) for layer in trees_of(text) for s in layer.body]


def test_programs_without_mistakes(repository: Path) -> None:
    files = [*repository.rglob("examples/*.gdsl"), *repository.rglob("gdsl/nn/**/*.gdsl")]
    assert len(files) > 20
    for file in files:
        text = file.read_text()
        program = parse(text)
        assert trees_of(text) == (*program.uses, *program.layers)


@pytest.mark.parametrize(
    ("rest", "kept"),
    [
        ("    h = sum(\n    update y = x\n}", ["x", "w", "y"]),  # a bracket that is never closed
        ("    h = x +\n    k = x\n    update y = k\n}", ["x", "w", "k", "y"]),  # whose next line begins with a name
        ("    h = x[\n    k = x\n    return k", ["x", "w", "k", "Return"]),  # and none of the braces is closed
        ("    h = x )\n    update y = h\n}", ["x", "w", "y"]),  # a bracket too many
        ("    mesage m = x[j]\n    update y = x\n}", ["x", "w", "m", "y"]),
        ("    param p[d] = none ~ zeros\n    update y = x\n}", ["x", "w", "y"]),  # refused by the tree builder
        ("    h = 10000000000000000000\n    update y = x\n}", ["x", "w", "y"]),
        ("    h = ??? + $\n    update y = x\n}", ["x", "w", "y"]),
        ("    for k in 1..3 {\n        h = x\n        g =\n", ["x", "w", "Loop"]),
        ("    update", ["x", "w"]),
        ("    node", ["x", "w"]),
        ("    if d {", ["x", "w", "Branch"]),
    ],
)
def test_what_is_left_of_a_layer(rest: str, kept: list[str]) -> None:
    found = names(HEAD + rest)
    assert [n.replace("k", "Loop") if "for" in rest else n for n in found] == kept


def test_a_layer_that_is_never_closed_ends_where_the_next_one_starts() -> None:
    text = HEAD + "    h = x +\n\nlayer B { node z[3] update y = z }"
    assert [(layer.name, len(layer.body)) for layer in trees_of(text)] == [("A", 2), ("B", 2)]


def test_spans_are_those_of_the_text() -> None:
    text = "# 𝛼\nlayer A {\n    junk junk junk(\n    node x[3]\n\n\n    update y = x }"
    (layer,) = trees_of(text)
    for s, words in zip(layer.body, ["node x[3]", "update y = x"], strict=True):
        assert text[s.span.start : s.span.end] == words
        line = text.split("\n")[s.span.line - 1]
        assert line[s.span.column - 1 :].startswith(words)


@given(st.randoms(use_true_random=False))
def test_any_text_has_layers(draw: random.Random) -> None:
    """Tokens left out, doubled and moved: whatever is found has the spans of the text, and nothing is raised."""
    text = (Path(__file__).parents[2] / "examples" / "gat.gdsl").read_text()
    pieces = [t.text for t in tokens(text)]
    for _ in range(draw.randrange(1, 6)):
        k, n = draw.randrange(len(pieces)), draw.randrange(len(pieces))
        pieces[k : k + draw.randrange(3)] = pieces[n : n + draw.randrange(3)]
    broken = " ".join(pieces)
    for layer in trees_of(broken):
        assert broken[layer.span.start :].startswith("layer")
        for s in layer.body:
            assert layer.span.start < s.span.start < s.span.end <= layer.span.end


@pytest.mark.parametrize(
    ("before", "some", "none"),
    [
        ("", {"LAYER"}, {"NAME"}),
        (HEAD, {"ROLE", "RULE", "NAME", "RBRACE", "FOR"}, {"NUMBER", "ELSE", "LAYER"}),
        (HEAD + "y = ", {"NAME", "NUMBER"}, {"ROLE"}),
        (HEAD + "y = sum(x", {"RPAR", "PLUS"}, {"ROLE", "RBRACE"}),
        (HEAD + "junk junk junk y = ", {"NUMBER"}, {"ROLE"}),  # behind a mistake
        (HEAD + "if d { } ", {"ELSE", "ROLE"}, {"IN"}),
        (HEAD + "for k ", {"IN"}, {"NAME"}),
    ],
)
def test_what_may_come_next(before: str, some: set[str], none: set[str]) -> None:
    found = expected(list(tokens(before)))
    assert some <= found
    assert not none & found


def test_tokens_cover_the_text(repository: Path) -> None:
    text = (repository / "examples" / "published.gdsl").read_text() + ' $ "open\n# end'
    end = 0
    for token in with_comments(text):
        assert text[token.start : token.end] == token.text
        assert text[end : token.start].strip() == ""
        end = token.end
    assert [t.text for t in with_comments(text)][-1] == "# end"
    assert [t.text for t in tokens(text) if t.kind == UNKNOWN] == ["$", '"']


@given(st.text(alphabet="a𝛼∑é\n\r\u2028", max_size=30), st.sampled_from(["utf-8", "utf-16", "utf-32"]))
def test_places(text: str, encoding: str) -> None:
    lines = TextLines.of(text, encoding)
    for offset in range(len(text) + 1):
        line, column = lines.place(offset)
        assert lines.starts[line] <= offset
        assert column == units(text[lines.starts[line] : offset], encoding)
        if text[offset - 1 : offset + 1] != "\r\n":
            assert lines.offset(line, column) == offset
    codec = {"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}[encoding]
    assert units(text, encoding) == len(text.encode(codec)) // {"utf-8": 1, "utf-16": 2, "utf-32": 4}[encoding]
    assert lines.offset(10**6, 0) == len(text)
    assert edited(text, (0, 0), (10**6, 0), "new", encoding) == "new"
    assert edited(text, (10**6, 0), (10**6, 3), "!", encoding) == text + "!"
