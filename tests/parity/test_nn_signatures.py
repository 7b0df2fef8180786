"""The same arguments, in the same order, with the same defaults, for every layer, aggregation, pooling and norm."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest
import torch

import gdsl.nn
from gdsl.nn import aggr, norm
from tests.parity.drop_in import pyg

# The base of the aggregations is not called there, and a layer of one's own is a subject of its own.
OTHER = ("Aggregation", "MessagePassing")
NAMES = [name for name in gdsl.nn._HOMES if hasattr(pyg, name) and name not in OTHER]


def test_nothing_is_without_a_peer() -> None:
    assert set(gdsl.nn._HOMES) - set(NAMES) == {
        *OTHER, "ECConv", "PointConv",  # two other names
        "convert", "convertible",
    }  # fmt: skip


def test_modules_have_their_names() -> None:
    for library in (aggr, norm):
        assert {name for name in pyg_module(library).__all__ if hasattr(library, name)} <= set(gdsl.nn._HOMES)
    for name in NAMES:
        assert getattr(gdsl.nn, name).__name__ == name


def pyg_module(library: ModuleType) -> ModuleType:
    """The module of torch_geometric of the same name."""
    found: ModuleType = getattr(pyg, library.__name__.rpartition(".")[2])
    return found


def arguments(function: Any) -> list[tuple[str, str]]:
    """Names and defaults; ``self``, and what inheritance leaves to ``object``, are none."""
    found = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    if [p.name for p in found] == ["args", "kwargs"]:
        return []
    return [(p.name, getattr(p.default, "__name__", repr(p.default))) for p in found]


@pytest.mark.parametrize("name", NAMES)
def test_same_arguments(name: str) -> None:
    ours, other = getattr(gdsl.nn, name), getattr(pyg, name)
    if not inspect.isclass(ours):
        assert arguments(ours) == arguments(other)
        return
    assert arguments(ours.__init__) == arguments(other.__init__)
    if hasattr(other, "forward"):
        assert arguments(ours.forward) == arguments(other.forward)


# What there is of how torch_geometric's classes compute, not for their users.
INNER = {
    *dir(pyg.MessagePassing), "forward_naive", "forward_segmm", "init_conv", "initialize_parameters",
}  # fmt: skip
WHOLE = ("gdsl.nn.models.", "gdsl.nn.kge.", "gdsl.nn.dense.", "gdsl.nn.knn_index", "gdsl.nn.clusters")


@pytest.mark.parametrize("name", [name for name in NAMES if gdsl.nn._HOMES[name].startswith(WHOLE)])
def test_same_methods(name: str) -> None:
    """Of models, embeddings and poolings: all that a user may call."""
    ours, other = getattr(gdsl.nn, name), getattr(pyg, name)
    for method in {*dir(other)} - {*dir(torch.nn.Module)} - INNER if inspect.isclass(other) else ():
        theirs = getattr(other, method)
        # torch_geometric writes some of a class's methods when it is first made.
        written = getattr(theirs, "__qualname__", "").endswith(f".{method}")
        if written and not method.startswith("_"):
            assert arguments(getattr(ours, method)) == arguments(theirs), method
