"""torch.func and forward-mode differentiation: grad, jvp, vmap and their compositions, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils._pytree import tree_leaves, tree_map

import gdsl
import gdsl.nn
from tests.programs import harness

NAMES = ["GCN", "GAT_edge", "SAGE_max", "GATv2"]
BACKENDS = ["torch", "cpp", pytest.param("triton", marks=pytest.mark.slow)]
Tree = dict[str, Tensor]

everywhere = pytest.mark.parametrize("backend", BACKENDS)
programs = pytest.mark.parametrize("name", NAMES)


class Subject:
    """A layer as a function: its inputs and parameters to one number, and to all it gives."""

    def __init__(self, name: str, backend: str):
        self.layer = harness.layer(name, backend)
        self.edges = harness.random_edges(6, 14, seed=1)
        self.inputs = harness.inputs(self.layer, self.edges, 6)
        del self.inputs["graph"]
        self.params = {k: v.detach() for k, v in self.layer.named_parameters()}

    def all(self, inputs: Tree, params: Tree | None = None, edges: Tensor | None = None) -> Any:
        graph = self.edges if edges is None else edges
        return functional_call(self.layer, self.params if params is None else params, (), {**inputs, "graph": graph})

    def score(self, inputs: Tree, params: Tree | None = None, edges: Tensor | None = None) -> Tensor:
        return sum((harness._weights(o, 0.7) * o).sum() for o in tree_leaves(self.all(inputs, params, edges)))  # type: ignore[return-value]

    def gradients(self) -> list[Tensor]:
        """By autograd, as everywhere else in the tests: inputs, then parameters."""
        inputs, params = (tree_map(lambda t: t.clone().requires_grad_(), x) for x in (self.inputs, self.params))
        return list(torch.autograd.grad(self.score(inputs, params), [*inputs.values(), *params.values()]))

    def direction(self) -> Tree:
        return {k: torch.randn_like(v) for k, v in self.inputs.items()}

    def hessian_product(self, direction: Tree) -> list[Tensor]:
        inputs = tree_map(lambda t: t.clone().requires_grad_(), self.inputs)
        first = torch.autograd.grad(self.score(inputs), list(inputs.values()), create_graph=True)
        along = sum((g * v).sum() for g, v in zip(first, direction.values(), strict=True))
        curved = isinstance(along, Tensor) and along.requires_grad
        found = torch.autograd.grad(along, list(inputs.values()), allow_unused=True) if curved else [None] * len(inputs)
        return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs.values(), strict=True)]


def close(found: Any, wanted: Any) -> None:
    for a, b in zip(tree_leaves(found), tree_leaves(wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@everywhere
@programs
def test_grad(name: str, backend: str) -> None:
    """By inputs and parameters; the edges are an argument, too."""
    s = Subject(name, backend)
    close(grad(s.score, argnums=(0, 1))(s.inputs, s.params, s.edges), s.gradients())


@everywhere
@programs
def test_vjp_and_jvp_are_adjoint(name: str, backend: str) -> None:
    s = Subject(name, backend)
    v = s.direction()
    outputs, tangent = jvp(s.all, (s.inputs,), (v,))
    close(outputs, s.all(s.inputs))
    u = tree_map(torch.randn_like, tangent)
    (pulled,) = vjp(s.all, s.inputs)[1](u)
    left = sum((a * b).sum() for a, b in zip(tree_leaves(u), tree_leaves(tangent), strict=True))
    close(left, sum((v[k] * pulled[k]).sum() for k in v))


@everywhere
@programs
def test_second_derivatives(name: str, backend: str) -> None:
    """Forward over reverse, reverse over reverse, and by autograd."""
    s = Subject(name, backend)
    v = s.direction()
    wanted = s.hessian_product(v)
    close(jvp(grad(s.score), (s.inputs,), (v,))[1], wanted)
    close(grad(lambda x: sum((grad(s.score)(x)[k] * v[k]).sum() for k in v))(s.inputs), wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_jacobians_and_hessians(backend: str) -> None:
    s = Subject("GAT_edge", backend)
    close(jacfwd(s.all)(s.inputs), jacrev(s.all)(s.inputs))
    close(hessian(s.score)(s.inputs), jacrev(jacrev(s.score))(s.inputs))


@everywhere
@programs
def test_vmap_over_features_and_over_an_ensemble(name: str, backend: str) -> None:
    s = Subject(name, backend)
    for k, tree in enumerate((s.inputs, s.params)):
        many = {n: torch.stack([v, 0.5 * v, v + 0.1], dim=v.dim() // 2) for n, v in tree.items()}
        if not many:
            continue
        dims = {n: v.dim() // 2 for n, v in tree.items()}
        one = [{n: v.select(dims[n], b) for n, v in many.items()} for b in range(3)]

        def call(part: Tree, k: int = k) -> Tensor:
            return s.score(part) if k == 0 else s.score(s.inputs, part)

        close(vmap(call, in_dims=(dims,))(many), torch.stack([call(part) for part in one]))
        rows = [grad(call)(part) for part in one]
        close(
            vmap(grad(call), in_dims=(dims,), out_dims=dims)(many),
            {n: torch.stack([r[n] for r in rows], dim=dims[n]) for n in many},
        )


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@programs
def test_forward_mode_by_finite_differences(name: str, backend: str) -> None:
    s = Subject(name, backend)
    values = [v.clone().requires_grad_() for v in s.inputs.values()]

    def outputs(*given: Tensor) -> Any:
        return s.all(dict(zip(s.inputs, given, strict=True)))

    assert torch.autograd.gradcheck(outputs, values, check_forward_ad=True, check_backward_ad=False, fast_mode=True)
    assert torch.autograd.gradgradcheck(outputs, values, check_fwd_over_rev=True, fast_mode=True)


def test_dual_numbers() -> None:
    """A level of forward mode without torch.func; tensors without a tangent stay constants."""
    s = Subject("GAT_edge", "cpp")
    v = s.direction()
    with forward_ad.dual_level():
        dual = {k: forward_ad.make_dual(x, v[k]) if k == "x" else x for k, x in s.inputs.items()}
        found = forward_ad.unpack_dual(s.score(dual)).tangent
        assert forward_ad.unpack_dual(s.score(s.inputs)).tangent is None
    rest = {k: x for k, x in s.inputs.items() if k != "x"}
    close(found, jvp(lambda x: s.score({**rest, "x": x}), (s.inputs["x"],), (v["x"],))[1])


def test_an_outer_tangent_under_vmap_is_seen() -> None:
    """Neither of the layer's tensors is batched where the tangent is: it must not be lost."""
    s = Subject("GCN", "cpp")
    p = {k: torch.randn_like(v) for k, v in s.params.items()}

    def scores(params: Tree) -> Tensor:
        return vmap(lambda x: s.score({**s.inputs, "x": x}, params))(torch.stack([s.inputs["x"]] * 2))

    _, found = jvp(scores, (s.params,), (p,))
    wanted = jvp(lambda params: s.score(s.inputs, params), (s.params,), (p,))[1]
    close(found, torch.stack([wanted, wanted]))


@pytest.mark.parametrize("layer", ["GCNConv", "GATConv", "SAGEConv", "TransformerConv"])
def test_layers_of_the_library(layer: str) -> None:
    """Per-sample gradients of an ensemble of two library layers, as torch's ensembling recipe has them."""
    made = [getattr(gdsl.nn, layer)(5, 4).double() for _ in range(2)]
    params, buffers = torch.func.stack_module_state(made)  # type: ignore[arg-type]
    x, edges = torch.randn(9, 5, dtype=torch.float64), harness.random_edges(9, 30, seed=2)

    def score(p: Tree, b: Tree, x: Tensor) -> Tensor:
        return functional_call(made[0], (p, b), (x, edges)).square().sum()

    found = vmap(grad(score), in_dims=(0, 0, None))(params, buffers, x)
    for k, one in enumerate(made):
        one(x, edges).square().sum().backward()
        close({n: v[k] for n, v in found.items()}, {n: v.grad for n, v in one.named_parameters()})


DROPPED = """
layer Dropped(p = 0.5) {
    node x[f]
    message m = dropout(x[j], p)
    aggregate y = sum(m)
    return y
}
"""


def test_randomness_under_vmap_follows_torch() -> None:
    conv = gdsl.compile(DROPPED)
    x, edges = torch.ones(40, 3), harness.random_edges(40, 90, seed=1)
    many = x.expand(2, -1, -1)
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(lambda v: conv(v, edges))(many)
    a, b = vmap(lambda v: conv(v, edges), randomness="different")(many)
    assert not torch.equal(a, b)
    a, b = vmap(lambda v: conv(v, edges), randomness="same")(many)
    assert torch.equal(a, b)


def _batched_edges(s: Subject) -> Any:
    return vmap(lambda e: s.score(s.inputs, None, e))(torch.stack([s.edges, s.edges.flip(0)]))


def _batched_relations(_: Subject) -> Any:
    conv = gdsl.nn.RGCNConv(3, 2, 4)
    x, edges = torch.randn(6, 3), harness.random_edges(6, 14, seed=1)
    return vmap(lambda r: conv(x, edges, r))(torch.randint(4, (2, 14)))


@pytest.mark.parametrize("call", [_batched_edges, _batched_relations])
def test_a_batch_of_integers_is_refused(call: Callable[[Subject], Any]) -> None:
    with pytest.raises(gdsl.InputError, match="is batched by vmap, and its values decide what runs"):
        call(Subject("GCN", "cpp"))
