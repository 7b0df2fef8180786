"""What surrounds a call: a default device, forks, exports of shared parts, compilers that are left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn as ours
from gdsl.locks import Lock
from gdsl.runtime import cache

X, EDGES = torch.randn(30, 8), torch.randint(30, (2, 120))
TEXT = "layer L { node x[c] graph add_self_loops aggregate a = sum(tanh(x[j])) update y = a * x }"


@pytest.mark.parametrize(
    "make",
    [
        lambda: ours.GCNConv(8, 4),
        lambda: ours.SAGEConv(8, 4, aggr="max"),
        lambda: ours.DynamicEdgeConv(nn.Linear(16, 4), 3),
        lambda: gdsl.compile(TEXT),
    ],
    ids=["GCN", "SAGE", "DynamicEdge", "text"],
)
def test_a_default_device_moves_nothing_of_ours(make: Callable[[], Any]) -> None:
    """Native code gets memory: tensors that a default device would put elsewhere have none."""
    layer = make()
    given = (X,) if isinstance(layer, ours.DynamicEdgeConv) else (X, EDGES)
    wanted = layer(*given)
    with torch.device("meta"):
        found = layer(*(t.clone() for t in given))
        graph = gdsl.Graph(EDGES.clone(), 30)
        assert graph.in_edges.rowptr.device.type == graph.out_edges.edge.device.type == "cpu"
    assert torch.equal(found, wanted)


def test_batches_under_a_default_device() -> None:
    data = pytest.importorskip("torch_geometric.data")
    from gdsl.data import Loader, NeighborLoader, pack

    graphs = [data.Data(x=X[:k], edge_index=EDGES[:, :9] % k, y=torch.tensor([k])) for k in (3, 4, 5)]
    with torch.device("meta"):
        (batch,) = Loader(pack(graphs), batch_size=3)
        assert batch.x.device.type == batch.edge_index.device.type == "cpu" and batch.x.shape == (12, 8)
        whole = data.Data(x=X, edge_index=EDGES)
        sample = next(iter(NeighborLoader(whole, [3, 2], batch_size=4, input_nodes=torch.arange(4, device="cpu"))))
        assert sample.x.device.type == sample.edge_index.device.type == "cpu"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_locks_of_a_forked_process_are_free() -> None:
    """Another thread holds one when the process is forked, and is not in the child."""
    lock, held, done = Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        with lock:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert status == 0
    with lock:
        assert "the lock of the parent is free again"


def test_locks_of_all_that_is_made_on_demand() -> None:
    """In the files that make something once, there is no lock that a fork would leave taken."""
    left = ("unchanged.py", "cache.py", "locks.py")  # these renew their own
    root = Path(gdsl.__file__).parent
    wrong = [p.name for p in root.rglob("*.py") if "threading.Lock()" in p.read_text() and p.name not in left]
    wrong += [p.name for p in root.rglob("*.py") if "threading.RLock()" in p.read_text() and p.name not in left]
    assert not wrong


class Shared(nn.Module):
    """A part that has two places."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.conv = ours.GINConv(nn.Sequential(nn.Linear(8, 8), self.act))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.act(self.conv(x, edges))


@pytest.mark.parametrize("make", [Shared, lambda: ours.models.GIN(8, 8, 2, 3), lambda: ours.models.EdgeCNN(8, 4, 2, 3)])
def test_exports_of_parts_with_two_places(make: Callable[[], nn.Module]) -> None:
    model = make().eval()
    found = torch.export.export(model, (X, EDGES)).module()(X, EDGES)
    torch.testing.assert_close(found, model(X, EDGES))


def test_a_part_that_runs_for_the_layer_is_looked_at() -> None:
    conv = ours.RGCNConv(30, 4, 3)
    conv(None, EDGES, torch.randint(3, (120,)))
    assert conv.kernels and conv.program.name


MESSAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "ones like a mask": lambda x: x * (torch.ones_like(x > 0) + torch.ones_like(x > 0)),
    "zeros like a mask": lambda x: x * (torch.zeros_like(x > 0) + (x > 0)),
    "a mask and a float": lambda x: (x > 0) * 1.1,
    "a float and a mask": lambda x: 1.1 - (x > 0) * 0.3,
    "a mask and an integer": lambda x: ((x > 0) * 3) / 2 * x,
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", MESSAGES)
def test_truth_values_in_a_message(name: str, dtype: torch.dtype) -> None:
    """As torch has them: sums of them are truth values, and with a number they are of torch's default dtype."""
    message = MESSAGES[name]

    class Own(ours.MessagePassing):
        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            out: Tensor = self.propagate(edges, x=x)
            return out

        def message(self, x_j: Tensor) -> Tensor:
            return message(x_j)

    x = X.to(dtype)
    m = message(x[EDGES[0]])
    wanted = m.new_zeros(30, 8).index_add(0, EDGES[1], m)
    for _ in range(2):
        found = Own()(x, EDGES)
        assert found.dtype is wanted.dtype
        torch.testing.assert_close(found, wanted, rtol=2e-2 if found.dtype is torch.float16 else 1e-6, atol=1e-2)


@pytest.mark.skipif(cache.find_compiler() is None, reason="no C++ compiler")
def test_a_process_that_ends_leaves_nothing_behind(tmp_path: Path) -> None:
    """A compiler at work beside it is ended so that it removes its own files."""
    places = {name: tmp_path / name for name in ("cache", "temporary")}
    places["temporary"].mkdir()
    script = """
        import torch, gdsl.nn as ours
        from gdsl.runtime import cache
        cache.cores = lambda: 2
        layer = ours.GATConv(8, 5)
        layer(torch.randn(30, 8, requires_grad=True), torch.randint(30, (2, 90)))
        assert cache._ahead
    """
    environment = {**os.environ, "GDSL_CACHE": str(places["cache"]), "TMPDIR": str(places["temporary"])}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=True)
    end = time.monotonic() + 20  # the parts of a compiler that were told to end may take a while
    while time.monotonic() < end and (left := [*places["temporary"].iterdir(), *places["cache"].glob(".building-*")]):
        time.sleep(0.05)
    assert not left


@pytest.mark.skipif(cache.find_compiler() is None, reason="no C++ compiler")
def test_a_compiler_whose_end_nobody_saw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where children are waited for elsewhere, one that failed looks as if it had not: its empty file is no kernel."""
    monkeypatch.setenv("GDSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "cores", lambda: 2)
    cache.begin("this is no C++", name="bad")
    # Of this one alone: where the second compiler's end is not seen either, its failure is none.
    for process, _ in cache._ahead.values():
        monkeypatch.setattr(process, "wait", lambda *_, **__: 0)
    while cache._ahead and any(process.poll() is None for process, _ in cache._ahead.values()):
        time.sleep(0.01)
    with pytest.raises(gdsl.CompilerError, match="rejected a generated kernel"):
        cache.load("this is no C++", name="bad")
    assert not list((tmp_path / "cache").glob("*.so"))
