"""Classes of users written at random: on gdsl's base class and torch_geometric's: see
:mod:`tests.parity.random_classes`.

``GDSL_CLASSES=2000`` tries so many, from the seed in ``GDSL_SEED``.
"""

from __future__ import annotations

import os

import pytest

pytest.importorskip("torch_geometric")

from tests.parity.random_classes import compare

COUNT, FIRST = int(os.environ.get("GDSL_CLASSES", "24")), int(os.environ.get("GDSL_SEED", "0"))


@pytest.mark.parametrize("part", range(8))
def test_random_classes(part: int) -> None:
    ways = {compare(FIRST + seed) for seed in range(part, COUNT, 8)}
    assert ways  # each seed has run


# Those that were wrong once.
FOUND = (222, 559, 1023, 8220)


@pytest.mark.parametrize("seed", FOUND)
def test_found(seed: int) -> None:
    assert compare(seed)


def test_random_classes_of_generated_code() -> None:
    """One that is fused, on the kernels."""
    assert compare(2, "cpp") == compare(2)
