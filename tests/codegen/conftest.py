"""pytest tests/codegen --update-golden    writes the golden kernels anew: review the difference like code"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/codegen/golden anew")
