"""The layers of published.gdsl in plain torch: each takes the compiled layer, of which it reads the parameters.

    made:   the layer
    edges:  [2, E], from the sources in the first row to the targets in the second
    others: the layer's inputs, by name

Each gives a tuple of tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gdsl
from gdsl.nn.models.waves import bessel_roots, spherical_bessel

Found = tuple[Tensor, ...]
WAVES = (3, 2)  # orders of DimeNet's spherical waves, and waves of each


def waves_of(spherical: int, radial: int) -> dict[str, Tensor]:
    """Where the spherical Bessel functions are 0, and what gives waves that end there norm 1: [orders, waves] each."""
    roots = bessel_roots(spherical, radial)
    after = torch.stack([spherical_bessel(z, order + 2)[order + 1] for order, z in enumerate(roots)])
    return {"roots": roots, "scale": 2**0.5 / after.abs()}


def summed(m: Tensor, at: Tensor, rows: int) -> Tensor:
    """Messages [E, ...] added up at their nodes: [rows, ...]."""
    return m.new_zeros(rows, *m.shape[1:]).index_add(0, at, m)


def egnn(made: gdsl.Layer, edges: Tensor, h: Tensor, p: Tensor, e: Tensor, **_: Any) -> Found:
    j, i = edges
    r = p[i] - p[j]
    m = F.silu(made.phi_e(torch.cat([h[i], h[j], r.square().sum(1, keepdim=True), e], 1)))
    count = torch.bincount(i, minlength=len(h)).clamp(min=1)
    moved = summed(r * made.phi_x(m), i, len(h)) / count[:, None]
    return h + made.phi_h(torch.cat([h, summed(m, i, len(h))], 1)), p + moved


def painn(made: gdsl.Layer, edges: Tensor, h: Tensor, p: Tensor, v: Tensor, **_: Any) -> Found:
    j, i = edges
    toward = p[j] - p[i]
    r = toward.norm(dim=1, keepdim=True)
    near = torch.where(r < 3, 0.5 + 0.5 * torch.cos(r * (torch.pi / 3)), 0.0)
    filters = made.filter(torch.sin(made.n * (torch.pi / 3) * r) / r) * near
    one, two, three = (made.phi(h)[j] * filters).chunk(3, 1)
    h = h + summed(one, i, len(h))
    v = v + summed(two[:, None] * v[j] + three[:, None] * (toward / r)[:, :, None], i, len(h))

    left, right = made.U(v), made.V(v)
    one, two, three = made.mix(torch.cat([h, right.norm(dim=1)], 1)).chunk(3, 1)
    return h + one + two * (left * right).sum(1), v + three[:, None] * left


def gated_gcn(made: gdsl.Layer, edges: Tensor, h: Tensor, f: Tensor, **_: Any) -> Found:
    j, i = edges
    score = made.C(f) + made.D(h)[i] + made.E(h)[j]
    gate = torch.sigmoid(score)
    a = made.A(h) + summed(gate * made.B(h)[j], i, len(h)) / (summed(gate, i, len(h)) + 1e-6)
    return h + F.relu(made.norm_nodes(a)), f + F.relu(made.norm_edges(score))


def comp_gcn(compose: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Found]:
    """CompGCN with a composition of nodes and relations."""

    def found(made: gdsl.Layer, edges: Tensor, h: Tensor, rel: Tensor, forth: Tensor, back: Tensor, **_: Any) -> Found:
        j, i = edges
        a = summed(made.original(compose(h[j], forth[rel])), i, len(h))
        b = summed(made.inverse(compose(h[i], back[rel])), j, len(h))
        z = torch.tanh(a + b + made.loop(compose(h, made.own)))
        return z, made.relation(forth), made.relation(back)

    return found


def attention(score: Tensor, at: Tensor, rows: int) -> Tensor:
    """A softmax of scores [E, heads] over the edges of each node."""
    to = at.view(-1, 1).expand_as(score)
    top = score.new_zeros(rows, score.shape[1]).scatter_reduce(0, to, score.detach(), "amax", include_self=False)
    e = torch.exp(score - top[at])
    return e / summed(e, at, rows)[at]


def tgat(made: gdsl.Layer, edges: Tensor, h: Tensor, e: Tensor, age: Tensor, **_: Any) -> Found:
    j, i = edges
    old = torch.cat([h[j], e, torch.cos(age[:, None] * made.frequency + made.phase)], 1)
    now = torch.cos(made.phase).expand(len(h), -1)
    q = made.query(torch.cat([h, now], 1)).view(len(h), 2, 3)
    key, value = (lin(old).view(len(old), 2, 3) for lin in (made.key, made.value))
    alpha = attention((q[i] * key).sum(2) / 3**0.5, i, len(h))
    a = summed(alpha[:, :, None] * value, i, len(h)).flatten(1)
    return made.out(torch.cat([a, h], 1)), alpha


def grit(made: gdsl.Layer, edges: Tensor, h: Tensor, f: Tensor, **_: Any) -> Found:
    j, i = edges
    pairs = (made.query(h)[i] + made.key(h)[j]) * made.scale(f)
    s = F.relu(pairs.sign() * pairs.abs().sqrt() + made.shift(f)).view(len(f), 2, 3)
    alpha = attention((s * made.attend).sum(2).clamp(-5, 5), i, len(h))
    value = made.value(h)[j].view(len(f), 2, 3) + torch.einsum("ehw,hwv->ehv", s, made.enrich)
    a = summed(alpha[:, :, None] * value, i, len(h)).flatten(1)
    return h + made.out_nodes(a), f + made.out_edges(s.flatten(1))


def nbfnet(made: gdsl.Layer, edges: Tensor, x: Tensor, start: Tensor, rel: Tensor, asked: Tensor, **_: Any) -> Found:
    j, i = edges
    w = made.relations(asked).view(len(asked), -1, asked.shape[1])
    a = summed(x[j] * w[:, rel].transpose(0, 1), i, len(x)) + start
    return (F.relu(made.out(torch.cat([x, a], 2))),)


def sgformer(made: gdsl.Layer, edges: Tensor, h: Tensor, batch: Tensor, **_: Any) -> Found:
    j, i = edges
    found = []
    for graph in range(int(batch[-1]) + 1):
        x = h[batch == graph]
        q, k, v = (lin(x) for lin in (made.query, made.key, made.value))
        q, k = q / q.norm(), k / k.norm()
        pairs = q @ k.T / len(x)
        found.append((v + pairs @ v) / (1 + pairs.sum(1, keepdim=True)))
    degree = torch.bincount(i, minlength=len(h)).to(h.dtype)
    w = torch.where(degree > 0, degree, torch.inf).rsqrt()
    local = summed((w[i] * w[j])[:, None] * made.near(h)[j], i, len(h))
    return (0.5 * torch.cat(found) + 0.5 * local,)


def reversed_edges(edges: Tensor) -> Tensor:
    """[E] for each edge the one that goes the other way: the k-th of those j -> i has the k-th i -> j."""
    (j, i), nodes = edges, int(edges.max()) + 1
    there, by_ends = torch.sort(j * nodes + i, stable=True)
    rank = torch.arange(len(j)) - torch.searchsorted(there, there)
    back = torch.searchsorted(there, (i * nodes + j)[by_ends]) + rank
    return torch.empty_like(by_ends).index_copy(0, by_ends, by_ends[back])


def dmpnn(made: gdsl.Layer, edges: Tensor, h: Tensor, e: Tensor, **_: Any) -> Found:
    (j, i), back = edges, reversed_edges(edges)
    start = made.first(torch.cat([h[j], e], 1))
    m = F.relu(start)
    for _ in range(2):
        m = F.relu(start + made.again(summed(m, i, len(h))[j] - m[back]))
    return (F.relu(made.out(torch.cat([h, summed(m, i, len(h))], 1))),)


def pairs(edges: Tensor) -> tuple[Tensor, Tensor]:
    """The edges kj and ji of all pairs k -> j -> i but those that go back, k = i."""
    j, i = edges
    count = torch.bincount(i, minlength=int(edges.max()) + 1)
    ji = torch.arange(len(j)).repeat_interleave(count[j])
    place = torch.arange(len(ji)) - (count[j].cumsum(0) - count[j])[ji]
    kj = i.argsort(stable=True)[(count.cumsum(0) - count)[j[ji]] + place]
    kept = j[kj] != i[ji]
    return kj[kept], ji[kept]


def lengths(made: gdsl.Layer, r: Tensor) -> tuple[Tensor, Tensor]:
    """DimeNet's waves of lengths [E, radial], and those for angles [E, spherical, radial]."""
    envelope = torch.where(r < 1, 1 / r - 28 * r**5 + 48 * r**6 - 21 * r**7, 0.0)[:, None]
    roots, scale = (w.to(r.dtype) for w in waves_of(*WAVES).values())
    z = roots * r[:, None, None]
    j = [torch.sin(z) / z]
    j.append((j[0] - torch.cos(z)) / z)
    for order in range(2, len(roots)):
        j.append((2 * order - 1) * j[-1] / z - j[-2])
    waves = torch.stack([j[order][:, order] for order in range(len(roots))], 1)
    return envelope * torch.sin(made.frequency * r[:, None]), envelope[:, :, None] * scale * waves


def angles(c: Tensor, orders: int) -> Tensor:
    """DimeNet's waves of the cosines of angles: [T, orders]."""
    p = [torch.ones_like(c), c]
    for order in range(2, orders):
        p.append(((2 * order - 1) * c * p[-1] - (order - 1) * p[-2]) / order)
    return torch.stack([((2 * order + 1) / (4 * torch.pi)) ** 0.5 * p[order] for order in range(orders)], 1)


def after_pairs(made: gdsl.Layer, h: Tensor, f: Tensor) -> Found:
    def residual(h: Tensor, k: int) -> Tensor:
        return h + F.silu(made.residual[2 * k + 1](F.silu(made.residual[2 * k](h))))

    h = F.silu(made.lin(residual(h, 0))) + f
    return (residual(residual(h, 1), 2),)


def falling(score: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
    """The edges by node and then by falling score, and the place of each of these in its node, from 0."""
    order = score.argsort(descending=True, stable=True)
    order = order[i[order].argsort(stable=True)]
    count = torch.bincount(i)
    return order, torch.arange(len(i)) - (count.cumsum(0) - count)[i[order]]


def tgn(made: gdsl.Layer, edges: Tensor, h: Tensor, e: Tensor, age: Tensor, **_: Any) -> Found:
    j, i = edges
    order, place = falling(-age, i)
    newest = order[place == 0]
    m = torch.cat([h[i], h[j], e, torch.cos(age[:, None] * made.frequency + made.phase)], 1)[newest]
    heard = i[newest]
    new, old = made.of_message(m).chunk(3, 1), made.of_memory(h[heard]).chunk(3, 1)
    reset, keep = torch.sigmoid(new[0] + old[0]), torch.sigmoid(new[1] + old[1])
    after = (1 - keep) * torch.tanh(new[2] + reset * old[2]) + keep * h[heard]
    return (h.index_copy(0, heard, after),)


def gmoe(made: gdsl.Layer, edges: Tensor, h: Tensor, **_: Any) -> Found:
    j, i = edges
    q = made.router(h)
    chosen = q.topk(2, dim=1).indices
    gates = torch.full_like(q, -torch.inf).scatter(1, chosen, q.gather(1, chosen)).softmax(1)
    a = summed(h[j], i, len(h)) / torch.bincount(i, minlength=len(h)).clamp(min=1)[:, None]
    return (h + F.relu(torch.einsum("no,nd,odc->nc", gates, a, made.W)),)


def hgp_sl(made: gdsl.Layer, edges: Tensor, h: Tensor, w: Tensor, **_: Any) -> Found:
    j, i = edges
    score = F.leaky_relu((h @ made.to1)[i] + (h @ made.from1)[j], 0.2) + w
    order, place = falling(score, i)
    values, row = score[order], i[order]
    # The sum of the first values of a node, up to each: a node's edges stand together.
    sums = values.cumsum(0)
    sums = sums - (sums - values)[torch.arange(len(i)) - place]
    inside = 1 + (place + 1) * values > sums
    count, total = (summed(torch.where(inside, v, 0.0), row, len(h)) for v in (torch.ones_like(values), values))
    learned = (score - ((total - 1) / count.clamp(min=1))[i]).clamp(min=0)
    return F.relu(summed(learned[:, None] * made.lin(h)[j], i, len(h))), learned


def sparse_transformer(made: gdsl.Layer, edges: Tensor, h: Tensor, **_: Any) -> Found:
    j, i = edges
    q, k, v = (lin(h).view(len(h), 2, 3) for lin in (made.query, made.key, made.value))
    score = (q[i] * k[j]).sum(2) / 3**0.5
    kept = torch.empty_like(score, dtype=torch.bool)
    for head in range(2):
        order, place = falling(score[:, head], i)
        kept[order, head] = place < 2
    raised = torch.where(kept, torch.exp(score), 0.0)
    a = summed(raised[:, :, None] * v[j], i, len(h)) / summed(raised, i, len(h)).clamp(min=1e-30)[:, :, None]
    return (h + made.out(a.flatten(1)),)


def set_attention(made: gdsl.Layer, h: Tensor, batch: Tensor, **_: Any) -> Found:
    (x, known), order = padded(h, batch)
    q, k, v = (lin(x).view(*x.shape[:2], 2, 3).transpose(1, 2) for lin in (made.query, made.key, made.value))
    score = (q @ k.transpose(2, 3) / 6**0.5).masked_fill(~known[:, None, None], -torch.inf)
    o = (q + score.softmax(3) @ v).transpose(1, 2).flatten(2)
    return ((o + F.relu(made.out(o)))[known][order],)


def padded(h: Tensor, batch: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Nodes graph by graph [graphs, most nodes, ...] with which of them there are, and where each node went."""
    order = torch.argsort(batch, stable=True)
    parts = h[order].split(torch.bincount(batch).tolist())
    known = nn.utils.rnn.pad_sequence([torch.ones(len(p), dtype=torch.bool) for p in parts], batch_first=True)
    return (nn.utils.rnn.pad_sequence(parts, batch_first=True), known), torch.argsort(order)


def monet(made: gdsl.Layer, edges: Tensor, h: Tensor, p: Tensor, **_: Any) -> Found:
    j, i = edges
    covariance = made.one + made.root @ made.root.transpose(1, 2)
    u = (p[j] - p[i])[:, None] - made.center
    weight = torch.exp(-0.5 * (u * torch.linalg.solve(covariance, u[..., None])[..., 0]).sum(2))
    a = summed(weight[:, :, None] * h[j][:, None], i, len(h))
    return (torch.einsum("nmd,mdc->nc", a, made.W),)


def dimenet(made: gdsl.Layer, edges: Tensor, p: Tensor, f: Tensor, **_: Any) -> Found:
    (j, i), (kj, ji) = edges, pairs(edges)
    length = (p[j] - p[i]).norm(dim=1)
    rbf, waves = lengths(made, length / 3)
    a, b = p[j[ji]] - p[i[ji]], p[j[kj]] - p[i[ji]]
    c = (a * b).sum(1) / (length[ji] * b.norm(dim=1))
    s = torch.einsum("tl,tln,bln->tb", angles(c, 3), waves[kj], made.by_angle)
    m = F.silu(made.lin_kj(f)) * made.by_length(rbf)
    t = torch.einsum("tb,td,ebd->te", s, m[kj], made.W)
    return after_pairs(made, F.silu(made.lin_ji(f)) + summed(t, ji, len(f)), f)


def dimenet_plus_plus(made: gdsl.Layer, edges: Tensor, p: Tensor, f: Tensor, **_: Any) -> Found:
    (j, i), (kj, ji) = edges, pairs(edges)
    v = p[i] - p[j]
    length = v.norm(dim=1)
    rbf, waves = lengths(made, length / 3)
    c = (v[kj] * v[ji]).sum(1) / (length[kj] * length[ji])
    s = torch.einsum("tl,tln,bln->tb", angles(c, 3), waves[kj], made.sbf1)
    m = F.silu(made.down(F.silu(made.lin_kj(f)) * made.rbf2(made.rbf1(rbf))))
    t = m[kj] * made.sbf2(s)
    return after_pairs(made, F.silu(made.lin_ji(f)) + F.silu(made.up(summed(t, ji, len(f)))), f)


def gat(made: gdsl.Layer, edges: Tensor, h: Tensor, **_: Any) -> Found:
    j, i = torch.cat([edges, torch.arange(len(h)).expand(2, -1)], 1)

    def heard(h: Tensor, out: Tensor, into: Tensor) -> Tensor:
        alpha = attention(F.leaky_relu((h * out).sum(2)[j] + (h * into).sum(2)[i], 0.2), i, len(h))
        return summed(alpha[:, :, None] * h[j], i, len(h)).flatten(1)

    one = heard(made.first(h).view(len(h), 2, 3), made.from1, made.to1)
    two = made.second(F.elu(one + made.bias1))
    return (F.log_softmax(heard(two[:, None], made.from2, made.to2) + made.bias2, 1),)


def exphormer(made: gdsl.Layer, edges: Tensor, h: Tensor, rel: Tensor, f: Tensor, **_: Any) -> Found:
    j, i = edges
    q, k, v = (lin(h).view(len(h), 2, 3) for lin in (made.query, made.key, made.value))
    e = made.edges(f + made.kinds[rel]).view(len(f), 2, 3)
    alpha = attention((q[i] * k[j] * e).sum(2) / 3**0.5, i, len(h))
    return (h + made.out(summed(alpha[:, :, None] * v[j], i, len(h)).flatten(1)),)
