"""docs/ops.md has every op, as it is defined."""

from __future__ import annotations

from pathlib import Path

from gdsl.ir.ops import OPS
from tests.ir import page

PAGE = Path(__file__).parents[2] / "docs" / "ops.md"


def test_the_page_is_made_from_the_definitions() -> None:
    assert PAGE.read_text(encoding="utf-8") == page.text(), "make it again: python -m tests.ir.page > docs/ops.md"


def test_every_op_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in OPS:
        assert f"### `{name}`\n" in text or f"| {name} |" in text
