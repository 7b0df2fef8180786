"""The same arguments, in the same order, with the same defaults, for every layer, aggregation, pooling and norm."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest

import gdsl.nn
from gdsl.nn import aggr, norm, pool
from tests.parity.drop_in import pyg

LAYERS = [(name, gdsl.nn, pyg) for name in gdsl.nn._HOMES if hasattr(pyg, name) and name != "MessagePassing"]
OTHERS = [
    (name, library, peers)
    for library, peers in ((aggr, pyg.aggr), (pool, pyg.pool), (norm, pyg.norm))
    for name in dir(library)
    if hasattr(peers, name) and getattr(getattr(library, name), "__module__", "").startswith("gdsl")
    if name != "Aggregation"  # the base, whose call is not used there
]


def arguments(function: Any) -> list[tuple[str, str]]:
    """Names and defaults; ``self``, and what inheritance leaves to ``object``, are none."""
    found = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    if [p.name for p in found] == ["args", "kwargs"]:
        return []
    return [(p.name, getattr(p.default, "__name__", repr(p.default))) for p in found]


@pytest.mark.parametrize(
    ("name", "library", "peers"),
    [*LAYERS, *OTHERS],
    ids=[f"{lib.__name__}.{name}" for name, lib, _ in [*LAYERS, *OTHERS]],
)
def test_same_arguments(name: str, library: ModuleType, peers: ModuleType) -> None:
    ours, other = getattr(library, name), getattr(peers, name)
    if not inspect.isclass(ours):
        assert arguments(ours) == arguments(other)
        return
    assert arguments(ours.__init__) == arguments(other.__init__)
    assert arguments(ours.forward) == arguments(other.forward)
