"""A client of `gdsl lsp` that speaks the protocol over the pipes of a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("pygls", reason="gdsl[lsp] is not installed")

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

__all__ = ["Client", "JsonRpcException", "lsp", "run"]

URI = "file:///layer.gdsl"
# A server that says nothing fails the test instead of stopping all of them.
SECONDS = 120


class Client:
    """One text in one editor. Places are pairs (line, column), from 0."""

    def __init__(self, encodings: Sequence[str] = ("utf-16",)):
        self.encodings = encodings
        self.client = LanguageClient("test", "1")
        self.published: asyncio.Queue[lsp.PublishDiagnosticsParams] = asyncio.Queue()
        self.version = 0

        @self.client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def published(params: lsp.PublishDiagnosticsParams) -> None:
            self.published.put_nowait(params)

    async def start(self) -> lsp.InitializeResult:
        await self.client.start_io(sys.executable, "-m", "gdsl", "lsp", "--stdio")
        general = lsp.GeneralClientCapabilities(position_encodings=list(self.encodings))
        started = await self.client.initialize_async(
            lsp.InitializeParams(lsp.ClientCapabilities(general=general), process_id=None)
        )
        self.client.initialized(lsp.InitializedParams())
        return started

    async def stop(self) -> int:
        """Shut the server down as the protocol says. Gives its exit code."""
        await self.client.shutdown_async(None)
        process = self.client._server
        assert process is not None
        self.client.exit(None)
        code = await process.wait()
        await self.client.stop()
        return code

    async def diagnostics(self) -> Sequence[lsp.Diagnostic]:
        """Those of the newest version."""
        while True:
            params = await self.published.get()
            if params.version == self.version:
                return params.diagnostics

    async def open(self, text: str) -> Sequence[lsp.Diagnostic]:
        self.version += 1
        document = lsp.TextDocumentItem(URI, "gdsl", self.version, text)
        self.client.text_document_did_open(lsp.DidOpenTextDocumentParams(document))
        return await self.diagnostics()

    def edit(self, start: tuple[int, int], end: tuple[int, int], text: str) -> None:
        self.version += 1
        place = lsp.Range(lsp.Position(*start), lsp.Position(*end))
        change = lsp.TextDocumentContentChangePartial(place, text)
        document = lsp.VersionedTextDocumentIdentifier(self.version, URI)
        self.client.text_document_did_change(lsp.DidChangeTextDocumentParams(document, [change]))

    def close(self) -> None:
        document = lsp.TextDocumentIdentifier(URI)
        self.client.text_document_did_close(lsp.DidCloseTextDocumentParams(document))

    def _at(self, kind: Any, place: tuple[int, int], **more: Any) -> Any:
        return kind(text_document=lsp.TextDocumentIdentifier(URI), position=lsp.Position(*place), **more)

    async def hover(self, *place: int) -> str | None:
        found = await self.client.text_document_hover_async(self._at(lsp.HoverParams, place))
        return found.contents.value if found is not None else None

    async def words(self, *place: int) -> list[str]:
        found = await self.client.text_document_completion_async(self._at(lsp.CompletionParams, place))
        return [item.label for item in found.items]

    async def definition(self, *place: int) -> tuple[int, int] | None:
        found = await self.client.text_document_definition_async(self._at(lsp.DefinitionParams, place))
        return (found.range.start.line, found.range.start.character) if found is not None else None

    async def references(self, *place: int) -> int:
        context = lsp.ReferenceContext(include_declaration=True)
        found = await self.client.text_document_references_async(self._at(lsp.ReferenceParams, place, context=context))
        return len(found)

    async def rename(self, place: tuple[int, int], name: str) -> list[lsp.TextEdit]:
        found = await self.client.text_document_rename_async(self._at(lsp.RenameParams, place, new_name=name))
        return found.changes[URI]

    async def can_rename(self, *place: int) -> bool:
        found = await self.client.text_document_prepare_rename_async(self._at(lsp.PrepareRenameParams, place))
        return found is not None

    async def fixes(self, start: tuple[int, int], end: tuple[int, int]) -> list[lsp.CodeAction]:
        document, place = lsp.TextDocumentIdentifier(URI), lsp.Range(lsp.Position(*start), lsp.Position(*end))
        params = lsp.CodeActionParams(document, place, lsp.CodeActionContext(diagnostics=[]))
        return list(await self.client.text_document_code_action_async(params))

    async def signature(self, *place: int) -> tuple[str, str] | None:
        """The form that is meant, and the argument that is written."""
        found = await self.client.text_document_signature_help_async(self._at(lsp.SignatureHelpParams, place))
        if found is None:
            return None
        form = found.signatures[found.active_signature or 0]
        return form.label, form.parameters[found.active_parameter or 0].label

    async def highlights(self, *place: int) -> int:
        found = await self.client.text_document_document_highlight_async(self._at(lsp.DocumentHighlightParams, place))
        return len(found)

    async def format(self) -> list[lsp.TextEdit] | None:
        options = lsp.FormattingOptions(tab_size=4, insert_spaces=True)
        document = lsp.TextDocumentIdentifier(URI)
        return await self.client.text_document_formatting_async(lsp.DocumentFormattingParams(document, options))

    async def outline(self) -> Sequence[lsp.DocumentSymbol]:
        document = lsp.TextDocumentIdentifier(URI)
        return await self.client.text_document_document_symbol_async(lsp.DocumentSymbolParams(document))


@contextlib.asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[Client]:
    client = Client(**options)
    await client.start()
    try:
        yield client
    finally:
        assert await client.stop() == 0


def run(session: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    """A session of an editor with a server of its own, which must end as the protocol says."""

    async def whole() -> None:
        async with connected(**options) as client:
            await session(client)

    asyncio.run(asyncio.wait_for(whole(), SECONDS))
