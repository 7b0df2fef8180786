"""Programs as functions of torch: which gradients are asked for, what is kept, what modes and threads do."""

from __future__ import annotations

import threading
import warnings
import weakref

import pytest
import torch

import gdsl
from gdsl.ir import build as b
from gdsl.ir.types import Domain
from gdsl.look.measure import most_of_tensors
from gdsl.passes.options import Options
from tests.ir.drive import (
    GRAPHS,
    LAYERS,
    PLAIN,
    A,
    E,
    G,
    N,
    assert_same,
    expected,
    frame,
    gatv2,
    gradients,
    integer,
    load,
    program,
    runner,
    tensors,
)  # fmt: skip

BACKENDS = {"torch": PLAIN, "cpp": Options()}
FRAME = frame(GRAPHS["mixed"])
x, e, p = load("x", N, A), load("e", E, A), load("p", G, A)
SMALL = program(b.segment(b.gather(x * x, "j") * e, "i", "sum", N), x * p)

backends = pytest.mark.parametrize("backend", BACKENDS)


def made(q, backend: str):
    return runner(q, backend, BACKENDS[backend])


@backends
@pytest.mark.parametrize(
    "mask", [(True, False, False), (False, True, False), (False, False, True), (True, True, False)]
)
def test_only_the_gradients_that_are_asked_for(backend: str, mask: tuple[bool, ...]) -> None:
    values = tensors(SMALL, FRAME)
    for value, wanted in zip(values, mask, strict=True):
        value.requires_grad_(wanted)
    run = made(SMALL, backend)
    assert_same(gradients(run(values, FRAME), values), gradients(expected(SMALL, values, FRAME), values))
    assert [owner.wrt for owner in run._differentiable.values()] == [
        tuple(n for n, wanted in zip(SMALL.inputs, mask, strict=True) if wanted)
    ]


@backends
def test_a_gradient_of_one_output_only(backend: str) -> None:
    values = tensors(SMALL, FRAME)
    for k in range(2):
        outputs, wanted = made(SMALL, backend)(values, FRAME), expected(SMALL, values, FRAME)
        assert_same(gradients(outputs[k : k + 1], values), gradients(wanted[k : k + 1], values))


@backends
def test_an_output_that_is_an_input(backend: str) -> None:
    q = program(x, x * 2.0)
    values = tensors(q, FRAME)
    outputs = made(q, backend)(values, FRAME)
    assert_same(outputs, [values[0], 2 * values[0]])
    assert_same(gradients(outputs, values), gradients([values[0] * 1.0, 2 * values[0]], values))


@backends
def test_the_same_output_twice(backend: str) -> None:
    q = program(x * x, x * x)
    values = tensors(q, FRAME)
    outputs = made(q, backend)(values, FRAME)
    assert_same(gradients(outputs, values), gradients(expected(q, values, FRAME), values))


@backends
def test_no_grad_compiles_no_derivative(backend: str) -> None:
    run, values = made(SMALL, backend), tensors(SMALL, FRAME)
    with torch.no_grad():
        outputs = run(values, FRAME)
    with torch.inference_mode():
        again = run(values, FRAME)
    assert not any(o.requires_grad for o in outputs)
    assert run._differentiable == {}
    assert_same(outputs, again)


@backends
def test_integer_outputs_have_no_gradient(backend: str) -> None:
    q = program(b.segment(e, "i", "argmax", N), b.segment(e, "i", "max", N))
    values = tensors(q, FRAME)
    winners, top = made(q, backend)(values, FRAME)
    assert not winners.requires_grad
    assert_same(gradients([top], values), gradients(expected(q, values, FRAME)[1:], values))


def test_a_backward_pass_lets_go_of_what_it_has_read() -> None:
    """At most what two layers one by one hold, beside the gradients that stay: two sums that are kept, and two
    gradients. What lies between two layers is stored once, in the forward pass and in the backward, sums over rows come
    as soon as they can, and a value that is read no more goes, also one that was kept for the backward pass."""
    nodes, width = 20_000, 64
    text = "use SAGEConv layer L(d) { use a = SAGEConv(d) use b = SAGEConv(2) node x[f] update y = b(relu(a(x))) }"
    layer = gdsl.compile(text, d=width, f=width)
    graph = gdsl.Graph(torch.randint(nodes, (2, 40_000)), nodes)
    x = torch.randn(nodes, width, requires_grad=True)

    def both() -> None:
        x.grad = None
        layer(x, graph).sum().backward()

    both()  # compiled
    assert most_of_tensors(both) < 4.5 * x.numel() * x.element_size()


@backends
@pytest.mark.parametrize("compiler", [None, "eager", "aot_eager"])
def test_outputs_without_a_derivative(backend: str, compiler: str | None) -> None:
    """Of several outputs those that read no tensor with a gradient have none, as in torch."""
    text = "layer C(d) { param p[d] ~ normal node x[d] node z[d] return tanh(x), z * p, sum(x[j]), x, z }"
    layer = gdsl.compile(text, d=4, backend=backend).double()
    torch._dynamo.reset()
    run = layer if compiler is None else torch.compile(layer, backend=compiler, fullgraph=True)
    x, z = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    outputs = run(x, z, graph=gdsl.Graph(torch.tensor([[0, 1], [1, 2]]), 3))
    assert [o.requires_grad for o in outputs] == [False, True, False, False, True]
    with pytest.raises(RuntimeError, match="does not require grad"):
        outputs[0].sum().backward()


@backends
def test_constants_have_no_derivative(backend: str) -> None:
    q = program(b.stop_gradient(x) * 2.0, b.stop_gradient(x) * x, b.elementwise("where", x > 0.0, 1.0, 0.0))
    outputs = made(q, backend)(tensors(q, FRAME), FRAME)
    assert [o.requires_grad for o in outputs] == [False, True, False]


@backends
def test_integer_inputs(backend: str) -> None:
    q = program(b.segment(b.index(load("t", G, type(A)("r", 3), A), integer("rel", E, 3), "r"), "i", "sum", N))
    values = tensors(q, FRAME)
    outputs = made(q, backend)(values, FRAME)
    assert_same(gradients(outputs, values), gradients(expected(q, values, FRAME), values))


@backends
def test_gradients_that_are_not_contiguous(backend: str) -> None:
    """An expanded gradient, as ``sum`` sends it, and a transposed one; inputs that are views."""
    wide = torch.rand(4, 6, dtype=torch.float64, requires_grad=True)
    rest = tensors(SMALL, FRAME)
    values = [wide.T if n is x else v for n, v in zip(SMALL.inputs, rest, strict=True)]
    for turn in (lambda o: o.sum(), lambda o: (o.T @ torch.ones(6, 3).double()).sum()):
        found = torch.autograd.grad(turn(made(SMALL, backend)(values, FRAME)[0]), [wide])
        assert_same(found, torch.autograd.grad(turn(expected(SMALL, values, FRAME)[0]), [wide]))


@backends
def test_backward_twice_needs_retain_graph(backend: str) -> None:
    (first, *_), run = tensors(SMALL, FRAME), made(SMALL, backend)
    values = [first, *tensors(SMALL, FRAME)[1:]]
    score = run(values, FRAME)[0].sum()
    score.backward(retain_graph=True)
    once = first.grad.clone()
    score.backward()
    assert_same([first.grad], [2 * once])
    with pytest.raises(RuntimeError, match="second time"):
        score.backward()


@backends
def test_a_leaf_changed_in_place_is_noticed(backend: str) -> None:
    """By an optimizer between the passes, say; views of one, too."""
    for view in (lambda t: t, lambda t: t[:]):
        values = tensors(SMALL, FRAME)
        outputs = made(SMALL, backend)([view(values[0]), *values[1:]], FRAME)
        values[0].data  # noqa: B018 - reading is harmless
        with torch.no_grad():
            values[0].mul_(2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            outputs[0].sum().backward()


@backends
def test_nothing_is_kept_alive(backend: str) -> None:
    run, values = made(gatv2(), backend), tensors(gatv2(), FRAME)
    outputs = run(values, FRAME)
    outputs[0].sum().backward()
    watch = weakref.ref(outputs[0].grad_fn)
    del outputs
    assert watch() is None


@backends
def test_functional_transforms_of_torch(backend: str) -> None:
    """jacobian and hessian by torch.autograd.functional."""
    q = program(b.total(b.segment(b.gather(x * x * x, "j") * b.gather(x, "i"), "i", "sum", N)))
    (value,), run = tensors(q, FRAME), made(q, backend)
    hessian = torch.autograd.functional.hessian(lambda v: run([v], FRAME)[0].sum(), value)
    wanted = torch.autograd.functional.hessian(lambda v: expected(q, [v], FRAME)[0].sum(), value)
    assert_same([hessian], [wanted])


def test_threads_share_a_runner() -> None:
    q = LAYERS["GAT"]()
    run, values = made(q, "cpp"), tensors(q, FRAME)
    wanted, found, errors = gradients(expected(q, values, FRAME), values), [], []

    def work() -> None:
        try:
            found.append(gradients(run(values, FRAME), values))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []
    assert len(found) == 4
    for g in found:
        assert_same(g, wanted)
    assert len(run._differentiable) == 1


@backends
def test_one_runner_serves_many_graphs(backend: str) -> None:
    run = made(SMALL, backend)
    for name in GRAPHS:
        f = frame(GRAPHS[name])
        values = tensors(SMALL, f)
        assert_same(gradients(run(values, f), values), gradients(expected(SMALL, values, f), values))


@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_recomputing_and_saving_agree(layer: str, save: bool) -> None:
    q = LAYERS[layer]()
    values = tensors(q, FRAME)
    run = runner(q, "cpp", Options(save=save))
    assert_same(gradients(run(values, FRAME), values), gradients(expected(q, values, FRAME), values))
    (owner,) = run._differentiable.values()
    assert bool(owner.saved) == save


@backends
def test_a_batch_of_graphs(backend: str) -> None:
    q = program(b.segment(x * x, "g", "sum", Domain.GRAPH))
    f = frame(GRAPHS["mixed"], batch=torch.tensor([0, 0, 1, 1, 3, 3]), num_graphs=5)
    values = tensors(q, f)
    outputs = made(q, backend)(values, f)
    assert outputs[0].shape == (5, 4)
    assert_same(gradients(outputs, values), gradients(expected(q, values, f), values))


STEPS = {
    "on nodes": ("aggregate a = sum(x[j]) y = floor(a)", lambda x, e, w: _summed(x[SOURCES]).floor()),
    "on edges": ("aggregate y = sum(sign(x[j]) * w)", lambda x, e, w: _summed(x[SOURCES].sign() * w)),
    "of a product": (
        "aggregate y = sum(floor(e * x[j] * w))", lambda x, e, w: _summed((e[:, None] * x[SOURCES] * w).floor())
    ),
    "beside others": (
        "aggregate a = sum(sign(e) * x[j]) y = a + sign(w)",
        lambda x, e, w: _summed(e.sign()[:, None] * x[SOURCES]) + w.sign(),
    ),
    "twice": (
        "aggregate y = sum(sign(floor(x[j]) + e))", lambda x, e, w: _summed((x[SOURCES].floor() + e[:, None]).sign())
    ),
}  # fmt: skip
SOURCES, TARGETS = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 3, 3])


def _summed(m: torch.Tensor) -> torch.Tensor:
    return m.new_zeros(4, 3).index_add(0, TARGETS, m)


@pytest.mark.parametrize(
    ("name", "backend", "traced"),
    [*((name, backend, False) for name in STEPS for backend in BACKENDS), ("on nodes", "torch", True)],
)
def test_the_gradient_behind_a_step_is_zero(name: str, backend: str, traced: bool) -> None:
    """As torch has it; None is for what has no part in a result."""
    body, plain = STEPS[name]
    text = f"layer Step {{ node x[d] edge e param w[d] ~ ones {body} return y }}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gdsl.LanguageWarning)
        layer = gdsl.compile(text, d=3, backend=backend).double()
    call = torch.compile(layer, backend="eager", dynamic=False) if traced else layer
    inputs = [torch.randn(4, 3).double().requires_grad_(), torch.randn(4).double().requires_grad_()]
    wrt = [*inputs, layer.w]
    edges = torch.stack([SOURCES, TARGETS])
    found, wanted = (
        torch.autograd.grad(y.square().sum(), wrt, allow_unused=True)
        for y in (call(inputs[0], edges, inputs[1]), plain(*wrt))
    )
    for ours, plain_ones in zip(found, wanted, strict=True):
        assert (ours is None) == (plain_ones is None)
        if plain_ones is not None:
            torch.testing.assert_close(ours, plain_ones)
    torch._dynamo.reset() if traced else None


def test_derivatives_of_a_step_by_transforms() -> None:
    layer = gdsl.compile("layer Step { node x[d] aggregate y = sum(sign(x[j])) return y }", d=3, backend="torch")
    edges, x = torch.stack([SOURCES, TARGETS]), torch.randn(4, 3)
    _, tangent = torch.func.jvp(lambda x: layer(x, edges), (x,), (torch.ones_like(x),))
    for found in (tangent, torch.func.jacrev(lambda x: layer(x, edges))(x)):
        assert not found.any()
    assert torch.func.jacfwd(lambda x: layer(x, edges))(x).shape == (4, 3, 4, 3)
