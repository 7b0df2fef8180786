"""What the backward pass reads of the forward pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gdsl.ir import build, library
from gdsl.ir.node import Node
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain, Kind, Type
from gdsl.passes.options import Options
from gdsl.passes.pipeline import differentiate


def test_the_operand_of_a_product_is_read_rather_than_the_sum_that_it_is_made_of() -> None:
    """sum(x[j]) / 2 lies in memory for the product: the forward pass need not write the sum as well."""
    wide = Dim("wide", 64)
    x = build.load("x", Type(Domain.NODE, (wide,)), "input")
    w = build.load("w", Type(Domain.GLOBAL, (wide, Dim("out", 64))), "param")
    mean = build.segment(build.gather(x, "j"), "i", "sum", Domain.NODE) / 2.0
    program = Program("p", (("y", build.contract([mean, w], ["wide"])),), {})
    adjoint = differentiate(program, [w], [0], None, Options())
    assert [node for node, _ in adjoint.saved] == [mean]


def test_the_slope_of_relu_is_read_off_its_result() -> None:
    wide = Dim("wide", 64)
    x = build.load("x", Type(Domain.NODE, (wide,)), "input")
    first = build.load("first", Type(Domain.GLOBAL, (wide, Dim("mid", 64))), "param")
    second = build.load("second", Type(Domain.GLOBAL, (Dim("mid", 64), Dim("out", 64))), "param")
    hidden = build.elementwise("relu", build.contract([x, first], ["wide"]))
    program = Program("p", (("y", build.contract([hidden, second], ["mid"])),), {})
    adjoint = differentiate(program, [x, first, second], [0], None, Options())
    assert [node for node, _ in adjoint.saved] == [hidden]


@pytest.mark.parametrize("activation", [library.elu, library.selu, lambda x: build.elementwise("exp", -(x * x))])
@pytest.mark.parametrize("heads", [1, 8])
def test_what_takes_an_exp_to_compute_again_is_read(activation: Callable[[Node], Node], heads: int) -> None:
    """It lies in memory for a product anyway, under other dims or not."""
    dims = (Dim("heads", heads), Dim("each", 64 // heads))
    x = build.load("x", Type(Domain.NODE, dims), "input")
    bias = build.load("bias", Type(Domain.GLOBAL, dims), "param")
    w = build.load("w", Type(Domain.GLOBAL, (Dim("wide", 64), Dim("out", 64))), "param")
    hidden = activation(build.segment(build.gather(x, "j"), "i", "sum", Domain.NODE) + bias)
    flat = build.reshape(hidden, ["heads", "each"], [Dim("wide", 64)])
    program = Program("p", (("y", build.contract([flat, w], ["wide"])),), {})
    adjoint = differentiate(program, [x, w], [0], None, Options())
    assert hidden in [node for node, _ in adjoint.saved]


def test_what_products_read_is_read_where_that_is_no_more_to_hold() -> None:
    """A mean in place of its sum, and what several products are joined to in place of each of them."""
    each, wide = Dim("each", 16), Dim("wide", 64)
    x = build.load("x", Type(Domain.NODE, (each,)), "input")
    mean = library.segment_mean(build.gather(x, "j"), "i", Domain.NODE)
    parts = []
    for k in range(4):
        out = Dim(f"out_{k}", 16)
        w = build.load(f"w_{k}", Type(Domain.GLOBAL, (each, out)), "param")
        # Two products that a kernel weighs and adds up, and not the BLAS.
        degree = build.graph_value("in_degree", Domain.NODE)
        parts.append(build.contract([mean, w], ["each"]) + degree * build.contract([x, w], ["each"]))
    joined = build.cat(parts, [f"out_{k}" for k in range(4)], wide)
    last = build.load("last", Type(Domain.GLOBAL, (wide, Dim("end", 64))), "param")
    program = Program("p", (("y", build.contract([joined, last], ["wide"])),), {})
    wrt = [n for n in program.inputs if n.kind is Kind.FLOAT]
    saved = {node for node, _ in differentiate(program, wrt, [0], None, Options()).saved}
    assert saved == {mean, joined}
