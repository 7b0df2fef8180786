"""The graphs of a batch one by one are those that torch_geometric's batch gives."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch as TheirBatch
from torch_geometric.data import Data, HeteroData, InMemoryDataset

from gdsl.data import Loader, NeighborLoader, Packed, pack, pack_arrays
from gdsl.errors import InputError

from . import graphs as made
from .test_loader import SIZES, Pair, assert_same


def assert_same_data(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    for one, other in zip(found.stores, expected.stores, strict=True):
        assert one._key == other._key
        assert set(one.keys()) ^ set(other.keys()) <= {"num_nodes"}
        for name, value in other.items():
            if name != "num_nodes":
                assert_same(one[name], value, name)
        if not isinstance(one._key, tuple):
            assert getattr(one, "num_nodes", None) == getattr(other, "num_nodes", None)
    assert found.num_nodes == expected.num_nodes


@given(SIZES, st.integers(0, 99), st.sampled_from([made.molecule, made.academic]))
def test_examples_are_those_of_torch_geometric(sizes, seed, make):
    items = made.many(make, sizes, seed)
    found, expected = pack(items).batch(range(len(items))), TheirBatch.from_data_list(items)
    assert len(found) == len(expected) == found.batch_size
    for one, other in zip(found.to_data_list(), expected.to_data_list(), strict=True):
        assert_same_data(one, other)
    for which in (0, -1, slice(None, None, 2), [0, 0], torch.arange(len(items)) % 2 == 0, torch.tensor(0)):
        single = not isinstance(which, slice | list) and getattr(which, "ndim", 0) == 0
        ids = torch.arange(len(items)).tolist()
        wanted = ids[which] if isinstance(which, int | slice) else torch.tensor(ids)[which].tolist()
        for k, one in zip([wanted] if single else wanted, [found[which]] if single else found[which], strict=True):
            assert_same_data(one, expected[k])


def test_a_class_with_rules_of_its_own():
    random = torch.Generator().manual_seed(0)
    items = [
        Pair(
            x_s=torch.randn(a, 2), x_t=torch.randn(b, 3), whole=torch.randn(4),
            edge_index_s=made.edges(a, a, 5, random), edge_index_t=made.edges(a, b, 7, random), num_nodes=a,
        )
        for a, b in [(3, 2), (4, 5), (1, 1)]
    ]  # fmt: skip
    for found, expected in zip(pack(items).batch([0, 1, 2]).to_data_list(), items, strict=True):
        for name, value in expected.items():
            assert_same(found[name], value, name)


def test_examples_have_what_the_batch_has_now(tmp_path):
    items = made.many(made.molecule, made.sizes(5))
    packed = pack(items, tmp_path / "set")
    batch = packed.batch([3, 1])
    batch.x = 2 * batch.x
    del batch.pos
    batch.edge_index[0] = batch.edge_index[1]
    for again in (batch, copy.copy(batch), pickle.loads(pickle.dumps(batch)), batch.to("cpu")):
        found = again[1]
        assert torch.equal(found.x, 2 * items[1].x)
        assert "pos" not in found and found.name == items[1].name
        assert torch.equal(found.edge_index[0], items[1].edge_index[1])
    batch.x = batch.x[1:]
    with pytest.raises(InputError, match="`x` of the batch has shape"):
        batch.get_example(0)


def test_a_pickled_batch_does_not_take_the_data_set_along():
    packed = pack(made.many(made.molecule, made.sizes(400)))
    assert len(pickle.dumps(packed.batch([0]))) < 20_000 < packed.nbytes


def test_parts_and_left_out_keys():
    items = made.many(made.molecule, made.sizes(4))
    (batch,) = Loader(pack(items)[[2, 0]], 2, exclude_keys=["x", "name"])
    kept = set(items[0].keys()) - {"x", "name", "num_nodes"}
    assert [set(data.keys()) for data in batch.to_data_list()] == [kept, kept]
    assert torch.equal(batch[1].edge_index, items[0].edge_index)


@pytest.mark.parametrize("which", [2, -3, 1.5, "none", None, [5], [0.5], (slice(2), 1), torch.tensor([True])])
def test_examples_that_are_not_there(which):
    batch = pack(made.many(made.molecule, made.sizes(3))).batch([0, 1])
    with pytest.raises((InputError, KeyError)):
        batch[which]


def test_a_sample_is_not_made_of_graphs():
    data = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1], [1, 2]]))
    (batch,) = NeighborLoader(data, [1], batch_size=3)
    with pytest.raises(InputError, match="cannot be cut"):
        batch.to_data_list()


def test_without_torch_geometric(monkeypatch):
    batch = pack(made.many(made.molecule, made.sizes(3))).batch([0])
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(InputError, match="torch_geometric is not installed"):
        batch.get_example(0)


# -- what a batch says of itself -------------------------------------------------------------------


def test_sizes_of_several_types_are_those_of_all():
    items = made.many(made.academic, made.sizes(4))
    batch, expected = pack(items).batch(range(4)), TheirBatch.from_data_list(items)
    assert (batch.num_nodes, batch.num_edges) == (expected.num_nodes, expected.num_edges)
    sample = next(iter(NeighborLoader(items[0], [2], "paper", batch_size=2)))
    assert sample.num_nodes == sum(sample[t].num_nodes for t in sample.node_types)
    assert sample.num_edges == sum(sample[t].num_edges for t in sample.edge_types)


def test_what_is_not_there_is_told_with_all_that_is():
    batch = pack(made.many(made.academic, made.sizes(2))).batch([0, 1])
    with pytest.raises(AttributeError, match=r"belongs to 'author', 'paper': ask for batch\['author'\].x, or for"):
        _ = batch.x
    with pytest.raises(AttributeError, match=r"has no 'z'; it has year, num_graphs; 'author' has x, .*'cites'"):
        _ = batch.z
    with pytest.raises(KeyError, match="has no 'z'"):
        batch["z"]
    with pytest.raises(KeyError, match="there are no edges"):
        batch["paper", "likes", "paper"]
    with pytest.raises(AttributeError, match="it has nothing"):
        _ = type(batch)().x


# -- int32 edges -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtypes", [[torch.int32] * 3, [torch.int64] * 3, [torch.int32, torch.int64, torch.int32]])
def test_the_dtype_of_edges_is_kept(dtypes, tmp_path):
    items = made.many(made.molecule, made.sizes(3))
    for item, dtype in zip(items, dtypes, strict=True):
        item.edge_index = item.edge_index.to(dtype)
    expected = TheirBatch.from_data_list(items)
    packed = pack(items)
    packed.save(tmp_path / "set")
    for found in (packed, Packed.load(tmp_path / "set")):
        batch = found.batch(range(3))
        assert_same(batch.edge_index, expected.edge_index)
        batch.edge_index[0] = 0
        assert torch.equal(batch.graph.edge_index, batch.edge_index.long())
        assert torch.equal(found.batch(range(3)).edge_index, expected.edge_index)


def test_the_dtype_of_edges_of_each_type_and_of_arrays():
    items = made.many(made.academic, made.sizes(3))
    for item in items:
        item[made.CITES].edge_index = item[made.CITES].edge_index.int()
    batch, expected = pack(items).batch(range(3)), TheirBatch.from_data_list(items)
    for type in (made.CITES, made.WRITES):
        assert torch.equal(batch[type].edge_index, expected[type].edge_index)
    # Where torch_geometric has several types, its int32 edges become int64 in a batch.
    assert (batch[made.CITES].edge_index.dtype, batch[made.WRITES].edge_index.dtype) == (torch.int32, torch.int64)
    edges = torch.tensor([[0, 1], [1, 2]], dtype=torch.int32)
    assert pack_arrays(edges, torch.zeros(3, dtype=torch.int64)).batch([0]).edge_index.dtype is torch.int32
    assert isinstance(batch[0], HeteroData)


# -- what programs of torch_geometric ask for ------------------------------------------------------


@pytest.mark.parametrize("y", [torch.tensor([3]), torch.tensor([[1]]), torch.tensor([0.5]), torch.ones(1, 4), None])
@pytest.mark.parametrize("x", [torch.ones(5, 3), torch.ones(5), None])
def test_sizes_of_rows_and_classes(x, y):
    items = [Data(x=x, y=y, edge_index=torch.tensor([[0], [1]]), edge_attr=torch.ones(1, 2), num_nodes=5)] * 2

    class Theirs(InMemoryDataset):
        def __init__(self):
            super().__init__()
            self.data, self.slices = self.collate(items)

    packed, expected = pack(items), Theirs()
    batch, whole = packed.batch([0, 1]), TheirBatch.from_data_list(items)
    for name in ("num_node_features", "num_features", "num_edge_features"):
        assert getattr(packed, name) == getattr(expected, name) == getattr(batch, name) == getattr(whole, name)
    assert packed.num_classes == expected.num_classes


@pytest.mark.parametrize("make", [made.molecule, made.academic])
def test_a_clone_has_tensors_of_its_own(make):
    batch = pack(made.many(make, made.sizes(3))).batch([0, 1, 2])
    for again in (batch.clone(), copy.deepcopy(batch).cpu()):
        stores = [(again, batch), *((again[t], batch[t]) for t in (*batch.node_types, *batch.edge_types))]
        for one, other in stores:
            assert one.keys() == other.keys()
            for name, value in one:
                if isinstance(value, torch.Tensor):
                    assert torch.equal(value, other[name])
                    value.zero_()
                    assert value.numel() == 0 or value.data_ptr() != other[name].data_ptr()
    assert bool((batch["author"].x if batch.node_types else batch.x).any())
