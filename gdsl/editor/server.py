"""``gdsl lsp``: a language server over stdin and stdout. What it says is computed by the functions beside this file.

It looks at the texts that the editor sends, reads no other files than those that they use, which are programs below
their folders, and runs nothing.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from gdsl import __version__
from gdsl.editor import complete, fixes, names
from gdsl.editor.analysis import Analysis, analyse
from gdsl.editor.hover import hover
from gdsl.editor.tokens import TextLines, edited
from gdsl.errors import GdslError
from gdsl.language.errors import Diagnostic, either
from gdsl.language.format import format_text
from gdsl.language.imports import Folder

Result = TypeVar("Result")

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
    "use": types.SymbolKind.Object,
    "def": types.SymbolKind.Function,
    "reduce": types.SymbolKind.Function,
    "param": types.SymbolKind.Property,
    "buffer": types.SymbolKind.Property,
}


@dataclass(frozen=True)
class OpenText:
    """A text at one moment, and what is known of it."""

    uri: str
    text: str
    lines: TextLines
    known: Analysis

    def offset(self, position: types.Position) -> int:
        return self.lines.offset(position.line, position.character)

    def range(self, start: int, end: int) -> types.Range:
        return types.Range(types.Position(*self.lines.place(start)), types.Position(*self.lines.place(end)))


class Server(LanguageServer):
    """A language server with the texts that are open.

    It applies edits itself: pygls ends lines where Python's ``splitlines`` does, and the protocol does not.
    """

    def __init__(self) -> None:
        super().__init__("gdsl", __version__)
        self.texts: dict[str, str] = {}
        self.versions: dict[str, int | None] = {}
        self.looks: dict[str, asyncio.Task[None]] = {}
        self.analyses: dict[tuple[str, Folder | None], asyncio.Future[Analysis]] = {}
        # One thing at a time: lark's lexer and parser are not documented to be safe with threads.
        self.worker = ThreadPoolExecutor(max_workers=1)

    @property
    def encoding(self) -> str:
        """How the editor counts columns."""
        chosen = self.server_capabilities.position_encoding or types.PositionEncodingKind.Utf16
        return str(chosen.value) if isinstance(chosen, enum.Enum) else str(chosen)

    async def view(self, uri: str) -> OpenText:
        """The text as it is now. It is looked at in another thread, and once, however many ask."""
        text = self.texts.get(uri, "")
        files = _files_of(uri)
        key = text, files
        if key not in self.analyses:
            self.analyses[key] = asyncio.ensure_future(self.work(analyse, text, files))
            self.analyses[key].add_done_callback(lambda task: self.analyses.pop(key, None))
        return OpenText(uri, text, TextLines.of(text, self.encoding), await asyncio.shield(self.analyses[key]))

    async def work(self, function: Callable[..., Result], *args: object) -> Result:
        """What a function gives that reads texts, in the thread for that."""
        return await asyncio.get_running_loop().run_in_executor(self.worker, function, *args)

    def look(self, uri: str, pause: float) -> None:
        """Send the mistakes of a text, after a pause in which another edit may come."""
        if uri in self.looks:
            self.looks[uri].cancel()
        self.looks[uri] = asyncio.get_running_loop().create_task(self._look(uri, pause))

    async def _look(self, uri: str, pause: float) -> None:
        await asyncio.sleep(pause)
        version = self.versions[uri]
        view = await self.view(uri)
        if self.versions.get(uri) == version:
            shown = [diagnostic(view, d) for d in view.known.diagnostics]
            self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, shown, version))


def _files_of(uri: str) -> Folder | None:
    """Where the files are that a text uses: in its own folder, if it is a file."""
    path = to_fs_path(uri) if uri.startswith("file:") else None
    return Folder(Path(path).parent) if path else None


def diagnostic(view: OpenText, d: Diagnostic) -> types.Diagnostic:
    return types.Diagnostic(
        view.range(d.span.start, max(d.span.end, d.span.start + 1)),
        message(d),
        _SEVERITIES[d.severity],
        source="gdsl",
        tags=[types.DiagnosticTag.Unnecessary] if d.severity == "warning" else None,
    )


def message(d: Diagnostic) -> str:
    """A mistake with what was expected and its hint, without the caret."""
    expected = f"expected {either(d.expected)}" if d.expected else None
    hint = f"hint: {d.hint}" if d.hint else None
    return "\n".join(filter(None, [d.message, *(e.sentence for e in d.inside), d.detail, expected, hint]))


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
async def _hover(ls: Server, params: types.HoverParams) -> types.Hover | None:
    view = await ls.view(params.text_document.uri)
    found = hover(view.known, view.offset(params.position))
    if found is None:
        return None
    content = types.MarkupContent(types.MarkupKind.Markdown, found.markdown())
    return types.Hover(content, view.range(found.start, found.end))


@server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=["[", "~"]))
async def _completion(ls: Server, params: types.CompletionParams) -> types.CompletionList:
    view = await ls.view(params.text_document.uri)
    found = await ls.work(complete.completions, view.known, view.offset(params.position))
    items = [
        types.CompletionItem(
            c.word, kind=_COMPLETIONS[c.kind], detail=c.code or None, documentation=c.says, sort_text=f"{k:03}"
        )
        for k, c in enumerate(found)
    ]
    return types.CompletionList(is_incomplete=False, items=items)


@server.feature(types.TEXT_DOCUMENT_SIGNATURE_HELP, types.SignatureHelpOptions(trigger_characters=["(", ","]))
async def _signature_help(ls: Server, params: types.SignatureHelpParams) -> types.SignatureHelp | None:
    view = await ls.view(params.text_document.uri)
    found, argument = fixes.forms(view.known, view.offset(params.position))
    if not found:
        return None
    shown = [
        types.SignatureInformation(f.form, f.says, [types.ParameterInformation(a) for a in f.arguments]) for f in found
    ]
    # The first form that takes so many arguments.
    fitting = next((k for k, f in enumerate(found) if len(f.arguments) > argument or "..." in f.arguments), 0)
    return types.SignatureHelp(shown, fitting, min(argument, len(found[fitting].arguments) - 1))


@server.feature(
    types.TEXT_DOCUMENT_CODE_ACTION, types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix])
)
async def _code_action(ls: Server, params: types.CodeActionParams) -> Sequence[types.CodeAction]:
    view = await ls.view(params.text_document.uri)
    found = fixes.fixes(view.known, view.offset(params.range.start), view.offset(params.range.end))
    return [
        types.CodeAction(
            f"write `{fix.text}`",
            types.CodeActionKind.QuickFix,
            [diagnostic(view, fix.mistake)],
            is_preferred=True,
            edit=types.WorkspaceEdit({view.uri: [types.TextEdit(view.range(fix.start, fix.end), fix.text)]}),
        )
        for fix in found
    ]


@server.feature(types.TEXT_DOCUMENT_DEFINITION)
async def _definition(ls: Server, params: types.DefinitionParams) -> types.Location | None:
    view = await ls.view(params.text_document.uri)
    found = names.definition(view.known, view.offset(params.position))
    return types.Location(view.uri, view.range(found.start, found.end)) if found is not None else None


@server.feature(types.TEXT_DOCUMENT_REFERENCES)
async def _references(ls: Server, params: types.ReferenceParams) -> Sequence[types.Location]:
    view = await ls.view(params.text_document.uri)
    found = names.references(view.known, view.offset(params.position))
    return [types.Location(view.uri, view.range(p.start, p.end)) for p in found]


@server.feature(types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT)
async def _highlight(ls: Server, params: types.DocumentHighlightParams) -> Sequence[types.DocumentHighlight]:
    view = await ls.view(params.text_document.uri)
    found = names.references(view.known, view.offset(params.position))
    return [types.DocumentHighlight(view.range(p.start, p.end)) for p in found]


@server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
async def _prepare_rename(ls: Server, params: types.PrepareRenameParams) -> types.Range | None:
    view = await ls.view(params.text_document.uri)
    try:
        found = names.renamable(view.known, view.offset(params.position))
    except names.RenameError:
        return None
    return view.range(found.start, found.end)


@server.feature(types.TEXT_DOCUMENT_RENAME, types.RenameOptions(prepare_provider=True))
async def _rename(ls: Server, params: types.RenameParams) -> types.WorkspaceEdit:
    view = await ls.view(params.text_document.uri)
    try:
        found = await ls.work(names.rename, view.known, view.offset(params.position), params.new_name)
    except names.RenameError as error:
        raise JsonRpcException(str(error), types.LSPErrorCodes.RequestFailed) from None
    edits = [types.TextEdit(view.range(p.start, p.end), params.new_name) for p in found]
    return types.WorkspaceEdit(changes={view.uri: edits})


@server.feature(types.TEXT_DOCUMENT_FORMATTING)
async def _format(ls: Server, params: types.DocumentFormattingParams) -> Sequence[types.TextEdit] | None:
    """The text as the formatter writes it; a text that does not parse is left as it is."""
    view = await ls.view(params.text_document.uri)
    try:
        after = await ls.work(format_text, view.text)
    except GdslError:
        return None
    return [types.TextEdit(view.range(0, len(view.text)), after)] if after != view.text else []


@server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
async def _outline(ls: Server, params: types.DocumentSymbolParams) -> Sequence[types.DocumentSymbol]:
    view = await ls.view(params.text_document.uri)

    def symbol(entry: names.Entry) -> types.DocumentSymbol:
        return types.DocumentSymbol(
            entry.name,
            _SYMBOLS.get(entry.kind, types.SymbolKind.Variable),
            view.range(entry.whole.start, entry.whole.end),
            view.range(entry.name_at.start, entry.name_at.end),
            detail=entry.kind,
            children=[symbol(e) for e in entry.inside],
        )

    return [symbol(entry) for entry in names.outline(view.known)]
