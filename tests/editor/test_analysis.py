"""What is said about a text: mistakes, types, names, completions. Pure functions of a text and a place."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdsl.editor import names
from gdsl.editor.analysis import analyse
from gdsl.editor.complete import completions
from gdsl.editor.fixes import fixes, forms
from gdsl.editor.hover import hover
from gdsl.editor.names import definition
from gdsl.errors import GdslError
from gdsl.language.errors import LanguageError
from gdsl.language.imports import Folder
from gdsl.language.lint import lint
from gdsl.language.parse import parse
from gdsl.language.placeholders import check_any
from tests.language.test_errors import HEAD as ERRORS_HEAD
from tests.language.test_errors import cases

TEXT = """layer A(d, k, K = 2, slope = 0.2, bias = true) {
    graph symmetric_norm
    param w[d, d'] ~ glorot
    param bias[d] ~ zeros = none
    linear lin(d -> k)
    node x[d]
    edge e[c] = 1
    def f(a, b) = a * b + norm(a)
    h = f(x, b = rename(x @ w, d' -> d))
    for n in 1..K { h = leaky_relu(sum(norm * h[j]), slope) }
    message m = lin(h[i] - h[j])
    aggregate y = sum(m) + sum(sum[c](e))
    if bias { y = y + sum[d](bias) }
    return y
}
"""
A = analyse(TEXT)


def place(words: str, text: str = TEXT) -> int:
    """Where ``|`` stands in words that the text has once."""
    assert text.count(words.replace("|", "")) == 1, words
    return text.index(words.replace("|", "")) + words.index("|")


# ---------------------------------------------------------------------------------------- mistakes


def said_by_check(text: str) -> set[tuple[str, int]]:
    """What ``gdsl check`` says."""
    try:
        layers = parse(text).layers
    except LanguageError as error:
        return {(d.message, d.span.start) for d in error.diagnostics}
    found = {(d.message, d.span.start) for layer in layers for d in lint(layer)}
    for layer in layers:
        try:
            check_any(layer)
        except LanguageError as error:
            found |= {(d.message, d.span.start) for d in error.diagnostics}
    return found


def test_mistakes_are_those_of_the_checker() -> None:
    count = 0
    for kind, program, _ in cases():
        text = ERRORS_HEAD + program + "\n}\n" if kind == "body" else program
        if kind not in ("body", "program") or len(text) > 4000:
            continue
        found = analyse(text).diagnostics
        said = {(d.message, d.span.start) for d in found}
        # The command says no more of a text with a mistake that one of its layers alone has not.
        assert said == said_by_check(text) or (said > said_by_check(text) and text.count("layer") > 1), text
        for d in found:
            lines = text[: d.span.start].split("\n")
            assert (d.span.line, d.span.column) == (len(lines), len(lines[-1]) + 1)
        count += 1
    assert count > 100


def test_a_layer_is_looked_at_by_itself() -> None:
    """A mistake in one hides none in another, and places are those of the text."""
    text = f"# first\n{TEXT}\n# second\nlayer B {{ node x[3] update y = z }}\nlayer C {{ node x[3] update y = ( }}"
    found = [d for d in analyse(text).diagnostics if d.severity == "error"]
    assert [(d.message, d.span.line) for d in found] == [("unknown name `z`", 19), ("`(` is never closed", 20)]


@pytest.mark.parametrize("text", ["", "# nothing\n", ";", "lay A { }", "layer", "\ufffd"])
def test_a_text_without_a_layer(text: str) -> None:
    found = analyse(text)
    assert {(d.message, d.span.start) for d in found.diagnostics} == said_by_check(text)
    assert found.diagnostics
    assert hover(found, 0) is None or text.startswith("layer")
    assert not names.outline(found)


def test_no_program_of_the_repository_has_a_mistake(repository: Path) -> None:
    for file in [*repository.rglob("examples/*.gdsl"), *repository.rglob("gdsl/nn/**/*.gdsl")]:
        assert not [d for d in analyse(file.read_text()).diagnostics if d.severity == "error"], file


# ------------------------------------------------------------------------------------------- hover


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("message |m =", "message m: edge[k]", "message m = lin(h[i] - h[j])"),
        ("sum(|m)", "message m: edge[k]", "message m"),
        ("node |x[d]", "node x: node[d]", "node x[d]"),
        ("param |w", "param w: global[d, d']", "glorot"),
        ("|lin(h", "linear lin: d -> k", "linear lin(d -> k)"),
        ("A(|d", "argument d: a number", ""),
        ("|slope)", "argument slope: a number", "slope = 0.2"),
        ("|f(x", "def f: a function", "def f(a, b)"),
        ("(|a, b)", "parameter a: node[d]", "def f(a, b)"),
        ("f(x, |b", "parameter b: node[d]", "def f(a, b)"),
        ("if |bias", "param bias: global[d]", "none"),
        ("in 1..|K", "argument K", "K = 2"),
        ("(|norm *", "norm: edge", "graph symmetric_norm"),
        ("|norm(a)", "norm(x)", "Euclidean"),
        ("|leaky_relu(", "leaky_relu(x, slope = 0.01)", "positive"),
        ("|sum[c]", "sum[d](x)", "Here: `edge`"),
        ("h[|i]", "x[i]", "target of an edge"),
        ("x |@ w", "node[d']", ""),
        ("e[|c]", "c", "a dim of `e`"),
        ("~ |glorot", "~ glorot", "Glorot"),
        ("graph |symmetric_norm", "graph symmetric_norm", "edges into"),
        ("|aggregate", "aggregate a = sum(m)", "each node"),
        ("layer |A", "layer A(d, k, K = 2", ""),
    ],
)
def test_hover(words: str, code: str, says: str) -> None:
    found = hover(A, place(words))
    assert found is not None
    assert code in found.code
    assert says in "\n".join(found.says)
    assert found.start <= place(words) < found.end


def test_hover_where_there_is_nothing() -> None:
    for words in ("|    node", "0.2,| bias", "= 1\n|"):
        assert hover(A, place(words)) is None


def test_types_of_a_program_with_mistakes() -> None:
    """A statement that is being written, and one of wrong types, hide the types of no other."""
    for wrong in ("    y = sum(\n", "    message q = x\n", "    y = nowhere\n", "    junk junk\n"):
        text = TEXT.replace("    message m", wrong + "    message m")
        found = hover(analyse(text), place("message |m =", text))
        assert found is not None
        assert "edge[k]" in found.code


# ------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("words", "goes"),
    [
        ("sum(|m)", "message |m ="),
        ("return |y", "bias { |y ="),
        ("bias { y = |y", "aggregate |y"),
        ("norm * |h", "|h = f"),
        ("lin(|h[i]", "{ |h ="),
        ("|lin(h", "linear |lin"),
        ("if |bias", "param |bias"),
        ("f(x, |b", "f(a, |b)"),
        ("= a * |b", "f(a, |b)"),
        ("x[|d]", "A(|d"),
        ("(|norm *", "|symmetric_norm"),
    ],
)
def test_definition(words: str, goes: str) -> None:
    found = names.definition(A, place(words))
    assert found is not None
    assert found.start == place(goes)


def test_no_definition() -> None:
    for words in ("|norm(a)", "h[|i]", "~ |glorot", "|leaky_relu", "e[|c]", "|message"):
        assert names.definition(A, place(words)) is None


@pytest.mark.parametrize(
    ("words", "new", "lines"),
    [
        ("|h = f", "hidden", 3),
        ("A(|d", "width", 7),  # with d', its second name
        ("f(|a, b", "x", 1),  # a name of the layer that the body does not read
        ("f(|a, b", "first", 1),
        ("f(|a, b", "norm", 1),  # the body calls the function of that name, which no value hides
        ("f(a, |b)", "second", 2),  # and where it is passed by name
        ("e[|c]", "channels", 2),
        ("|f(x", "product", 2),
        ("if |bias", "shift", 3),
    ],
)
def test_rename(words: str, new: str, lines: int) -> None:
    pieces = names.rename(A, place(words), new)
    after = names.renamed(TEXT, pieces, new)
    changed = [line for line, other in zip(after.split("\n"), TEXT.split("\n"), strict=True) if line != other]
    assert len(changed) == lines
    assert not [d for d in analyse(after).diagnostics if d.severity == "error"]
    # What is renamed back is the text.
    start = pieces[0].start
    old = TEXT[start : pieces[0].end]
    assert names.renamed(after, names.rename(analyse(after), start, old), old) == TEXT


@pytest.mark.parametrize(
    ("words", "new", "why"),
    [
        ("|h = f", "x", "`x` is taken already, in line 6"),
        ("f(|a, b", "b", "`b` is taken already"),
        ("|h = f", "node", "`node` is a reserved word"),
        ("|h = f", "1h", "is no name"),
        ("|h = f", "h'", "is no name"),
        ("|h = f", "i", "has a meaning in the language"),
        ("|h = f", "pi", "has a meaning in the language"),
        ("|f(x", "relu", "has a meaning in the language"),
        ("node |x", "lambda", "a word of Python"),
        ("param |w", "train", "torch module"),
        ("A(|d", "backend", "an argument of every layer"),
        ("(|norm *", "n", "is what a `graph` statement makes"),
        ("|norm(a)", "n", "there is no name here"),
        ("h[|i]", "n", "is a name of the language"),
        ("|message", "n", "there is no name here"),
    ],
)
def test_rename_refuses(words: str, new: str, why: str) -> None:
    with pytest.raises(names.RenameError, match=why):
        names.rename(A, place(words), new)


def test_every_name_of_a_program_can_be_renamed(repository: Path) -> None:
    """To a fresh name and back: the same text, and a program without mistakes between."""
    files = (repository / "examples" / name for name in ("gat.gdsl", "equivariant.gdsl"))
    text = "".join([*(path.read_text() for path in files), SEVERAL])
    analysis, count = analyse(text), 0
    for section, start in zip(analysis.sections, analysis.starts, strict=True):
        for symbol in {m.symbol: None for m in section.names.mentions if m.gives}:
            at = section.names.of(symbol)[0].token.start + start
            try:
                pieces = names.rename(analysis, at, "fresh_name")
            except GdslError as error:
                assert "`graph` statement" in str(error)  # noqa: PT017
                continue
            after = names.renamed(text, pieces, "fresh_name")
            assert not [d for d in analyse(after).diagnostics if d.severity == "error"], symbol
            assert names.renamed(after, names.rename(analyse(after), at, symbol.name), symbol.name) == text
            count += 1
    assert count > 30


def test_outline() -> None:
    (layer,) = names.outline(A)
    kinds = {(e.kind, e.name) for e in layer.inside}
    assert {("argument", "K"), ("param", "w"), ("def", "f"), ("message", "m"), ("value", "h")} <= kinds
    for entry in layer.inside:
        assert TEXT[entry.name_at.start : entry.name_at.end] == entry.name
        assert layer.whole.start <= entry.whole.start <= entry.name_at.start < entry.whole.end <= layer.whole.end


# -------------------------------------------------------------------------------------- completion

SEVERAL = """layer Typed(d) {
    nodes paper, author
    graph writes: author -> paper, cites: paper -> paper
    node p[d] in paper
    node a[d] in author
    edge w in cites
    graph symmetric_norm(w) over cites
    s = softmax(p[i] * a[j] over writes, w * p[j])
    message m over writes = s[writes] * a[j]
    update y = sum(m) + sum(s[cites] * p[j])
}
"""
START = "layer A(d, k, K = 2) {\n    node x[d]\n    edge w\n    linear lin(d -> k)\n    h = x\n    "


@pytest.mark.parametrize(
    ("text", "some", "none"),
    [
        ("|", ["layer"], ["node", "x"]),
        ("la|", ["layer"], ["node"]),
        (START + "|", ["message", "node", "linear", "for", "return", "h"], ["layer", "relu", "in", "d"]),
        (START + "mes|", ["message"], ["in"]),
        (START + "y = |", ["x", "w", "lin", "h", "K", "relu", "softmax", "not"], ["message", "glorot"]),
        (START + "y = sum(x|", ["x"], ["message"]),
        (START + "y = sum(x[|", ["i", "j", "reverse", "K"], ["relu", "h", "true"]),
        (START + "y = sum[|", ["d", "k"], ["i", "relu"]),
        (START + "y = lin(x; |", ["d", "k"], ["relu", "h"]),
        (START + "node z[|", ["d", "K"], ["i", "relu"]),
        (START + "param p[d] ~ |", ["glorot", "zeros"], ["relu", "true"]),
        (START + "edge r: |", ["int", "bool", "float"], ["relu"]),
        (START + "graph |", ["add_self_loops", "knn"], ["x", "message"]),
        (START + "y = sum(w) at |", ["i", "j"], ["x", "relu"]),
        (START + "module act = |", ["relu", "none"], ["message"]),
        (START + "def f(first, b) = first + b\n    y = f(|", ["first", "x"], ["message"]),
        (START + "param |", [], ["x", "relu"]),
        (SEVERAL.replace("message m over writes", "message m over |"), ["writes", "cites"], ["paper", "p"]),
        (SEVERAL.replace("w * p[j])", "w * p[j] over |)"), ["writes", "cites"], ["paper", "p"]),
        (SEVERAL.replace("a[d] in author", "a[d] in |"), ["paper", "author"], ["p", "cites"]),
        (SEVERAL.replace("cites: paper -> paper", "cites: paper -> |"), ["paper", "author"], ["p"]),
        (START + "# a comment |", [], ["x"]),
        (START + 'if K == "wo|', [], ["x"]),
        (START + "y = 12|", [], ["x"]),
        (START + "for t |", ["in"], ["x"]),
        (START + "if K { }\n    e|", ["else", "edge"], []),
        (START + "y = |\n    message m = x[j]\n    z = m }", ["h", "m"], ["message"]),  # with statements behind
    ],
)
def test_completions(text: str, some: list[str], none: list[str]) -> None:
    at = text.index("|")
    words = [c.word for c in completions(analyse(text.replace("|", "")), at)]
    assert len(words) == len(set(words))
    assert set(some) <= set(words)
    assert not set(none) & set(words)
    assert bool(words) == bool(some)


def test_a_completion_says_what_it_is() -> None:
    found = {c.word: c for c in completions(A, place("sum(|m)"))}
    assert (found["m"].kind, found["m"].says) == ("value", "edge[k]")
    assert (found["lin"].kind, found["lin"].says) == ("function", "d -> k")
    assert (found["relu"].code, found["relu"].says) == (
        "relu(x)",
        "x where it is positive, else 0; its gradient at 0 is 0",
    )


def test_rename_and_the_parameters_of_a_function() -> None:
    """A name of the layer may be that of a parameter, unless the body reads it: then the parameter would hide it."""
    text = "layer A(s) {\n node x[s]\n def f(a) = a * s\n def g(b) = b\n y = f(g(x))\n return y }"
    analysis = analyse(text)
    at = text.index("y =")
    assert len(names.rename(analysis, at, "a")) == 2
    with pytest.raises(names.RenameError, match="`a` is taken already, in line 3"):
        names.rename(analysis, text.index("s)"), "a")
    assert len(names.rename(analysis, text.index("s)"), "b")) == 3
    with pytest.raises(names.RenameError, match="`s` is taken already, in line 3"):
        names.rename(analysis, text.index("a)"), "s")
    assert len(names.rename(analysis, text.index("b)"), "y")) == 2


# ------------------------------------------------------------------------------ fixes and signatures


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("message m = x", "message m = x[j]"),
        ("message m = 2 * x", "message m = 2 * x[j]"),
        ("m = wight * x[j]", "m = weight * x[j]"),
        ("m = realu(x)", "m = relu(x)"),
        ("mesage m = x[j]", "message m = x[j]"),
        ("graph add_self_loop", "graph add_self_loops"),
        ("param p[d] ~ glorrot", "param p[d] ~ glorot"),
        ("m = leaky_relu(x, slop = 0.2)", "m = leaky_relu(x, slope = 0.2)"),
        ("m = x + nothing_like_it", None),
    ],
)
def test_fixes(wrong: str, right: str | None) -> None:
    text = f"layer A(d) {{\n    node x[d]\n    edge weight\n    {wrong}\n    update y = x\n}}\n"
    found = fixes(analyse(text), 0, len(text))
    texts = [text[: f.start] + f.text + text[f.end :] for f in found]
    assert texts == ([text.replace(wrong, right)] if right else [])
    for after in texts:
        assert not [d for d in analyse(after).diagnostics if d.severity == "error"]
    for f in found:
        assert not fixes(analyse(text), 0, 5)
        assert fixes(analyse(text), f.start, f.start) == (f,)


@pytest.mark.parametrize(
    ("text", "form", "argument"),
    [
        ("y = leaky_relu(|", "leaky_relu(x, slope = 0.01)", 0),
        ("y = leaky_relu(x, |", "leaky_relu(x, slope = 0.01)", 1),
        ("y = where(x > max(x, 0), |", "where(c, a, b)", 1),
        ("y = sum(m|)", "sum(m)", 0),
        ("def f(one, two) = one * two\n y = f(x, |", "f(one, two)", 1),
        ("y = nothing(|", None, 0),
        ("y = lin(|", None, 0),
        ("y = x[|", None, 0),
        ("y = x|", None, 0),
    ],
)
def test_forms_of_a_call(text: str, form: str | None, argument: int) -> None:
    whole = START + text
    found, place = forms(analyse(whole.replace("|", "")), whole.index("|"))
    assert [f.form for f in found][:1] == ([form] if form else [])
    if form:
        assert place == argument
        assert len(found[0].arguments) > argument


# ---------------------------------------------------------------------------- texts with any mistakes


@settings(max_examples=8)
@given(st.randoms(use_true_random=False))
def test_every_question_of_a_broken_text_has_an_answer(draw: random.Random) -> None:
    text = TEXT
    for _ in range(draw.randrange(1, 5)):
        at = draw.randrange(len(text))
        piece = draw.choice(["", "(", "]", "}", "=", " x ", "\n", '"', "$", "layer", "message", "sum", "for", "𝛼"])
        text = text[:at] + piece + text[at + draw.choice([0, 1, 1, 5]) :]
    analysis = analyse(text)
    for d in analysis.diagnostics:
        assert 0 <= d.span.start <= d.span.end <= len(text)
    names.outline(analysis)
    for f in fixes(analysis, 0, len(text)):
        assert 0 <= f.start <= f.end <= len(text)
    for _ in range(10):
        at = draw.randrange(len(text) + 1)
        said = hover(analysis, at)
        assert said is None or (said.start <= at <= said.end and said.markdown())
        completions(analysis, at)
        forms(analysis, at)
        goes, places = names.definition(analysis, at), names.references(analysis, at)
        assert goes is None or goes in places
        with contextlib.suppress(names.RenameError):
            names.rename(analysis, at, draw.choice(["fresh", "x", "h", "relu", "d"]))


USING = """use GATConv
layer Block { node x[d] update y = tanh(x) }
layer Net {
    use conv = GATConv(4)
    node x[d]
    h = conv(Block(x))
    update y = relu(h)
}
"""


def test_layers_that_are_used() -> None:
    analysis = analyse(USING)
    assert analysis.diagnostics == ()
    said = hover(analysis, USING.index("Block(x)") + 1)
    assert said is not None and said.code == "layer Block"
    said = hover(analysis, USING.index("GATConv(4)") + 1)
    assert said is not None and said.code.startswith("layer GATConv(out_channels") and "gat.gdsl" in said.says[-1]
    found = definition(analysis, USING.index("conv(Block"))
    assert found is not None and found.start == USING.index("conv = ")
    found = definition(analysis, USING.index("Block(x)"))
    assert found is not None and found.start == USING.index("Block {")
    said = hover(analysis, USING.index("h = conv"))
    assert said is not None and said.code == "h: node[4]"


def test_mistakes_of_layers_that_are_used(tmp_path: Path) -> None:
    (tmp_path / "block.gdsl").write_text("layer Block { node x[d] update y = x + relu }")
    text = 'use Block from "block.gdsl"\n\nlayer Net {\n    node x[3]\n    update y = Block(x)\n}\n'
    (refused,) = analyse(text).diagnostics[:1]
    assert "in no folder" in refused.message or "unknown" in refused.message
    (found,) = analyse(text, Folder(tmp_path)).diagnostics
    assert (found.span.line, found.inside[0].where) == (5, "Block in block.gdsl")
    (tmp_path / "block.gdsl").write_text("layer Block { node x[d] update y = x }")
    assert analyse(text, Folder(tmp_path)).diagnostics == ()  # read anew
    found = next(d for d in analyse(USING.replace("use GATConv", "use GATConf")).diagnostics if d.span.line == 1)
    assert found.hint == "did you mean `GATConv`?"
    (found,) = analyse(USING.replace("conv(Block(x))", "conv(Block(x)")).diagnostics[:1]
    assert found.span.line == 6
