"""examples/published.py: each text is what plain torch gives, with two derivatives and on all backends."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from gdsl.runtime.triton import interpreted

NAMES = ["EGNN", "PaiNN", "GatedGCN", "CompGCN, sub", "CompGCN, mult", "TGAT", "GRIT", "NBFNet", "SGFormer", "GAT"]
# The second derivative of the C++ kernels for all, and the Triton kernels, run with --slow.
SLOW = pytest.mark.slow
WAYS = [
    ("torch", 2),
    ("cpp", 1),
    pytest.param("cpp", 2, marks=SLOW),
    *[pytest.param("triton", 2, marks=SLOW)] * interpreted(),
]


@pytest.fixture
def example(examples_on_path: Path) -> Any:
    return importlib.import_module("published")


def test_all_are_tried(example: Any) -> None:
    assert list(example.PUBLISHED) == NAMES
    texts = {line.split("(")[0].removeprefix("layer ") for line in example.TEXT.split("\n") if line.startswith("layer ")}
    assert {one.layer for one in example.PUBLISHED.values()} == texts


@pytest.mark.filterwarnings("ignore:(invalid|divide):RuntimeWarning")  # of NumPy, in Triton's interpreter
@pytest.mark.parametrize(("backend", "orders"), WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_torch_gives(example: Any, name: str, backend: str, orders: int) -> None:
    one = example.PUBLISHED[name]
    inputs = example.molecules(2, 5, 4, 3)
    for gap in example.compared(one, one.make(4, 3, backend=backend).double(), inputs, orders=orders):
        assert gap < 1e-9
