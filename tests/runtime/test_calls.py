"""What a call gives and takes belongs to who has it: gradients and results in memory of their own, and in-place writes
to them, and to inputs, as torch's own functions allow them. Eager and under torch.compile, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import functional

import gdsl
import gdsl.nn
from gdsl.runtime.triton import interpreted

EDGES = torch.tensor([[0, 1, 2, 0, 3], [1, 2, 0, 2, 3]])
BACKENDS = ["torch", "cpp", *["triton"] * interpreted()]
TRACERS = {"eager": None, "compiled": "eager", "traced": "aot_eager"}

backends = pytest.mark.parametrize("backend", BACKENDS)
everywhere = pytest.mark.parametrize(
    ("backend", "how"),
    [(b, how) for b in BACKENDS for how in TRACERS if b != "triton" or how == "eager"],
)


def layer(text: str, backend: str, how: str = "eager", **arguments: Any) -> Callable[..., Any]:
    """A float64 layer with two features, as it is or under torch.compile."""
    torch.manual_seed(0)
    made = gdsl.compile(f"layer L(d, o = 2) {{ {text} }}", d=2, backend=backend, **arguments).double()
    torch._dynamo.reset()
    return made if how == "eager" else torch.compile(made, backend=TRACERS[how], fullgraph=True)


def leaf(seed: int = 0) -> Tensor:
    return torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def memory(*tensors: Tensor) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in tensors}


# ------------------------------------------------------------------------------------------ memory


@everywhere
@pytest.mark.parametrize(
    "text",
    [
        "node x[d] node z[d] update y = x + z",
        "node x[d] node z[d] aggregate a = sum(x[j] + z[j]) update y = a",
        "param p[d, o] ~ ones node x[d] node z[d] update y = (x + z) @ p",
        "node x[d] node z[d] return x, z",
    ],
)
def test_gradients_share_no_memory(text: str, backend: str, how: str) -> None:
    """Also where they are equal, and with the gradient that comes in: as torch's, they may be written to."""
    call, x, z = layer(text, backend, how), leaf(), leaf(1)
    outputs = call(x, z, EDGES)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    given = [torch.ones_like(o) for o in outputs]
    torch.autograd.backward(outputs, given)
    assert x.grad is not None
    assert z.grad is not None
    before = z.grad.clone()
    x.grad.add_(1.0)
    assert torch.equal(z.grad, before)
    assert all(torch.equal(g, torch.ones_like(g)) for g in given)
    assert len(memory(x.grad, z.grad, *given)) == 2 + len(given)


@backends
def test_equal_gradients_of_parameters_are_apart(backend: str) -> None:
    made = layer("node x[d] param p[d] ~ zeros param q[d] ~ zeros update y = x + p + q", backend)
    for _ in range(2):  # accumulated
        made(leaf(), EDGES).sum().backward()
    made.p.grad.mul_(0.5)  # type: ignore[attr-defined]
    assert made.q.grad.tolist() == [8.0, 8.0]  # type: ignore[attr-defined]
    assert made.p.grad.tolist() == [4.0, 4.0]  # type: ignore[attr-defined]


@everywhere
@pytest.mark.parametrize("recorded", [True, False])
def test_results_are_their_own(backend: str, how: str, recorded: bool) -> None:
    """Inputs, parameters, results twice, views and what the graph holds, written to as they come."""
    text = "node x[d] param p[d] ~ normal y = tanh(x) return x, p, y, y, x, degree(i), p"
    call, x = layer(text, backend, how), leaf()
    with torch.set_grad_enabled(recorded):
        outputs = call(x, EDGES)
        wanted = [o.detach().clone() for o in outputs]
        held = x.detach().clone()
        assert len(memory(x, *outputs)) == 1 + len(outputs)
        for k, o in enumerate(outputs):
            assert not o._is_view()
            o.mul_(2.0 + k)
    assert all(torch.equal(o.detach(), w * (2 + k)) for k, (o, w) in enumerate(zip(outputs, wanted, strict=True)))
    assert torch.equal(x.detach(), held)
    again = call(x, EDGES)
    assert all(torch.equal(a.detach(), w) for a, w in zip(again, wanted, strict=True))
    if recorded:
        torch.autograd.backward([o.sum() for o in outputs if o.requires_grad])
        y = torch.tanh(x.detach())
        torch.testing.assert_close(x.grad, 2.0 + 6.0 + (4.0 + 5.0) * (1 - y * y))


# ------------------------------------------------------------------------------ outputs and gradients


@everywhere
@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("out2 = sin(x) return out2, cos(x)", lambda x: (x.sin(), x.cos())),
        ("y = tanh(x) return y, y", lambda x: (x.tanh(), x.tanh())),
        ("out2 = sin(x) return cos(x), out2, out2", lambda x: (x.cos(), x.sin(), x.sin())),
        ("return x, x", lambda x: (x, x)),
        ("y = x * x z = y return y, z", lambda x: (x * x, x * x)),
    ],
)
def test_each_output_has_a_gradient_of_its_own(text: str, function: Any, backend: str, how: str) -> None:
    """Under one name, and of one value."""
    call, x = layer(f"node x[d] {text}", backend, how), leaf()
    found, wanted = call(x, EDGES), function(x)
    for weights in ((1.0, 10.0, 100.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)):
        pair = [
            torch.autograd.grad(sum(w * o.sum() for w, o in zip(weights, outputs)), x, retain_graph=True)[0]  # noqa: B905
            for outputs in (found, wanted)
        ]
        torch.testing.assert_close(*pair)


@backends
def test_each_output_under_transforms(backend: str) -> None:
    call, x = layer("node x[d] y = tanh(x) return y, y, x, sin(y)", backend), leaf().detach()
    outputs, pull = torch.func.vjp(lambda x: call(x, EDGES), x)
    wanted, reference = torch.func.vjp(lambda x: (x.tanh(), x.tanh(), x * 1, x.tanh().sin()), x)
    given = tuple(k * torch.ones_like(x) for k in (1.0, 10.0, 100.0, 1000.0))
    for a, b in zip((*outputs, *pull(given)), (*wanted, *reference(given)), strict=True):
        torch.testing.assert_close(a, b)


# ------------------------------------------------------------------------------------ writing in place


# Programs whose backward reads all of their inputs, some, or none.
WRITTEN = (
    "node x[d] aggregate a = sum(x[j]) update y = a",
    "node x[d] edge w aggregate a = sum(w * x[j]) update y = a",
    "node x[d] node z[d] update y = x * z",
    "node x[d] node z[d] aggregate a = mean(x[j]) update y = tanh(a) + z",
    "param p[d, o] ~ normal node x[d] aggregate a = sum(x[j]) update y = a @ p",
    "node x[d] aggregate a = max(x[j]) update y = a",
)


@backends
@pytest.mark.parametrize("text", WRITTEN)
def test_inputs_that_are_written_to_before_the_backward(text: str, backend: str) -> None:
    """The gradients are those of the call, first and second, and again."""
    call = layer(text, backend)
    names = [name for name, _ in gdsl.module.arguments.parameters(call.signature) if name != "graph"]  # type: ignore[attr-defined]

    def run(written: Sequence[str]) -> list[Tensor]:
        leaves = {n: leaf(k) for k, n in enumerate(names)}
        leaves |= {"w": torch.linspace(0, 1, 5).double().requires_grad_()} if "w" in names else {}
        hidden = {n: v * 1.0 for n, v in leaves.items()}
        y = call(**hidden, graph=EDGES)
        for name in written:
            hidden[name].add_(1.0)
        wanted = list(leaves.values())
        score = (y * y).sum()
        first = torch.autograd.grad(score, wanted, create_graph=True)
        second = torch.autograd.grad(sum((g * g).sum() for g in first), wanted, retain_graph=True)
        return [*first, *second, *torch.autograd.grad(score, wanted)]

    expected = run([])
    for name in names:
        for a, b in zip(run([name]), expected, strict=True):
            assert torch.equal(a, b), name


@backends
def test_what_a_backward_reads_depends_on_what_is_asked_for(backend: str) -> None:
    """x * z by x reads z alone."""
    call = layer("node x[d] node z[d] update y = x * z", backend)
    x, z = leaf(), leaf(1).detach()
    hidden = x * 1.0
    y = call(hidden, z, EDGES)
    hidden.zero_()
    y.sum().backward()
    torch.testing.assert_close(x.grad, z)


@backends
def test_residuals_in_place(backend: str) -> None:
    """As with torch_geometric: the backward of a sum over neighbours needs no features."""
    pyg = pytest.importorskip("torch_geometric.nn")
    found = []
    for conv in (pyg.LGConv(), gdsl.nn.LGConv(backend=backend)):
        weight = leaf()
        h = weight * 3
        for _ in range(2):
            h += conv(h, EDGES)
        h.relu_()
        h.sum().backward()
        found.append(weight.grad)
    torch.testing.assert_close(*found)


@backends
def test_a_result_that_is_written_to(backend: str) -> None:
    """Where the backward reads it, torch says so; where it does not, the numbers are right."""
    x = leaf()
    y = layer("node x[d] param p[d, 2, 3] ~ normal h = x @ p aggregate a = sum(h[j]) return a", backend)(x, EDGES)
    wanted = torch.autograd.grad((2 * y).sum(), x, retain_graph=True)[0]
    y.mul_(2.0).clamp_(min=-9.0)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], wanted)
    a, b = layer("node x[d] aggregate a = sum(tanh(x[j] + x[i])) return a, a * a * a", backend)(x, EDGES)
    a.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        b.sum().backward()


@backends
def test_inputs_are_not_kept_alive(backend: str) -> None:
    call = layer("node x[d] node z[d] aggregate a = sum(x[j]) update y = a * z", backend)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        x, z = leaf() * 1.0, leaf(1) * 1.0
        kept.clear()
        call(x, z, EDGES)
    assert any(torch.equal(t, z) for t in kept)
    assert not any(torch.equal(t, x) for t in kept)


# ---------------------------------------------------------------------------- derivatives of derivatives

SECOND = {
    "linear": "node x[d] node z[d] aggregate a = mean(x[j]) update y = a + z",
    "bilinear": "node x[d] node z[d] aggregate a = sum(x[j] * z[i]) update y = a",
    "a saved sum": "node x[d] node z[d] aggregate a = sum(x[j]) update y = tanh(a) * z",
    "a sum that is also a result": "node x[d] node z[d] aggregate a = sum(x[j] * z[j]) return a, exp(a) * x",
    "a softmax": "node x[d] node z[d] a = softmax((x * z)[j]) aggregate y = sum(a * x[j]) return y",
    "a maximum": "node x[d] node z[d] aggregate a = max(x[j] * z[j]) update y = a * a",
}


@pytest.mark.parametrize(("backend", "how"), [("torch", "eager"), ("cpp", "eager"), ("cpp", "compiled")])
@pytest.mark.parametrize("text", SECOND)
def test_second_derivatives_by_what_is_kept(text: str, backend: str, how: str) -> None:
    call = layer(SECOND[text], backend, how)

    def f(x: Tensor, z: Tensor) -> Any:
        return call(x, z, EDGES)

    assert torch.autograd.gradgradcheck(f, (leaf(), leaf(1)))
    assert torch.autograd.gradgradcheck(lambda x: f(x, leaf(1).detach()), (leaf(),))


@pytest.mark.parametrize(("backend", "how"), [(b, "eager") for b in BACKENDS] + [("cpp", "compiled")])
def test_vectorised_derivatives(backend: str, how: str) -> None:
    """The backward runs under torch's older vmap, whose tensors have no memory."""
    text = "node x[d] node z[d] a = softmax((x * z)[j]) aggregate y = sum(a * x[j]) update out = tanh(y) * z"
    call, x, z = layer(text, backend, how), leaf().detach(), leaf(1).detach()
    y = call(x.requires_grad_(), z, EDGES)
    given = torch.rand(3, 4, 2, dtype=torch.float64)
    (found,) = torch.autograd.grad(y, x, given, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(found, torch.stack([torch.autograd.grad(y, x, g, retain_graph=True)[0] for g in given]))
    if backend == "triton":
        return  # row by row in the interpreter
    x = x.detach()
    for derivative, of in (
        (functional.jacobian, lambda x, z: call(x, z, EDGES)),
        (functional.hessian, lambda x, z: call(x, z, EDGES).square().sum()),
    ):
        fast, slow = (derivative(of, (x, z), vectorize=v) for v in (True, False))
        torch.testing.assert_close(fast, slow)
        if how == "eager":
            forward = (
                {"strategy": "forward-mode"}
                if derivative is functional.jacobian
                else {"outer_jacobian_strategy": "forward-mode"}
            )
            torch.testing.assert_close(derivative(of, (x, z), vectorize=True, **forward), slow)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("nodes", [1, 5])
def test_a_tensor_that_is_marked_as_negated(backend: str, nodes: int) -> None:
    """The imaginary part of a conjugate is the memory of the number itself, and a mark."""
    layer = gdsl.compile("layer L(d) { node x[d] update y = x * 2 + sum(x[j]) }", d=1, backend=backend)
    x = torch.randn(nodes, 1, dtype=torch.complex64).conj().imag
    y = torch._neg_view(torch.randn(nodes, 1))
    edges = torch.tensor([[0, nodes - 1], [0, 0]])
    for marked in (x, y, x.t().t()):
        assert marked.is_neg()
        torch.testing.assert_close(layer(marked, edges), layer(marked.clone().resolve_neg(), edges))
        leaf = marked.resolve_neg().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(layer(leaf, edges), leaf, y)
        (wanted,) = torch.autograd.grad(layer(leaf, edges), leaf, y.resolve_neg())
        torch.testing.assert_close(gradient, wanted)
