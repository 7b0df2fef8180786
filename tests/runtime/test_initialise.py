"""How parameters start: which dims are fans, and what each initialiser draws from them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gdsl
from gdsl.ir.node import users, walk
from gdsl.runtime import initialise
from tests.programs.sources import PROGRAMS, modules_for

FANS = {
    ("GCN", "weight"): (5, 4),  # [in, out]
    ("GAT", "weight"): (5, 2 * 4),  # [in, heads, out], as the matrix [in, heads * out]
    ("GAT", "att_src"): (4, 2),  # [heads, out], summed over out
    ("GAT_edge", "weight_edge"): (3, 2 * 4),  # needs an optional input
    ("RGCN", "weight"): (5, 4),  # [relations, in, out], one for each mean
    ("RGAT", "weight"): (5, 2 * 4),  # [relations, in, heads, out], indexed by edge
    ("RGCN_blocks", "weight"): (2, 3),  # [relations, blocks, in, out]
    ("RGCN_bases", "bases"): (5, 4),  # [bases, in, out]
    ("RGCN_bases", "comp"): (3, 2),  # [relations, bases], in no product with data
    ("TAG", "weight"): (5, 4),  # [0..K, in, out], a slice a hop
    ("ARMA", "init_weight"): (5, 4),  # [stacks, in, out]
    ("ARMA", "weight"): (4, 4),  # [layers, stacks, out, out']
    ("SplineConv", "weight"): (5, 4),  # [kernels, in, out], indexed by a computed integer
    ("NNConv", "theta"): (3, 5 * 4),  # [edge_dim, in, out], as a Linear to a matrix
    ("GMMConv", "mu"): (3, 2),  # [kernel, dim], in no product
}


@pytest.mark.parametrize(("program", "name"), FANS)
def test_fans(program: str, name: str) -> None:
    source, arguments = PROGRAMS[program]
    layer = gdsl.compile(source, **arguments, **modules_for(program))
    optional = frozenset(i.name for i in layer.signature.inputs if i.optional)
    outputs = [node for _, node in layer._text.outline(layer, optional).outputs]
    (param,) = [n for n in walk(outputs) if n.op == "load" and n.attrs.name == name]
    assert initialise.fans(param, users(outputs)) == FANS[program, name]


BOUND = math.sqrt(6 / (40 + 80))
# Initialiser and arguments: the range and the mean and deviation that it draws from, with fans 40 and 80.
DRAWS = {
    ("zeros",): (0, 0, 0, 0),
    ("ones",): (1, 1, 1, 0),
    ("constant", 2.5): (2.5, 2.5, 2.5, 0),
    ("glorot",): (-BOUND, BOUND, 0, BOUND / math.sqrt(3)),
    ("glorot", 2.0): (-2 * BOUND, 2 * BOUND, 0, 2 * BOUND / math.sqrt(3)),
    ("glorot_normal",): (-math.inf, math.inf, 0, math.sqrt(2 / 120)),
    ("kaiming_uniform",): (-math.sqrt(6 / 40), math.sqrt(6 / 40), 0, math.sqrt(2 / 40)),
    ("kaiming_uniform", 10.0, 1.0): (-math.sqrt(3 / 10), math.sqrt(3 / 10), 0, math.sqrt(1 / 10)),
    ("kaiming_normal",): (-math.inf, math.inf, 0, math.sqrt(2 / 40)),
    ("linear",): (-(40**-0.5), 40**-0.5, 0, (3 * 40) ** -0.5),
    ("linear", 10.0): (-(10**-0.5), 10**-0.5, 0, 30**-0.5),
    ("uniform",): (0, 1, 0.5, 12**-0.5),
    ("uniform", 0.5): (-0.5, 0.5, 0, 12**-0.5),
    ("uniform", 2.0, 5.0): (2, 5, 3.5, 3 * 12**-0.5),
    ("normal",): (-math.inf, math.inf, 0, 1),
    ("normal", 0.1): (-math.inf, math.inf, 0, 0.1),
    ("normal", 3.0, 0.1): (-math.inf, math.inf, 3, 0.1),
}


@pytest.mark.parametrize("init", DRAWS, ids=str)
def test_draws(init: tuple) -> None:
    name, *arguments = init
    low, high, mean, deviation = DRAWS[init]
    t = torch.full((40_000,), 7.0, dtype=torch.float64)
    initialise.fill(t, name, arguments, 40, 80)
    assert low - 1e-12 <= t.min() and t.max() <= high + 1e-12
    if math.isfinite(low) and low < high:
        assert t.max() - t.min() > 0.99 * (high - low), "the whole range is drawn from"
    assert float(t.mean()) == pytest.approx(mean, abs=5 * deviation / math.sqrt(t.numel()) + 1e-12)
    assert float(t.std()) == pytest.approx(deviation, rel=0.02)


def test_every_initialiser_of_the_language_is_drawn_here() -> None:
    from gdsl.language.program import INITS

    others = {"orthogonal", "eye", "linspace", "arange"}
    assert INITS.keys() == initialise._RULES.keys() - {"values"} == {name for name, *_ in DRAWS} | others


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("mu[n] ~ linspace(0, 3)", [0, 1, 2, 3]),
        ("mu[n] ~ linspace(1, -1)", [1, 1 / 3, -1 / 3, -1]),
        ("mu[2, n] ~ linspace(0, n - 1)", [[0, 1, 2, 3]] * 2),
        ("mu[n] ~ arange", [0, 1, 2, 3]),
        ("mu[n] ~ arange(1)", [1, 2, 3, 4]),
        ("mu[2, n] ~ arange(1, -0.5)", [[1, 0.5, 0, -0.5]] * 2),
        ("mu[n] ~ [0.5, n, -1, 2 * pi]", [0.5, 4, -1, 2 * math.pi]),
        ("mu[2, 2'] ~ [1, 2, 3, 4]", [[1, 2], [3, 4]]),
        ("mu ~ [7]", 7),
    ],
)
@pytest.mark.parametrize("role", ["param", "buffer"])
def test_values(role: str, declared: str, expected: list) -> None:
    conv = gdsl.compile(f"layer A(n = 4) {{ {role} {declared} node x[1] update y = sum[1](x) * mu }}")
    torch.testing.assert_close(conv.mu.detach(), torch.tensor(expected, dtype=torch.float32))
    with torch.no_grad():
        conv.mu.zero_()
    conv.reset_parameters()
    torch.testing.assert_close(conv.mu.detach(), torch.tensor(expected, dtype=torch.float32))


def test_orthogonal_and_eye() -> None:
    t = torch.zeros(4, 6, dtype=torch.float64)
    initialise.fill(t, "orthogonal", (), 4, 6)
    torch.testing.assert_close(t @ t.t(), torch.eye(4, dtype=torch.float64))
    initialise.fill(t, "orthogonal", (2.0,), 4, 6)
    torch.testing.assert_close(t @ t.t(), 4 * torch.eye(4, dtype=torch.float64))
    for shape in ((3, 3), (2, 3, 4)):
        t = torch.ones(shape)
        initialise.fill(t, "eye", (), 1, 1)
        assert torch.equal(t, torch.eye(*shape[-2:]).expand(shape))


def test_as_torch_and_torch_geometric() -> None:
    """The same spread as a Linear, and as the layers that give their parameters to glorot."""
    pyg = pytest.importorskip("torch_geometric.nn")
    sage = gdsl.compile(PROGRAMS["SAGE_mean"][0], 5, 4)
    gat = gdsl.compile(PROGRAMS["GAT"][0], 5, 4, heads=2)
    rgcn = gdsl.compile(PROGRAMS["RGCN"][0], 5, 4, 3)
    pairs = [
        (sage, "weight_l", nn.Linear(5, 4), "weight"),
        (gat, "weight", pyg.GATConv(5, 4, heads=2), "lin.weight"),
        (gat, "att_src", pyg.GATConv(5, 4, heads=2), "att_src"),
        (rgcn, "weight", pyg.RGCNConv(5, 4, 3), "weight"),
        (rgcn, "root", pyg.RGCNConv(5, 4, 3), "root"),
    ]
    for layer, ours, peer, theirs in pairs:

        def draw(module: nn.Module, name: str) -> torch.Tensor:
            module.reset_parameters()
            return module.get_parameter(name).detach().clone()

        spreads = [torch.stack([draw(m, n) for _ in range(150)]).std() for m, n in ((layer, ours), (peer, theirs))]
        torch.testing.assert_close(spreads[0], spreads[1], rtol=0.06, atol=0)


def test_the_seed_decides() -> None:
    def state(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return dict(gdsl.compile(PROGRAMS["GAT"][0], 5, 4, heads=2).named_parameters())

    one, two, other = state(1), state(1), state(2)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["weight"], other["weight"])


def test_buffers_are_filled_too_and_not_learned() -> None:
    layer = gdsl.compile("layer B {\n    buffer s[c] ~ ones\n    node x[c]\n    update y = s * x\n}\n", c=3)
    assert list(layer.parameters()) == []
    assert torch.equal(layer.state_dict()["s"], torch.ones(3))
