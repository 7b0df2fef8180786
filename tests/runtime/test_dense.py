"""Contractions as matrix products: the same numbers as einsum's, however the matrix lies."""

from __future__ import annotations

import functools
import operator
from itertools import permutations

import pytest
import torch

from gdsl.ir import build
from gdsl.ir.node import walk
from gdsl.ir.types import Dim, Domain, Type
from gdsl.passes.plan import TorchStep
from gdsl.runtime.dense import matrix_product, sum_of_products, view

A, B, C = Dim("a", 2), Dim("b", 3), Dim("c", 4)


@pytest.mark.parametrize("order", list(permutations([A, B, C])), ids=str)
@pytest.mark.parametrize("rows_first", [True, False])
def test_rows_by_a_matrix(order: tuple[Dim, ...], rows_first: bool) -> None:
    x = build.load("x", Type(Domain.NODE, (A, B)), "input")
    w = build.load("w", Type(Domain.GLOBAL, order), "param")
    node = build.contract([x, w] if rows_first else [w, x], ["a", "b"])
    product = matrix_product(node)
    assert product is not None
    values, matrix = torch.randn(5, 2, 3), torch.randn([d.size for d in order])
    letters = "".join(d.name for d in order)
    found = product([values, matrix] if rows_first else [matrix, values])
    torch.testing.assert_close(found, torch.einsum(f"nab,{letters}->nc", values, matrix))


@pytest.mark.parametrize("order", list(permutations("abc")), ids="".join)
def test_rows_by_rows(order: tuple[str, ...]) -> None:
    x = build.load("x", Type(Domain.NODE, (A,)), "input")
    d = build.load("d", Type(Domain.NODE, (B, C)), "input")
    node = build.contract([x, d], (), total=True, order=order)
    product = matrix_product(node)
    assert product is not None
    left, right = torch.randn(5, 2), torch.randn(5, 3, 4)
    found = product([left, right])
    torch.testing.assert_close(found, torch.einsum(f"na,nbc->{''.join(order)}", left, right))
    assert found.is_contiguous()


@pytest.mark.parametrize("order", list(permutations("abc")), ids="".join)
@pytest.mark.parametrize("swapped", [False, True])
def test_rows_by_rows_that_share_a_dim(order: tuple[str, ...], swapped: bool) -> None:
    """As the gradient of a matrix of blocks; of a dim of many places the others are multiplied in vain."""
    x = build.load("x", Type(Domain.NODE, (A, B)), "input")
    d = build.load("d", Type(Domain.NODE, (B, C)), "input")
    operands, values = [x, d], [torch.randn(5, 2, 3), torch.randn(5, 3, 4)]
    if swapped:
        operands.reverse()
        values.reverse()
    product = matrix_product(build.contract(operands, (), total=True, order=order))
    assert product is not None
    found = product(values)
    letters = "nbc,nab" if swapped else "nab,nbc"
    torch.testing.assert_close(found, torch.einsum(f"{letters}->{''.join(order)}", *values))
    assert found.is_contiguous()
    wide = build.load("x", Type(Domain.NODE, (Dim("b", 9),)), "input")
    other = build.load("d", Type(Domain.NODE, (Dim("b", 9), C)), "input")
    assert matrix_product(build.contract([wide, other], (), total=True)) is None


def test_a_product_that_keeps_a_dim_of_both_is_none() -> None:
    x = build.load("x", Type(Domain.NODE, (A, B)), "input")
    w = build.load("w", Type(Domain.GLOBAL, (A, B, C)), "param")
    assert matrix_product(build.contract([x, w], ["b"])) is None


@pytest.mark.parametrize("biases", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_sums_of_products(count: int, biases: int) -> None:
    """Of rows of different depths, by matrices that lie in any order, to two dims."""
    dims, shape = Type(Domain.GLOBAL, (B, C)), (5, 3, 4)
    terms, values, wanted = [], {}, torch.zeros(shape)
    for k, order in zip(range(count), ([A, B, C], [C, A, B], [B, C, A]), strict=False):
        rows = build.load(f"x{k}", Type(Domain.NODE, (A,)), "input")
        matrix = build.load(f"w{k}", Type(Domain.GLOBAL, tuple(order)), "param")
        terms.append(build.contract([matrix, rows] if k % 2 else [rows, matrix], ["a"], order=["b", "c"]))
        values |= {rows: torch.randn(5, 2), matrix: torch.randn([d.size for d in order])}
        letters = "".join(d.name for d in order)
        wanted = wanted + torch.einsum(f"na,{letters}->nbc", values[rows], values[matrix])
    for k in range(biases):
        bias = build.load(f"b{k}", dims, "param")
        terms.append(bias)
        values[bias] = torch.randn(3, 4)
        wanted = wanted + values[bias]
    node = functools.reduce(operator.add, terms)
    inner = frozenset(n for n in walk([node]) if n is not node and n.domain is Domain.NODE and n.op != "load")
    step = TorchStep(node, inner)
    found = sum_of_products(step)([values[n] for n in step.buffers])
    torch.testing.assert_close(found, wanted)
    assert found.is_contiguous()


@pytest.mark.parametrize("domain", [Domain.NODE, Domain.GLOBAL])
def test_views(domain: Domain) -> None:
    x = build.load("x", Type(domain, (A, B)), "input")
    values = torch.randn(5, 2, 3) if domain is Domain.NODE else torch.randn(2, 3)
    same, flat = view(build.rename(x, {"a": "q"})), view(build.merge(x, ["a", "b"], "c"))
    assert same is not None and same([values]) is values
    assert flat is not None and torch.equal(flat([values]), values.flatten(-2))
    assert view(build.transpose(x, ["b", "a"])) is None
