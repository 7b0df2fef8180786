"""The lexer for Pygments."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

pytest.importorskip("pygments", reason="Pygments is not installed")

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.token import Comment, Error, Keyword, Name, Operator, Token

from gdsl.editor.colours import GdslLexer
from gdsl.language import meanings
from gdsl.language.program import ACTIVATIONS
from gdsl.language.recover import KEYWORDS, OWNED
from tests.docs.pages import blocks, pages


def kinds(text: str) -> list[tuple[object, str]]:
    return [(kind, words) for _, kind, words in GdslLexer().get_tokens_unprocessed(text)]


def kind_of(word: str, text: str) -> object:
    (found,) = {kind for kind, words in kinds(text) if words == word}
    return found


def test_no_error_in_any_program(repository: Path) -> None:
    files = [*repository.rglob("examples/*.gdsl"), *repository.rglob("gdsl/nn/**/*.gdsl")]
    assert len(files) > 20
    for file in files:
        text = file.read_text()
        found = kinds(text)
        assert "".join(words for _, words in found) == text
        assert not [words for kind, words in found if kind is Error]
        assert {Keyword.Declaration, Name.Class} <= {kind for kind, _ in found}


def test_every_keyword() -> None:
    for word in KEYWORDS:
        assert kind_of(word, f"{word} ") in Keyword or kind_of(word, f"{word} ") in Operator.Word, word
    for word in OWNED:
        assert kind_of(word, f"{word} lin(a -> b)") is Keyword.Declaration
        assert kind_of(word, f"y = {word}") is Name


def test_every_function() -> None:
    for word, found in meanings.FUNCTIONS.items():
        assert kind_of(word, f"y = {word}(x)") is Name.Builtin
        assert kind_of(word, f"module a = {word}") is Name.Builtin
        assert kind_of(word, f"{word} = 2") is Name  # a value of that name
        if any(m.form.startswith(f"{word}[") for m in found):
            assert kind_of(word, f"y = {word}[d, k](x)") is Name.Builtin
            assert kind_of(word, f"y = {word}[i]") is Name


@pytest.mark.parametrize(
    ("words", "text", "kind"),
    [
        (meanings.TRANSFORMS, "graph {}", Name.Builtin),
        (meanings.INITS, "param w[d] ~ {}", Name.Builtin),
        (meanings.ENDS, "y = x[{}]", Name.Builtin.Pseudo),
        (meanings.KINDS, "edge w: {}", Keyword.Type),
        (meanings.CONSTANTS, "y = {}", Name.Constant),
        (meanings.NORMS, "mlp phi(a -> b, norm = {})", Name.Builtin),
        (ACTIVATIONS, "mlp phi(a -> b -> c, {})", Name.Builtin),
    ],
)
def test_every_other_word(words: dict[str, object], text: str, kind: object) -> None:
    for word in words:
        assert kind_of(word, text.format(word)) is kind, word


def test_comments_and_what_is_in_no_program() -> None:
    found = kinds('y = "a # b" # c\n$')
    assert (Comment.Single, "# c") in found
    assert (Error, "$") in found
    assert (Token.Literal.String, '"a # b"') in found


def test_pygments_finds_it(repository: Path) -> None:
    """By the entry point that the package declares; a text of more than one line comes out whole."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["pygments.lexers"]["gdsl"]
    lexer = EntryPoint("gdsl", declared, "pygments.lexers").load()
    assert lexer is GdslLexer
    html = highlight("layer A {\n    node x[3]\n    update y = x\n}\n", lexer(), HtmlFormatter())
    assert html.count("\n") > 3
    assert '<span class="kd">layer</span>' in html


def test_no_error_in_the_documentation() -> None:
    """Sphinx refuses a block that a lexer does not know, also one that shows a mistake."""
    found = [b for page in pages() for b in blocks(page) if b.info.split()[:1] == ["gdsl"]]
    assert len(found) > 20
    for block in found:
        assert not [words for kind, words in kinds(block.text) if kind is Error], block
