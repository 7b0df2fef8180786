"""``layer.reproduce()``: a file that runs a call elsewhere, has nothing of the user's, and finds what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn as gnn
from gdsl.errors import InputError
from gdsl.look.reproduce import FEW_EDGES, packed, written
from gdsl.module import recorded, rerun
from gdsl.module.copies import copy_of

NODES, EDGES = 7, 20
KINDS = torch.arange(EDGES) % 5
GRAPHS = torch.arange(NODES) // 3

ATTENTION = """
layer Attention(d, out, slope = 0.2) {
    linear lin(d -> out)
    param att[out] ~ glorot
    node x[d]
    edge w = 1
    graph add_self_loops(w = 1)
    h = lin(x)
    alpha = dropout(softmax(leaky_relu((h @ att)[j], slope)), 0.3)
    message m = w * alpha * h[j]
    aggregate a = sum(m)
    update y = a
}
"""
POOL = "layer Pool { node x[d]\n m = max(x[j])\n pool p = mean(x + m)\n return p }"
TABLE = """
layer Table(d, k) {
    param t[k, d] ~ glorot
    node x[d]
    edge kind: int(k)
    update y = max(t[kind] * x[j])
}
"""
STACK = "layer Stack(d, K) { param w[K, d] ~ glorot\n node x[d]\n update y = sum[K](w * stack(x[j], K)) }"


class Kept(gnn.MessagePassing):
    """Keeps what its message has computed, counts, and has a part with statistics."""

    def __init__(self) -> None:
        super().__init__("max")
        self.lin, self.norm, self.count = nn.Linear(3, 3), nn.BatchNorm1d(3), 0

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.count += 1
        found: Tensor = self.propagate(edge_index, x=self.norm(self.lin(x)))
        return found

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        self.alpha = torch.sigmoid((x_i * x_j).sum(-1, keepdim=True))
        return self.alpha * x_j


class Odd(nn.Module):
    """What no program can read."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1).cumsum(-1)


def edges(nodes: int = NODES, count: int = EDGES) -> Tensor:
    return torch.randint(nodes, (2, count))


def x(nodes: int = NODES, dim: int = 3) -> Tensor:
    return torch.randn(nodes, dim)


def called(layer: Any, *args: Any) -> str:
    layer(*args)
    text: str = layer.reproduce()
    return text


def strided() -> Tensor:
    found = torch.randn(3, 2 * NODES)[:, ::2].t()
    found[1, 2], found[2, 0], found[3, 1] = float("nan"), float("inf"), -float("inf")
    return found.requires_grad_()


def nn_layer(name: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(gnn, name)(*args, **kwargs)


FILES: dict[str, Callable[[], str]] = {
    "text": lambda: gdsl.compile(ATTENTION, d=3, out=4).reproduce(x(), edges(), torch.rand(EDGES)),
    "text, its last call": lambda: called(gdsl.compile(ATTENTION, d=3, out=4), x(), edges()),
    "text, not called": lambda: gdsl.compile(ATTENTION, d=3, out=4).eval().reproduce(),
    "text, values": lambda: gdsl.compile(ATTENTION, d=3, out=4).reproduce(x(), edges(), values=True),
    "strides, odd numbers": lambda: gdsl.compile(ATTENTION, d=3, out=4).reproduce(strided(), edges()),
    "whole numbers": lambda: gdsl.compile(TABLE, d=3, k=5).reproduce(x(), edges(), KINDS),
    "half": lambda: gdsl.compile(TABLE, d=3, k=5).bfloat16().reproduce(x().bfloat16(), edges(), KINDS),
    "options": lambda: gdsl.compile(ATTENTION, d=3, out=4).choose(aggregate="last", memory=0).reproduce(x(), edges()),
    "library": lambda: nn_layer("GATConv", 3, 4, heads=2).reproduce(x(), edges(40, 2000).remainder(NODES)),
    "library, its last call": lambda: called(nn_layer("GCNConv", 3, 4), x(), edges()),
    "pair": lambda: nn_layer("SAGEConv", (3, 2), 4).reproduce((x(), x(4, 2)), edges().remainder(4)),
    "own class": lambda: Kept().reproduce(x(), edges()),
    "own class, its last call": lambda: called(Kept(), x(), edges()),
    "module between kernels": lambda: nn_layer("GINConv", Odd()).reproduce(x(), edges()),
    "batch": lambda: gdsl.compile(POOL).reproduce(x().requires_grad_(), edges(), GRAPHS, 4),
    "no edges": lambda: nn_layer("GCNConv", 3, 4).reproduce(x(), torch.empty(2, 0, dtype=torch.long)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each kind."""
    found = tmp_path_factory.mktemp("reproductions")
    for name, make in FILES.items():
        torch.manual_seed(0)
        (found / f"{name}.py").write_text(make())
    return found


RUN_ALL = """
import contextlib, io, pathlib, runpy, sys
for path in sorted(pathlib.Path().glob("*.py")):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
    print(f"{path.stem}: {code}: {said.getvalue().count(' ok')}")
"""


def test_files_run_elsewhere(folder: Path, repository: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert found.keys() == FILES.keys()
    for name, said in found.items():
        code, passed = said.split(": ")
        assert code == "0", f"{name}: {done.stdout}"
        assert int(passed) >= 2, name


def test_files_hold_nothing_of_the_machine(folder: Path, repository: Path) -> None:
    private = [str(Path.home()), str(repository), str(folder), sys.prefix, os.uname().nodename]
    for file in folder.glob("*.py"):
        text = file.read_text()
        assert "Written on\n    gdsl: " in text
        assert not [word for word in private if len(word) > 1 and word in text]


def test_files_hold_no_number_unless_asked() -> None:
    layer, given = gdsl.compile("layer L(d) { node x[d]\n aggregate a = sum(x[j])\n update y = a }", d=2), x(NODES, 2)
    given[0, 0] = 0.123456789
    assert "0.1234" not in layer.reproduce(given, edges())
    assert "numbers([7, 2]" in layer.reproduce(given, edges())
    assert packed(given) in layer.reproduce(given, edges(), values=True)
    layer(given, edges())
    with pytest.raises(InputError, match="pass its arguments, too"):
        layer.reproduce(values=True)


def test_what_is_written_is_what_was_called() -> None:
    layer = gdsl.compile(ATTENTION, d=3, out=4)
    few, many = edges(), edges(NODES, FEW_EDGES + 1)
    text = layer.reproduce(strided(), few)
    assert f"edges({few.tolist()}, {NODES}, {NODES})" in text
    assert "'x': numbers([7, 3], \"float32\", stride=[2, 14], requires_grad=True, nan=1, inf=1, minus_inf=1)" in text
    assert "'slope': 0.2}, training=True" in text
    assert ATTENTION.strip() in text
    busiest = int(torch.bincount(many[1]).max())
    assert f"random_edges(7, 7, 257, busiest={busiest})" in layer.reproduce(x(), many)
    assert "The graph is a random one" in layer.reproduce(x(), many)
    assert "options={'choices': (('aggregate', 'last'),)}" in layer.choose(aggregate="last").reproduce(x(), few)
    assert 'dtype="float64"' in layer.double().reproduce(x().double(), few)
    layer.backend = "torch"
    assert 'backend="torch"' in layer.reproduce(x().double(), few)


@pytest.mark.parametrize("training", [False, True])
def test_a_text_has_the_program_of_its_layer(training: bool) -> None:
    """What its own maps do in training and in evaluation mode is part of it."""
    text = "layer A(d) { mlp m(d -> 2*d -> d, relu, dropout = 0.5) node x[d] update y = sum(m(x)[j]) }"
    layer = gdsl.compile(text, d=4).train(training)
    layer(torch.ones(3, 4), torch.tensor([[0, 1], [1, 2]]))
    assert rerun.from_text(text, {"d": 4}, training=training).outputs == layer.program.outputs
    assert "from_text(TEXT" in layer.reproduce()


def test_the_same_call_gives_the_same_text_and_a_file(tmp_path: Path) -> None:
    layer, given = nn_layer("GATConv", 3, 4), (x(), edges())
    path = tmp_path / "call.py"
    assert layer.reproduce(*given, path=path) == layer.reproduce(*given) == path.read_text()


def test_the_layer_and_the_random_state_stay_as_they_are() -> None:
    layer, given = Kept(), (x(), edges())
    layer(*given)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    alpha, state, last = layer.alpha, torch.get_rng_state(), layer._store.last
    layer.reproduce(*given)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert layer.count == 1
    assert layer.alpha is alpha
    assert layer._store.last is last
    assert torch.equal(torch.get_rng_state(), state)
    # What a call has kept is no hindrance to a copy: `check` makes one, too.
    twin = copy_of(layer)
    assert twin.alpha is not alpha
    assert torch.equal(twin.alpha, alpha)
    assert not twin.alpha.requires_grad


def test_a_call_that_fails_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, given = nn_layer("GCNConv", 3, 4), (x(), edges())

    def broken(*_: Any) -> None:
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr("gdsl.module.run.ready_for", broken)
    assert "from_text(TEXT" in layer.reproduce(*given)
    with pytest.raises(IndexError):  # the call comes to no program
        layer.reproduce(x(), edges() + 100)


def test_no_program_is_an_error() -> None:
    class Own(Kept):
        def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int | None = None) -> Tensor:  # type: ignore[override]
            return inputs.new_zeros(NODES, 3).index_add(0, index, inputs)

    with pytest.raises(InputError, match="runs no program"):
        Own().reproduce(x(), edges())
    with pytest.raises(InputError, match="once: how it is compiled depends"):
        nn_layer("GCNConv", 3, 4).reproduce()


def test_a_part_of_a_distributed_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdsl.Graph, "halo", object())
    monkeypatch.setattr("gdsl.module.run._together", lambda *_: 1)
    with pytest.raises(InputError, match="needs its other parts"):
        nn_layer("GCNConv", 3, 4).reproduce(x(), edges())


def test_a_file_finds_what_is_wrong(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    own, space = rerun.run, {"__name__": "read"}
    exec((folder / "library.py").read_text(), space)
    call = space["CALLS"][0]
    assert rerun.main([call], []) == 0
    assert "GATConv on cpp, float32" in capsys.readouterr().out
    assert rerun.main([call], ["--backend", "torch"]) == 0

    def wrong(kind: Any, graph: Any, tensors: Any, backend: str, **more: Any) -> list[Tensor]:
        first, *others = own(kind, graph, tensors, backend, **more)
        return [first * (1 if backend == "torch" else 1.001), *others]

    monkeypatch.setattr(rerun, "run", wrong)
    assert rerun.main([call], []) == 1
    said = capsys.readouterr().out.splitlines()
    assert re.search(r"result y .* DIFFERS by more than", "\n".join(said))
    assert any("gradient of lin.weight" in line and "DIFFERS" in line for line in said)

    def none(kind: Any, graph: Any, tensors: Any, backend: str, **more: Any) -> list[Tensor]:
        return [r if backend == "torch" else r.detach() for r in own(kind, graph, tensors, backend, **more)]

    monkeypatch.setattr(rerun, "run", none)
    assert rerun.main([call], []) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_stored_numbers_are_those_of_the_call(dtype: torch.dtype) -> None:
    base = torch.randint(0, 2, (4, 6)).to(dtype)
    for given in (base, base.t(), base[:, 1::2], base[:1].expand(3, 6), base[:0], base[0, 0]):
        shape, stride = list(given.shape), list(given.stride())
        found = rerun.stored(packed(given), shape, rerun_name(dtype), stride=stride, offset=3)(torch.Generator())
        assert torch.equal(found, given)
        assert found.dtype is dtype
        if given.numel():
            assert found.stride() == given.stride()
            assert found.storage_offset() == 3


def rerun_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def test_random_numbers_are_like_those_of_the_call() -> None:
    random = torch.Generator().manual_seed(0)
    found = rerun.numbers([50, 20], "float64", rms=3.0, sign="positive", nan=2, inf=3, minus_inf=1)(random)
    assert [int(f(found).sum()) for f in (torch.isnan, torch.isposinf, torch.isneginf)] == [2, 3, 1]
    finite = found[found.isfinite()]
    assert bool((finite > 0).all())
    assert abs(float(finite.square().mean().sqrt()) - 3) < 0.5
    whole = rerun.numbers([100], "int32", low=2, high=4, is_sorted=True)(random)
    assert set(whole.tolist()) == {2, 3, 4}
    assert whole.tolist() == sorted(whole.tolist())
    assert rerun.numbers([2], "float32", rms=0.0)(random).tolist() == [0, 0]


def test_random_graphs_have_what_a_program_needs() -> None:
    graph = rerun.random_edges(50, 40, 300, busiest=90)
    assert (graph.num_sources, graph.num_targets, graph.num_edges) == (50, 40, 300)
    assert int(graph.in_degree.max()) >= 90
    assert set(rerun.random_edges(9, 9, 0, each=2).in_degree.tolist()) == {2}
    both = rerun.random_edges(9, 9, 40, both_ways=True)
    assert sorted(both.edge_index.t().tolist()) == sorted(both.edge_index.flip(0).t().tolist())
    assert rerun.random_edges(0, 3, 5).num_edges == 0


def test_degrees_that_a_program_asks_for_are_in_the_file() -> None:
    layer = gdsl.compile(STACK, d=3, K=2)
    target = torch.arange(200).repeat_interleave(2)
    text = layer.reproduce(torch.randn(200, 3), torch.stack([torch.randint(200, (400,)), target]))
    assert "random_edges(200, 200, 400, busiest=2, each=2)" in text


def test_a_call_on_a_gpu_runs_on_a_cpu(capsys: Any) -> None:
    call = recorded.recorded_call(nn_layer("GCNConv", 3, 4), (x(), edges()), {})[0]
    space: dict[str, Any] = {"__name__": "read"}
    exec(written([replace(call, device=torch.device("cuda"), backend="triton")], "L", [], False), space)
    assert space["CALLS"][0].device == "cuda"
    if not torch.cuda.is_available():
        assert rerun.main(space["CALLS"], []) == 0
        assert "runs on the CPU" in capsys.readouterr().err
