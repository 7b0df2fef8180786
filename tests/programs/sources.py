"""Whole programs of the language: NAME -> (source, arguments). Every operator of language.md is here.

``MODULES`` makes the torch modules of those that take one, and ``FREE_DIMS`` gives sizes that a call would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PROGRAMS: dict[str, tuple[str, dict[str, Any]]] = {}


def _add(name: str, source: str, **arguments: Any) -> None:
    PROGRAMS[name] = (source.strip() + "\n", arguments)


# ------------------------------------------------------------------- degree norms, loops over hops

_add(
    "GCN",
    """
# Kipf and Welling, 2017.
layer GCNConv(in_channels, out_channels, add_loops = true, normalize = true, bias = true) {
    if add_loops { graph add_remaining_self_loops(w = 1) }

    param weight[in_channels, out_channels] ~ glorot

    node x[in_channels]
    edge w = 1

    if normalize { graph symmetric_norm(w) }

    h = x @ weight
    message m = w * h[j]
    aggregate a = sum(m)
    if bias {
        param b[out_channels] ~ zeros
        update y = a + b
    } else {
        update y = a
    }
}
""",
    in_channels=5,
    out_channels=4,
)

_add(
    "SGC",
    """
# Wu et al., 2019.
layer SGConv(in_channels, out_channels, K = 2) {
    graph add_remaining_self_loops(w = 1)
    edge w = 1
    graph symmetric_norm(w)

    param weight[in_channels, out_channels] ~ glorot
    param bias[out_channels] ~ zeros
    node x[in_channels]

    h = x
    for k in 1..K {
        aggregate h = sum(w * h[j])
    }
    update y = h @ weight + bias
}
""",
    in_channels=5,
    out_channels=4,
)

_add(
    "SSG",
    """
# Zhu and Koniusz, 2021.
layer SSGConv(in_channels, out_channels, alpha = 0.1, K = 2) {
    graph add_remaining_self_loops(w = 1)
    edge w = 1
    graph symmetric_norm(w)

    param weight[in_channels, out_channels] ~ glorot
    param bias[out_channels] ~ zeros
    node x[in_channels]

    h = x
    total = alpha * x
    for k in 1..K {
        aggregate h = sum(w * h[j])
        total = total + (1 - alpha) / K * h
    }
    update y = total @ weight + bias
}
""",
    in_channels=5,
    out_channels=4,
)

_add(
    "TAG",
    """
# Du et al., 2017.
layer TAGConv(in_channels, out_channels, K = 3) {
    param weight[0..K, in_channels, out_channels] ~ glorot
    param bias[out_channels] ~ zeros
    node x[in_channels]
    graph symmetric_norm

    h = x
    out = x @ weight[0]
    for k in 1..K {
        aggregate h = sum(norm * h[j])
        out = out + h @ weight[k]
    }
    update y = out + bias
}
""",
    in_channels=5,
    out_channels=4,
)

_add(
    "APPNP",
    """
# Gasteiger et al., 2019.
layer APPNP(K = 3, alpha = 0.1, p = 0.0) {
    graph add_remaining_self_loops(w = 1)
    edge w = 1
    graph symmetric_norm(w)
    node x[channels]

    h = x
    for k in 1..K {
        message m = dropout(w, p) * h[j]
        aggregate a = sum(m)
        update h = (1 - alpha) * a + alpha * x
    }
}
""",
)

_add(
    "Cheb",
    """
# Defferrard et al., 2016: T_k = 2 L T_{k-1} - T_{k-2}.
layer ChebConv(in_channels, out_channels, K = 3, lambda_max = 2.0) {
    graph remove_self_loops
    param weight[K, in_channels, out_channels] ~ glorot
    param bias[out_channels] ~ zeros
    node x[in_channels]
    edge w = 1
    graph symmetric_norm(w)

    # 2 L / lambda - I, with L = I - D^-1/2 A D^-1/2
    scale = 2 / lambda_max
    def laplace(t) = (scale - 1) * t - scale * sum(w * t[j])

    before = x
    now = x
    out = x @ weight[0]
    if K > 1 {
        now = laplace(x)
        out = out + now @ weight[1]
    }
    for k in 2..K - 1 {
        next = 2 * laplace(now) - before
        before = now
        now = next
        out = out + now @ weight[k]
    }
    update y = out + bias
}
""",
    in_channels=5,
    out_channels=4,
)

_add(
    "ARMA",
    """
# Bianchi et al., 2019: num_stacks parallel stacks of num_layers recursive filters, averaged.
layer ARMAConv(in_channels, out_channels, num_stacks = 2, num_layers = 2, p = 0.0) {
    param init_weight[num_stacks, in_channels, out_channels] ~ glorot
    param weight[1..num_layers - 1, num_stacks, out_channels, out_channels'] ~ glorot
    param root_weight[num_layers, num_stacks, in_channels, out_channels] ~ glorot
    param bias[num_layers, num_stacks, out_channels] ~ zeros
    node x[in_channels]
    graph symmetric_norm

    h = x @ init_weight
    for t in 0..num_layers - 1 {
        if t > 0 {
            h = rename(h @ weight[t], out_channels' -> out_channels)
        }
        aggregate a = sum(norm * h[j])
        h = relu(a + dropout(x, p) @ root_weight[t] + bias[t])
    }
    update y = mean[num_stacks](h)
}
""",
    in_channels=5,
    out_channels=4,
)

# ------------------------------------------------------------------------------------- GraphSAGE

_SAGE = """
# Hamilton et al., 2017.
layer SAGEConv(in_channels, out_channels, normalize = false) {
    param weight_l[in_channels, out_channels] ~ linear
    param bias[out_channels] ~ zeros
    param weight_r[in_channels, out_channels] ~ linear
    node x[in_channels]

    message m = x[j]
    aggregate a = REDUCER(m)
    out = a @ weight_l + bias + x @ weight_r
    if normalize {
        out = out / max(norm(out), 1e-12)
    }
    update y = out
}
"""
for _reducer in ("mean", "max", "std"):
    _add(f"SAGE_{_reducer}", _SAGE.replace("REDUCER", _reducer), in_channels=5, out_channels=4)
_add("SAGE_normalized", _SAGE.replace("REDUCER", "mean"), in_channels=5, out_channels=4, normalize=True)

_add(
    "SAGE_bipartite",
    """
layer BipartiteSAGE(in_source, in_target, out_channels) {
    param weight_l[in_source, out_channels] ~ linear
    param bias[out_channels] ~ zeros
    param weight_r[in_target, out_channels] ~ linear
    source x[in_source]
    target z[in_target]

    aggregate a = mean(x[j])
    update y = a @ weight_l + bias + z @ weight_r
}
""",
    in_source=5,
    in_target=3,
    out_channels=4,
)

_add(
    "SAGE_module",
    """
layer LSTMSAGE(in_channels, out_channels) {
    module lstm
    param weight_l[in_channels, out_channels] ~ linear
    param weight_r[in_channels, out_channels] ~ linear
    node x[in_channels]
    message m = x[j]
    aggregate a = lstm(m)
    update y = a @ weight_l + x @ weight_r
}
""",
    in_channels=5,
    out_channels=4,
)

# ------------------------------------------------------------------------------------- attention

_add(
    "GAT",
    """
# Velickovic et al., 2018.
layer GATConv(in_channels, out_channels, heads = 1, slope = 0.2, p = 0.0) {
    graph add_self_loops

    param weight[in_channels, heads, out_channels] ~ glorot
    param att_src[heads, out_channels]             ~ glorot
    param att_dst[heads, out_channels]             ~ glorot
    param bias[heads, out_channels]                ~ zeros

    node x[in_channels]

    h     = x @ weight                                             # node[heads, out_channels]
    score = leaky_relu((h @ att_src)[j] + (h @ att_dst)[i], slope) # edge[heads]
    alpha = dropout(softmax(score), p)                             # over the edges into i

    message   m = alpha * h[j]                                     # edge[heads, out_channels]
    aggregate a = sum(m)                                           # node[heads, out_channels]
    update    y = merge(a + bias, heads, out_channels)             # node[heads*out_channels]
}
""",
    in_channels=5,
    out_channels=4,
    heads=2,
)

_add(
    "GAT_edge",
    """
# GAT with edge features; gives the attention as well.
layer GATConv(in_channels, out_channels, heads = 1, edge_dim = none, concat = true, slope = 0.2) {
    graph add_self_loops(e = "mean")

    param weight[in_channels, heads, out_channels] ~ glorot
    param att_src[heads, out_channels] ~ glorot
    param att_dst[heads, out_channels] ~ glorot
    node x[in_channels]

    h = x @ weight
    score = (h @ att_src)[j] + (h @ att_dst)[i]
    if edge_dim != none {
        param weight_edge[edge_dim, heads, out_channels] ~ glorot
        param att_edge[heads, out_channels] ~ glorot
        edge e[edge_dim] = none
        if e { score = score + e @ weight_edge @ att_edge }
    }
    alpha = softmax(leaky_relu(score, slope))
    aggregate a = sum(alpha * h[j])
    if concat {
        update y = merge(a, heads, out_channels)
    } else {
        update y = mean[heads](a)
    }
    return y, alpha
}
""",
    in_channels=5,
    out_channels=4,
    heads=2,
    edge_dim=3,
)

_add(
    "GATv2",
    """
# Brody et al., 2022.
layer GATv2Conv(in_channels, out_channels, heads = 1, slope = 0.2) {
    graph add_self_loops
    param weight_l[in_channels, heads, out_channels] ~ glorot
    param weight_r[in_channels, heads, out_channels] ~ glorot
    param att[heads, out_channels] ~ glorot
    param bias[heads, out_channels] ~ zeros
    node x[in_channels]

    l = x @ weight_l
    r = x @ weight_r
    alpha = softmax(leaky_relu(l[j] + r[i], slope) @ att)
    message m = alpha * l[j]
    aggregate a = sum(m)
    update y = merge(a + bias, heads, out_channels)
}
""",
    in_channels=5,
    out_channels=4,
    heads=2,
)

_add(
    "AGNN",
    """
# Thekumparampil et al., 2018.
layer AGNNConv {
    graph add_remaining_self_loops
    param beta ~ ones
    node x[channels]
    unit = x / max(norm[channels](x), 1e-12)
    alpha = softmax(beta * dot(unit[i], unit[j]))
    aggregate a = sum(alpha * x[j])
    update y = a
}
""",
)

_add(
    "Transformer",
    """
# Shi et al., 2021.
layer TransformerConv(in_channels, out_channels, heads = 1, edge_dim = 3, p = 0.0) {
    param wq[in_channels, heads, out_channels] ~ glorot
    param wk[in_channels, heads, out_channels] ~ glorot
    param wv[in_channels, heads, out_channels] ~ glorot
    param we[edge_dim, heads, out_channels] ~ glorot
    param wskip[in_channels, heads*out_channels] ~ glorot
    node x[in_channels]
    edge e[edge_dim]

    f = e @ we
    key = (x @ wk)[j] + f
    alpha = dropout(softmax(dot((x @ wq)[i], key) / sqrt(out_channels)), p)
    message m = alpha * ((x @ wv)[j] + f)
    aggregate a = sum(m)
    update y = merge(a, heads, out_channels) + x @ wskip
}
""",
    in_channels=5,
    out_channels=4,
    heads=2,
)

_add(
    "SuperGAT",
    """
# Kim and Oh, 2021, with attention of the kind MX.
layer SuperGATConv(in_channels, out_channels, heads = 1, slope = 0.2) {
    graph add_self_loops
    param weight[in_channels, heads, out_channels] ~ glorot
    param att_l[heads, out_channels] ~ glorot
    param att_r[heads, out_channels] ~ glorot
    param bias[heads*out_channels] ~ zeros
    node x[in_channels]

    h = x @ weight
    logit = dot(h[i], h[j])
    score = ((h @ att_l)[j] + (h @ att_r)[i]) * sigmoid(logit)
    alpha = softmax(leaky_relu(score, slope))
    aggregate a = sum(alpha * h[j])
    update y = merge(a, heads, out_channels) + bias
    return y, logit
}
""",
    in_channels=5,
    out_channels=4,
    heads=2,
)

# ------------------------------------------------------------------------- functions and modules

_add(
    "GIN",
    """
# Xu et al., 2019.
layer GINConv(eps = 0.0, train_eps = false) {
    module nn
    node x[channels]
    aggregate a = sum(x[j])
    if train_eps {
        param epsilon ~ constant(eps)
        update y = nn((1 + epsilon) * x + a)
    } else {
        update y = nn((1 + eps) * x + a)
    }
}
""",
)

_add(
    "GINE",
    """
# Hu et al., 2020.
layer GINEConv(channels, edge_dim, eps = 0.0) {
    module nn
    param weight[edge_dim, channels] ~ linear
    param bias[channels] ~ zeros
    node x[channels]
    edge e[edge_dim]
    message m = relu(x[j] + e @ weight + bias)
    aggregate a = sum(m)
    update y = nn((1 + eps) * x + a)
}
""",
    channels=5,
    edge_dim=3,
)

_add(
    "EdgeConv",
    """
# Wang et al., 2019.
layer EdgeConv {
    module nn
    node x[channels]
    message m = nn(cat(x[i], x[j] - x[i]))
    aggregate a = max(m)
    update y = a
}
""",
)

_add(
    "EdgeConv_text",
    """
# The same, with its network as text.
layer EdgeConv(in_channels, hidden, out_channels) {
    param w1[2*in_channels, hidden] ~ glorot
    param b1[hidden] ~ zeros
    param w2[hidden, out_channels] ~ glorot
    param b2[out_channels] ~ zeros
    node x[in_channels]

    def mlp(z) = relu(z @ w1 + b1) @ w2 + b2

    message m = mlp(cat(x[i], x[j] - x[i]; in_channels))
    aggregate y = max(m)
    return y
}
""",
    in_channels=5,
    hidden=6,
    out_channels=4,
)

_add(
    "PointNetConv",
    """
# Qi et al., 2017: PointNet++.
layer PointNetConv(in_channels, out_channels) {
    graph add_self_loops
    param w1[in_channels + 3, out_channels] ~ glorot
    param b1[out_channels] ~ zeros
    node x[in_channels]
    node pos[3]
    message m = relu(cat(x[j], pos[j] - pos[i]) @ w1 + b1)
    aggregate a = max(m)
    update y = a
}
""",
    in_channels=5,
    out_channels=4,
)

_add(
    "CGConv",
    """
# Xie and Grossman, 2018.
layer CGConv(channels, dim) {
    param wf[2*channels + dim, channels'] ~ glorot
    param bf[channels'] ~ zeros
    param ws[2*channels + dim, channels'] ~ glorot
    param bs[channels'] ~ zeros
    node x[channels]
    edge e[dim]
    z = cat(x[i], x[j], e; channels, channels, dim)
    message m = sigmoid(z @ wf + bf) * softplus(z @ ws + bs)
    aggregate a = sum(m)
    update y = rename(a, channels' -> channels) + x
}
""",
    channels=5,
    dim=3,
)

_add(
    "ResGated",
    """
# Bresson and Laurent, 2017.
layer ResGatedGraphConv(in_channels, out_channels) {
    param wk[in_channels, out_channels] ~ glorot
    param wq[in_channels, out_channels] ~ glorot
    param wv[in_channels, out_channels] ~ glorot
    param wskip[in_channels, out_channels] ~ glorot
    param bias[out_channels] ~ zeros
    node x[in_channels]
    gate = sigmoid((x @ wk)[i] + (x @ wq)[j])
    aggregate a = sum(gate * (x @ wv)[j])
    update y = a + x @ wskip + bias
}
""",
    in_channels=5,
    out_channels=4,
)

_add(
    "GEN",
    """
# Li et al., 2020: softmax aggregation with a learned temperature.
layer GENConv(channels, eps = 1e-7) {
    module mlp
    param t ~ ones
    node x[channels]
    message m = relu(x[j]) + eps
    aggregate a = sum(softmax(t * m) * m)
    update y = mlp(a + x)
}
""",
    channels=5,
)

_add(
    "PNA",
    """
# Corso et al., 2020: four aggregators, three degree scalers.
layer PNAConv(in_channels, out_channels, delta = 1.1) {
    param pre[2*in_channels, in_channels'] ~ glorot
    param post[in_channels + 12*in_channels', out_channels] ~ glorot
    param bias[out_channels] ~ zeros
    node x[in_channels]

    message m = cat(x[i], x[j]) @ pre
    all = cat(mean(m), max(m), min(m), std(m))
    d = log(max(degree(i), 1) + 1) / delta
    update y = cat(x, cat(all, all * d, all / d)) @ post + bias
}
""",
    in_channels=5,
    out_channels=4,
)

# --------------------------------------------------------- a matrix an edge, kernels, and splines

_add(
    "NNConv",
    """
# Gilmer et al., 2017: a matrix for every edge.
layer NNConv(in_channels, out_channels, edge_dim) {
    param theta[edge_dim, in_channels, out_channels] ~ glorot
    param root[in_channels, out_channels] ~ glorot
    param bias[out_channels] ~ zeros
    node x[in_channels]
    edge e[edge_dim]
    message m = x[j] @ (e @ theta)
    aggregate a = mean(m)
    update y = a + x @ root + bias
}
""",
    in_channels=5,
    out_channels=4,
    edge_dim=3,
)

_add(
    "NNConv_module",
    """
layer NNConv(in_channels, out_channels) {
    module nn
    node x[in_channels]
    edge e[edge_dim]
    theta = split(nn(e; in_channels*out_channels), in_channels*out_channels, in_channels, out_channels)
    message m = x[j] @ theta
    aggregate a = sum(m)
    update y = a
}
""",
    in_channels=5,
    out_channels=4,
)

_add(
    "GMMConv",
    """
# Monti et al., 2017: MoNet.
layer GMMConv(in_channels, out_channels, dim, kernel_size) {
    param g[in_channels, kernel_size, out_channels] ~ glorot
    param mu[kernel_size, dim] ~ glorot
    param sigma[kernel_size, dim] ~ glorot
    param root[in_channels, out_channels] ~ glorot
    param bias[out_channels] ~ zeros
    node x[in_channels]
    edge pseudo[dim]
    gauss = exp(sum[dim](-0.5 * (pseudo - mu)**2 / (1e-15 + sigma**2)))
    message m = sum[kernel_size](gauss * (x @ g)[j])
    aggregate a = mean(m)
    update y = a + x @ root + bias
}
""",
    in_channels=5,
    out_channels=4,
    dim=2,
    kernel_size=3,
)

_add(
    "SplineConv",
    """
# Fey et al., 2018.
layer SplineConv(in_channels, out_channels, dim, kernel_size, degree = 1) {
    param weight[kernel_size**dim, in_channels, out_channels] ~ uniform
    param root[in_channels, out_channels] ~ linear
    param bias[out_channels] ~ zeros
    node x[in_channels]
    edge pseudo[dim]
    basis = bspline(pseudo, kernel_size, degree; s)
    place = bspline_index(pseudo, kernel_size, degree; s)
    message m = sum[s](basis * (x[j] @ weight[place]))
    aggregate a = mean(m)
    update y = a + x @ root + bias
}
""",
    in_channels=5,
    out_channels=4,
    dim=2,
    kernel_size=3,
)

# ------------------------------------------------------------------------------------- relations

_add(
    "RGCN",
    """
# Schlichtkrull et al., 2018.
layer RGCNConv(in_channels, out_channels, num_relations) {
    param weight[num_relations, in_channels, out_channels] ~ glorot
    param root[in_channels, out_channels] ~ glorot
    param bias[out_channels] ~ zeros
    node x[in_channels]
    edge rel: int(num_relations)
    aggregate a = mean(x[j]) by rel
    update y = sum[num_relations](a @ weight) + x @ root + bias
}
""",
    in_channels=5,
    out_channels=4,
    num_relations=3,
)

_add(
    "RGCN_bases",
    """
layer RGCNConv(in_channels, out_channels, num_relations, num_bases) {
    param bases[num_bases, in_channels, out_channels] ~ glorot
    param comp[num_relations, num_bases] ~ glorot
    node x[in_channels]
    edge rel: int(num_relations)
    aggregate a = sum(x[j] @ sum[num_bases](comp[rel] * bases))
    update y = a
}
""",
    in_channels=5,
    out_channels=4,
    num_relations=3,
    num_bases=2,
)

_add(
    "RGCN_blocks",
    """
layer RGCNConv(block_in, block_out, blocks, num_relations) {
    param weight[num_relations, blocks, block_in, block_out] ~ glorot
    node x[blocks*block_in]
    edge rel: int(num_relations)
    h = split(x, blocks*block_in, blocks, block_in)
    message m = h[j] @ weight[rel]
    aggregate a = sum(m)
    update y = merge(a, blocks, block_out)
}
""",
    block_in=2,
    block_out=3,
    blocks=2,
    num_relations=3,
)

_add(
    "RGAT",
    """
# Busbridge et al., 2019: additive attention, across relations.
layer RGATConv(in_channels, out_channels, num_relations, heads = 1) {
    param weight[num_relations, in_channels, heads, out_channels] ~ glorot
    param q[heads, out_channels] ~ glorot
    param k[heads, out_channels] ~ glorot
    node x[in_channels]
    edge rel: int(num_relations)
    out_i = x[i] @ weight[rel]
    out_j = x[j] @ weight[rel]
    alpha = softmax(leaky_relu(out_i @ q + out_j @ k, 0.2))
    aggregate a = sum(alpha * out_j)
    update y = merge(a, heads, out_channels)
}
""",
    in_channels=5,
    out_channels=4,
    num_relations=3,
    heads=2,
)

_add(
    "FiLM",
    """
# Brockschmidt, 2020.
layer FiLMConv(in_channels, out_channels, num_relations) {
    param weight[num_relations, in_channels, out_channels] ~ glorot
    param film_gamma[num_relations, in_channels, out_channels] ~ glorot
    param film_beta[num_relations, in_channels, out_channels] ~ glorot
    node x[in_channels]
    edge rel: int(num_relations)
    gamma = x[i] @ film_gamma[rel]
    beta = x[i] @ film_beta[rel]
    message m = relu(gamma * (x[j] @ weight[rel]) + beta)
    aggregate a = sum[num_relations](mean(m) by rel)
    update y = a
}
""",
    in_channels=5,
    out_channels=4,
    num_relations=3,
)

_add(
    "HGT",
    """
# Hu et al., 2020, simplified: one set of nodes with kinds, edges with relations.
layer HGTConv(in_channels, out_channels, num_types, num_relations, heads = 1) {
    param wk[num_types, in_channels, heads, out_channels] ~ glorot
    param wq[num_types, in_channels, heads, out_channels] ~ glorot
    param wv[num_types, in_channels, heads, out_channels] ~ glorot
    param wo[num_types, heads*out_channels, in_channels'] ~ glorot
    param ratt[num_relations, heads, out_channels, out_channels'] ~ glorot
    param rmsg[num_relations, heads, out_channels, out_channels'] ~ glorot
    param prior[num_relations, heads] ~ ones
    param skip[num_types] ~ ones
    node x[in_channels]
    node kind: int(num_types)
    edge rel: int(num_relations)

    key = x @ wk[kind]
    query = x @ wq[kind]
    value = x @ wv[kind]
    att = rename(key[j] @ ratt[rel], out_channels' -> out_channels)
    alpha = softmax(dot(att, query[i]) * prior[rel] / sqrt(out_channels))
    message m = alpha * rename(value[j] @ rmsg[rel], out_channels' -> out_channels)
    aggregate a = sum(m)
    out = rename(gelu(merge(a, heads, out_channels)) @ wo[kind], in_channels' -> in_channels)
    gate = sigmoid(skip[kind])
    update y = gate * out + (1 - gate) * x
}
""",
    in_channels=5,
    out_channels=4,
    num_types=2,
    num_relations=3,
    heads=2,
)

# ----------------------------------------------------------------------------------- point clouds

_add(
    "XConv",
    """
# Li et al., 2018: PointCNN. A learned K x K transform of the K neighbours in order.
layer XConv(in_channels, out_channels, K, dim = 3, hidden = 4) {
    param w1[dim, hidden] ~ glorot
    param b1[hidden] ~ zeros
    param wx[K, dim, K', K''] ~ glorot
    param bx[K', K''] ~ zeros
    param w[K', hidden+in_channels, out_channels] ~ glorot
    param bias[out_channels] ~ zeros
    node x[in_channels]
    node pos[dim]
    graph knn(pos, K)

    d = pos[j] - pos[i]
    lift = elu(d @ w1 + b1)
    near = stack(d, K)
    transform = sum[K, dim](near * wx) + bx
    features = rename(stack(cat(lift, x[j]), K), K -> K'')
    mixed = sum[K''](transform * features)
    update y = sum[K', hidden+in_channels](mixed * w) + bias
}
""",
    in_channels=5,
    out_channels=4,
    K=3,
)

_add(
    "DynamicEdgeConv",
    """
layer DynamicEdgeConv(K) {
    module nn
    node x[channels]
    graph knn(x, K)
    message m = nn(cat(x[i], x[j] - x[i]))
    aggregate a = max(m)
    update y = a
}
""",
    K=3,
)

_add(
    "GravNet",
    """
# Qasim et al., 2019: neighbours in a learned space.
layer GravNetConv(in_channels, out_channels, space = 3, propagate = 4, K = 3) {
    param ws[in_channels, space] ~ linear
    param wh[in_channels, propagate] ~ linear
    param wo[in_channels, out_channels] ~ linear
    param wa[2*propagate, out_channels] ~ linear
    node x[in_channels]
    s = x @ ws
    h = x @ wh
    graph knn(s, K, loop = true)
    w = exp(-10 * sum[space]((s[i] - s[j])**2))
    message m = w * h[j]
    update y = x @ wo + cat(mean(m), max(m)) @ wa
}
""",
    in_channels=5,
    out_channels=4,
)

# ------------------------------------------------------------------------------ no library has it

_add(
    "TwoRounds",
    """
# Two rounds, the second one backwards: each node hears how strongly its targets were moved.
layer EchoConv(in_channels, out_channels) {
    param weight[in_channels, out_channels] ~ glorot
    param att[out_channels] ~ glorot
    param back[out_channels, out_channels'] ~ glorot
    node x[in_channels]

    h = x @ weight
    message m = tanh(h[j] - h[i])
    aggregate a = max(m)
    update z = h + a

    alpha = softmax(z[i] @ att) at j
    message n = alpha * (z[i] - m)
    aggregate b = sum(n) at j
    update y = rename(b @ back, out_channels' -> out_channels) + z
}
""",
    in_channels=5,
    out_channels=4,
)

_add(
    "Statistics",
    """
# Reducers that need order, one of the user's own, and a readout.
layer Statistics(q = 0.25) {
    node x[channels]
    edge w = 1
    graph t[channels]
    reduce heaviest(acc, m, v) = where(v > acc, 0.5 * (acc + v * m), acc) init 0

    low = quantile(x[j], q)
    mid = median(x[j])
    lse = logsumexp(x[j])
    own = heaviest(x[j], w)
    spread = var(x[j]) + mul(0.5 + 0.1 * x[j])
    update y = low + mid + where(degree(i) > 0, lse, 0) + own + spread + degree(w) + t[g]
    pool g = mean(y)
    return y, g
}
""",
)

_add(
    "Owned",
    """
# What a layer owns: linear maps, lists of them, mlps, parts that an argument leaves out, functions for modules.
layer Owned(in_channels, out_channels, edge_dim, K = 2, bias = true) {
    linear lin(in_channels -> out_channels, bias = zeros) ~ glorot
    linear lins[K](out_channels -> out_channels)
    mlp phi(2*out_channels+edge_dim -> 6 -> 5 -> out_channels, silu, norm = layer_norm)
    linear att(out_channels -> 2*out_channels, bias = false) = none
    param bias[out_channels] ~ uniform = none
    param scale[out_channels] ~ ones = none
    module act = relu
    module aggr = mean
    node x[in_channels]
    edge e[edge_dim]

    h = lin(x)
    for k in 0..K - 1 { h = h + tanh(lins[k](h)) }
    message m = phi(cat(h[i], h[j], e))
    if att { m = m * sigmoid(split(att(h), 2*out_channels, 2, out_channels)[1])[j] }
    aggregate a = aggr(m)
    update y = act(a + h)
    if bias { update y = y + bias }
    if scale { update y = y * scale }
}
""",
    in_channels=5,
    out_channels=4,
    edge_dim=3,
    att=True,
)

_add(
    "Tables",
    """
# Tables of constants: a tensor product, a stencil, and a table that is read as it is.
layer Tables(a, b, c, channels) {
    const cg[a, b, c]
    const stencil[3] = [1, -2, 0.5]
    const mix[c, 3] = [0, 1, 0, 0, 0, 0, -1, 0, 2, 0, 0, 0.5]
    node x[a, channels]
    edge y[b]
    param w[channels] ~ ones

    message m = sum[a, b](cg * x[j] * tanh(y)) * w
    aggregate s = sum(m)
    update z = s + sum[3](sum[c](mix * s) * stencil)
    u = sum[b, c, channels](z * cg)[i] @ x[j]
    return z + stencil[2], u
}
""",
    a=3,
    b=2,
    c=4,
    channels=5,
    cg=[[[0, 1, 0, 0], [0, 0, 0, 2]], [[0, 0, 0, -1], [0, 0.5, 0, 0]], [[1, 0, 0, 0], [0, 0, 0, 0]]],
)

_add(
    "NBFNet",
    """
# Zhu et al., "Neural Bellman-Ford Networks", NeurIPS 2021, with the relations of a query that is the same everywhere;
# edges in bins of their length, and weights that are a softmax among the edges of one relation.
layer NBFNet(channels, num_relations, bins = 4) {
    node x[channels]
    node start[channels]
    edge rel: int(num_relations)
    edge length
    global query[num_relations, channels]
    global temperature = 1
    param near[bins, channels] ~ normal
    linear lin(2*channels -> channels)

    alpha = softmax(length * temperature) by rel
    message m = alpha * x[j] * query[rel] * near[int(3.9 * length, bins)]
    aggregate a = sum(m) + start
    update y = x + relu(lin(cat(x, a)))
    return log_softmax[channels](y), log_softmax(length)
}
""",
    channels=5,
    num_relations=3,
)

_add(
    "Geometry",
    """
# Harmonics of edges, and what a matrix of them solves.
layer Geometry(channels) {
    node p[3]
    node x[channels]
    edge e[2]
    param w[4, channels] ~ normal
    buffer eye[2, 2'] ~ eye

    message m = sum[4](harmonics(p[j] - 2 * p[i] - 0.3, 1) * w) * x[j]
    message near = sum[2'](solve(eye + outer(e, rename(e, 2 -> 2')), e))
    update y = sum(m) + sum(near)
}
""",
    channels=5,
)

_add(
    "Selection",
    """
# A node hears what it finds most like itself, its newest edge, and of each relation one.
layer Selection(channels, num_relations, k = 2) {
    node x[channels]
    edge age
    edge rel: int(num_relations)
    linear lin(channels -> channels)

    score = dot(x[i], lin(x)[j])
    near = softmax(where(topk(score, k), score, -inf)) + sparsemax(2 * score)
    newest = argmax(lin(x)[j] * age, -age)
    of_each = mean[num_relations](argmax(x[j], score) by rel)
    gate = sparsemax[channels](x) + where(topk[channels](x, 2), x, 0)
    update y = sum(near * x[j]) + newest + of_each * gate + sum(sparsemax(age))
}
""",
    channels=5,
    num_relations=3,
)

FREE_DIMS = {"channels": 5, "edge_dim": 3}


def _mlp(inputs: int, outputs: int) -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(inputs, 6), nn.ReLU(), nn.Linear(6, outputs))


MODULES: dict[str, Callable[[], dict[str, Any]]] = {
    "GIN": lambda: {"nn": _mlp(5, 4)},
    "GINE": lambda: {"nn": _mlp(5, 4)},
    "EdgeConv": lambda: {"nn": _mlp(10, 4)},
    "DynamicEdgeConv": lambda: {"nn": _mlp(10, 4)},
    "GEN": lambda: {"mlp": _mlp(5, 4)},
    "NNConv_module": lambda: {"nn": _mlp(3, 20)},
}


def modules_for(name: str) -> dict[str, Any]:
    """The torch modules that a program needs; SAGE_module's aggregator is not among them."""
    return MODULES[name]() if name in MODULES else {}
