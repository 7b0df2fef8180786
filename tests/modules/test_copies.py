"""Copies of layers, and tools that put other tensors in the place of parameters: each computes with its own."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.multiprocessing as multiprocessing
import torch.nn.parallel
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import parametrize, prune

import gdsl
import gdsl.nn as G
from tests.modules.gin import EDGES, by_default

TEXT = """
layer L(d, e) {
    module nn
    param w[d, e] ~ glorot
    buffer scale[e] ~ ones
    node x[d]
    aggregate a = sum(x[j])
    update y = (nn(a; d) @ w) * scale
}
"""
FAST = ("GAT", "GIN", "text")
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def _text() -> Any:
    return gdsl.compile(TEXT, 4, 3, nn=nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.PReLU()), backend="torch")


LAYERS: dict[str, Callable[[], Any]] = {
    "GCN": lambda: G.GCNConv(4, 3),
    "SAGE": lambda: G.SAGEConv(4, 3, aggr="softmax", aggr_kwargs={"learn": True}),
    "GAT": lambda: G.GATConv(4, 3, heads=2),
    "GIN": lambda: G.GINConv(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)), 0.1, True),
    "PNA": lambda: G.PNAConv(4, 4, ["mean", "std"], ["linear", "identity"], torch.tensor([1, 2, 3])),
    "DNA": lambda: G.DNAConv(4, heads=2),
    "text": _text,
    "aggregation": lambda: G.aggr.SoftmaxAggregation(learn=True),
}  # fmt: skip


def made(kind: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    layer = LAYERS[kind]()
    layer.backend = "torch"
    return layer


def call(layer: Any, kind: str, x: Tensor = X) -> Tensor:
    if kind == "aggregation":
        return layer(x, torch.tensor([0, 1, 0, 1, 2, 2]))  # type: ignore[no-any-return]
    return layer(torch.stack([x, x + 1], dim=1) if kind == "DNA" else x, EDGES)  # type: ignore[no-any-return]


def _moved(layer: nn.Module) -> dict[str, Tensor]:
    """Other values for its parameters."""
    return {name: (p + 0.5).detach().requires_grad_() for name, p in layer.named_parameters()}


@pytest.mark.parametrize("called", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("kind", by_default(LAYERS, FAST))
def test_functional_call(kind: str, called: bool) -> None:
    layer, other = made(kind), made(kind)
    if called:
        call(layer, kind)
        call(other, kind)
    given = _moved(layer)
    with torch.no_grad():
        for p, value in zip(other.parameters(), given.values(), strict=True):
            p.copy_(value)
    state = copy.deepcopy(dict(layer.named_buffers()))
    found = functional_call(layer, (given, state), _arguments(kind))
    expected = call(other, kind)
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found.square().sum(), list(given.values()))
    theirs = torch.autograd.grad(expected.square().sum(), list(other.parameters()))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(list(state.values()), list(other.buffers()))  # it is the given ones that are counted in


def _arguments(kind: str) -> tuple[Any, ...]:
    if kind == "aggregation":
        return X, torch.tensor([0, 1, 0, 1, 2, 2])
    return (torch.stack([X, X + 1], dim=1) if kind == "DNA" else X), EDGES


@pytest.mark.parametrize("kind", by_default(LAYERS, FAST))
def test_ensembles(kind: str) -> None:
    """One layer without memory of its own, and the stacked parameters of three."""
    layers = [made(kind, seed).eval() for seed in range(3)]
    for layer in layers[1:]:
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(0.1)
    expected = torch.stack([call(layer, kind) for layer in layers])
    state = stack_module_state(layers)
    base = copy.deepcopy(layers[0]).to("meta")
    found = vmap(lambda p, b: functional_call(base, (p, b), _arguments(kind)))(*state)
    torch.testing.assert_close(found, expected)
    assert all(p.is_meta for p in base.parameters())


def _replicas(layer: nn.Module) -> list[Any]:
    """DataParallel's own copies, with the transfer between devices left out: each gets tensors of its own."""
    module = sys.modules["torch.nn.parallel.replicate"]

    def send(tensors: Any, devices: Any, detach: bool = False) -> Any:
        return [[t * 1.0 for t in tensors] for _ in devices]

    with (
        mock.patch.object(module, "_broadcast_coalesced_reshape", send),
        mock.patch.object(module, "_get_device_index", lambda d, *a: d),
    ):
        replicas: list[Any] = module.replicate(layer, [0, 1])
        return replicas


@pytest.mark.parametrize("called", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("kind", by_default(LAYERS, FAST))
def test_replicas(kind: str, called: bool) -> None:
    layer = made(kind)
    expected = call(copy.deepcopy(layer), kind)
    if called:
        call(layer, kind)
    first, second = _replicas(layer)
    with torch.no_grad():
        for part in second.modules():
            for tensor in getattr(part, "_former_parameters", {}).values():
                tensor.zero_()
    zeros = copy.deepcopy(layer).eval()
    with torch.no_grad():
        for p in zeros.parameters():
            p.zero_()
    torch.testing.assert_close(call(second.eval(), kind), call(zeros, kind))
    found = call(first, kind)
    torch.testing.assert_close(found, expected)
    grads = torch.autograd.grad(found.square().sum(), list(layer.parameters()))
    assert any(bool(g.any()) for g in grads), "gradients reach the parameters that the replica was made of"


def test_replicas_compile_nothing_of_their_own() -> None:
    layer = made("GCN")
    call(layer, "GCN")
    (program,) = layer._texts.values()
    typed, programs = dict(program.typed), dict(layer._store.programs)
    for _ in range(3):
        for replica in _replicas(layer):
            call(replica, "GCN")
    assert program.typed == typed and layer._store.programs == programs and len(layer._texts) == 1


@pytest.mark.parametrize("kind", by_default(LAYERS, FAST))
def test_copies(kind: str) -> None:
    layer = made(kind).eval()
    expected = call(layer, kind)
    stream = io.BytesIO()
    torch.save(layer, stream)
    stream.seek(0)
    deep = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(stream, weights_only=False)]
    shallow = copy.copy(layer)
    shallow._parameters, shallow._modules = dict(layer._parameters), dict(layer._modules)
    for name, module in layer._modules.items():
        shallow._modules[name] = copy.deepcopy(module)
    for name, value in layer._parameters.items():
        shallow._parameters[name] = None if value is None else nn.Parameter(value.detach().clone())
    for twin in [*deep, shallow]:
        torch.testing.assert_close(call(twin, kind), expected)
        with torch.no_grad():
            for p in twin.parameters():
                p.zero_()
        assert not call(twin, kind).any() or kind == "aggregation"
        torch.testing.assert_close(call(layer, kind), expected)


class Double(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


def test_deep_copies_of_changed_layers() -> None:
    """torch takes their class away, and with it how they are copied."""
    for kind in ("GAT", "text"):
        layer = made(kind)
        call(layer, kind)
        parametrize.register_parametrization(layer, "att_src" if kind == "GAT" else "w", Double())
        expected = call(layer, kind)
        torch.testing.assert_close(call(copy.deepcopy(layer), kind), expected)
        prune.l1_unstructured(layer.lin if kind == "GAT" else layer.nn[0], "weight", amount=3)
        assert not torch.equal(call(layer, kind), expected)


# ------------------------------------------------------------------------------------- FSDP


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gcn, self.gat = G.GCNConv(4, 8), G.GATConv(8, 4, heads=2)
        self.gin = G.GINConv(nn.Sequential(nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 4)))
        self.text = _text()
        for part in (self.gcn, self.gat, self.gin):
            part.backend = "torch"

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        y: Tensor = self.text(self.gin(self.gat(self.gcn(x, edges).relu(), edges), edges), edges)
        return y


def _losses(net: nn.Module) -> list[float]:
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05)
    found = []
    for _ in range(3):
        optimiser.zero_grad()
        loss = net(X, EDGES).square().sum()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return found


SHARDED = ["FSDP1", "FSDP1 original parameters", "FSDP1 of parts", "fully_shard"]
distributed = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch was built without torch.distributed and gloo",
)


def _sharded(kind: str) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    net: Any = Net()
    if kind == "fully_shard":
        mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
        for part in (net.gcn, net.gat, net.gin.nn, net.gin, net):
            fully_shard(part, mesh=mesh)
        return net  # type: ignore[no-any-return]
    if kind == "FSDP1 of parts":
        net.gat = FullyShardedDataParallel(net.gat, device_id=torch.device("cpu"))
    original = kind == "FSDP1 original parameters"
    return FullyShardedDataParallel(net, device_id=torch.device("cpu"), use_orig_params=original)


@distributed
@pytest.mark.filterwarnings("ignore")  # torch says that one process shards nothing
@pytest.mark.parametrize("kind", SHARDED)
def test_sharded_in_one_process(kind: str) -> None:
    """torch keeps the parameters in a tensor of its own all the same, and puts views of it in their place."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        torch.testing.assert_close(_losses(_sharded(kind)), _losses(Net()), rtol=1e-4, atol=1e-5)
    finally:
        torch.distributed.destroy_process_group()


def _worker(rank: int, store: str, expected: list[float], results: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        for kind in SHARDED:
            torch.testing.assert_close(_losses(_sharded(kind)), expected, rtol=1e-4, atol=1e-5)
        results.put("right")
    except Exception as error:
        results.put(f"{kind}: {type(error).__name__}: {error}")
    finally:
        torch.distributed.destroy_process_group()


@distributed
@pytest.mark.slow
def test_sharded_over_two_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = str(tmp_path / "store"), _losses(Net()), results
    workers = [context.Process(target=_worker, args=(rank, *arguments)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == ["right", "right"]
