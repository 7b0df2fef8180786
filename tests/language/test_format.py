"""The formatter: the same program again, comments in place, and nothing left to do the second time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdsl.language import ast
from gdsl.language.format import format_program, format_text
from gdsl.language.parse import syntax as parse

MESSY = """

# One.
layer A(a,b=1,c  = none,d="x", e=-inf){ # the header
# first
 param w[a,b*2] ~ glorot;param v[1..a]~zeros


 x=(a+b)*c**-2 ; y = -(a*b)  # behind
   if a { # yes
   z=1
 # at the end
 } else if b{ x=(sum(m) by rel)[i] } else { # no
  w = not (a and b) }
 s  over  near=(a*b)over far  t over far=a
 update
   q = a[j # inside
   ,2]
 for k in 1 .. 3 { }
 graph u[]
} # last

# over
"""

TIDY = """\
# One.
layer A(a, b = 1, c = none, d = "x", e = -inf) {  # the header
    # first
    param w[a, b*2] ~ glorot
    param v[1..a] ~ zeros

    x = (a + b) * c**-2
    y = -(a * b)  # behind
    if a {  # yes
        z = 1
        # at the end
    } else if b {
        x = (sum(m) by rel)[i]
    } else {  # no
        w = not (a and b)
    }
    s over near = (a * b) over far
    t over far = a
    # inside
    update q = a[j, 2]
    for k in 1..3 {
    }
    graph u[]
}  # last

# over
"""


def test_tidies() -> None:
    assert format_text(MESSY) == TIDY
    assert format_text(TIDY) == TIDY
    assert parse(MESSY) == parse(TIDY)


def test_numbers_keep_their_writing() -> None:
    assert "1e-7 * 0x" not in format_text("layer A { x = 1e-7 * 2.50 * .5 * 3. }")
    assert "x = 1e-7 * 2.50 * .5 * 3.0\n" in format_text("layer A { x = 1e-7 * 2.50 * .5 * 3. }")


@pytest.mark.parametrize(
    "text",
    [
        "    if a { x = 1 }\n",
        "    if a { x = 1 } else { graph add_self_loops(w = 1) }  # why\n",
        "    for k in 1..2 {\n        if k > 1 { h = h[k] }\n    }\n",
        "    if a {\n        x = 1\n    }\n",
        "    if a {\n        x = 1\n        y = 2\n    } else if b {\n        x = 2\n    }\n",
        "    param v[2*d] ~ [1, 2.50, -pi]\n",
        "    x = merge(split(y, a*b, a, b), a, b)\n    z = sum[2*d](f(x * 2; h*k+1))\n",
        "    x = rename(y, heads*width' -> out_channels) * (a @ b)\n    z = (x @ y) * 2 * (a * b @ c)\n",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    """One statement in a block on one line; dims as their names are shown; brackets between `*` and `@`."""
    text = f"layer A {{\n{text}}}\n"
    assert format_text(text) == text.replace("(a * b @ c)", "((a * b) @ c)")


def test_long_lines() -> None:
    names = ", ".join(f"argument{k} = {k}" for k in range(12))
    terms = " - ".join(f"a_long_name_{k} * f(b + {k})" for k in range(8))
    text = format_text(f'layer Long({names}, s = "a, b", eps = 1e-7) {{ x = {terms} if a {{ y = {terms} }} }}')
    lines = text.split("\n")
    assert all(len(line) <= 120 for line in lines)
    assert lines[1].startswith("           argument")
    assert sum(line.endswith(', s = "a, b", eps = 1e-7) {') for line in lines) == 1
    assert any(line.startswith("        - a_long_name_") for line in lines)
    assert any(line.startswith("            - a_long_name_") for line in lines)
    assert format_text(text) == text


# ----------------------------------------------------------------------------- any program at all

plain = st.sampled_from(("a", "b", "x1", "sum", "is_in", "layer_", "i", "formed", "T"))
names = st.one_of(plain, st.sampled_from(("d'", "K''")))
numbers = st.one_of(st.integers(0, 10**9), st.floats(0, 1e9, allow_nan=False).filter(lambda v: v != int(v)))
atoms = st.one_of(
    numbers.map(ast.Number),
    names.map(ast.Name),
    st.booleans().map(ast.Boolean),
    st.sampled_from(("", "mean", "# {no} comment")).map(ast.Text),
    st.just(ast.Nothing()),
)
BINARY = ("+", "-", "*", "/", "@", "**", "==", "!=", "<", "<=", ">", ">=", "and", "or")


def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3).map(tuple)
    named = st.builds(ast.Named, plain, inner)
    argument = st.one_of(inner, named, st.builds(ast.Arrow, inner, inner))
    call = st.builds(
        ast.Call,
        plain,
        st.lists(argument, max_size=3).map(tuple),
        st.one_of(st.just(()), several),
        st.tuples(st.lists(inner, max_size=2), st.lists(named, max_size=2)).map(lambda parts: (*parts[0], *parts[1])),
        st.one_of(st.none(), plain),
        st.one_of(st.none(), names.map(ast.Name)),
    ).map(lambda c: c if c.arguments else replace(c, dims=()))
    return st.one_of(
        st.builds(ast.Unary, st.sampled_from(("-", "not")), inner),
        st.builds(ast.Binary, st.sampled_from(BINARY), inner, inner),
        st.builds(ast.Subscript, inner, several),
        call,
    )


expressions = st.recursive(atoms, extend, max_leaves=12)
optional = st.one_of(st.none(), expressions)
dims = st.lists(st.builds(ast.Dim, expressions, optional), max_size=3).map(tuple)
kinds = st.one_of(st.none(), st.builds(ast.Kind, plain, optional))
parameters = st.lists(plain, max_size=3).map(tuple)
simple = st.one_of(
    st.builds(
        ast.Declaration,
        st.sampled_from(("param", "buffer", "node", "source", "target", "edge")),
        names,
        dims,
        kinds,
        st.one_of(optional, st.builds(ast.Values, st.lists(expressions, min_size=1, max_size=3).map(tuple))),
        optional,
    ),
    st.builds(ast.Declaration, st.just("graph"), names, dims.filter(bool)),
    st.builds(ast.Transform, names, st.lists(expressions, max_size=2).map(tuple), st.just("") | names),
    st.builds(ast.Constant, names, expressions),
    st.builds(
        ast.Constant,
        names,
        st.one_of(st.none(), st.builds(ast.Values, st.lists(expressions, min_size=1, max_size=3).map(tuple))),
        dims.filter(bool),
    ),
    st.builds(ast.Module, names, st.booleans()),
    st.builds(ast.Module, names, st.just(False), names),
    st.builds(
        ast.Owned,
        st.sampled_from(("linear", "mlp")),
        names,
        st.lists(expressions, min_size=2, max_size=3).map(tuple),
        st.lists(st.one_of(expressions, st.builds(ast.Named, plain, expressions)), max_size=2).map(tuple),
        optional,
        optional,
        st.booleans(),
    ),
    st.builds(
        ast.Instance,
        names,
        plain,
        st.lists(st.one_of(expressions, st.builds(ast.Named, plain, expressions)), max_size=2).map(tuple),
        optional,
    ),
    st.builds(ast.Rule, st.sampled_from(("", "message", "aggregate", "update", "pool")), names, expressions),
    st.builds(ast.Function, names, parameters, expressions),
    st.builds(ast.Reducer, names, parameters, expressions, expressions),
    st.builds(ast.Return, st.lists(expressions, min_size=1, max_size=3).map(tuple)),
)


def nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    body = st.lists(inner, max_size=3).map(tuple)
    return st.one_of(
        st.builds(ast.Loop, names, expressions, expressions, body),
        st.builds(ast.Branch, expressions, body, body),
    )


statements = st.recursive(simple, nest, max_leaves=5)
arguments = names.filter(lambda name: name != "i")  # an end of edges
defaults = st.one_of(
    st.builds(ast.Parameter, arguments, st.none(), st.just(True)),
    st.builds(
        ast.Parameter,
        arguments,
        st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), st.just("s")),
        st.just(False),
    ),
)
layers = st.builds(
    ast.Layer,
    names,
    st.lists(defaults, max_size=3, unique_by=lambda p: p.name).map(tuple),
    st.lists(statements, max_size=4).map(tuple),
)
uses = st.builds(
    ast.Use,
    st.lists(st.tuples(plain, plain), min_size=1, max_size=2).map(tuple),
    st.sampled_from((None, "a.gdsl", "b/a.gdsl")),
)
programs = st.builds(
    lambda found, used: ast.Program(tuple(found), uses=tuple(used)),
    st.lists(layers, min_size=1, max_size=2, unique_by=lambda p: p.name),
    st.lists(uses, max_size=2),
)


@given(programs)
def test_parsing_what_is_formatted_gives_the_program(program: ast.Program) -> None:
    text = format_program(program)
    assert parse(text) == program
    assert format_text(text) == text


def test_a_comment_inside_a_statement_brings_no_blank_lines() -> None:
    """It stands above the statement, also where that is the first one of a block, which begins without a blank line."""
    head, loop = "use a  # c\n\nuse b\n\nlayer L {  # c\n\n", "    for k in 1..2  # d\n\n        + 3 {\n\n"
    text = f"{head}{loop}        y = (1  # e\n\n            + 2)\n    }}\n}}\n"
    tidy = format_text(text)
    assert "{  # c\n    # d\n    for k in 1..2 + 3 {\n        # e\n        y = 1 + 2\n" in tidy
    assert format_text(tidy) == tidy



@given(
    programs,
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([" # c\n", "\n\n\n", "\n# own\n", " "])), max_size=6),
)
def test_comments_and_blanks_do_no_harm(program: ast.Program, extras: list[tuple[int, str]]) -> None:
    text = format_program(program)
    for where, extra in extras:
        # Between words, outside strings.
        places = [k for k, c in enumerate(text) if c == "\n"]
        place = places[where % len(places)]
        text = text[:place] + extra + text[place:]
    assert parse(text) == program
    tidy = format_text(text)
    assert parse(tidy) == program
    assert format_text(tidy) == tidy
    assert tidy.count("#") == text.count("#")
