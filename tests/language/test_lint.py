"""Warnings: what a text says to no effect, and what has none."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import gdsl
from gdsl.language.errors import LanguageError
from gdsl.language.lint import lint
from gdsl.language.parse import parse
from tests.programs.sources import PROGRAMS

HEAD = "layer A(d = 3, k = 2) {\n    node x[d]\n    edge w\n"


def messages(body: str, head: str = HEAD) -> list[str]:
    return [d.message for d in lint(parse(head + body + "\n}").layer()) if "argument `k`" not in d.message]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # Rules whose values are dropped.
        ("update a = x * sum(w) update b = x", ["the value of `update a` is never read"]),
        ("update a = x * sum(w) update b = x return b", ["the value of `update a` is never read"]),
        ("update y = x * sum(w) update y = x", ["the value of `update y` is never read"]),
        ("update y = x * sum(w) if k > 1 { update z = x } else { update z = y }", []),
        ("update y = x * sum(w) if k > 1 { update z = x }", []),
        ("update y = x * sum(w) if k > 1 { update y = x } else { update y = 2 * x }",
         ["the value of `update y` is never read"]),
        ("update h = x * sum(w) update y = h", []),
        ("aggregate a = sum(w) update y = x", ["the value of `aggregate a` is never read"]),
        ("a = sum(w) update y = x pool g = sum(y)", ["the value of `a` is never read"]),
        ("message m = w message m = 2 * w update y = x * sum(m)", ["the value of `message m` is never read"]),
        # In loops a value may be read in the next round.
        ("h = x for r in 1..k { aggregate h = sum(w * h[j]) } update y = h", []),
        ("h = x s = 0 for r in 1..k { update y = h + s s = sum(w) }", []),
        ("h = x for r in 1..k { s = sum(w) h = h * 2 } update y = h", ["the value of `s` is never read"]),
        ("n = 0 for r in 1..k { if n == 0 { y = x } else { y = 2 * y } n = n + 1 } s = sum(w) return y, s", []),
        # A function reads names when it is called.
        ("s = sum(w) def f(t) = t * s update y = f(x)", []),
        ("def f(t) = t * sum(w) update y = x", ["the function `f` is never read"]),
        # Declarations.
        ("update y = x", ["the input `w` is never read"]),
        ("param p[d] ~ zeros buffer b[d] ~ zeros update y = x * sum(w)",
         ["the param `p` is never read", "the buffer `b` is never read"]),
        ("const c = 3 module nn update y = x * sum(w)",
         ["the const `c` is never read", "the module `nn` is never read"]),
        ("linear lin(d -> k) mlp phi(d -> k) ~ glorot update y = x * sum(w)",
         ["the linear `lin` is never read", "the mlp `phi` is never read"]),
        ("const t[d] = [1, 2, 3] const u[d] update y = x * sum(w)",
         ["the const `t` is never read", "the const `u` is never read"]),
        ("def f(t) = t * 2 module act = f update y = act(x) * sum(w)", []),
        ("edge e = none update y = x * sum(w) if e { y = y + sum(e) }", ["the value of `y` is never read"]),
        ("param p[d] ~ zeros if k > 1 { update y = x * sum(w) } else { update y = x * p }", []),
        ("param R[k] ~ zeros update y = rename(x, d -> dim) * sum(w) * R[0]", []),
        # Graph statements read and make names.
        ("graph add_self_loops(w = 1) update y = x", ["the input `w` is never read"]),
        ("graph symmetric_norm update y = x * sum(w)", ["the value that `symmetric_norm` gives `norm` is never read"]),
        ("graph symmetric_norm(w) update y = x", ["the value that `symmetric_norm` gives `w` is never read"]),
        ("graph symmetric_norm(w) update y = sum(w * x[j])", []),
        # Graphs are read by what names them.
        ("graph a, b edge v in a update y = sum(w * v)", ["the graph `b` is never read"]),
        ("graph a, b message m over b = x[j] update y = sum(m) + sum(w * x[j]) over a", []),
        # What begins with _ is meant to be unused.
        ("param _p[d] ~ zeros _s = 3 update y = x * sum(w)", []),
    ],
)  # fmt: skip
def test_what_is_never_read(body: str, expected: list[str]) -> None:
    assert messages(body) == expected


def test_arguments() -> None:
    found = lint(
        parse("layer A(d, p = 0.5, flag = true) { node x[d] if flag { y = x } else { y = 2 * x } return y }").layer()
    )
    assert [(d.message, d.severity, d.span.line) for d in found] == [("the argument `p` is never read", "warning", 1)]


def test_an_input_may_count_nodes() -> None:
    """The only one of its kind says how many nodes there are."""
    assert not messages("aggregate y = sum(x[j]) return y", "layer A(k = 2) { source x[d] target t ")
    (found,) = messages("aggregate y = sum(x[j]) * t return y", "layer A(k = 2) { source x[d] target t target s ")
    assert found == "the input `s` is never read"


def test_where_it_is_shown() -> None:
    source = "layer A(d) {\n    node x[d]\n    update a = 2 * x\n    update b = x\n}\n"
    shown = """warning: the value of `update a` is never read
  --> A, line 3, column 12
  |
3 |     update a = 2 * x
  |            ^
  = hint: the last rule is the result: `return a, b` gives both"""
    for made in (lambda: gdsl.compile(source, d=3), lambda: gdsl.define(source)):
        with pytest.warns(gdsl.LanguageWarning) as caught:
            made()
        assert [str(w.message) for w in caught] == [shown]
        assert caught[0].filename == __file__


def test_what_is_right_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", gdsl.LanguageWarning)
        gdsl.compile("layer A(d) { node x[d] update y = x }", d=3)


def test_texts_at_hand(repository: Path) -> None:
    """Programs of the library, the examples and the language's page."""
    files = [*repository.glob("gdsl/nn/programs/*.gdsl"), *repository.glob("examples/*.gdsl")]
    assert len(files) > 50
    texts = [*(f.read_text(encoding="utf-8") for f in files), *(text for text, _ in PROGRAMS.values())]
    found = [d.render(text) for text in texts for layer in parse(text).layers for d in lint(layer)]
    assert not found, "\n\n".join(found)


# -------------------------------------------------------------- graph statements and edge values


@pytest.mark.parametrize(
    ("before", "name"),
    [
        ("s = sum(w)", "s"),
        ("s = w", "s"),
        ("kept = dropout(w, 0.5)", "kept"),
        ("aggregate a = mean(x[j])", "a"),
        ("n = degree(i)", "n"),
        ("message m = 1", "m"),
        ("n = sum(1)", "n"),
        ("graph symmetric_norm", "norm"),
        ("graph symmetric_norm(w)", "w"),
        ("h = x for r in 1..2 { h = sum(h[j]) }", "h"),
    ],
)
@pytest.mark.parametrize("transform", ["add_self_loops", "add_remaining_self_loops(w = 1)", "remove_self_loops"])
def test_edge_values_before_the_graph_is_made(before: str, name: str, transform: str) -> None:
    from gdsl.language.check import check

    text = f"layer A(d = 3) {{ node x[d] edge w {before} graph {transform} update y = x return y, {name} }}"
    with pytest.raises(LanguageError, match=rf"`graph \w+` stands behind `{name}`, which is computed from") as caught:
        check(parse(text).layer(), {}, training=True)
    (found,) = caught.value.diagnostics
    assert found.span.start == text.index(f"graph {transform}")
    # Moved up, as the hint says, it is right.
    moved = f"layer A(d = 3) {{ node x[d] edge w graph {transform} {before} update y = x return y, {name} }}"
    assert check(parse(moved).layer(), {}, training=True)


def test_node_values_may_stand_before() -> None:
    from gdsl.language.check import check

    text = (
        "layer A(d = 3) { node x[d] s = 2 * x param v[d] ~ zeros t = v + 1 graph knn(s, 2) update y = sum(x[j] * t) }"
    )
    assert check(parse(text).layer(), {})
