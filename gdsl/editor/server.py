"""``gdsl lsp``: a language server over stdin and stdout. What it says is computed by the functions beside this file.

It looks at the texts that the editor sends, reads no file, and runs nothing.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer

from gdsl import __version__
from gdsl.editor import complete, names
from gdsl.editor.analysis import Analysis, analyse
from gdsl.editor.hover import hover
from gdsl.editor.tokens import Lines, edited
from gdsl.errors import GdslError
from gdsl.language.errors import Diagnostic, either
from gdsl.language.format import format_text

# Seconds without a keystroke after which a text is looked at.
_PAUSE = 0.1

_SEVERITIES = {"error": types.DiagnosticSeverity.Error, "warning": types.DiagnosticSeverity.Warning}
_COMPLETIONS = {
    "keyword": types.CompletionItemKind.Keyword,
    "function": types.CompletionItemKind.Function,
    "value": types.CompletionItemKind.Variable,
    "dim": types.CompletionItemKind.TypeParameter,
    "end": types.CompletionItemKind.Constant,
    "transform": types.CompletionItemKind.Function,
}
_SYMBOLS = {
    "layer": types.SymbolKind.Class,
    "argument": types.SymbolKind.TypeParameter,
    "const": types.SymbolKind.Constant,
    "module": types.SymbolKind.Object,
    "linear": types.SymbolKind.Object,
    "mlp": types.SymbolKind.Object,
    "def": types.SymbolKind.Function,
    "reduce": types.SymbolKind.Function,
    "param": types.SymbolKind.Property,
    "buffer": types.SymbolKind.Property,
}


class Server(LanguageServer):
    """A language server with the texts that are open.

    It applies edits itself: pygls ends lines where Python's ``splitlines`` does, and the protocol does not.
    """

    def __init__(self) -> None:
        super().__init__("gdsl", __version__)
        self.texts: dict[str, str] = {}
        self.versions: dict[str, int | None] = {}
        self.looks: dict[str, asyncio.Task[None]] = {}

    @property
    def encoding(self) -> str:
        """How the editor counts columns."""
        chosen = self.server_capabilities.position_encoding or types.PositionEncodingKind.Utf16
        return str(chosen.value) if isinstance(chosen, enum.Enum) else str(chosen)

    def lines(self, uri: str) -> Lines:
        return Lines.of(self.texts.get(uri, ""), self.encoding)

    def known(self, uri: str) -> Analysis:
        return analyse(self.texts.get(uri, ""))

    def offset(self, uri: str, position: types.Position) -> int:
        return self.lines(uri).offset(position.line, position.character)

    def range(self, uri: str, start: int, end: int) -> types.Range:
        lines = self.lines(uri)
        return types.Range(types.Position(*lines.place(start)), types.Position(*lines.place(end)))

    def look(self, uri: str, pause: float) -> None:
        """Send the mistakes of a text, after a pause in which another edit may come."""
        if uri in self.looks:
            self.looks[uri].cancel()
        self.looks[uri] = asyncio.get_running_loop().create_task(self._look(uri, pause))

    async def _look(self, uri: str, pause: float) -> None:
        await asyncio.sleep(pause)
        text, version = self.texts[uri], self.versions[uri]
        found = await asyncio.to_thread(analyse, text)
        if self.texts.get(uri) == text:
            shown = [self.diagnostic(uri, d) for d in found.diagnostics]
            self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, shown, version))

    def diagnostic(self, uri: str, d: Diagnostic) -> types.Diagnostic:
        warns = d.severity == "warning"
        return types.Diagnostic(
            self.range(uri, d.span.start, max(d.span.end, d.span.start + 1)),
            message(d),
            _SEVERITIES[d.severity],
            source="gdsl",
            tags=[types.DiagnosticTag.Unnecessary] if warns else None,
        )


def message(d: Diagnostic) -> str:
    """A mistake with what was expected and its hint, without the caret."""
    expected = f"expected {either(d.expected)}" if d.expected else None
    hint = f"hint: {d.hint}" if d.hint else None
    return "\n".join(filter(None, [d.message, d.detail, expected, hint]))


server = Server()


# ------------------------------------------------------------------------------------------ texts


@server.feature(types.TEXT_DOCUMENT_DID_OPEN)
def _opened(ls: Server, params: types.DidOpenTextDocumentParams) -> None:
    document = params.text_document
    ls.texts[document.uri], ls.versions[document.uri] = document.text, document.version
    ls.look(document.uri, 0)


@server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
def _changed(ls: Server, params: types.DidChangeTextDocumentParams) -> None:
    uri = params.text_document.uri
    for change in params.content_changes:
        text = change.text
        if isinstance(change, types.TextDocumentContentChangePartial):
            start, end = change.range.start, change.range.end
            places = (start.line, start.character), (end.line, end.character)
            text = edited(ls.texts.get(uri, ""), *places, change.text, ls.encoding)
        ls.texts[uri] = text
    ls.versions[uri] = params.text_document.version
    ls.look(uri, _PAUSE)


@server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
def _closed(ls: Server, params: types.DidCloseTextDocumentParams) -> None:
    uri = params.text_document.uri
    if uri in ls.looks:
        ls.looks.pop(uri).cancel()
    ls.texts.pop(uri, None)
    ls.versions.pop(uri, None)
    ls.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))


# ---------------------------------------------------------------------------------------- questions


@server.feature(types.TEXT_DOCUMENT_HOVER)
def _hover(ls: Server, params: types.HoverParams) -> types.Hover | None:
    uri = params.text_document.uri
    found = hover(ls.known(uri), ls.offset(uri, params.position))
    if found is None:
        return None
    content = types.MarkupContent(types.MarkupKind.Markdown, found.markdown())
    return types.Hover(content, ls.range(uri, found.start, found.end))


@server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=["[", "~"]))
def _completion(ls: Server, params: types.CompletionParams) -> types.CompletionList:
    uri = params.text_document.uri
    found = complete.completions(ls.known(uri), ls.offset(uri, params.position))
    items = [
        types.CompletionItem(
            c.word, kind=_COMPLETIONS[c.kind], detail=c.code or None, documentation=c.says, sort_text=f"{k:03}"
        )
        for k, c in enumerate(found)
    ]
    return types.CompletionList(is_incomplete=False, items=items)


@server.feature(types.TEXT_DOCUMENT_DEFINITION)
def _definition(ls: Server, params: types.DefinitionParams) -> types.Location | None:
    uri = params.text_document.uri
    found = names.definition(ls.known(uri), ls.offset(uri, params.position))
    return types.Location(uri, ls.range(uri, found.start, found.end)) if found is not None else None


@server.feature(types.TEXT_DOCUMENT_REFERENCES)
def _references(ls: Server, params: types.ReferenceParams) -> Sequence[types.Location]:
    uri = params.text_document.uri
    found = names.references(ls.known(uri), ls.offset(uri, params.position))
    return [types.Location(uri, ls.range(uri, p.start, p.end)) for p in found]


@server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
def _prepare_rename(ls: Server, params: types.PrepareRenameParams) -> types.Range | None:
    uri = params.text_document.uri
    try:
        found = names.renamable(ls.known(uri), ls.offset(uri, params.position))
    except names.RenameError:
        return None
    return ls.range(uri, found.start, found.end)


@server.feature(types.TEXT_DOCUMENT_RENAME, types.RenameOptions(prepare_provider=True))
def _rename(ls: Server, params: types.RenameParams) -> types.WorkspaceEdit:
    uri = params.text_document.uri
    try:
        found = names.rename(ls.known(uri), ls.offset(uri, params.position), params.new_name)
    except names.RenameError as error:
        raise JsonRpcException(str(error), types.LSPErrorCodes.RequestFailed) from None
    edits = [types.TextEdit(ls.range(uri, p.start, p.end), params.new_name) for p in found]
    return types.WorkspaceEdit(changes={uri: edits})


@server.feature(types.TEXT_DOCUMENT_FORMATTING)
def _format(ls: Server, params: types.DocumentFormattingParams) -> Sequence[types.TextEdit] | None:
    """The text as the formatter writes it; a text that does not parse is left as it is."""
    uri = params.text_document.uri
    text = ls.texts.get(uri, "")
    try:
        after = format_text(text)
    except GdslError:
        return None
    return [types.TextEdit(ls.range(uri, 0, len(text)), after)] if after != text else []


@server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
def _outline(ls: Server, params: types.DocumentSymbolParams) -> Sequence[types.DocumentSymbol]:
    uri = params.text_document.uri

    def symbol(entry: names.Entry) -> types.DocumentSymbol:
        return types.DocumentSymbol(
            entry.name,
            _SYMBOLS.get(entry.kind, types.SymbolKind.Variable),
            ls.range(uri, entry.whole.start, entry.whole.end),
            ls.range(uri, entry.name_at.start, entry.name_at.end),
            detail=entry.kind,
            children=[symbol(e) for e in entry.inside],
        )

    return [symbol(entry) for entry in names.outline(ls.known(uri))]
