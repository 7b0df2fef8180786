"""A module that is read is the module: options, hooks, flags, shared parts. What cannot be read is run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, parametrize, prune

import gdsl
from gdsl.ir.node import walk
from gdsl.language import modules, parts
from tests.modules.gin import EDGES, by_default, compare, features, how, layer, plain

READ, RUNS = "read into the program", "runs as it is"


# ------------------------------------------------------------------------------------- shared parts


def _twice(part: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), part, nn.Linear(3, 3), part, nn.Linear(3, 2))


def _two_stacks() -> nn.Module:
    act, lin = nn.Softplus(), nn.Linear(3, 3)
    return nn.Sequential(nn.Sequential(lin, act), nn.Sequential(act, lin), lin)


SHARED: dict[str, Callable[[], nn.Module]] = {
    "an activation": lambda: _twice(nn.Tanh()),
    "a linear map": lambda: _twice(nn.Linear(3, 3)),
    "a stack": lambda: _twice(nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())),
    "two stacks": _two_stacks,
    "the last one": lambda: nn.Sequential(*[nn.Linear(3, 3)] * 3),
}


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", SHARED)
def test_a_part_that_is_there_twice_runs_twice(kind: str, backend: str) -> None:
    conv = layer(SHARED[kind]().double(), backend)
    compare(conv)
    assert how(conv) == READ


def test_two_modules_share_a_part() -> None:
    shared = nn.Linear(3, 3)
    source = "layer L { module f module g  node x[d]  update y = g(f(x)) }"
    conv = gdsl.compile(source, f=nn.Sequential(shared, nn.ReLU()), g=nn.Sequential(nn.Tanh(), shared), backend="torch")
    conv.double()
    x = features()
    found, expected = conv(x, EDGES), conv.g(conv.f(x))
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(y.square().sum(), [x, shared.weight]) for y in (found, expected))
    torch.testing.assert_close(ours, theirs)


# ------------------------------------------------------------------------------------- options

OPTIONS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "Linear": (lambda: nn.Linear(3, 2), READ),
    "Linear bias": (lambda: nn.Linear(3, 2, bias=False), READ),
    "Linear device": (lambda: nn.Linear(3, 2, device="cpu", dtype=torch.float64), READ),
    "Identity": (lambda: nn.Identity(5, unused=True), READ),
    "ReLU": (nn.ReLU, READ),
    "ReLU inplace": (lambda: nn.ReLU(inplace=True), READ),
    "SiLU inplace": (lambda: nn.SiLU(inplace=True), READ),
    "Tanh": (nn.Tanh, READ),
    "Sigmoid": (nn.Sigmoid, READ),
    "LeakyReLU": (nn.LeakyReLU, READ),
    "LeakyReLU slope": (lambda: nn.LeakyReLU(0.3), READ),
    "LeakyReLU inplace": (lambda: nn.LeakyReLU(0.3, inplace=True), READ),
    "ELU": (nn.ELU, READ),
    "ELU alpha": (lambda: nn.ELU(0.4), READ),
    "ELU inplace": (lambda: nn.ELU(1.7, inplace=True), READ),
    "GELU": (nn.GELU, READ),
    "GELU tanh": (lambda: nn.GELU(approximate="tanh"), RUNS),
    "Softplus": (nn.Softplus, READ),
    "Softplus beta": (lambda: nn.Softplus(beta=2.5), READ),
    "Softplus threshold": (lambda: nn.Softplus(threshold=0.2), READ),
    "Softplus beta threshold": (lambda: nn.Softplus(3, 1), READ),
    "LayerNorm": (lambda: nn.LayerNorm(3), READ),
    "LayerNorm shape": (lambda: nn.LayerNorm((3,), eps=0.1), READ),
    "LayerNorm affine": (lambda: nn.LayerNorm(3, elementwise_affine=False), READ),
    "LayerNorm bias": (lambda: nn.LayerNorm(3, bias=False), READ),
    "BatchNorm": (lambda: nn.BatchNorm1d(3), READ),
    "BatchNorm eps": (lambda: nn.BatchNorm1d(3, eps=0.3), READ),
    "BatchNorm affine": (lambda: nn.BatchNorm1d(3, affine=False), READ),
    "BatchNorm track": (lambda: nn.BatchNorm1d(3, track_running_stats=False), RUNS),
    "BatchNorm momentum": (lambda: nn.BatchNorm1d(3, momentum=None), READ),
    "Dropout": (lambda: nn.Dropout(0.6), READ),
    "Dropout none": (lambda: nn.Dropout(0.0), READ),
    "Dropout all": (lambda: nn.Dropout(1.0), READ),
    "Dropout inplace": (lambda: nn.Dropout(0.3, inplace=True), READ),
}


def _filled(module: nn.Module) -> nn.Module:
    """With other weights than ones and zeros, and running statistics that are none of zeros and ones."""
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point():
                value.uniform_(0.5, 1.5, generator=g)
    return module.double()


@pytest.mark.parametrize("training", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", OPTIONS)
def test_every_option(kind: str, training: bool) -> None:
    make, expected = OPTIONS[kind]
    conv = layer(_filled(make())).train(training)
    if training and kind.startswith("Dropout") and conv.nn.p not in (0, 1):
        return  # masks are gdsl's own draws: below
    compare(conv)
    assert how(conv) == (RUNS if training and kind.startswith("BatchNorm") else expected)


def test_options_of_every_class_that_is_read() -> None:
    """What decides how a class is read is named beside it; each argument of its constructor is tried above."""
    assert set(parts.OPTIONS) == {*modules._table(), *modules._cells(), nn.Sequential}
    tried = {name.split()[0].replace("BatchNorm", "BatchNorm1d") for name in OPTIONS}
    assert tried == {kind.__name__ for kind in modules._table()}


def test_options_in_one_generated_program() -> None:
    chosen = (
        "LeakyReLU slope",
        "ELU alpha",
        "Softplus beta threshold",
        "LayerNorm bias",
        "LayerNorm shape",
        "BatchNorm eps",
    )
    stack = [part for name in chosen for part in (OPTIONS[name][0](), nn.Linear(3, 3))]
    conv = layer(_filled(nn.Sequential(*stack)), "cpp").eval()
    for part in conv.nn:
        if isinstance(part, nn.Linear):
            part.weight.data.sub_(0.9)
    compare(conv)
    assert how(conv) == READ


SETTINGS = [
    ("LeakyReLU", "negative_slope", 0.7),
    ("ELU", "alpha", 0.2),
    ("GELU", "approximate", "tanh"),
    ("Softplus", "beta", 2.0),
    ("Softplus", "threshold", 0.1),
    ("LayerNorm", "eps", 0.5),
    ("LayerNorm", "bias", None),
    ("LayerNorm", "weight", None),
    ("BatchNorm", "eps", 0.5),
    ("BatchNorm", "running_mean", None),
    ("BatchNorm", "bias", None),
    ("Linear", "bias", None),
    ("Linear", "weight", nn.Parameter(torch.eye(2, 3, dtype=torch.float64))),
    ("Dropout", "p", 0.0),
    ("LeakyReLU", "negative_slope", torch.tensor(0.3)),
]


@pytest.mark.parametrize(("kind", "option", "value"), SETTINGS)
def test_an_option_that_changes_after_a_call(kind: str, option: str, value: Any) -> None:
    conv = layer(_filled(OPTIONS[kind][0]())).eval()
    before = compare(conv)
    setattr(conv.nn, option, value)
    if option == "running_mean":
        conv.nn.running_var = None
    if option == "p":
        conv.train()
    after = compare(conv)
    assert option == "p" or not torch.equal(before, after)


def test_a_tensor_as_an_option_may_change_in_place() -> None:
    conv = layer(nn.LeakyReLU(torch.tensor(0.3)))
    compare(conv)
    conv.nn.negative_slope.fill_(0.9)
    compare(conv)


def test_a_module_of_other_sizes_in_its_place() -> None:
    conv = layer(nn.Linear(3, 2).double())
    compare(conv)
    for new in (nn.Linear(3, 5), nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.PReLU(), nn.Linear(3, 2, bias=False)):
        conv.nn = new.double()
        compare(conv)


# ------------------------------------------------------------------------------------- hooks


def _scaled(m: nn.Module, args: Any, y: Tensor) -> Tensor:
    return 3 * y


HOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "forward": lambda m: m.register_forward_hook(_scaled),
    "forward pre": lambda m: m.register_forward_pre_hook(lambda m, args: (args[0] + 1,)),
    "forward with kwargs": lambda m: m.register_forward_hook(lambda m, a, k, y: 2 * y, with_kwargs=True),
    "backward": lambda m: m.register_full_backward_hook(lambda m, i, o: (5 * i[0],)),
    "backward pre": lambda m: m.register_full_backward_pre_hook(lambda m, o: (7 * o[0],)),
    "forward of the instance": lambda m: setattr(m, "forward", _doubled(m.forward)),
}


def _doubled(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: 2 * f(x)


PLACES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "a part": lambda m: m[1],  # type: ignore[index]
    "a linear map": lambda m: m[0],  # type: ignore[index]
    "a part of a part": lambda m: m[2][0],  # type: ignore[index]
    "the whole": lambda m: m,
}


@pytest.mark.parametrize("place", by_default(PLACES, ("a part", "the whole")))
@pytest.mark.parametrize("hook", HOOKS)
def test_a_part_with_a_hook_runs(hook: str, place: str) -> None:
    made = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Sequential(nn.Linear(4, 2), nn.Sigmoid())).double()
    conv, x = layer(made), features()
    before = compare(conv)
    grad = torch.autograd.grad(conv(x, EDGES).sum(), x)[0]
    handle = HOOKS[hook](PLACES[place](conv.nn))
    after, expected = conv(x, EDGES), plain(conv.nn, x)
    torch.testing.assert_close(after, expected)
    ours, theirs = (torch.autograd.grad(y.sum(), x)[0] for y in (after, expected))
    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(after, before) or not torch.equal(ours, grad), "the hook changed nothing"
    assert how(conv) == RUNS
    if handle is not None:
        handle.remove()
        compare(conv)
        assert how(conv) == READ


GLOBAL: dict[str, Callable[[list[Any]], Any]] = {
    "forward": lambda seen: torch_module.register_module_forward_hook(lambda m, a, y: seen.append(m)),
    "forward pre": lambda seen: torch_module.register_module_forward_pre_hook(lambda m, a: seen.append(m)),
    "backward": lambda seen: torch_module.register_module_full_backward_hook(lambda m, i, o: seen.append(m)),
    "backward pre": lambda seen: torch_module.register_module_full_backward_pre_hook(lambda m, o: seen.append(m)),
}


@contextmanager
def _everywhere(kind: str) -> Iterator[list[Any]]:
    seen: list[Any] = []
    handle = GLOBAL[kind](seen)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", GLOBAL)
def test_hooks_on_all_modules(kind: str) -> None:
    conv, x = layer(nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double()), features()
    expected = conv(x, EDGES)
    wanted = torch.autograd.grad(expected.sum(), x)[0]
    with _everywhere(kind) as seen:
        found = conv(x, EDGES)
        grad = torch.autograd.grad(found.sum(), x)[0]
    torch.testing.assert_close((found, grad), (expected, wanted))
    for part in (conv, conv.nn, conv.nn[0], conv.nn[1]):
        assert sum(m is part for m in seen) == 1, f"{type(part).__name__} once"
    assert len(seen) == 4, "nothing else is a module of the user's"
    conv(x, EDGES)
    assert how(conv) == READ


# ------------------------------------------------------------------------------------- classes, computed weights


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Double(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


class Adapted(nn.Module):
    def __init__(self, lin: nn.Linear):
        super().__init__()
        self.lin, self.a = lin, nn.Parameter(torch.ones(3, 1))
        self.b = nn.Parameter(torch.ones(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lin(x) + x @ self.a @ self.b
        return y


COMPUTED: dict[str, Callable[[Any], Any]] = {
    "pruned": lambda m: prune.l1_unstructured(m, "weight", amount=2),
    "pruned by rows": lambda m: prune.ln_structured(m, "weight", amount=1, n=2, dim=1),
    "parametrised": lambda m: parametrize.register_parametrization(m, "weight", Double()),
    "weight norm": lambda m: parametrizations.weight_norm(m),
    "spectral norm": lambda m: parametrizations.spectral_norm(m),
    "old weight norm": lambda m: nn.utils.weight_norm(m),
    "old spectral norm": lambda m: nn.utils.spectral_norm(m),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("training", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("kind", COMPUTED)
def test_computed_weights_of_a_part(kind: str, training: bool) -> None:
    conv, x = layer(nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double()).train(training), features()
    compare(conv)
    COMPUTED[kind](conv.nn[0])
    optimiser = torch.optim.SGD(conv.parameters(), 0.1)
    for _ in range(2):  # after a step the computed weight of before is another one
        state = {name: value.clone() for name, value in conv.nn.state_dict().items()}
        found = conv(x, EDGES)
        grads = torch.autograd.grad(found.square().sum(), [x, *conv.parameters()])
        conv.nn.load_state_dict(state)  # steps of a power iteration are undone
        expected = plain(conv.nn, x)
        torch.testing.assert_close(found, expected)
        wanted = torch.autograd.grad(expected.square().sum(), [x, *conv.parameters()])
        torch.testing.assert_close(grads, wanted)
        for p, g in zip(conv.parameters(), grads[1:], strict=True):
            p.grad = g
        optimiser.step()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", COMPUTED)
def test_computed_weights_of_a_layer_itself(kind: str) -> None:
    conv = gdsl.compile(
        "layer L(d, e) { param weight[e, d] ~ zeros  node x[d]  update y = weight @ x }", 3, 2, backend="torch"
    )
    lin, x = nn.Linear(3, 2, bias=False).double(), features()
    conv.double().load_state_dict(lin.state_dict())
    torch.testing.assert_close(conv(x, EDGES), lin(x))
    for module in (conv, lin):
        COMPUTED[kind](module)
    lin.load_state_dict(conv.state_dict())
    for _ in range(2):
        found, expected = conv(x, EDGES), lin(x)
        torch.testing.assert_close(found, expected)
        ours = torch.autograd.grad(found.square().sum(), [x, *conv.parameters()])
        theirs = torch.autograd.grad(expected.square().sum(), [x, *lin.parameters()])
        torch.testing.assert_close(ours, theirs)
        with torch.no_grad():
            for a, b in zip(conv.parameters(), lin.parameters(), strict=True):
                a.mul_(1.5)
                b.mul_(1.5)
    with pytest.raises(gdsl.InputError, match="`weight` is computed from other tensors"):
        conv.reset_parameters()


def test_classes_that_no_table_knows_run() -> None:
    for made in (Doubled(3, 2), Adapted(nn.Linear(3, 2)), nn.PReLU(), nn.Sequential(nn.Linear(3, 2), nn.Hardtanh())):
        conv = layer(made.double())
        compare(conv)
        assert how(conv) == RUNS


# ------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_dropout_that_is_not_as_the_layer(backend: str, training: bool) -> None:
    """Dropout goes by its own flag, as in torch: Monte Carlo dropout, and one that was switched off."""
    conv = layer(nn.Sequential(nn.Identity(), nn.Dropout(0.5)), backend).train(not training)
    conv.nn[1].train(training)
    x = torch.ones(1000, 3, dtype=torch.float64)
    y = conv(x, torch.zeros(2, 0, dtype=torch.long))
    assert set(y.unique().tolist()) == ({0.0, 2.0} if training else {1.0})
    assert not training or 0.4 < float((y == 0).double().mean()) < 0.6
    assert how(conv) == READ


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_that_is_not_as_the_layer(training: bool) -> None:
    conv = layer(_filled(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))).train(not training)
    conv.nn[1].train(training)
    compare(conv)
    assert how(conv) == (RUNS if training else READ)


def test_the_flag_of_a_list_counts_for_nothing() -> None:
    conv = layer(nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)).double()).eval()
    conv.nn.training = True
    compare(conv)


# ------------------------------------------------------------------------------------- values of a program


@pytest.mark.parametrize("hooked", [False, True])
def test_a_part_in_place_does_not_write_to_an_input(hooked: bool) -> None:
    conv = gdsl.compile("layer L { module act  node x[d]  h = act(x)  update y = h + x }", act=nn.ReLU(inplace=True))
    if hooked:
        conv.act.register_forward_hook(lambda m, args, y: None)
    x = features().detach()
    kept = x.clone()
    torch.testing.assert_close(conv(x, EDGES), kept.relu() + kept)
    assert torch.equal(x, kept)
    x.requires_grad_()
    conv(x, EDGES).sum().backward()
    torch.testing.assert_close(x.grad, 1 + (kept > 0).double())


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_integers_reach_an_embedding(backend: str) -> None:
    source = (
        "layer L(n) { module emb  node k: int(n)  node x[d]  h = emb(k)  update y = sum(h[j]) + h + 0 * sum[d](x) }"
    )
    emb = nn.Embedding(5, 4).double()
    conv = gdsl.compile(source, n=5, emb=emb, backend=backend)
    k, x = torch.tensor([0, 4, 2, 2, 1, 3]), features()
    h = emb(k)
    expected = h + torch.zeros_like(h).index_add(0, EDGES[1], h[EDGES[0]])
    found = conv(k, x, EDGES)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(y.square().sum(), emb.weight) for y in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_integers_reach_a_module_of_real_numbers_as_such() -> None:
    source = "layer L(n) { module f  node k[d]: int(n)  node x[d]  update y = f(k; d) + x }"
    lin = nn.Linear(3, 3).double()
    k, x = torch.randint(5, (6, 3)), features()
    for changed in (False, True):
        if changed:
            lin.register_forward_hook(lambda m, args, y: None)
        conv = gdsl.compile(source, n=5, f=lin, backend="torch")
        torch.testing.assert_close(conv(k, x, EDGES), lin(k.double()) + x)


CELL = "layer L(d, k) { module cell node x[d] node h[k] aggregate a = sum(x[j]) update y = cell(a, h; k) }"


@pytest.mark.parametrize("given", ["p", "p, x", "x, p", "p, p"])
def test_what_is_the_same_everywhere_is_one_row_or_in_each(given: str) -> None:
    class Joined(nn.Module):
        def forward(self, *values: Tensor) -> Tensor:
            return torch.cat(values, dim=1).cumsum(1)

    text = f"layer L(d, k) {{ module nn param p[d] ~ normal node x[d] return nn({given}; k), x }}"
    conv = gdsl.compile(text, d=3, k=3 * len(given.split(",")), nn=Joined(), backend="cpp").double()
    x = features()
    values = {"x": x, "p": conv.p.expand_as(x) if "x" in given else conv.p[None]}
    expected = Joined()(*(values[name] for name in given.split(", ")))
    found = conv(x, EDGES)[0]
    torch.testing.assert_close(found, expected if "x" in given else expected[0])
    ours, theirs = (torch.autograd.grad(y.sin().sum(), conv.p) for y in (found, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.GRUCell, nn.RNNCell, functools.partial(nn.RNNCell, nonlinearity="relu")])
def test_steps_of_recurrences_are_read(kind: Any, bias: bool, backend: str) -> None:
    """Values and two derivatives; nothing of the module runs."""
    torch.manual_seed(0)
    cell = kind(3, 4, bias=bias)
    made = gdsl.compile(CELL, d=3, k=4, cell=cell, backend=backend).double()
    x, h = features(3), features(4, seed=1)
    leaves = [x, h, *cell.parameters()]
    found = []
    for y in (made(x, h, EDGES), cell(torch.zeros_like(x).index_add(0, EDGES[1], x[EDGES[0]]), h)):
        first = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        found.append([y, *first, *second])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert "call" not in {n.op for n in walk([n for _, n in made.program.outputs])}


LSTM = """layer L(d, k) {
    module cell
    node x[d]
    node h[k]
    node c[k]
    aggregate a = sum(x[j])
    s = cell(a, h, c; 2, k)
    return s[0], s[1]
}"""


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("runs", [False, True])
def test_a_step_of_an_lstm(runs: bool, bias: bool, backend: str) -> None:
    """Its state and its cell, values and two derivatives; with a hook the module runs."""
    torch.manual_seed(0)
    cell = nn.LSTMCell(3, 4, bias=bias)
    if runs:
        cell.register_forward_hook(lambda module, args, result: None)
    made = gdsl.compile(LSTM, d=3, k=4, cell=cell, backend=backend).double()
    x, h, c = features(3), features(4, seed=1), features(4, seed=2)
    leaves = [x, h, c, *cell.parameters()]
    found = []
    for y in (made(x, h, c, EDGES), cell(torch.zeros_like(x).index_add(0, EDGES[1], x[EDGES[0]]), (h, c))):
        first = torch.autograd.grad(sum((k + v).sin().sum() for k, v in enumerate(y)), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        found.append([*y, *first, *second])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert ("call" in {n.op for n in walk([n for _, n in made.program.outputs])}) == runs


def test_a_step_of_an_lstm_of_other_sizes() -> None:
    with pytest.raises(gdsl.LanguageError, match="module `cell` takes 5 numbers of the state, and dim `k` has 4"):
        gdsl.compile(LSTM, d=3, k=4, cell=nn.LSTMCell(3, 5))
    with pytest.raises(gdsl.LanguageError, match="module `cell` does not take"):
        gdsl.compile(CELL, d=3, k=4, cell=nn.LSTMCell(3, 4))


def test_a_step_that_does_more_than_its_class_says_runs() -> None:
    cell = nn.GRUCell(3, 4)
    made = gdsl.compile(CELL, d=3, k=4, cell=cell).double()
    x, h = features(3), features(4, seed=1)
    plain = made(x, h, EDGES)
    cell.register_forward_hook(lambda module, args, result: 2 * result)
    assert torch.allclose(made(x, h, EDGES), 2 * plain)


def test_a_step_of_other_sizes() -> None:
    with pytest.raises(gdsl.LanguageError, match="module `cell` takes 5 features, and dim `d` has 3"):
        gdsl.compile(CELL, d=3, k=4, cell=nn.GRUCell(5, 4))
