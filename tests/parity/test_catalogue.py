"""docs/layers.md says what the layers are."""

from __future__ import annotations

from pathlib import Path

import pytest

import gdsl.nn
from gdsl.nn.conv.base import Conv, program_text
from tests.parity import catalogue


def test_every_layer_and_its_program(repository: Path) -> None:
    page = (repository / "docs" / "layers.md").read_text(encoding="utf-8")
    for names in gdsl.nn._FAMILIES.values():
        for name in names:
            kind = getattr(gdsl.nn, name)
            assert f"### {name}\n" in page, f"{name} is not there: make the page again, see tests/parity/catalogue.py"
            if issubclass(kind, Conv):
                assert program_text(kind.program_name).strip() in page


@pytest.mark.slow
def test_the_page_is_up_to_date(repository: Path) -> None:
    assert (repository / "docs" / "layers.md").read_text(encoding="utf-8") == catalogue.text()
