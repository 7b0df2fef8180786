"""Text to tree: what stands for what, and how tightly operators bind."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from gdsl.language import ast
from gdsl.language.ast import Binary, Call, Name, Number, Subscript, Unary
from gdsl.language.format import expression as written
from gdsl.language.parse import grammar_path, parse
from gdsl.language.recover import KEYWORDS, OWNED


def expression(text: str) -> ast.Expression:
    (statement,) = parse(f"layer A {{ x = {text} }}").layer().body
    assert isinstance(statement, ast.Rule)
    return statement.value


def statement(text: str) -> ast.Statement:
    (found,) = parse(f"layer A {{ {text} }}").layer().body
    return found


a, b, c = Name("a"), Name("b"), Name("c")
RANGE = (ast.Dim(a, Number(1)), ast.Dim(Name("3'")))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b * c", Binary("+", a, Binary("*", b, c))),
        ("a - b - c", Binary("-", Binary("-", a, b), c)),
        ("a * b @ c", Binary("@", Binary("*", a, b), c)),
        ("-a ** b", Unary("-", Binary("**", a, b))),
        ("a ** -b", Binary("**", a, Unary("-", b))),
        ("a ** b ** c", Binary("**", a, Binary("**", b, c))),
        ("not a and b or c", Binary("or", Binary("and", Unary("not", a), b), c)),
        ("a < b + c", Binary("<", a, Binary("+", b, c))),
        ("a[j][i]", Subscript(Subscript(a, (Name("j"),)), (Name("i"),))),
        ("a[b, 2]", Subscript(a, (b, Number(2)))),
        ("f()", Call("f")),
        ("f(a, k = b; c)", Call("f", (a, ast.Named("k", b)), dims=(c,))),
        ("sum[b, c](a)", Call("sum", (a,), over=(b, c))),
        ("sum(a) by b at j", Call("sum", (a,), at="j", by=b)),
        ("sum(a) at j by b[j]", Call("sum", (a,), at="j", by=Subscript(b, (Name("j"),)))),
        ("f(a, b' -> b)", Call("f", (a, ast.Arrow(Name("b'"), b)))),
        ("1.5e-3", Number(0.0015)),
        (".5", Number(0.5)),
        ("2.", Number(2.0)),
        ('"a # b"', ast.Text("a # b")),
        ("none", ast.Nothing()),
        ("true", ast.Boolean(True)),
    ],
)
def test_expression(text: str, tree: ast.Expression) -> None:
    assert expression(text) == tree


def test_a_number_before_a_range_ends_before_the_dots() -> None:
    loop = statement("for k in 1..K { }")
    assert loop == ast.Loop("k", Number(1), Name("K"), ())


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("graph add_self_loops", ast.Transform("add_self_loops")),
        ("graph add_self_loops(w = 1)", ast.Transform("add_self_loops", (ast.Named("w", Number(1)),))),
        ("graph u[a]", ast.Declaration("graph", "u", (ast.Dim(a),))),
        ("graph t: float", ast.Declaration("graph", "t", kind=ast.Kind("float"))),
        ("edge r: int(a + 1)", ast.Declaration("edge", "r", kind=ast.Kind("int", Binary("+", a, Number(1))))),
        ("edge w = 1", ast.Declaration("edge", "w", default=Number(1))),
        ("param w[1..a, 3'] ~ glorot", ast.Declaration("param", "w", RANGE, init=Name("glorot"))),
        ("const k = a", ast.Constant("k", a)),
        ("const k[a, 3]", ast.Constant("k", None, (ast.Dim(a), ast.Dim(Number(3))))),
        ("const k[a] = [a, 3]", ast.Constant("k", ast.Values((a, Number(3))), (ast.Dim(a),))),
        ("module nn = none", ast.Module("nn", True)),
        ("module nn = sum", ast.Module("nn", function="sum")),
        ("linear f(a -> 3)", ast.Owned("linear", "f", (a, Number(3)))),
        ("linear f[a](a -> 3, bias = a) ~ glorot = none",
         ast.Owned("linear", "f", (a, Number(3)), (ast.Named("bias", a),), a, Name("glorot"), True)),
        ("mlp  f (a->2*a->3, relu)",
         ast.Owned("mlp", "f", (a, Binary("*", Number(2), a), Number(3)), (Name("relu"),))),
        ("def f(a, b) = a", ast.Function("f", ("a", "b"), a)),
        ("reduce f(a, b) = a init 0", ast.Reducer("f", ("a", "b"), a, Number(0))),
        ("return a, b", ast.Return((a, b))),
        ("c over g = a", ast.Rule("", "c", a, "g")),
        ("update c over g = a over f", ast.Rule("update", "c", ast.Over(a, "f"), "g")),
    ],
)  # fmt: skip
def test_statement(text: str, tree: ast.Statement) -> None:
    assert statement(text) == tree


def test_words_before_sizes_are_names_elsewhere() -> None:
    text = """layer A(mlp, linear = true) {
        param w[a] ~ linear
        param v[a] ~ linear if linear { node x[a] }
        module phi
        for k in 1..mlp { h = linear (x) y = mlp[0] }
    }"""
    kinds = [type(s) for s in ast.walk(parse(text).layer())]
    assert ast.Owned not in kinds and kinds.count(ast.Declaration) == 3


def test_line_breaks_mean_nothing() -> None:
    one = parse("layer A(a) { node x[a] h = x[j] + 1 message m = h; update y = x return y }")
    many = parse("layer A(a)\n{\nnode x\n[a]\nh = x[j]\n+ 1 message\nm = h\n\nupdate y = x return\ny\n}")
    assert one == many


def test_else_if_is_a_branch_in_a_branch() -> None:
    assert statement("if a { } else if b { }") == statement("if a { } else { if b { } }")


def test_layers_of_a_text() -> None:
    program = parse("layer A(p, q = -1.5, r = true, s = none, t = inf) { } layer B { }")
    assert [layer.name for layer in program.layers] == ["A", "B"]
    assert [(p.name, p.default, p.required) for p in program.layer("A").parameters] == [
        ("p", None, True),
        ("q", -1.5, False),
        ("r", True, False),
        ("s", None, False),
        ("t", float("inf"), False),
    ]
    with pytest.raises(LookupError, match="several layers, choose one: A, B"):
        program.layer()
    with pytest.raises(LookupError, match="no layer C"):
        program.layer("C")


def test_spans() -> None:
    source = "layer A {\n    y = (a + b) * c\n}"
    (rule,) = parse(source).layer().body
    assert isinstance(rule, ast.Rule)
    assert isinstance(rule.value, Binary)
    left = rule.value.left.span
    assert (source[left.start : left.end], left.line, left.column) == ("(a + b)", 2, 9)
    assert source[rule.span.start : rule.span.end] == "y = (a + b) * c"


@pytest.mark.parametrize("word", KEYWORDS)
def test_keywords_may_begin_names(word: str) -> None:
    assert expression(f"{word}s + _{word}") == Binary("+", Name(f"{word}s"), Name(f"_{word}"))


def test_written_expressions_need_no_source() -> None:
    assert written(Binary("*", Binary("+", a, b), Unary("-", c))) == "(a + b) * -c"


def test_threads_share_the_parser() -> None:
    text = "layer A { x = " + " + ".join("abc") + " }"
    found: list[ast.Program] = []
    threads = [threading.Thread(target=lambda: found.append(parse(text))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(set(found)) == 1


def test_front_end_does_not_import_torch() -> None:
    """Only a module needs it, and it takes a second."""
    code = (
        "import sys, types; m = types.ModuleType('gdsl'); "
        f"m.__path__ = [{str(grammar_path().parent.parent / 'gdsl')!r}]; sys.modules['gdsl'] = m; "
        "from gdsl.language.parse import parse; from gdsl.language.check import check; "
        "check(parse('layer A(d) { node x[d] update y = x }').layer(), {'d': 2}); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("file", ["gdsl.tmLanguage.json", "gdsl.vim"])
def test_editors_know_every_keyword(file: str) -> None:
    text = (grammar_path().parent / file).read_text()
    assert [k for k in (*KEYWORDS, *OWNED) if k not in text] == []
