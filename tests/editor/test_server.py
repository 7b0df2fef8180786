"""`gdsl lsp`, as an editor meets it: a process of its own, spoken to by the protocol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gdsl.editor.names import Piece, renamed
from gdsl.editor.tokens import TextLines
from gdsl.language.format import format_text
from gdsl.language.parse import MAX_TEXT
from tests.editor.client import Client, JsonRpcException, lsp, run

TEXT = """layer A(d, k) {
    # 𝛼 and ∑ are two units and one
    node x[d]
    linear lin(d -> k)
    message m = lin(x[j])
    aggregate y = sum(m)
    return y
}
"""


def applied(text: str, edits: list[lsp.TextEdit]) -> str:
    lines = TextLines.of(text)
    places = [(e.range.start, e.range.end) for e in edits]
    pieces = [Piece(lines.offset(a.line, a.character), lines.offset(b.line, b.character)) for a, b in places]
    (new,) = {e.new_text for e in edits}
    return renamed(text, pieces, new)


def test_a_session() -> None:
    async def session(client: Client) -> None:
        assert not await client.open(TEXT)
        assert await client.hover(4, 12) == "```gdsl\nmessage m: edge[k]\n```\n\n`message m = lin(x[j])`"
        assert "the sum over the edges into each node" in (await client.hover(5, 19) or "")
        assert await client.hover(1, 8) is None
        assert await client.definition(5, 22) == (4, 12)
        assert await client.definition(5, 18) is None  # `sum` is the language's
        assert await client.references(4, 20) == await client.highlights(4, 20) == 2
        assert await client.signature(5, 22) == ("sum(m)", "m")
        assert await client.signature(2, 11) is None
        assert {"x", "lin", "sum"} <= set(await client.words(4, 16))
        assert (await client.words(2, 11))[0] == "d"
        assert await client.can_rename(4, 20)
        assert not await client.can_rename(5, 18)
        edits = await client.rename((4, 20), "features")
        assert applied(TEXT, edits) == TEXT.replace("x[", "features[")
        with pytest.raises(JsonRpcException, match="`m` is taken already, in line 5"):
            await client.rename((4, 20), "m")
        (layer,) = await client.outline()
        assert (layer.name, layer.range.start.line, layer.range.end.line) == ("A", 0, 7)
        assert [(s.detail, s.name) for s in layer.children or ()][2:] == [
            ("node", "x"),
            ("linear", "lin"),
            ("message", "m"),
            ("aggregate", "y"),
        ]

    run(session)


def test_mistakes_as_they_are_typed() -> None:
    async def session(client: Client) -> None:
        assert not await client.open(TEXT)
        client.edit((4, 20), (4, 24), "x")  # lin(x)
        (mistake,) = await client.diagnostics()
        assert mistake.message.startswith("`message` gives an edge value, and this is node[k]\nhint: ")
        assert (mistake.severity, mistake.source) == (lsp.DiagnosticSeverity.Error, "gdsl")
        assert (mistake.range.start, mistake.range.end) == (lsp.Position(4, 16), lsp.Position(4, 22))
        (fix,) = await client.fixes((4, 0), (4, 30))
        assert (fix.title, fix.kind) == ("write `x[j]`", lsp.CodeActionKind.QuickFix)
        (edit,) = fix.edit.changes["file:///layer.gdsl"]
        assert (edit.range.start, edit.range.end) == (lsp.Position(4, 20), lsp.Position(4, 21))
        client.edit((4, 21), (4, 21), "[j]")
        client.edit((5, 18), (5, 21), "")  # not looked at by itself: another edit comes at once
        client.edit((5, 18), (5, 18), "su")
        (mistake,) = await client.diagnostics()
        assert "unknown function `su`" in mistake.message
        # A statement that is being written hides no other.
        client.edit((5, 4), (5, 23), "aggregate y = sum(")
        (mistake,) = await client.diagnostics()
        assert "`(` is never closed" in mistake.message
        assert "message m: edge[k]" in (await client.hover(4, 12) or "")
        assert {"m", "x", "lin"} <= set(await client.words(5, 22))
        assert await client.format() is None
        client.edit((5, 22), (5, 22), "m)\n    unused = x")
        (warning,) = await client.diagnostics()
        assert warning.severity == lsp.DiagnosticSeverity.Warning
        assert list(warning.tags or ()) == [lsp.DiagnosticTag.Unnecessary]
        client.close()
        assert not (await client.published.get()).diagnostics

    run(session)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8", "utf-32"])
def test_columns_after_mathematical_characters(encoding: str) -> None:
    """Behind 𝛼, two units of utf-16, on its line; and behind line ends that Python has and the protocol has not."""
    text = 'layer A(word = "𝛼∑") { node x[d] update y = z }\r\n# a\u2028b\x0cc\n# 𝛼𝛼'
    column = {"utf-16": 45, "utf-8": 49, "utf-32": 44}[encoding]
    at = len(text[: text.index("z")].encode(encoding.replace("-16", "-16-le").replace("-32", "-32-le")))
    assert column == at // {"utf-16": 2, "utf-8": 1, "utf-32": 4}[encoding]

    async def session(client: Client) -> None:
        found = await client.open(text)
        (mistake,) = (d for d in found if d.severity == lsp.DiagnosticSeverity.Error)
        assert mistake.range == lsp.Range(lsp.Position(0, column), lsp.Position(0, column + 1))
        client.edit((0, column), (0, column + 1), "x")
        assert not [d for d in await client.diagnostics() if d.severity == lsp.DiagnosticSeverity.Error]
        assert "update y: node[d]" in (await client.hover(0, column - 4) or "")
        # Behind the line with a separator of Unicode, which is one line to an editor.
        client.edit((2, 0), (2, 1), "layer A { node x[d] update y = x }\n#")
        (mistake,) = (d for d in await client.diagnostics() if d.severity == lsp.DiagnosticSeverity.Error)
        assert (mistake.message, mistake.range.start) == ("there are two layers named `A`", lsp.Position(2, 0))

    run(session, encodings=(encoding,))


def test_format() -> None:
    untidy = TEXT.replace("    ", "  ").replace(" = ", "=")

    async def session(client: Client) -> None:
        await client.open(untidy)
        edits = await client.format()
        assert edits is not None
        assert applied(untidy, edits) == format_text(untidy) != untidy
        client.edit((0, 0), (100, 0), format_text(untidy))
        await client.diagnostics()
        assert await client.format() == ()

    run(session)


def test_a_text_of_100_kb_and_one_that_is_too_long() -> None:
    text = "".join(f"# {'∑' * 800}\n" + TEXT.replace("A(", f"A{k}(") for k in range(100))
    assert 0.95 * MAX_TEXT < len(text) < MAX_TEXT
    last = text.count("\n") - 2  # `return y` of the last layer

    async def session(client: Client) -> None:
        assert not await client.open(text)
        for typed in "_z":
            client.edit((last, 12), (last, 12), typed)
        mistake, *_ = await client.diagnostics()
        assert "unknown name `yz_`" in mistake.message
        assert "edge[k]" in (await client.hover(last - 2, 12) or "")
        assert len(await client.outline()) == 100
        client.edit((last, 0), (last, 0), "#" * MAX_TEXT)
        (mistake,) = await client.diagnostics()
        assert f"{MAX_TEXT} is the limit" in mistake.message
        assert await client.hover(4, 12) is None

    run(session)


def test_what_is_no_program() -> None:
    async def session(client: Client) -> None:
        for text in ("", "\x00", "layer", "}{" * 50, "𝛼" * 300, "layer A {" * 40, "(" * 5000, '"', "y = \ufffd }"):
            first, *_ = await client.open(text)
            assert first.severity == lsp.DiagnosticSeverity.Error
            end = text.count("\n"), 5
            await client.hover(*end)
            await client.words(*end)
            await client.outline()
            client.close()
        assert not await client.open(TEXT)

    run(session)


def test_the_server_starts_without_torch() -> None:
    script = "import sys, gdsl.cli, gdsl.editor.server; assert not {'torch', 'triton', 'sympy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_pygls(tmp_path: Path) -> None:
    (tmp_path / "pygls.py").write_text("raise ModuleNotFoundError(name='pygls')")
    (tmp_path / "lsprotocol.py").write_text("raise ModuleNotFoundError(name='pygls')")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from gdsl.cli import main; sys.exit(main(['lsp']))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "gdsl: gdsl lsp needs pygls: pip install 'gdsl[lsp]'\n"


def test_the_server_ends_with_its_editor() -> None:
    """An editor that dies closes the pipe, and says nothing."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"processId":null,"capabilities":{}}}'
    process = subprocess.Popen(
        [sys.executable, "-m", "gdsl", "lsp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = process.communicate(b"Content-Length: %d\r\n\r\n%s" % (len(body), body), timeout=120)
    assert b'"capabilities"' in out
    assert b"Traceback" not in err
