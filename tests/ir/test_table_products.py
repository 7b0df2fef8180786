"""The reference of products with tables: term by term where nearly all is 0, and as a matrix's product elsewhere."""

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.ir.ops import tables

NODES = 3
# Sums that the text writes, and those of torch.einsum: x[a, k] and y[k, b, l] are of nodes, w[b, a] of none.
SUMS = {
    "sum[a](t * x)": "abc,nak->nbck",
    "sum[a, b](t * x * y)": "abc,nak,nkbl->nckl",
    "sum[a, b, c](t * x * w)": "abc,nak,ba->nk",
    "sum[c](t * x * y)": "abc,nak,nkbl->nabkl",
    "sum[b, c](t * w) * x": "abc,ba,nak->nak",
    "transpose(sum[b](t * y); l, c, k, a)": "abc,nkbl->nlcka",
}


@pytest.mark.parametrize("mostly_zero", [0, 10**6])
@pytest.mark.parametrize("sum_", SUMS)
@pytest.mark.parametrize("places", [(), (7, 8, 31, 59)])
def test_a_sum(sum_: str, places: tuple[int, ...], mostly_zero: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOSTLY_ZERO", mostly_zero)
    table = torch.zeros(3, 4, 5, dtype=torch.float64)
    for k, place in enumerate(places):
        table.view(-1)[place] = k - 1.5
    text = f"layer L(k, l) {{ const t[a, b, c] node x[a, k] node y[k, b, l] param w[b, a] ~ ones z = {sum_} "
    made = gdsl.compile(text + "return x, y, z }", k=2, l=3, t=table, backend="torch").double()
    g = torch.Generator().manual_seed(0)
    values: dict[str, Tensor] = {
        "t": table,
        "x": torch.rand(NODES, 3, 2, generator=g, dtype=torch.float64),
        "y": torch.rand(NODES, 2, 4, 3, generator=g, dtype=torch.float64),
        "w": torch.rand(4, 3, generator=g, dtype=torch.float64),
    }
    made.w.data.copy_(values["w"])
    dims = {"abc": "t", "nak": "x", "nkbl": "y", "ba": "w"}
    equation = SUMS[sum_]
    expected = torch.einsum(equation, *(values[dims[term]] for term in equation.split("->")[0].split(",")))
    found = made(values["x"], values["y"], torch.zeros(2, 0, dtype=torch.long))[2]
    found = found.permute(0, *(1 + _names(made).index(n) for n in equation.split("->n")[1]))
    torch.testing.assert_close(found, expected)


def _names(made: gdsl.Layer) -> list[str]:
    return list(made.program.outputs[2][1].type.names)
