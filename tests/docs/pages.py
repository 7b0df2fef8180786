"""The pages that are written by hand, and the pieces of code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^(```+)([^\n`]*)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands behind the fence, its text, and the number of its first line."""

    info: str
    text: str
    line: int


def pages() -> list[Path]:
    found = [p for p in (REPOSITORY / "docs").rglob("*.md") if "made" not in p.parts]
    others = [*REPOSITORY.glob("*.md"), *(REPOSITORY / ".github").rglob("*.md"), REPOSITORY / "findings" / "README.md"]
    return sorted([*found, *others])


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        yield Block(found[2].strip(), found[3], text.count("\n", 0, found.start()) + 2)
