"""Preparing a graph: the native code gives what torch gives, number by number."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gdsl.codegen.schedule import BLOCK_WORK, HUB_EDGES
from gdsl.errors import GraphError
from gdsl.runtime import cache, prepare
from gdsl.runtime.graph import Graph, Rewired
from gdsl.runtime.order import Order, PackedOrder

DTYPES = [torch.int64, torch.int32, torch.int16]
REWIRINGS = ["remove_self_loops", "add_self_loops", "add_remaining_self_loops"]


@contextmanager
def only_torch() -> Iterator[None]:
    """As on a machine without a compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "native", lambda **_: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def native() -> None:
    assert prepare.native(wait=True) is not None


def edges_of(count: int, sources: int, targets: int, skew: bool = False, sort: str = "", seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    count = count if sources and targets else 0
    source = torch.randint(max(sources, 1), (count,), generator=random)
    target = torch.randint(max(targets, 1), (count,), generator=random)
    if skew:
        target[: 2 * count // 3] = targets // 2
    edges = torch.stack([source, target])
    if sort:
        edges = edges[:, torch.argsort(edges[["source", "target"].index(sort)], stable=True)]
    return edges


def assert_same_order(found: Order, expected: Order) -> None:
    for name in ("rowptr", "index", "edge", "blocks", "hubs", "chunks"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
    assert found.max_degree == expected.max_degree
    assert (found.num_blocks, found.has_hubs) == (expected.num_blocks, expected.has_hubs)


def assert_same(found: Graph, expected: Graph) -> None:
    assert (found.num_sources, found.num_targets) == (expected.num_sources, expected.num_targets)
    assert found.num_edges == expected.num_edges
    assert torch.equal(found.edge_index, expected.edge_index)
    for order in ("in_edges", "out_edges"):
        assert_same_order(getattr(found, order), getattr(expected, order))
    if not expected.is_bipartite:
        assert torch.equal(found.reversed_edges, expected.reversed_edges)
    assert torch.equal(found.position, expected.position)
    for degree in ("in_degree", "out_degree"):
        assert torch.equal(getattr(found, degree), getattr(expected, degree))


def assert_same_rewired(found: Rewired, expected: Rewired) -> None:
    for name in ("kept", "added", "loop_edge", "target"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype == torch.int64, name
            assert torch.equal(one, other), name
    assert_same(found.graph, expected.graph)


def both(make: Callable[[], Graph], use: Callable[[Graph, Graph], None]) -> None:
    """What native code makes, then what torch makes, compared."""
    found = make()
    with only_torch():
        expected = make()
        for name in ("in_edges", "out_edges", "edge_index", "position", "in_degree", "out_degree"):
            getattr(expected, name)
        if not expected.is_bipartite:
            assert expected.reversed_edges.dtype is expected.index_dtype
        for name in REWIRINGS:
            rewired = getattr(expected, name)()
            for order in ("in_edges", "out_edges", "edge_index", "position", "in_degree", "out_degree"):
                getattr(rewired.graph, order)
            for part in ("kept", "added", "loop_edge", "target"):
                getattr(rewired, part)
            assert type(rewired.graph.in_edges) is Order  # torch's
    use(found, expected)


def compare(make: Callable[[], Graph]) -> None:
    def use(found: Graph, expected: Graph) -> None:
        assert_same(found, expected)
        for name in REWIRINGS:
            assert_same_rewired(getattr(found, name)(), getattr(expected, name)())

    both(make, use)


@given(
    st.integers(0, 60), st.integers(0, 9), st.integers(0, 9), st.booleans(), st.sampled_from(["", "source", "target"]),
    st.sampled_from(DTYPES), st.booleans(), st.integers(0, 1000),
)  # fmt: skip
def test_small_graphs(
    count: int, sources: int, targets: int, skew: bool, sort: str, dtype: torch.dtype, strided: bool, seed: int
) -> None:
    """Empty ones, bipartite ones, with loops and parallel edges; sorted and not; in all integers and layouts."""
    edges = edges_of(count, sources, targets, skew, sort, seed).to(dtype)
    if strided:
        edges = edges.t().contiguous().t()
    compare(lambda: Graph(edges, (sources, targets)))


@settings(max_examples=10)
@given(
    st.integers(0, 100_000), st.integers(1, 40_000), st.booleans(), st.sampled_from(["", "target"]), st.integers(0, 9)
)
def test_graphs_of_several_blocks_and_hubs(count: int, nodes: int, skew: bool, sort: str, seed: int) -> None:
    edges = edges_of(count, nodes, nodes, skew, sort, seed)
    compare(lambda: Graph(edges, nodes))


@pytest.mark.parametrize("rows", [1, 2, 3, 40, 9_000])
@pytest.mark.parametrize("hubs", [(0,), (-1,), (0, 1), (0, -1), (3, 4, 20, -2, -1)])
def test_blocks_around_hubs(rows: int, hubs: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(rows)
    degree = torch.randint(9, (rows,), generator=random)
    for hub in hubs:
        degree[hub % rows] = HUB_EDGES + 1 + 999 * (hub % 3)
    rowptr = torch.cat([torch.zeros(1, dtype=torch.int64), degree.cumsum(0)]).int()
    edge = torch.zeros(int(rowptr[-1]), dtype=torch.int32)
    assert_same_order(prepare.given_order(rowptr, edge, edge), Order(rowptr, edge, edge))


def test_there_are_hubs_and_blocks_in_what_is_compared() -> None:
    order = Graph(edges_of(100_000, 40_000, 40_000, skew=True), 40_000).in_edges
    assert len(order.hubs) == 1 and order.max_degree > HUB_EDGES
    assert order.num_blocks == (40_000 + 100_000 - order.max_degree) // BLOCK_WORK


@pytest.mark.parametrize("sort", ["", "target"])
@pytest.mark.parametrize("skew", [False, True])
def test_large_graphs_are_the_same_for_any_number_of_threads(skew: bool, sort: str) -> None:
    """Enough edges for the buckets, which four threads begin to use."""
    edges = edges_of(300_000, 5_000, 5_000, skew, sort)
    with only_torch():
        expected = Graph(edges, 5_000)
        loops = expected.add_self_loops()
        _ = expected.in_edges, expected.out_edges, loops.graph.in_edges, loops.graph.out_edges
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4, 7):
            torch.set_num_threads(threads)
            found = Graph(edges, 5_000)
            for one, other in ((found, expected), (found.add_self_loops().graph, loops.graph)):
                assert_same_order(one.in_edges, other.in_edges)
                assert_same_order(one.out_edges, other.out_edges)
    finally:
        torch.set_num_threads(before)


def test_many_edges_of_one_thread_go_through_buckets() -> None:
    edges = edges_of(1 << 21, 3_000, 3_000).int()
    assert_same_order(Graph(edges, 3_000).in_edges, _by_torch(edges, 3_000).in_edges)


def _by_torch(edges: Tensor, nodes: Any) -> Graph:
    with only_torch():
        graph = Graph(edges, nodes)
        _ = graph.in_edges, graph.out_edges
    return graph


@pytest.mark.parametrize("sizes", [(2**31, 3), (2**33, 2**31 + 5)])
def test_wide_indices(sizes: tuple[int, int]) -> None:
    """More nodes than int32 counts. Only the rows that a test has memory for are sorted."""
    edges = torch.tensor([[2**31 - 1, 7, 2**31 - 1, 0], [2, 0, 2, 1]])
    graph = Graph(edges, sizes)
    assert graph.index_dtype == torch.int64
    assert torch.equal(graph.edge_index, edges)
    if sizes[1] == 3:
        with only_torch():
            expected = Graph(edges, sizes).in_edges
        assert_same_order(graph.in_edges, expected)
        assert graph.in_edges.index.dtype == torch.int64


def test_sizes_that_only_the_edges_tell_may_be_wide() -> None:
    edges = torch.tensor([[2**31 + 4, 1], [0, 2]])
    graph = Graph(edges)
    assert graph.num_nodes == 2**31 + 5
    assert torch.equal(graph.edge_index, edges)
    narrow = Graph(edges - torch.tensor([[5], [0]]).clamp(max=edges))
    assert narrow.num_nodes == 2**31 and narrow.index_dtype == torch.int64


@pytest.mark.parametrize("told", [(None, 9), (9, None), None])
@pytest.mark.parametrize("count", [0, 40])
def test_a_size_that_is_not_known_is_told_by_its_row(told: Any, count: int) -> None:
    edges = edges_of(count, 7, 5)
    found = Graph._from(edges, told)
    with only_torch():
        expected = Graph._from(edges, told)
    assert_same(found, expected)
    assert found.num_sources == (
        0 if not count and (told is None or told[0] is None) else 7 if told != (9, None) else 9
    )


def test_loops_may_need_wider_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a list of nearly 2^31 edges gets a loop a node."""
    from gdsl.runtime import order

    graph = Graph(edges_of(40, 9, 9), 9)
    assert graph._edges.listed.dtype == torch.int32
    monkeypatch.setattr(order, "INT32_MAX", 42)
    wide = graph.add_self_loops().graph
    assert wide.in_edges.index.dtype == torch.int64
    assert graph.in_edges.index.dtype == torch.int32
    monkeypatch.undo()
    assert torch.equal(wide.in_edges.index, Graph(edges_of(40, 9, 9), 9).add_self_loops().graph.in_edges.index.long())


BAD = [
    ([[0, 5, 9], [1, 0, 0]], (5, 5)),
    ([[0, 1, 2], [1, 7, -1]], (5, 5)),
    ([[0, -1], [0, 0]], None),
    ([[0, 3], [0, 2]], (4, 2)),
    ([[0], [0]], (0, 0)),
    ([[2**40], [0]], (5, 5)),
]


@pytest.mark.parametrize(("edges", "sizes"), BAD)
def test_the_first_bad_edge_is_named(edges: Any, sizes: Any) -> None:
    with pytest.raises(GraphError) as found:
        Graph(torch.tensor(edges), sizes)
    with only_torch(), pytest.raises(GraphError) as expected:
        Graph(torch.tensor(edges), sizes)
    assert str(found.value) == str(expected.value)


def test_the_first_bad_edge_of_many_parts() -> None:
    edges = edges_of(200_000, 100, 100)
    edges[1, 150_000] = 100
    edges[0, 180_000] = -4
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with pytest.raises(GraphError, match=r"^edge 150000 goes to node 100, but the graph has 100 nodes"):
            Graph(edges, 100)
    finally:
        torch.set_num_threads(before)


def test_sorted_edges_are_not_moved() -> None:
    graph = Graph(edges_of(50, 9, 9, sort="target"), 9)
    assert graph.in_edges.index.data_ptr() == graph._edges.listed[0].data_ptr()
    assert graph.reverse().out_edges.index.data_ptr() == graph.reverse()._edges.listed[1].data_ptr()
    assert torch.equal(graph.in_edges.edge, torch.arange(50, dtype=torch.int32))


@pytest.mark.parametrize("count", [0, 1, 49])
def test_torch_does_not_sort_what_is_sorted(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor has it an order begin where a GPU cannot read 16 bytes at once."""
    for end, name in ((1, "in_edges"), (0, "out_edges")):
        edges = edges_of(count, 9, 9, sort=("source", "target")[end])
        expected = getattr(Graph(edges, 9), name)
        with only_torch(), monkeypatch.context() as patch:
            patch.setattr(torch, "sort", None)
            found = getattr(Graph(edges, 9), name)
            assert all(t.data_ptr() % 16 == 0 for t in found.walk)
            assert_same_order(found, expected)


@pytest.mark.parametrize("hubs", [(), (257,), (300, 1025, 256), (600, 600)])
def test_rows_as_a_gpu_takes_them(hubs: tuple[int, ...]) -> None:
    """All rows but those with many edges, most edges first; the chunks of these, all on 16 bytes."""
    edges = edges_of(900, 500, 500)
    for row, count in enumerate(hubs):
        edges[1][edges[1] == row] = 499
        edges = torch.cat([edges, torch.tensor([[3], [row]]).expand(2, count)], dim=1)
    order = Graph(edges, 500).in_edges
    degree, found = order.rowptr.diff().tolist(), order.degrees
    by_degree = sorted(range(500), key=lambda row: -degree[row])
    many = [row for row in by_degree if degree[row] > 256]
    assert many == [row for row in by_degree if row < len(hubs) and hubs[row] > 256]
    assert (found.hubs.tolist(), found.rows.tolist()) == (many, by_degree[len(many) :])
    chunks = [-(-degree[row] // 512) for row in many]
    assert found.first_chunk.tolist() == [sum(chunks[:k]) for k in range(len(many) + 1)]
    assert found.owner.tolist() == [hub for hub, count in enumerate(chunks) for _ in range(count)]
    assert (found.num_hubs, found.num_chunks) == (len(many), sum(chunks))
    assert all(t.data_ptr() % 16 == 0 for t in (found.rows, found.hubs, found.first_chunk, found.owner))
    assert found.hubs.dtype == found.rows.dtype == order.rowptr.dtype


# -- sorted edges ----------------------------------------------------------------------------------


@given(
    st.integers(0, 60), st.integers(1, 9), st.integers(1, 9), st.sampled_from(DTYPES), st.integers(0, 99), st.booleans()
)
def test_from_csc_and_csr(
    count: int, sources: int, targets: int, dtype: torch.dtype, seed: int, by_torch: bool
) -> None:
    for make, end, sort in ((Graph.from_csc, 1, "target"), (Graph.from_csr, 0, "source")):
        edges = edges_of(count, sources, targets, sort=sort, seed=seed)
        rows = (sources, targets)[end]
        rowptr = torch.searchsorted(edges[end].contiguous(), torch.arange(rows + 1)).to(dtype)
        expected = Graph(edges, (sources, targets))
        with only_torch() if by_torch else pytest.MonkeyPatch.context():
            found = make(rowptr, edges[1 - end].to(dtype), (sources, targets))
        assert found._edges.facts.by_target if end else found._edges.facts.by_source
        assert_same(found, expected)
        assert_same_rewired(found.add_self_loops(), expected.add_self_loops())


@given(
    st.integers(0, 60), st.integers(0, 9), st.integers(0, 9), st.booleans(), st.sampled_from(["", "source", "target"]),
    st.booleans(), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_loops_are_added_to_orders_that_are_known(
    count: int, sources: int, targets: int, skew: bool, sort: str, loops: bool, by_torch: bool, seed: int
) -> None:
    """What sorting gives, and nothing is sorted where there was no loop."""
    edges = edges_of(count, sources, targets, skew, sort, seed)
    edges = edges if loops else edges[:, edges[0] != edges[1]]
    with only_torch() if by_torch else pytest.MonkeyPatch.context():
        fresh, known = Graph(edges, (sources, targets)), Graph(edges, (sources, targets))
        _ = known.in_edges, known.out_edges
        for method in REWIRINGS:
            expected = getattr(fresh, method)()
            _ = expected.graph.in_edges, expected.graph.out_edges
            with pytest.MonkeyPatch.context() as patch:
                if not known._edges.facts.loops:
                    patch.setattr(prepare, "sort", None)
                found = getattr(known, method)()
                _ = found.graph.in_edges, found.graph.out_edges
            assert_same_rewired(found, expected)


def test_loops_are_added_to_the_orders_of_large_graphs() -> None:
    """Of several blocks and with a hub; with int64 and int32 ids."""
    edges = edges_of(100_000, 40_000, 40_000, skew=True)
    edges = edges[:, edges[0] != edges[1]]
    fresh, known = Graph(edges, 40_000), Graph(edges, 40_000)
    _ = known.in_edges
    found, expected = known.add_self_loops().graph, fresh.add_self_loops().graph
    for order in ("in_edges", "out_edges"):
        assert_same_order(getattr(found, order), getattr(expected, order))
    assert found.in_edges.has_hubs


def test_from_csc_without_sizes() -> None:
    graph = Graph.from_csc(torch.tensor([0, 1, 1, 3]), torch.tensor([2, 0, 0]))
    assert graph.num_nodes == 3
    assert graph.edge_index.tolist() == [[2, 0, 0], [0, 2, 2]]
    assert Graph.from_csc(torch.tensor([0]), torch.tensor([], dtype=torch.long)).num_nodes == 0


WRONG_ROWS = [
    ([0, 2, 1, 3], [0, 1, 2], None, "row 1 ends at edge 1, before it begins at 2"),
    ([1, 2, 2, 3], [0, 1, 2], None, "the rows must go from edge 0 to 3, and they go from 1 to 3"),
    ([0, 2, 2, 5], [0, 1, 2], None, "the rows must go from edge 0 to 3, and they go from 0 to 5"),
    ([0, 2, 2, 3], [0, 1, 3], None, "edge 2 comes from node 3, but the graph has 3 nodes (0 to 2)"),
    ([0, 2, 2, 3], [0, -1, 3], None, "edge 1 comes from node -1, but nodes are numbered from 0"),
    ([0, 2, 2, 3], [0, 1, 2], 4, "there are 3 rows, one less than row pointers, and 4 target nodes"),
    ([0, 2, 2, 3], [0, 1, 2], (2, 3), "edge 2 comes from node 2, but the graph has 2 source nodes (0 to 1)"),
    ([], [0], None, "rowptr must have one number more than there are rows, but it has none"),
    ([0.0, 1.0], [0], None, "rowptr must hold integers, but its dtype is torch.float32; convert it with rowptr.long()"),
    ([[0, 1]], [0], None, "rowptr must have shape [rows + 1], but its shape is [1, 2]"),
    ([0, 1], [[0]], None, "index must have shape [E], but its shape is [1, 1]"),
]


@pytest.mark.parametrize(("rowptr", "index", "sizes", "message"), WRONG_ROWS, ids=[w[3] for w in WRONG_ROWS])
def test_wrong_rows(rowptr: Any, index: Any, sizes: Any, message: str) -> None:
    wanted = torch.long if not rowptr or rowptr[0] != 0.0 or isinstance(rowptr[0], int) else None
    for way in (only_torch, pytest.MonkeyPatch.context):
        with way(), pytest.raises(GraphError) as caught:  # type: ignore[operator]
            Graph.from_csc(torch.tensor(rowptr, dtype=wanted), torch.tensor(index), sizes)
        assert str(caught.value) == message


# -- the native code's coming ----------------------------------------------------------------------


def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_native", None)
    monkeypatch.setattr(prepare, "_state", "untried")


def test_torch_serves_while_the_native_code_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    _fresh(monkeypatch)
    go = threading.Event()
    monkeypatch.setattr(cache, "is_built", lambda source, name: False)
    load = cache.load
    monkeypatch.setattr(cache, "load", lambda source, name: go.wait(20) and load(source, name=name))
    graph = Graph(edges_of(50, 9, 9), 9)
    _ = graph.in_edges
    assert prepare._state == "unbuilt"  # one graph is no reason
    _ = Graph(edges_of(50, 9, 9), 9)
    assert prepare._state == "building"
    assert type(graph.in_edges) is Order  # torch's
    go.set()
    for thread in threading.enumerate():
        if thread.name == "gdsl-prepare":
            thread.join(20)
    again = Graph(edges_of(50, 9, 9), 9)
    assert type(again.in_edges) is PackedOrder  # native code's
    assert_same(again, graph)
    assert_same_order(graph.in_edges, again.in_edges)


def test_torch_serves_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    _fresh(monkeypatch)
    monkeypatch.setenv("CXX", "/nowhere/c++")
    graph = Graph(edges_of(50, 9, 9), 9)
    assert prepare.native(wait=True) is None
    assert type(graph.in_edges) is Order
    assert graph.in_edges.num_blocks == 1


IMPORT = """
import sys, threading, gdsl, gdsl.nn
from gdsl.runtime import prepare
print(prepare._state, threading.active_count())
"""


def test_importing_builds_nothing(repository: Path) -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, cwd=repository)
    assert done.stdout.split() == ["untried", "1"], done.stderr


# -- what remains, and what travels ----------------------------------------------------------------


def test_a_graph_is_freed_with_its_last_reference() -> None:
    """No cycle holds it until the garbage collector comes."""
    import gc
    import weakref

    gc.disable()
    try:
        graph = Graph(edges_of(50, 9, 9), 9)
        _ = graph.in_edges, graph.out_edges, graph.add_self_loops().graph.in_edges, graph.repeat(2).in_edges
        assert graph.reverse().reverse() is graph
        watched = [weakref.ref(part) for part in (graph, graph.reverse(), graph.add_self_loops().graph, graph.in_edges)]
        del graph, _
        assert [ref() for ref in watched] == [None] * len(watched)
    finally:
        gc.enable()


def test_the_reverse_outlives_its_graph() -> None:
    backwards = Graph(edges_of(50, 9, 9), 9).reverse()
    assert torch.equal(backwards.reverse().edge_index, edges_of(50, 9, 9))


class _Graphs(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 2

    def __getitem__(self, n: int) -> Graph:
        graph = Graph(edges_of(50, 9, 9, seed=n), 9)
        _ = graph.in_edges, graph.out_edges, graph.add_self_loops().graph.in_edges, graph.reverse()
        return graph


def test_a_graph_from_a_worker_is_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = torch.utils.data.DataLoader(
        _Graphs(), batch_size=None, num_workers=1, multiprocessing_context=multiprocessing.get_context("fork")
    )
    graphs = list(loader)
    monkeypatch.setattr(prepare, "sort", lambda *_: pytest.fail("sorted again"))
    for n, graph in enumerate(graphs):
        rewired = graph.add_self_loops().graph
        assert graph.reverse().reverse() is graph
        assert graph.in_edges.index.is_shared()
        found = [graph.in_edges, graph.out_edges, rewired.in_edges]
        monkeypatch.undo()
        other = Graph(edges_of(50, 9, 9, seed=n), 9)
        for one, expected in zip(
            found, (other.in_edges, other.out_edges, other.add_self_loops().graph.in_edges), strict=True
        ):
            assert_same_order(one, expected)
        monkeypatch.setattr(prepare, "sort", lambda *_: pytest.fail("sorted again"))


def test_under_transforms_of_torch_func() -> None:
    """What is made while a transform is at work serves after it."""
    made = []

    def energy(x: Tensor) -> Tensor:
        graph = Graph(edges_of(50, 9, 9), 9)
        _ = graph.in_edges, graph.add_self_loops().graph.out_edges
        made.append(graph)
        return (x * x).sum()

    torch.func.grad(energy)(torch.ones(3))
    torch.func.jvp(energy, (torch.ones(3),), (torch.ones(3),))
    for graph in made:
        assert_same_order(graph.in_edges, _by_torch(edges_of(50, 9, 9), 9).in_edges)
        assert graph.add_self_loops().graph.out_edges.rowptr.data_ptr()
