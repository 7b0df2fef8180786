"""Labels that spread, against torch_geometric's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import gdsl.nn
from tests.parity.drop_in import NODES, graph_of, pyg, set_backend
from tests.programs import harness

CLASSES = 3
MASKS = [None, torch.arange(NODES) % 2 == 0, torch.tensor([1, 4, 7])]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    """torch_geometric normalises in the default dtype whatever the labels are."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def some_graph() -> Tensor:
    graph = graph_of("any", 1, False)
    assert graph is not None
    return graph


@pytest.mark.parametrize("mask", MASKS, ids=["all", "mask", "indices"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("step", [None, lambda y: y / y.sum(dim=1, keepdim=True).clamp(min=0.1)])
def test_label_propagation(mask: Tensor | None, weighted: bool, step: Callable[[Tensor], Tensor] | None) -> None:
    ours, theirs = (library.LabelPropagation(3, 0.7) for library in (gdsl.nn, pyg))
    assert repr(ours) == repr(theirs)
    graph = some_graph()
    weight = 2 * torch.rand(graph.shape[1], dtype=torch.float64) if weighted else None
    for y in (torch.rand(NODES, CLASSES, dtype=torch.float64), torch.randint(CLASSES, (NODES,))):
        before = y.clone()
        found, expected = (model(y, graph, mask, weight, step) for model in (ours, theirs))
        assert found.dtype == expected.dtype
        assert harness.difference([found], [expected]) < 1e-9
        assert torch.equal(y, before)
        assert not found.requires_grad


def test_label_propagation_on_matrices() -> None:
    model = gdsl.nn.LabelPropagation(2, 0.5)
    graph, y = some_graph(), torch.rand(NODES, CLASSES)
    weight = torch.rand(graph.shape[1])
    dense = torch.sparse_coo_tensor(graph.flip(0), torch.ones(graph.shape[1]), (NODES, NODES)).coalesce()
    assert torch.allclose(model(y, dense), model(y, graph), atol=1e-6)
    valued = torch.sparse_coo_tensor(graph.flip(0), weight, (NODES, NODES)).coalesce()  # its values are normalised, too
    expected = gdsl.nn.LGConv()(y, graph, weight)
    assert torch.allclose(gdsl.nn.LabelPropagation(1, 1.0)(y, valued), expected.clamp(0, 1), atol=1e-6)
    assert torch.equal(gdsl.nn.LabelPropagation(0, 0.5)(y, graph), y)


def test_generated_code() -> None:
    graph, y = some_graph(), torch.rand(NODES, CLASSES)
    made = [gdsl.nn.LabelPropagation(2, 0.5) for _ in range(2)]
    set_backend(made[0], "cpp")
    set_backend(made[1], "torch")
    assert torch.allclose(made[0](y, graph), made[1](y, graph), atol=1e-6)


@pytest.mark.parametrize("mask", MASKS[1:], ids=["mask", "indices"])
@pytest.mark.parametrize("options", [{}, {"autoscale": False, "scale": 0.5}], ids=str)
def test_correct_and_smooth(mask: Tensor, options: dict[str, Any]) -> None:
    ours, theirs = (library.CorrectAndSmooth(3, 0.8, 2, 0.6, **options) for library in (gdsl.nn, pyg))
    assert repr(ours) == repr(theirs)
    graph, y_soft = some_graph(), torch.rand(NODES, CLASSES, dtype=torch.float64).softmax(dim=1)
    labels = torch.randint(CLASSES, (NODES,))[mask]
    weight = torch.rand(graph.shape[1], dtype=torch.float64)
    for y_true in (labels, torch.nn.functional.one_hot(labels, CLASSES).double()):
        for given in ((graph,), (graph, weight)):
            for part in ("correct", "smooth", "forward"):
                found, expected = (getattr(model, part)(y_soft, y_true, mask, *given) for model in (ours, theirs))
                assert harness.difference([found], [expected]) < 1e-9
    with pytest.raises(AssertionError, match="2 labels of"):
        ours.correct(y_soft, labels[:2], mask, graph)
