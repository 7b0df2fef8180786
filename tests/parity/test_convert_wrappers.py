"""gdsl.nn.convert on models inside of others: compiled, parallel, scripted ones, and frames of torch_geometric's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn as ours
from tests.parity.converted import Mine, convert, edges, features, is_ours, near, net, theirs


def test_compiled() -> None:
    model = nn.Sequential(theirs.MLP([5, 4, 3], norm=None)).double()
    compiled = torch.compile(model, backend="eager")
    wanted = model(features())
    made = convert(compiled)
    assert type(made) is type(compiled) and made is not compiled and is_ours(made._orig_mod[0])
    assert not is_ours(model[0])
    near(made(features()), wanted)
    assert convert(compiled, inplace=True) is compiled and is_ours(model[0])
    near(compiled(features()), wanted)
    layer: Any = torch.compile(theirs.GCNConv(5, 4), backend="eager")
    assert is_ours(convert(layer, inplace=True)._orig_mod) and not is_ours(layer._orig_mod)


def test_compiled_by_themselves() -> None:
    model = nn.Sequential(theirs.MLP([5, 4, 3], norm=None), theirs.Linear(3, 2)).double()
    model.compile(backend="eager")
    model[1].compile(backend="eager")
    report = ours.convertible(model)
    assert list(report.replaced) == ["0"] and "convert it before" in report.left["1"].reason
    wanted = model(features())
    for inplace in (False, True):
        made = convert(model, inplace=inplace)
        assert is_ours(made[0]) and not is_ours(made[1])
        near(made(features()), wanted)


def test_data_parallel() -> None:
    model = nn.DataParallel(net())
    made = convert(model, sample=(features(), edges()))
    assert type(made) is nn.DataParallel and is_ours(made.module.first) and not is_ours(model.module.first)


def test_distributed(tmp_path: Any) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(net())
        twin = net()
        with pytest.raises(gdsl.InputError, match="inplace=True"):
            convert(model)
        convert(model, inplace=True, sample=(features(), edges()))
        assert is_ours(model.module.first)
        for one in (model, twin):
            one(features(), edges()).sum().backward()
        near([p.grad for p in model.module.parameters()], [p.grad for p in twin.parameters()])
    finally:
        dist.destroy_process_group()


class FullyShardedDataParallel(nn.Module):
    """Known by its name."""


def test_sharded() -> None:
    with pytest.raises(gdsl.InputError, match="sharded"):
        convert(FullyShardedDataParallel())


def test_scripted() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(5, 5)))
    model = nn.ModuleList([scripted, theirs.GCNConv(5, 5)])
    report = ours.convertible(model)
    assert list(report.replaced) == ["1"] and convert(model)[0] is scripted


def test_several_types() -> None:
    def make() -> Any:
        torch.manual_seed(0)
        convs = {
            ("a", "to", "b"): theirs.SAGEConv((5, 5), 4),
            ("b", "of", "a"): theirs.GATConv((5, 5), 4, add_self_loops=False),
            ("a", "is", "a"): Mine(5),
        }
        return theirs.HeteroConv(convs).double()

    model, twin = make(), make()
    made = convert(model)
    assert type(made) is ours.HeteroConv and list(made.state_dict()) == list(twin.state_dict())
    x = {"a": features(), "b": features(seed=4)}
    edge_index = {key: edges(k) for k, key in enumerate([("a", "to", "b"), ("b", "of", "a")])}
    near(made(x, edge_index), twin(x, edge_index))


def test_models_made_for_several_types() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = theirs.SAGEConv((5, 5), 4), theirs.SAGEConv((4, 4), 3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.b(self.a(x, edge_index).relu(), edge_index)  # type: ignore[no-any-return]

    metadata = (["u", "v"], [("u", "to", "v"), ("v", "to", "u")])
    model = theirs.to_hetero(Two(), metadata, aggr="sum").double()
    made = convert(model)
    assert len(ours.convertible(model).replaced) == 4 and sum(map(is_ours, made.modules())) >= 4
    x = {"u": features(), "v": features(seed=3)}
    edge_index = {("u", "to", "v"): edges(1), ("v", "to", "u"): edges(2)}
    near(made(x, edge_index), model(x, edge_index))
    assert not any(map(is_ours, model.modules()))


def test_a_frame_of_torch_geometric_s() -> None:
    """What gdsl.nn has not, around layers that it has."""
    model = theirs.GroupAddRev(theirs.SAGEConv(2, 2), num_groups=2).double()
    assert set(ours.convertible(model).replaced) == {"convs.0", "convs.1"}
    near(convert(model)(features()[:, :4], edges(1)), model(features()[:, :4], edges(1)))
