"""The code on the pages is right: Python runs as it is printed, and programs are right, warned about, or refused.

The Python of a page runs from top to bottom, as one script. Blocks of ``text`` below a piece of it are what that piece
prints, where ``...`` stands for whatever there is. Programs are blocks of ``gdsl``, ``gdsl refused`` and
``gdsl warned``; ``text`` below a refused one is the error, as ``gdsl check`` prints it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from gdsl.distributed import processes
from gdsl.language.errors import LanguageError
from gdsl.language.lint import lint
from gdsl.language.parse import parse
from gdsl.language.placeholders import check_any
from tests.docs.pages import Block, blocks, name, pages

PAGES = {name(page): list(blocks(page)) for page in pages()}
# What a page prints and does not show.
PRINTED = {
    "README.md": ["== plan =="],
    "docs/distributed.md": [
        "GraphPart(0 of 1, 1,000 own nodes, 8,000 edges, halo 0) World(rank=0, size=1, device='cpu')",
        "Division(1 parts",
        "100 {'epoch': 3}",
    ],
    "docs/data.md": ["Packed(300 graphs", "300 ['edge_index', 'x', 'y']", "\n5 ["],
}


def with_shown(page: str, language: str) -> list[tuple[Block, list[str]]]:
    """The blocks of a language, each with the texts that are shown below it, before the next piece of code."""
    found: list[tuple[Block, list[str]]] = []
    for block in PAGES[page]:
        if block.info == "text" and found:
            found[-1][1].append(block.text)
        elif block.info != "text":
            found.append((block, []))
    return [(block, shown) for block, shown in found if block.info == language]


def pattern(shown: str) -> str:
    """Text in which ``...`` stands for anything, and the number of spaces counts for nothing."""
    words = [r"\s+".join(map(re.escape, part.split())) for part in shown.split("...")]
    return r"(?s:.*?)".join(rf"{word}\s*" for word in words)


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A page that joins torch's processes is alone in them, and leaves them."""
    for variable in processes.ENVIRONMENT:
        monkeypatch.delenv(variable, raising=False)
    yield
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.parametrize("page", [p for p, found in PAGES.items() if any(b.info == "python" for b in found)])
def test_python(page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = with_shown(page, "python")
    if any("torch_geometric" in block.text for block, _ in code):
        pytest.importorskip("torch_geometric")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "__page__"}
    everything = ""
    for block, shown in code:
        exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)
        printed = capsys.readouterr().out
        everything += printed
        for text in shown:
            if not re.search(pattern(text), printed):
                pytest.fail(f"{page}:{block.line} prints\n{printed[:2000]}\nand not\n{text}")
    for mark in PRINTED.get(page, ()):
        assert mark in everything


def programs() -> list[tuple[str, str, Block, list[str]]]:
    kinds = ("gdsl", "gdsl refused", "gdsl warned")
    return [(page, kind, block, shown) for page in PAGES for kind in kinds for block, shown in with_shown(page, kind)]


def test_there_are_programs_of_each_kind() -> None:
    assert {kind for _, kind, _, _ in programs()} == {"gdsl", "gdsl refused", "gdsl warned"}


@pytest.mark.parametrize(
    ("kind", "block", "shown"),
    [pytest.param(kind, block, shown, id=f"{page}:{block.line}") for page, kind, block, shown in programs()],
)
def test_program(kind: str, block: Block, shown: list[str]) -> None:
    if kind == "gdsl refused":
        with pytest.raises(LanguageError) as raised:
            [check_any(layer) for layer in parse(block.text).layers]
        error = raised.value.render().strip()
        if any(not re.fullmatch(pattern(text), error) for text in shown):
            pytest.fail(error)
        return
    layers = parse(block.text).layers
    assert all(check_any(layer) for layer in layers)
    assert any(lint(layer) for layer in layers) == (kind == "gdsl warned")
