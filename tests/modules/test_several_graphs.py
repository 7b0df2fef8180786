"""Layers on several graphs, and on sets of nodes, against plain torch in float64: values and two derivatives."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATConv, GCNConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_remaining_self_loops, add_self_loops, remove_self_loops, scatter, softmax

import gdsl
from gdsl.cli import main
from gdsl.editor.analysis import analyse
from gdsl.editor.hover import hover
from gdsl.errors import GraphError, InputError
from gdsl.explore.reading import Settings
from gdsl.explore.view import node_of, view
from gdsl.runtime.triton import interpreted

LOCAL = torch.tensor([[0, 1, 2, 3, 3], [1, 1, 0, 4, 1]])
FAR = torch.tensor([[0, 1, 2, 3, 5, 4, 2], [1, 0, 1, 2, 2, 2, 2]])
NODES = 6

# What is read over one graph is added to what is read over another; a function and a plain name are of any graph.
MOLECULE = """
layer Molecule(d) {
    graph bonds, near
    def heard(a) = tanh(a[j])
    linear lin(d -> d)
    node x[d]
    edge w in bonds
    edge r[d] in near
    z = lin(x)
    sent = z[j]
    message m over bonds = w * sent
    aggregate a = sum(m)
    aggregate b = mean(r * sent)
    aggregate c = max(heard(a)) at j over near
    update y = relu(a + b) + c + degree(i) over near
    return y, m, r * sent
}
"""

# Exphormer's attention: one softmax over the edges of a graph and of an expander.
EXPHORMER = """
layer Exphormer(d, heads = 2) {
    graph local, expander
    param q[heads, d, d'] ~ glorot
    param k[heads, d, d'] ~ glorot
    node x[d]
    edge f in expander
    qs = x @ q
    ks = x @ k
    near = sum[d'](qs[i] * ks[j]) over local
    far = sum[d'](qs[i] * ks[j]) * f
    alpha = softmax(near, far)
    message m over local = alpha[local] * x[j]
    aggregate a = sum(m) + sum(alpha[expander] * x[j])
    return a, alpha[expander], alpha[local]
}
"""

# Papers and their authors: a layer on each kind of edge, one attention for those into papers.
TYPED = """
layer Typed(f, c, d) {
    nodes paper, author
    graph writes: author -> paper, cites: paper -> paper, written: paper -> author
    node p[f] in paper
    node a[c] in author
    edge w in cites
    linear from_paper(f -> d)
    linear from_author(c -> d)
    linear own(d -> d)
    hp = relu(from_paper(p))
    ha = relu(from_author(a))
    alpha = softmax(sum[d](hp[i] * ha[j]) over writes, sum[d](hp[i] * hp[j]) over cites)
    aggregate heard = sum(alpha[writes] * ha[j]) + sum(alpha[cites] * w * hp[j])
    update papers = hp + heard
    update authors = own(ha + mean(hp[j]) over written + max(papers[j]) over written)
    return papers, authors
}
"""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def molecule(made: Any, x: Tensor, w: Tensor, r: Tensor) -> tuple[Tensor, ...]:
    z = made.lin(x)
    m, n = w[:, None] * z[LOCAL[0]], r * z[FAR[0]]
    a = scatter(m, LOCAL[1], dim_size=NODES)
    b = scatter(n, FAR[1], dim_size=NODES, reduce="mean")
    c = scatter(torch.tanh(a[FAR[0]]), FAR[0], dim_size=NODES, reduce="max")
    degree = torch.bincount(FAR[1], minlength=NODES).double()
    return torch.relu(a + b) + c + degree[:, None], m, n


def exphormer(made: Any, x: Tensor, f: Tensor) -> tuple[Tensor, ...]:
    q, k = (torch.einsum("nd,hde->nhe", x, w) for w in (made.q, made.k))
    source, target = torch.cat([LOCAL, FAR], 1)
    score = (q[target] * k[source]).sum(-1) * torch.cat([x.new_ones(LOCAL.shape[1]), f])[:, None]
    alpha = softmax(score, target, num_nodes=NODES)
    a = scatter(alpha[:, :, None] * x[source][:, None], target, dim_size=NODES)
    return a, alpha[LOCAL.shape[1] :], alpha[: LOCAL.shape[1]]


WRITES, CITES = torch.tensor([[0, 1, 2, 3, 3], [1, 1, 0, 4, 1]]), torch.tensor([[0, 1, 2, 3], [1, 1, 0, 3]])
WRITTEN = WRITES.flip(0)
PAPERS, AUTHORS = 5, 4


def typed(made: Any, p: Tensor, a: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    hp, ha = torch.relu(made.from_paper(p)), torch.relu(made.from_author(a))
    target = torch.cat([WRITES[1], CITES[1]])
    sent = torch.cat([ha[WRITES[0]], hp[CITES[0]]])
    alpha = softmax((hp[target] * sent).sum(-1), target, num_nodes=PAPERS)
    weights = alpha * torch.cat([w.new_ones(WRITES.shape[1]), w])
    papers = hp + scatter(weights[:, None] * sent, target, dim_size=PAPERS)
    mean = scatter(hp[WRITTEN[0]], WRITTEN[1], dim_size=AUTHORS, reduce="mean")
    most = scatter(papers[WRITTEN[0]], WRITTEN[1], dim_size=AUTHORS, reduce="max")
    return papers, made.own(ha + mean + most)


# All of it in few kernels, for backends that compile each.
SMALL = """
layer Small {
    nodes paper, author
    graph writes: author -> paper, cites: paper -> paper
    graph add_self_loops(w = "mean") over cites
    node p in paper
    node a in author
    edge w in cites
    aggregate heard = mean(p[i] * a[j] over writes) * sum(tanh(w * p[j]))
    return heard
}
"""


def small(made: Any, p: Tensor, a: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    mean = scatter(p[WRITES[1]] * a[WRITES[0]], WRITES[1], dim_size=PAPERS, reduce="mean")
    cites, w = add_self_loops(*remove_self_loops(CITES, w), "mean", PAPERS)
    return (mean * scatter(torch.tanh(w * p[cites[0]]), cites[1], dim_size=PAPERS),)


# What layers ask for that are called, and what the text asks for itself, of a graph each.
LOOPED = """
use GCNConv, GATConv
layer Looped(d) {
    graph bonds, near, far
    graph add_remaining_self_loops(w = 2) over bonds
    node x[d]
    edge w in bonds
    edge u in far
    use one = GCNConv(d)
    use two = GCNConv(d)
    use attention = GATConv(d)
    a = one(x) over near
    h = a + attention(x) over near + two(x, w)
    graph symmetric_norm(u) over far
    update y = h + sum(w * x[j]) + sum(u * h[j])
    return y, w
}
"""


def looped(made: Any, x: Tensor, w: Tensor, u: Tensor) -> tuple[Tensor, ...]:
    def copied(conv: Any, own: Any) -> Any:
        names = dict(own.named_parameters())
        assert {n: p.numel() for n, p in conv.named_parameters()} == {n: p.numel() for n, p in names.items()}
        state = {name: names[name].view(p.shape) for name, p in conv.named_parameters()}
        return lambda *args: torch.func.functional_call(conv.double(), state, args)

    near, bonds, weight = FAR, *add_remaining_self_loops(LOCAL, w, 2.0, NODES)
    h = copied(GCNConv(3, 3), made.one)(x, near) + copied(GATConv(3, 3), made.attention)(x, near)
    h = h + copied(GCNConv(3, 3), made.two)(x, bonds, weight)
    far, norm = gcn_norm(LOCAL.flip(0), u, NODES, add_self_loops=False)
    y = h + scatter(weight[:, None] * x[bonds[0]], bonds[1], dim_size=NODES)
    return y + scatter(norm[:, None] * h[far[0]], far[1], dim_size=NODES), weight


# What asks something of its graph: an edge the other way for each, two edges into each node.
MUTUAL = """
layer Mutual(d) {
    graph bonds, near
    graph add_self_loops over near
    param k[2, d] ~ normal
    node x[d]
    edge e[d] in bonds
    r = tanh(e * e[reverse])
    aggregate a = sum(r * x[j])
    aggregate b = sum[2](stack(x[j], 2) over near * k)
    update y = a + b
    return y, r[reverse]
}
"""
BOTH_WAYS, ONE_EACH = torch.tensor([[0, 1, 2, 3, 1], [1, 0, 3, 2, 1]]), torch.tensor([[1, 2, 3, 0], [0, 1, 2, 3]])


def mutual(made: Any, x: Tensor, e: Tensor) -> tuple[Tensor, ...]:
    r = torch.tanh(e * e[[1, 0, 3, 2, 4]])
    a = scatter(r * x[BOTH_WAYS[0]], BOTH_WAYS[1], dim_size=4)
    return a + x[ONE_EACH[0]] * made.k[0] + x * made.k[1], r[[1, 0, 3, 2, 4]]


CASES: dict[str, tuple[str, dict[str, int], Callable[..., Any], list[Tensor], dict[str, Tensor]]] = {
    "molecule": (
        MOLECULE, {"d": 3}, molecule, [drawn(NODES, 3), drawn(5, seed=1), drawn(7, 3, seed=2)],
        {"bonds": LOCAL, "near": FAR},
    ),
    "exphormer": (
        EXPHORMER, {"d": 3}, exphormer, [drawn(NODES, 3), drawn(7, seed=1)], {"local": LOCAL, "expander": FAR}
    ),
    "typed": (
        TYPED, {"f": 3, "c": 2, "d": 4}, typed, [drawn(PAPERS, 3), drawn(AUTHORS, 2, seed=1), drawn(4, seed=2)],
        {"writes": WRITES, "cites": CITES, "written": WRITTEN},
    ),
    "small": (
        SMALL, {}, small, [drawn(PAPERS), drawn(AUTHORS, seed=1), drawn(4, seed=2)], {"writes": WRITES, "cites": CITES}
    ),
    "mutual": (
        MUTUAL, {"d": 3}, mutual, [drawn(4, 3), drawn(5, 3, seed=1)], {"bonds": BOTH_WAYS, "near": ONE_EACH}
    ),
    "looped": (
        LOOPED, {"d": 3}, looped, [drawn(NODES, 3), drawn(5, seed=1).detach().exp().requires_grad_(),
        drawn(5, seed=2).detach().exp().requires_grad_()], {"bonds": LOCAL, "near": FAR, "far": LOCAL.flip(0)}
    ),
}  # fmt: skip


def made_of(case: str, backend: str) -> gdsl.Layer:
    torch.manual_seed(0)
    text, arguments, *_ = CASES[case]
    return gdsl.compile(text, backend=backend, **arguments).double()


def called(made: gdsl.Layer, values: list[Tensor], graphs: Mapping[str, Any]) -> Any:
    """By name: which inputs of edges there are decides nothing of the order."""
    names = [i.name for i in (*made.signature.before_graph, *made.signature.after_graph)]
    return made(**dict(zip(names, values, strict=True)), **graphs)


def derivatives(results: Any, values: list[Tensor]) -> list[Tensor]:
    """The results, first and second derivatives."""
    score = sum((r.sin() * (k + 1)).sum() for k, r in enumerate(results))
    first = torch.autograd.grad(score, values, create_graph=True)
    return [*results, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), values)]


@pytest.mark.parametrize(
    ("case", "backend"), [*((case, "torch") for case in CASES), ("small", "cpp"), ("small", "triton")]
)
def test_is_as_plain_torch(case: str, backend: str) -> None:
    if backend == "triton" and not interpreted():
        pytest.skip("Triton's kernels run here in its interpreter only")
    made = made_of(case, backend)
    _, _, plain, values, graphs = CASES[case]
    results = called(made, values, graphs)
    found = derivatives(results if isinstance(results, tuple) else [results], values)
    for a, b in zip(found, derivatives(plain(made, *values), values), strict=True):
        torch.testing.assert_close(a, b)


def test_a_graph_is_walked_in_as_few_pieces_as_the_values_allow() -> None:
    """One softmax needs all maxima before any sum: of two graphs the second is walked for both at once."""
    made = made_of("exphormer", "torch")
    called(made, CASES["exphormer"][3], CASES["exphormer"][4])
    ran = [name.rsplit("_", 2)[-2] for name in (r.compiled.typed.name for r in made._ran())]
    assert ran == ["local", "expander", "local", "expander"]
    made = made_of("molecule", "torch")
    called(made, CASES["molecule"][3], CASES["molecule"][4])
    assert [r.compiled.typed.name.split("_")[1] for r in made._ran()] == ["bonds", "near"]


def test_nodes_without_edges_have_no_weights() -> None:
    """Of one softmax: whichever graph a node has edges of, its weights add up to 1; masked edges get 0."""
    made = gdsl.compile(
        "layer L { graph a, b node x edge s in a edge t in b edge keep: bool in a "
        "r = softmax(where(keep, s, -inf), t) update y = sum(r[a]) + sum(r[b]) return y, r[a] }", backend="torch",
    )  # fmt: skip
    s, t = torch.tensor([1000.0, 3.0, -5.0]), torch.tensor([-1000.0, 2.0])
    keep = torch.tensor([True, False, False])
    first, second = torch.tensor([[0, 0, 0], [0, 1, 2]]), torch.tensor([[1, 1], [0, 3]])
    y, weights = made(torch.zeros(5), first, second, s=s, t=t, keep=keep)
    assert y.tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert weights.tolist() == [1.0, 0.0, 0.0]


def test_layers_that_are_called_run_over_a_graph_each() -> None:
    text = (
        "use SAGEConv, GATConv\n"
        "layer Net(d) { graph a, b use one = SAGEConv(d) use two = SAGEConv(d) node x[d] edge w[d] in b "
        "h = relu(one(x) over a) message m over b = two(h)[j] * w update y = sum(m) + two(h) over a }"
    )
    torch.manual_seed(0)
    made = gdsl.compile(text, d=3, backend="torch").double()
    x, w = drawn(NODES, 3), drawn(7, 3, seed=1)

    def sage(conv: Any, h: Tensor, edges: Tensor) -> Tensor:
        return conv.lin_l(scatter(h[edges[0]], edges[1], dim_size=NODES, reduce="mean")) + conv.lin_r(h)

    h = torch.relu(sage(made.one, x, LOCAL))
    wanted = scatter(sage(made.two, h, FAR)[FAR[0]] * w, FAR[1], dim_size=NODES) + sage(made.two, h, LOCAL)
    torch.testing.assert_close(made(x, LOCAL, FAR, w), wanted)


def test_pools_dropout_and_modules_are_as_on_one_graph() -> None:
    class Doubled(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.calls = getattr(self, "calls", 0) + 1
            return x * torch.full_like(x, 2.0).sum(1, keepdim=True).exp() / x.new_tensor(4.0).exp()

    text = (
        "layer Net(d) { graph a, b module nn param ones[d] ~ ones node x[d] h = dropout(nn(x; d), 0.5) q = nn(ones; d) "
        "aggregate u = sum(q * h[j]) over a aggregate v = sum(q * h[j]) over b pool p = mean(u + v) return u, v, p }"
    )
    module = Doubled()
    made = gdsl.compile(text, d=2, nn=module, backend="torch")
    x, batch = torch.rand(NODES, 2) + 1.0, torch.tensor([0, 0, 1, 1, 1, 1])
    u, v, p = made(x, LOCAL, LOCAL, batch=batch)
    assert module.calls == 2  # of x and of the ones, for both graphs
    assert torch.equal(u, v)  # both read the numbers that were dropped
    assert ((u == 0) | (u > 0)).all()
    assert p.shape == (2, 2)
    torch.testing.assert_close(p[0], 2 * u[:2].mean(0))
    made.eval()
    torch.testing.assert_close(made(x, LOCAL, LOCAL)[0], scatter(2 * x[LOCAL[0]] / 2, LOCAL[1], dim_size=NODES) * 1.0)


def test_a_number_for_each_node_is_of_the_only_set() -> None:
    text = "layer L { nodes SETS graph a: p -> p node x in p param w ~ ones update y = w return y }"
    made = gdsl.compile(text.replace("SETS", "p"), backend="torch")
    assert made({"p": torch.zeros(NODES)}, {("p", "a", "p"): LOCAL})["p"].tolist() == [1.0] * NODES
    with pytest.raises(gdsl.LanguageError, match="no telling how many"):
        gdsl.compile(text.replace("SETS", "p, q").replace("param", "node z in q param"), backend="torch")


def test_numbers_are_dropped_of_the_edges_of_each_graph_by_themselves() -> None:
    """One plain name is read over two graphs: of the k-th edge of each, one may be dropped and the other not."""
    made = gdsl.compile(
        "layer L { graph a, b node x s = dropout(x[j], 0.5) m = s over a n = s over b "
        "return sum(s) over a, sum(s) over b, m, n }", backend="torch",
    )  # fmt: skip
    x, edges = torch.ones(40), torch.stack([torch.arange(40), torch.arange(40).flip(0)])
    u, v, m, n = made(x, edges, edges)
    assert not torch.equal(m, n)
    assert {*m.tolist(), *n.tolist()} == {0.0, 2.0}
    assert torch.equal(u, m.flip(0))  # and each graph's numbers are one draw wherever they are read
    assert torch.equal(v, n.flip(0))


def test_layers_that_are_called_agree_on_the_edges_of_each_graph() -> None:
    text = (
        "use GCNConv, SAGEConv\n"
        "layer L(d) { graph a, b use one = GCNConv(d) use two = SAGEConv(d) node x[d] "
        "return one(x) over a, two(x) over %s }"
    )
    apart = gdsl.compile(text % "b", d=2, backend="torch")
    assert apart(torch.ones(2, 2), LOCAL[:, :0], LOCAL[:, :0])[1].shape == (2, 2)
    with pytest.raises(gdsl.LanguageError, match="SAGEConv in line 2 on another one: all that is over `a` is on one"):
        gdsl.compile(text % "a", d=2)


MISTAKES: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "a graph is missing": ("typed", {"cites": None}, InputError, "`cites` is missing"),
    "beyond a set": ("typed", {"writes": WRITTEN}, GraphError, "graph `writes`: .*node 4"),
    "rows of edges": ("typed", {"w": torch.zeros(5).double()}, InputError, "`w` has 5 rows, and graph `cites` has 4"),
    "another name": ("typed", {"graph": WRITES}, InputError, "there is no `graph`"),
    "another size": (
        "typed", {"cites": gdsl.Graph(CITES, 7)}, GraphError, "graph `cites`: "
    ),
    "one way": (
        "mutual", {"bonds": torch.tensor([[0, 1, 2, 3, 1], [1, 0, 3, 2, 0]])}, GraphError,
        "Mutual over `bonds` reads e.reverse., and edge [14]"
    ),
    "other degrees": ("mutual", {"near": ONE_EACH[:, 1:]}, GraphError, "Mutual over `near` needs exactly 2 in-edges"),
    "complete": ("molecule", {"bonds": gdsl.CompleteGraph(num_nodes=6)}, GraphError, "`bonds` is complete"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_of_a_call(name: str) -> None:
    case, changed, kind, message = MISTAKES[name]
    made = made_of(case, "torch")
    names = [i.name for i in (*made.signature.before_graph, *made.signature.after_graph)]
    given = dict(zip(names, CASES[case][3], strict=True)) | CASES[case][4] | changed
    with pytest.raises(kind, match=message):
        made(**given)


def test_two_inputs_of_a_set_have_its_rows() -> None:
    made = gdsl.compile(
        "layer L { nodes p, q graph g: p -> q node x in p node y in p node z in q update r = sum(x[j] * y[j]) + z }",
        backend="torch",
    )
    with pytest.raises(InputError, match="`y` has 3 rows, and `x` has 2: both are of all p nodes"):
        made(torch.ones(2), torch.ones(3), torch.ones(1), torch.zeros(2, 0, dtype=torch.long))
    assert made(torch.ones(2), torch.ones(2), torch.ones(1), torch.tensor([[0, 1], [0, 0]])).tolist() == [3.0]


def test_copies_looks_and_files() -> None:
    made = made_of("molecule", "torch")
    _, _, _, values, graphs = CASES["molecule"]
    y = called(made, values, graphs)[0]
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        torch.testing.assert_close(called(again, values, graphs)[0], y)
    assert {k.name.split("_")[1] for k in made.kernels} == {"bonds", "near"}
    for one in (made, made_of("molecule", "torch")):  # also before any call
        assert "aggregate b = mean(r * sent)" in str(one.program)
        assert "Molecule_near" in one.explain()
        assert "node 1 of 6" in one.explain({"bonds": LOCAL, "near": FAR}, node=1)
    with pytest.raises(InputError, match="runs on several graphs: pass all by name"):
        made.explain(LOCAL)
    names = [i.name for i in (*made.signature.before_graph, *made.signature.after_graph)]
    given = dict(zip(names, [v.detach() for v in values], strict=True)) | graphs
    assert "Molecule_near" in made.reproduce(**given)
    torch.testing.assert_close(torch.compile(made, backend="eager")(**given)[0], y)


def test_commands_show_each_piece(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.gdsl"
    file.write_text(EXPHORMER.lstrip())
    assert main(["check", "--strict", str(file)]) == 0
    assert main(["fmt", "--check", str(file)]) == 0
    for stage, count in (("ir", 1), ("optimised", 4), ("fused", 4)):
        capsys.readouterr()
        assert main(["show", str(file), "--stage", stage]) == 0
        out = capsys.readouterr().out
        assert out.count("program Exphormer") == (count if stage != "fused" else 0)
        assert "argmax" not in out  # the maximum of a softmax has no gradient, and no winners are kept for one


def test_types_are_shown_with_what_they_are_of() -> None:
    shown = str(made_of("molecule", "torch").program)
    assert re.search(r"message m over bonds = w \* sent +# edge\[d\] over bonds\n", shown)
    assert re.search(r"sent = z\[j\] +# edge\[d\]\n", shown)  # of any graph
    assert re.search(r"aggregate heard = .* +# node\[d\] in paper\n", str(made_of("typed", "torch").program))
    places = {"hp =": "hp: node[d] in paper", "p[f]": "node p: node[f] in paper", "w in": "edge w: edge over cites"}
    analysis = analyse(TYPED)
    for place, says in places.items():
        found = hover(analysis, TYPED.index(place))
        assert found is not None
        assert found.code == says
    types = {value["name"]: value["type"] for value in view(TYPED, parts=())["values"]}
    assert (types["w"], types["p"], types["authors"]) == ("edge over cites", "node[f] in paper", "node[d] in author")
    one = "layer L { node x y = x[j] update z = sum(y) }"
    assert hover(analyse(one), one.index("y =")).code == "y: edge"  # type: ignore[union-attr]


def test_the_page_shows_the_kernels_of_all_pieces_with_their_lines() -> None:
    found = view(EXPHORMER)
    assert found["problem"] is None
    pieces = ["local_0", "expander_1", "local_2", "expander_3"]
    for language, kernels in found["parts"]["code"].items():
        names = [kernel["name"] for kernel in kernels]
        assert all(any(f"Exphormer_{piece}" in name for name in names) for piece in pieces), language
    for stage in ("written", "optimised", "backward"):
        lines = [line for text, _, line in found["parts"]["stages"][stage] if not text.startswith("return")]
        assert None not in lines, stage
    forward = found["parts"]["rewrites"][0]
    assert len(forward["states"]) == len(forward["steps"]) + 1
    with pytest.raises(InputError, match="a node is shown of layers on one graph"):
        node_of(EXPHORMER, Settings(), 0, "even")


def test_inputs_that_are_not_passed_and_numbers_are_of_their_graphs() -> None:
    made = gdsl.compile(
        "layer L { graph a, b node x edge w in b = 2 message m over a = 3 aggregate s = sum(w) "
        "update y = x + s + sum(m) return y, w, m }", backend="torch",
    )  # fmt: skip
    y, w, m = made(torch.zeros(3), torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0], [2]]))
    assert (y.tolist(), w.tolist(), m.tolist()) == ([0.0, 6.0, 2.0], [2.0], [3.0, 3.0])
    assert made(torch.zeros(3), LOCAL[:, :2] % 3, FAR[:, :1] % 3, torch.ones(1))[1].tolist() == [1.0]


DEFAULTS = "layer L(d) { graph a, b def heard(q, x) = sum(q * x[j]) node x[d] edge w in a = 1 edge r in b = 2 "


@pytest.mark.parametrize(
    "rules",
    [
        "return sum(r * x[j]) + sum(w * x[j]), sum(r)",
        "q = 3 * r return x * sum(q), r * x[j], r",
        "message m over b = 3 return x * sum(m) + x * sum(w), max(r) at j",
        "s = softmax(w, r) return x * sum(s[a]) + x * sum(s[b]), s[b]",
        "t = r[kj] * r[ji] return heard(r, x) + x * sum(sum(t)) + heard(w, x)",
        "h = x for k in 1..2 { h = sum(r * h[j]) + sum(w * h[j]) } return h",
    ],
)
def test_inputs_of_edges_that_are_not_passed_are_of_their_graph(rules: str) -> None:
    """Their default says which edges are meant, as the values would."""
    made = gdsl.compile(DEFAULTS + rules + " }", d=3, backend="torch").double()
    x = drawn(NODES, 3)
    w, r = torch.ones(LOCAL.shape[1]).double(), torch.full((FAR.shape[1],), 2.0).double()
    found, wanted = made(x, LOCAL, FAR), made(x, LOCAL, FAR, w=w, r=r)
    for a, b in zip(*((y if isinstance(y, tuple) else (y,)) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("rules", ["return q, z", "update y = 2 * q", "t = q + 1 return sum(t[j] * x[j]), t, x * q"])
def test_inputs_of_nodes_that_are_not_passed_are_of_their_set(rules: str) -> None:
    text = "layer L(d) { nodes u, v graph f: u -> v node x[d] in u node q in u = 3 node z[d] in v "
    made = gdsl.compile(text + rules + " }", d=3, backend="torch").double()
    x, z, edges = drawn(4, 3), drawn(5, 3), torch.tensor([[0, 1, 3], [4, 2, 4]])
    found, wanted = made(x, z, f=edges), made(x, z, f=edges, q=torch.full((4,), 3.0).double())
    for a, b in zip(*((y if isinstance(y, tuple) else (y,)) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(a, b)


def test_what_is_recorded_or_lies_elsewhere_is_refused_in_words() -> None:
    made = made_of("molecule", "torch")
    names = [i.name for i in (*made.signature.before_graph, *made.signature.after_graph)]
    given = dict(zip(names, [v.detach() for v in CASES["molecule"][3]], strict=True)) | CASES["molecule"][4]
    with pytest.raises(GraphError, match="graph `near`: the graph is on meta, and the inputs are on cpu"):
        made(**given | {"near": FAR.to("meta")})
    with pytest.raises(InputError, match=r"Molecule runs on several graphs.*torch\.export has no place"):
        torch.export.export(made, (), given)
    torch._dynamo.reset()  # what an earlier call has left is left again, fullgraph or not
    with pytest.raises(torch._dynamo.exc.Unsupported, match="Molecule runs on several graphs, in pieces"):
        torch.compile(made, backend="eager", fullgraph=True)(**given)


def test_results_are_a_users_own() -> None:
    """What is written to them changes neither each other, nor an input, nor a gradient."""
    made = gdsl.compile(
        "layer L { graph a, b node x h = tanh(sum(x[j]) over a) update y = sum(h[j] * h[i]) over b return h, y, x, y }",
        backend="torch",
    )
    x = drawn(NODES).float().detach().requires_grad_()
    h, y, same, again = made(x, LOCAL, FAR)
    (expected,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    before = x.detach().clone()
    h.add_(5.0), same.mul_(2.0), again.mul_(3.0)
    assert torch.equal(x, before)
    torch.testing.assert_close(again, 3 * y)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], expected)


def test_rows_of_sets_need_no_graph() -> None:
    made = gdsl.compile(
        "layer L { nodes p, q graph g: p -> q node x in p node z in q update u = relu(x) update v = tanh(z) "
        "return u, v }", backend="torch",
    )  # fmt: skip
    u, v = made(torch.tensor([-1.0, 2.0]), torch.zeros(3), torch.tensor([[0], [2]]))
    assert (u.tolist(), v.tolist()) == ([0.0, 2.0], [0.0, 0.0, 0.0])
