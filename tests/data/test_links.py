"""Batches of links: their ends and negatives are where they should be, and nothing is later than its link."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.sampler import NegativeSampling

from gdsl.data import LinkNeighborLoader
from gdsl.errors import InputError

from . import graphs as made
from .test_neighbors import academic, assert_is_part, graph

SETTINGS = st.fixed_dictionaries(
    {
        "neg_sampling": st.sampled_from([None, "binary", ("binary", 2), ("binary", 0.5), "triplet", ("triplet", 3)]),
        "disjoint": st.booleans(),
        "timed": st.booleans(),
    }
)


def mode_of(settings: dict[str, Any]) -> tuple[str | None, float]:
    given = settings["neg_sampling"]
    return given if isinstance(given, tuple) else (given, 1 if given else 0)


@given(SETTINGS, st.integers(0, 99), st.booleans())
def test_links_of_one_type(settings, seed, labelled):
    data, (mode, amount) = graph(25, 80, seed), mode_of(settings)
    label = torch.arange(80) % 3 if labelled and mode != "triplet" else None
    arguments = {"edge_label": label, "batch_size": 7, "seed": seed, "num_workers": 0, **_given(settings, 80)}
    loader = LinkNeighborLoader(data, [2, 1], **arguments)
    for number, batch in enumerate(loader):
        links = torch.arange(7 * number, min(7 * number + 7, 80))
        assert batch.input_id.tolist() == links.tolist()
        assert_is_part(batch, data)
        disjoint = settings["disjoint"] or settings["timed"]
        count, expected = len(links), data.edge_index[:, links]
        if mode == "triplet":
            assert torch.equal(batch.n_id[torch.stack([batch.src_index, batch.dst_pos_index])], expected)
            assert batch.dst_neg_index.shape == ((count,) if amount == 1 else (count, amount))
            places = [batch.src_index, batch.dst_pos_index, *batch.dst_neg_index.view(count, -1).t()]
            groups = [torch.arange(count)] * len(places)
        else:
            pairs = batch.edge_label_index
            assert torch.equal(batch.n_id[pairs[:, :count]], expected)
            more = -(-count * amount // 1)
            assert pairs.shape == (2, count + more)
            places, groups = list(pairs), [torch.arange(pairs.shape[1]) % count] * 2
            groups[0][count:] = groups[1][count:] = torch.arange(int(more)) % count
            if mode is None:
                assert batch.edge_label is None if label is None else batch.edge_label.tolist() == label[links].tolist()
            else:
                positive = [1.0] * count if label is None else (label[links] + 1).tolist()
                assert batch.edge_label.tolist() == positive + [0] * int(more)
        if disjoint:
            for place, group in zip(places, groups, strict=True):
                assert torch.equal(batch.batch[place], group)
        if settings["timed"]:
            limit = links[batch.batch] // 4
            assert bool((data.time[batch.n_id] <= limit)[batch.num_sampled_nodes[0] :].all())
            drawn = torch.cat(places[2:]) if mode == "triplet" else batch.edge_label_index[:, count:].flatten()
            allowed = data.time[batch.n_id[drawn]] <= limit[drawn]
            assert bool((allowed | (limit[drawn] < data.time.min())).all())


def _given(settings: dict[str, Any], links: int) -> dict[str, Any]:
    times = {"edge_label_time": torch.arange(links) // 4, "time_attr": "time"} if settings["timed"] else {}
    return {"neg_sampling": settings["neg_sampling"], "disjoint": settings["disjoint"], **times}


@pytest.mark.parametrize("type", [made.WRITES, made.CITES])
@pytest.mark.parametrize("mode", [None, "binary", "triplet"])
@pytest.mark.parametrize("disjoint", [False, True])
def test_links_of_several_types(type, mode, disjoint):
    data = academic()
    loader = LinkNeighborLoader(data, [2, 2], type, neg_sampling=mode, disjoint=disjoint, batch_size=8, num_workers=0)
    for number, batch in enumerate(loader):
        links = torch.arange(8 * number, min(8 * number + 8, data[type].num_edges))
        assert_is_part(batch, data)
        source, target = batch[type[0]], batch[type[2]]
        expected = data[type].edge_index[:, links]
        if mode == "triplet":
            found = source.n_id[source.src_index], target.n_id[target.dst_pos_index]
            assert target.dst_neg_index.shape == links.shape
        else:
            pairs = batch[type].edge_label_index[:, : len(links)]
            found = source.n_id[pairs[0]], target.n_id[pairs[1]]
            assert batch[type].edge_label_index.shape[1] == len(links) * (2 if mode else 1)
            if disjoint:
                assert torch.equal(source.batch[pairs[0]], torch.arange(len(links)))
                assert torch.equal(target.batch[pairs[1]], torch.arange(len(links)))
        assert torch.equal(torch.stack(found), expected)


def test_the_number_of_threads_does_not_matter():
    data = graph(50, 300)

    def run(workers: int) -> list[Any]:
        loader = LinkNeighborLoader(
            data, [3], neg_sampling="binary", batch_size=32, shuffle=True, seed=2, num_workers=workers
        )
        return [(b.n_id, b.e_id, b.edge_label_index) for _ in range(2) for b in loader]

    for one, other in zip(run(0), run(3), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_negatives_by_weight_and_torch_geometrics_own_object():
    data = graph(20, 60)
    weight = (torch.arange(20) % 4 == 0).float()
    alike = {"mode": "triplet", "amount": 2, "dst_weight": weight}
    for negatives in (alike, NegativeSampling(**alike)):
        (batch,) = LinkNeighborLoader(data, [1], neg_sampling=negatives, batch_size=60)
        assert set((batch.n_id[batch.dst_neg_index] % 4).flatten().tolist()) == {0}
    (batch,) = LinkNeighborLoader(data, [1], neg_sampling_ratio=1.5, batch_size=60)
    assert batch.edge_label_index.shape == (2, 150)


def test_negatives_have_the_same_chances():
    data = Data(edge_index=torch.zeros(2, 4_000, dtype=torch.long), num_nodes=8)
    (batch,) = LinkNeighborLoader(data, [0], neg_sampling="binary", batch_size=4_000, seed=0)
    for row in batch.n_id[batch.edge_label_index[:, 4_000:]]:
        counts = torch.bincount(row, minlength=8)
        assert int((counts - 500).abs().max()) < 5 * 21


BAD: list[tuple[dict[str, Any], str]] = [
    ({"neg_sampling": "some"}, "'binary' or 'triplet'"),
    ({"neg_sampling": ("binary", 0)}, "above zero"),
    ({"neg_sampling": ("binary", "a")}, "above zero and finite, not 'a'"),
    ({"neg_sampling": ("binary", float("inf"))}, "above zero and finite"),
    ({"neg_sampling": 5}, "neg_sampling must be 'binary'"),
    ({"neg_sampling": {"ratio": 1}}, "neg_sampling must be 'binary'"),
    ({"neg_sampling": ("binary", 1, "a")}, "a weight of nodes must be a tensor"),
    ({"neg_sampling_ratio": -1}, "neg_sampling_ratio must be above zero"),
    ({"neg_sampling_ratio": float("nan")}, "neg_sampling_ratio must be above zero"),
    ({"neg_sampling_ratio": "a"}, "neg_sampling_ratio must be above zero"),
    ({"edge_label": [1, 0]}, "one row for each of 50 links, not 2"),
    ({"edge_label": 1}, "one row for each of 50 links, not a number"),
    ({"edge_label_index": "x"}, "edge_label_index must be a tensor"),
    ({"edge_label_index": torch.ones(2, 3, dtype=torch.bool)}, r"integers \[2, links\]"),
    ({"time_attr": "time", "edge_label_time": [3]}, r"integers \[50\]"),
    ({"neg_sampling": ("triplet", 1.5)}, "a whole number above zero"),
    ({"neg_sampling": ("binary", 1, torch.ones(3))}, r"src_weight must be \[20\]"),
    ({"neg_sampling": "triplet", "edge_label": torch.ones(50)}, "triplets have no labels"),
    ({"edge_label": torch.ones(3)}, "one row for each of 50 links, not 3"),
    ({"edge_label_time": torch.zeros(50, dtype=torch.long)}, "go together"),
    ({"time_attr": "time"}, "go together"),
    ({"time_attr": "time", "edge_label_time": torch.zeros(3, dtype=torch.long)}, r"integers \[50\]"),
    ({"edge_label_index": torch.tensor([[0], [20]])}, "link 0 has node 20 in row 1"),
    ({"edge_label_index": torch.zeros(3, 2)}, r"integers \[2, links\]"),
    ({"data": academic()}, "a type of edges or a pair"),
    ({"data": academic(), "edge_label_index": ("a", "b", "c")}, "a type of edges or a pair"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        LinkNeighborLoader(**{"data": graph(20, 50), "num_neighbors": [2], **change})
