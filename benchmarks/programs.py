"""The layers that are measured: each one's text, its weights, and what the peers call it.

A new row in ``LAYERS`` is all that a new layer takes. Weights have the shape that the text declares;
``Weight`` says under which name and in which form torch_geometric and DGL hold them, so that all run with the
same numbers.

No layer adds self-loops: torch_geometric would add them anew in each call, and gdsl once a graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Shape = tuple[int, ...]

HEADS = 4


@dataclass(frozen=True)
class Weight:
    """A parameter of the text.

    shape     as the text declares it
    pyg, dgl  its name in the peer's state; zero everywhere where DGL has the layer and not this parameter
    linear    the peers hold the transpose, with all but the first dim flattened, as torch.nn.Linear does
    dgl_flat  DGL holds it as it is, even so
    """

    shape: Shape
    pyg: str
    linear: bool = False
    dgl: str | None = None
    dgl_flat: bool = False


@dataclass(frozen=True)
class Mlp:
    """A network that a peer takes as an argument: Linear layers of these sizes, with ReLU between them."""

    sizes: Shape


@dataclass(frozen=True)
class Extra:
    """An input besides x.

    where  "node" or "edge"
    shape  of each node's or edge's value
    peer   the keyword by which torch_geometric takes it
    bound  integers below this; None for numbers in [0, 1)
    """

    where: str
    shape: Shape
    peer: str
    bound: int | None = None


@dataclass(frozen=True)
class Peer:
    """A class of torch_geometric.nn or dgl.nn and its arguments."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """A layer at one feature size.

    arguments  of the text
    mlp        sizes of the network that the peers take as their first argument
    extras     inputs besides x, by their name in the text
    sizes      of x and of the result; None for the benchmark's feature size
    sparse     "norm", "mean", "one" or "max" where the layer is a product with a sparse matrix: what the
               matrix holds, for torch.sparse (which has no max) and torch_geometric's sparse variant
    """

    source: str
    arguments: Mapping[str, Any]
    weights: Mapping[str, Weight]
    pyg: Peer
    mlp: Shape = ()
    extras: Mapping[str, Extra] = field(default_factory=dict)
    sizes: tuple[int, int] | None = None
    sparse: str | None = None
    dgl: Peer | None = None


GCN = """
layer GCNConv(in_channels, out_channels) {
    param weight[in_channels, out_channels] ~ glorot
    param bias[out_channels]                ~ zeros
    node x[in_channels]

    h    = x @ weight
    norm = where(degree(i) > 0, rsqrt(degree(i)), 0)
    message   m = norm[i] * norm[j] * h[j]
    aggregate a = sum(m)
    update    y = a + bias
}
"""

SAGE = """
layer SAGEConv(in_channels, out_channels) {
    param weight_l[in_channels, out_channels] ~ linear
    param weight_r[in_channels, out_channels] ~ linear
    param bias[out_channels]                  ~ zeros
    node x[in_channels]

    aggregate a = REDUCE(x[j])
    update    y = a @ weight_l + x @ weight_r + bias
}
"""

GIN = """
layer GINConv(in_channels, hidden, out_channels, eps = 0.0) {
    param w1[in_channels, hidden]  ~ linear
    param b1[hidden]               ~ zeros
    param w2[hidden, out_channels] ~ linear
    param b2[out_channels]         ~ zeros
    node x[in_channels]

    aggregate a = sum(x[j])
    update    y = relu(((1 + eps) * x + a) @ w1 + b1) @ w2 + b2
}
"""

GAT = """
layer GATConv(in_channels, out_channels, heads = 1, slope = 0.2) {
    param weight[in_channels, heads, out_channels] ~ glorot
    param att_src[heads, out_channels]             ~ glorot
    param att_dst[heads, out_channels]             ~ glorot
    param bias[heads, out_channels]                ~ zeros
    node x[in_channels]

    h     = x @ weight
    score = leaky_relu((h @ att_src)[j] + (h @ att_dst)[i], slope)
    alpha = softmax(score)
    message   m = alpha * h[j]
    aggregate a = sum(m)
    update    y = merge(a + bias, heads, out_channels)
}
"""

GATV2 = """
layer GATv2Conv(in_channels, out_channels, heads = 1, slope = 0.2) {
    param weight_l[in_channels, heads, out_channels] ~ glorot
    param weight_r[in_channels, heads, out_channels] ~ glorot
    param att[heads, out_channels]                   ~ glorot
    param bias_l[heads, out_channels]                ~ zeros
    param bias_r[heads, out_channels]                ~ zeros
    param bias[heads, out_channels]                  ~ zeros
    node x[in_channels]

    l     = x @ weight_l + bias_l
    r     = x @ weight_r + bias_r
    alpha = softmax(leaky_relu(l[j] + r[i], slope) @ att)
    message   m = alpha * l[j]
    aggregate a = sum(m)
    update    y = merge(a + bias, heads, out_channels)
}
"""

AGNN = """
layer AGNNConv {
    param beta ~ ones
    node x[channels]

    unit  = x / max(norm[channels](x), 1e-12)
    alpha = softmax(beta * dot(unit[i], unit[j]))
    aggregate a = sum(alpha * x[j])
    update    y = a
}
"""

TRANSFORMER = """
layer TransformerConv(in_channels, out_channels, heads = 1) {
    param wq[in_channels, heads, out_channels]    ~ glorot
    param bq[heads, out_channels]                 ~ zeros
    param wk[in_channels, heads, out_channels]    ~ glorot
    param bk[heads, out_channels]                 ~ zeros
    param wv[in_channels, heads, out_channels]    ~ glorot
    param bv[heads, out_channels]                 ~ zeros
    param wskip[in_channels, heads, out_channels] ~ glorot
    param bskip[heads, out_channels]              ~ zeros
    node x[in_channels]

    q = x @ wq + bq
    k = x @ wk + bk
    v = x @ wv + bv
    alpha = softmax(dot(q[i], k[j]) / sqrt(out_channels))
    aggregate a = sum(alpha * v[j])
    update    y = merge(a + x @ wskip + bskip, heads, out_channels)
}
"""

EDGE_CONV = """
layer EdgeConv(in_channels, hidden, out_channels) {
    param w1[2*in_channels, hidden] ~ linear
    param b1[hidden]                ~ zeros
    param w2[hidden, out_channels]  ~ linear
    param b2[out_channels]          ~ zeros
    node x[in_channels]

    def mlp(z) = relu(z @ w1 + b1) @ w2 + b2

    message   m = mlp(cat(x[i], x[j] - x[i]; in_channels))
    aggregate a = max(m)
    update    y = a
}
"""


POINT_NET = """
layer PointNetConv(in_channels, hidden, out_channels) {
    param w1[in_channels+3, hidden] ~ linear
    param b1[hidden]                ~ zeros
    param w2[hidden, out_channels]  ~ linear
    param b2[out_channels]          ~ zeros
    node x[in_channels]
    node pos[3]

    message   m = relu(cat(x[j], pos[j] - pos[i]) @ w1 + b1) @ w2 + b2
    aggregate a = max(m)
    update    y = a
}
"""

CG = """
layer CGConv(channels, dim) {
    param wf[2*channels+dim, channels'] ~ linear
    param bf[channels']                 ~ zeros
    param ws[2*channels+dim, channels'] ~ linear
    param bs[channels']                 ~ zeros
    node x[channels]
    edge e[dim]

    z = cat(x[i], x[j], e; channels, channels, dim)
    message   m = sigmoid(z @ wf + bf) * softplus(z @ ws + bs)
    aggregate a = sum(m)
    update    y = rename(a, channels' -> channels) + x
}
"""

NN = """
layer NNConv(in_channels, out_channels, edge_dim) {
    param theta[edge_dim, in_channels, out_channels] ~ linear
    param tb[in_channels, out_channels]              ~ zeros
    param root[in_channels, out_channels]            ~ linear
    param bias[out_channels]                         ~ zeros
    node x[in_channels]
    edge e[edge_dim]

    message   m = x[j] @ (e @ theta + tb)
    aggregate a = sum(m)
    update    y = a + x @ root + bias
}
"""

GMM = """
layer GMMConv(in_channels, out_channels, dim, kernel_size) {
    param g[in_channels, kernel_size, out_channels] ~ glorot
    param mu[kernel_size, dim]                      ~ glorot
    param sigma[kernel_size, dim]                   ~ glorot
    param root[in_channels, out_channels]           ~ linear
    param bias[out_channels]                        ~ zeros
    node x[in_channels]
    edge pseudo[dim]

    gauss = exp(sum[dim](-0.5 * (pseudo - mu)**2 / (1e-15 + sigma**2)))
    message   m = sum[kernel_size](gauss * (x @ g)[j])
    aggregate a = mean(m)
    update    y = a + x @ root + bias
}
"""

SPLINE = """
layer SplineConv(in_channels, out_channels, dim, kernel_size, degree = 1) {
    param weight[kernel_size**dim, in_channels, out_channels] ~ uniform
    param root[in_channels, out_channels]                     ~ linear
    param bias[out_channels]                                  ~ zeros
    node x[in_channels]
    edge pseudo[dim]

    basis = bspline(pseudo, kernel_size, degree; s)
    place = bspline_index(pseudo, kernel_size, degree; s)
    message   m = sum[s](basis * (x[j] @ weight[place]))
    aggregate a = mean(m)
    update    y = a + x @ root + bias
}
"""

RGCN = """
layer RGCNConv(in_channels, out_channels, num_relations, num_bases = none) {
    if num_bases != none {
        param bases[num_bases, in_channels, out_channels] ~ glorot
        param comp[num_relations, num_bases]              ~ glorot
        weight = comp @ bases
    } else {
        param weight[num_relations, in_channels, out_channels] ~ glorot
    }
    param root[in_channels, out_channels]                 ~ glorot
    param bias[out_channels]                              ~ zeros
    node x[in_channels]
    edge rel: int(num_relations)

    aggregate a = mean(x[j]) by rel
    update    y = sum[num_relations](a @ weight) + x @ root + bias
}
"""

PNA = """
layer PNAConv(in_channels, hidden, out_channels, delta) {
    param pre[2*in_channels, in_channels']                ~ linear
    param pb[in_channels']                                ~ zeros
    param post[in_channels + 12*in_channels', hidden]     ~ linear
    param qb[hidden]                                      ~ zeros
    param lin[hidden, out_channels]                       ~ linear
    param bias[out_channels]                              ~ zeros
    node x[in_channels]

    message m = cat(x[i], x[j]) @ pre + pb
    v = var(m)
    # As torch_geometric has it: messages that are as good as equal have no deviation, and no gradient of it.
    s = where(v > 0.00001, sqrt(max(v, 0.00001)), 0)
    all = cat(mean(m), max(m), min(m), s)
    d = log(max(degree(i), 1) + 1) / delta
    update y = (cat(x, cat(all, all * d, all / d)) @ post + qb) @ lin + bias
}
"""


def _linear(shape: Shape, pyg: str, dgl: str | None = None) -> Weight:
    return Weight(shape, pyg, linear=True, dgl=dgl)


def _mlp(*sizes: int) -> dict[str, Weight]:
    """Linear, ReLU, Linear: the parameters of a torch.nn.Sequential, as w1, b1, w2, b2."""
    found: dict[str, Weight] = {}
    for k, (a, b) in enumerate(pairwise(sizes)):
        found[f"w{k + 1}"] = _linear((a, b), f"nn.{2 * k}.weight", f"apply_func.{2 * k}.weight")
        found[f"b{k + 1}"] = Weight((b,), f"nn.{2 * k}.bias", dgl=f"apply_func.{2 * k}.bias")
    return found


def _gcn(f: int) -> Layer:
    return Layer(
        GCN,
        {"in_channels": f, "out_channels": f},
        {
            "weight": Weight((f, f), "lin.weight", linear=True, dgl="weight", dgl_flat=True),
            "bias": Weight((f,), "bias", dgl="bias"),
        },
        Peer("GCNConv", (f, f), {"add_self_loops": False}),
        sparse="norm",
        dgl=Peer("GraphConv", (f, f), {"norm": "none", "allow_zero_in_degree": True}),
    )


def _sage(f: int, reduce: str) -> Layer:
    return Layer(
        SAGE.replace("REDUCE", reduce),
        {"in_channels": f, "out_channels": f},
        {
            "weight_l": _linear((f, f), "lin_l.weight", "fc_neigh.weight"),
            "weight_r": _linear((f, f), "lin_r.weight", "fc_self.weight"),
            "bias": Weight((f,), "lin_l.bias", dgl="fc_self.bias"),
        },
        Peer("SAGEConv", (f, f), {"aggr": reduce}),
        sparse=reduce,
        dgl=Peer("SAGEConv", (f, f, "mean")) if reduce == "mean" else None,
    )


def _gin(f: int) -> Layer:
    return Layer(
        GIN,
        {"in_channels": f, "hidden": f, "out_channels": f},
        _mlp(f, f, f),
        Peer("GINConv"),
        mlp=(f, f, f),
        sparse="one",
        dgl=Peer("GINConv", kwargs={"aggregator_type": "sum"}),
    )


def _gat(f: int) -> Layer:
    c = f // HEADS
    return Layer(
        GAT,
        {"in_channels": f, "out_channels": c, "heads": HEADS},
        {
            "weight": _linear((f, HEADS, c), "lin.weight", "fc.weight"),
            "att_src": Weight((HEADS, c), "att_src", dgl="attn_l"),
            "att_dst": Weight((HEADS, c), "att_dst", dgl="attn_r"),
            "bias": Weight((HEADS, c), "bias", dgl="bias"),
        },
        Peer("GATConv", (f, c, HEADS), {"add_self_loops": False}),
        dgl=Peer("GATConv", (f, c, HEADS), {"allow_zero_in_degree": True}),
    )


def _gatv2(f: int) -> Layer:
    c = f // HEADS
    return Layer(
        GATV2,
        {"in_channels": f, "out_channels": c, "heads": HEADS},
        {
            "weight_l": _linear((f, HEADS, c), "lin_l.weight", "fc_src.weight"),
            "weight_r": _linear((f, HEADS, c), "lin_r.weight", "fc_dst.weight"),
            "att": Weight((HEADS, c), "att", dgl="attn"),
            "bias_l": Weight((HEADS, c), "lin_l.bias", dgl="fc_src.bias"),
            "bias_r": Weight((HEADS, c), "lin_r.bias", dgl="fc_dst.bias"),
            "bias": Weight((HEADS, c), "bias"),
        },
        Peer("GATv2Conv", (f, c, HEADS), {"add_self_loops": False}),
        dgl=Peer("GATv2Conv", (f, c, HEADS), {"allow_zero_in_degree": True}),
    )


def _agnn(f: int) -> Layer:
    return Layer(
        AGNN,
        {},
        {"beta": Weight((), "beta", dgl="beta")},
        Peer("AGNNConv", kwargs={"add_self_loops": False}),
        dgl=Peer("AGNNConv", kwargs={"allow_zero_in_degree": True}),
    )


def _transformer(f: int) -> Layer:
    c = f // HEADS
    weights: dict[str, Weight] = {}
    for letter, name in {"q": "lin_query", "k": "lin_key", "v": "lin_value", "skip": "lin_skip"}.items():
        weights[f"w{letter}"] = _linear((f, HEADS, c), f"{name}.weight")
        weights[f"b{letter}"] = Weight((HEADS, c), f"{name}.bias")
    return Layer(
        TRANSFORMER,
        {"in_channels": f, "out_channels": c, "heads": HEADS},
        weights,
        Peer("TransformerConv", (f, c, HEADS)),
    )


def _edge_conv(f: int) -> Layer:
    return Layer(
        EDGE_CONV,
        {"in_channels": f, "hidden": f, "out_channels": f},
        _mlp(2 * f, f, f),
        Peer("EdgeConv", kwargs={"aggr": "max"}),
        mlp=(2 * f, f, f),
    )


def _point_net(f: int) -> Layer:
    weights = {n: Weight(w.shape, "local_" + w.pyg, w.linear) for n, w in _mlp(f + 3, f, f).items()}
    return Layer(
        POINT_NET,
        {"in_channels": f, "hidden": f, "out_channels": f},
        weights,
        Peer("PointNetConv", kwargs={"add_self_loops": False}),
        mlp=(f + 3, f, f),
        extras={"pos": Extra("node", (3,), "pos")},
    )


def _cg(f: int, dim: int = 8) -> Layer:
    return Layer(
        CG,
        {"channels": f, "dim": dim},
        {
            "wf": _linear((2 * f + dim, f), "lin_f.weight"),
            "bf": Weight((f,), "lin_f.bias"),
            "ws": _linear((2 * f + dim, f), "lin_s.weight"),
            "bs": Weight((f,), "lin_s.bias"),
        },
        Peer("CGConv", (f, dim)),
        extras={"e": Extra("edge", (dim,), "edge_attr")},
    )


def _nn(f: int, dim: int = 8) -> Layer:
    # A quarter of the features: torch_geometric holds a matrix an edge, 1 GB of them at 16 x 16 and a million edges.
    f = f // 4
    return Layer(
        NN,
        {"in_channels": f, "out_channels": f, "edge_dim": dim},
        {
            "theta": _linear((dim, f, f), "nn.weight"),
            "tb": Weight((f, f), "nn.bias"),
            "root": _linear((f, f), "lin.weight"),
            "bias": Weight((f,), "bias"),
        },
        Peer("NNConv", (f, f), {"nn": Mlp((dim, f * f))}),
        extras={"e": Extra("edge", (dim,), "edge_attr")},
        sizes=(f, f),
    )


def _gmm(f: int, dim: int = 2, kernel_size: int = 5) -> Layer:
    return Layer(
        GMM,
        {"in_channels": f, "out_channels": f, "dim": dim, "kernel_size": kernel_size},
        {
            "g": Weight((f, kernel_size, f), "g"),
            "mu": Weight((kernel_size, dim), "mu"),
            "sigma": Weight((kernel_size, dim), "sigma"),
            "root": _linear((f, f), "root.weight"),
            "bias": Weight((f,), "bias"),
        },
        Peer("GMMConv", (f, f, dim, kernel_size)),
        extras={"pseudo": Extra("edge", (dim,), "edge_attr")},
    )


def _spline(f: int, dim: int = 2, kernel_size: int = 5) -> Layer:
    return Layer(
        SPLINE,
        {"in_channels": f, "out_channels": f, "dim": dim, "kernel_size": kernel_size},
        {
            "weight": Weight((kernel_size**dim, f, f), "weight"),
            "root": _linear((f, f), "lin.weight"),
            "bias": Weight((f,), "bias"),
        },
        Peer("SplineConv", (f, f, dim, kernel_size)),
        extras={"pseudo": Extra("edge", (dim,), "edge_attr")},
    )


def _rgcn(f: int, relations: int = 8, bases: int | None = 4) -> Layer:
    """Each relation's matrix is a mix of bases, or its own where there are none."""
    mixed = {"bases": Weight((bases or 0, f, f), "weight"), "comp": Weight((relations, bases or 0), "comp")}
    return Layer(
        RGCN,
        {"in_channels": f, "out_channels": f, "num_relations": relations, "num_bases": bases},
        {
            **(mixed if bases else {"weight": Weight((relations, f, f), "weight")}),
            "root": Weight((f, f), "root"),
            "bias": Weight((f,), "bias"),
        },
        Peer("RGCNConv", (f, f, relations), {"num_bases": bases}),
        extras={"rel": Extra("edge", (), "edge_type", bound=relations)},
    )


def _pna(f: int) -> Layer:
    # The peer learns its scale from a histogram of degrees: here, of nodes that all have 20 edges.
    degrees = (0,) * 20 + (1,)
    return Layer(
        PNA,
        {"in_channels": f, "out_channels": f, "hidden": f, "delta": math.log(21)},
        {
            "pre": _linear((2 * f, f), "pre_nns.0.0.weight"),
            "pb": Weight((f,), "pre_nns.0.0.bias"),
            "post": _linear((13 * f, f), "post_nns.0.0.weight"),
            "qb": Weight((f,), "post_nns.0.0.bias"),
            "lin": _linear((f, f), "lin.weight"),
            "bias": Weight((f,), "lin.bias"),
        },
        Peer(
            "PNAConv",
            (f, f, ["mean", "max", "min", "std"], ["identity", "amplification", "attenuation"], degrees),
        ),
    )


LAYERS = {
    "GCN": _gcn,
    "SAGE": lambda f: _sage(f, "mean"),
    "SAGE-max": lambda f: _sage(f, "max"),
    "GIN": _gin,
    "GAT": _gat,
    "GATv2": _gatv2,
    "AGNN": _agnn,
    "Transformer": _transformer,
    "EdgeConv": _edge_conv,
    "PointNet": _point_net,
    "CGConv": _cg,
    "NNConv": _nn,
    "GMM": _gmm,
    "Spline": _spline,
    "RGCN": _rgcn,
    "PNA": _pna,
}
# Measured on request only: torch_geometric holds a result for each relation, gigabytes on a large graph.
ON_REQUEST = {"RGCN-474": lambda f: _rgcn(f, 474, None)}
ALL = {**LAYERS, **ON_REQUEST}
