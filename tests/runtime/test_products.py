"""Our own products of matrices: those of torch, for all sizes that tiles, panels, blocks and stretches can have."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import gdsl
import gdsl.nn as G
from gdsl.runtime import products
from gdsl.runtime.products import Code

# About the bounds of products.cpp: 6 rows and 8 to 64 columns a tile, 256 deep, 384 rows a block, 1,024 a stretch.
ROWS = st.sampled_from((0, 1, 2, 3, 5, 6, 7, 29, 383, 385, 2047, 2050, 3100))
DEPTH = st.sampled_from((0, 1, 2, 5, 6, 13, 64, 255, 257, 520))
WIDTH = st.sampled_from((1, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 130, 520))


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=str)
def code(request: pytest.FixtureRequest) -> Code:
    found = products.compiled(request.param)
    if found is None:
        pytest.skip("needs a C++ compiler")
    return found


def _values(code: Code, *shape: int) -> Tensor:
    """Whole numbers, of which sums in any order are the same."""
    dtype = torch.float32 if code is products.compiled(torch.float32) else torch.float64
    return torch.randint(-3, 4, shape).to(dtype)


@settings(max_examples=60, deadline=None)
@given(ROWS, DEPTH, WIDTH, st.integers(0, 2**31))
def test_rows_by_a_matrix(code: Code, rows: int, depth: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    left, matrix = _values(code, rows, depth), _values(code, depth, width)
    bias, more = _values(code, width), _values(code, rows, width)
    expected = left @ matrix
    assert torch.equal(code.by_matrix(left, matrix, False, width, None), expected)
    assert torch.equal(code.by_matrix(left, matrix.t().contiguous(), True, width, bias), expected + bias)
    for turned, lies in ((False, matrix), (True, matrix.t().contiguous())):
        made = more.clone()
        code.add_by_matrix(made, left, lies, turned)
        assert torch.equal(made, expected + more)


@settings(max_examples=60, deadline=None)
@given(ROWS, DEPTH, WIDTH, st.integers(0, 2**31))
def test_sums_over_rows(code: Code, rows: int, depth: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    left, right = _values(code, rows, depth), _values(code, rows, width)
    assert torch.equal(code.over_rows(left, right), left.t() @ right)


def test_what_is_no_number_stays_none(code: Code) -> None:
    """An infinite factor of zero is NaN in its own row and column alone, not in what a panel is filled up with."""
    left, matrix = _values(code, 7, 5), _values(code, 5, 3)
    left[2, 1], matrix[1, 0] = float("inf"), 0.0
    left[4, 0] = float("nan")
    torch.testing.assert_close(code.by_matrix(left, matrix, False, 3, None), left @ matrix, equal_nan=True)
    right = _values(code, 7, 3)
    torch.testing.assert_close(code.over_rows(left, right), left.t() @ right, equal_nan=True)


@pytest.mark.parametrize(("rows", "depth", "width"), [(9001, 70, 33), (20001, 70, 1), (1, 1500, 1100)])
def test_the_same_bits_for_any_number_of_threads(code: Code, rows: int, depth: int, width: int) -> None:
    dtype = _values(code).dtype
    random = torch.Generator().manual_seed(0)
    sizes = ((rows, depth), (depth, width), (rows, width), (width, depth))
    left, matrix, right, turned = (torch.randn(*s, generator=random, dtype=dtype) for s in sizes)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            by_matrix = (code.by_matrix(left, m, m is turned, width, None) for m in (matrix, turned))
            found.append((*by_matrix, code.over_rows(left, right)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    tolerance = 1e-4 if dtype is torch.float32 else 1e-12
    for made, expected in zip(found[0], (left @ matrix, left @ turned.t(), left.t() @ right), strict=True):
        torch.testing.assert_close(made, expected, rtol=tolerance, atol=tolerance * 100)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("nodes", [7, 3000])
def test_layers_by_either(own: bool, nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, in one native call, and in turns with a kernel."""
    if products.compiled(torch.float64) is None:
        pytest.skip("needs a C++ compiler")
    monkeypatch.setattr(products, "wanted", lambda: own)
    torch.manual_seed(1)
    x = torch.randn(nodes, 6, dtype=torch.float64, requires_grad=True)
    edges = torch.randint(nodes, (2, 3 * nodes))
    for layer in (G.SAGEConv(6, 5), G.GINConv(torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.ReLU()))):
        layer.double()
        reference = type(layer)(*((6, 5) if isinstance(layer, G.SAGEConv) else (layer.nn,)), backend="torch").double()
        reference.load_state_dict(layer.state_dict())
        wanted = [x, *layer.parameters()]
        for _ in range(3):
            found, expected = layer(x, edges), reference(x, edges)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
            slopes = torch.autograd.grad(found.square().sum(), wanted)
            more = torch.autograd.grad(expected.square().sum(), [x, *reference.parameters()])
            torch.testing.assert_close(slopes, more, rtol=1e-10, atol=1e-9)


def test_large_matrices(code: Code) -> None:
    """Whose panels threads share, and whose sums over rows are of one stretch."""
    left, matrix, right = _values(code, 9, 1100), _values(code, 1100, 600), _values(code, 9, 600)
    assert torch.equal(code.by_matrix(left, matrix, False, 600, None), left @ matrix)
    assert torch.equal(code.by_matrix(left, matrix.t().contiguous(), True, 600, None), left @ matrix)
    many, more = _values(code, 2100, 500), _values(code, 2100, 200)
    assert torch.equal(code.over_rows(many, more), many.t() @ more)
    assert torch.equal(code.over_rows(left, right), left.t() @ right)


def test_a_setting_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(products.SETTING, "Own")
    products.wanted.cache_clear()
    try:
        with pytest.raises(gdsl.InputError, match="'own' or 'torch', and not 'Own'"):
            products.wanted()
        for told in ("own", "torch"):
            monkeypatch.setenv(products.SETTING, told)
            products.wanted.cache_clear()
            assert products.wanted() == (told == "own")
    finally:
        monkeypatch.undo()
        products.wanted.cache_clear()


def test_tensors_that_are_not_what_lies_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "wanted", lambda: True)
    plain, minus = torch.ones(2, 2), torch._neg_view(torch.ones(2, 2))
    assert products.code_for(plain, minus) is None
    assert products.code_for(plain, plain.double()) is None
    assert products.code_for(plain, torch._efficientzerotensor((2, 2))) is None
    assert products.code_for(plain.half()) is None
