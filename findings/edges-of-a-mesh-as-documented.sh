#!/usr/bin/env bash
# torch_geometric 2.8.1: MeshCNNConv on edges in the order that its page asks for, columns (i, a(i)), (i, b(i)), (i, c(i)), (i, d(i)),
# does not compute the formula of its page: it reads x_i four times for the neighbours, so that differences are all 0, and adds the
# sums to the neighbours of i. Turned round, (a(i), i) and so on, it is the formula. Shapes are the same; nothing is said.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (the six edges of a tetrahedron; the largest distance from the formula):
#   columns as documented: above 0.1
#   turned round: below 1e-5
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import itertools

import torch
from torch_geometric.nn import MeshCNNConv

torch.manual_seed(0)
EDGES = [frozenset(pair) for pair in itertools.combinations(range(4), 2)]
neighbours = []
for edge in EDGES:
    u, v = sorted(edge)
    upper, lower = sorted(set(range(4)) - edge)  # the two faces at the edge have these as third corners
    around = [{v, upper}, {upper, u}, {u, lower}, {lower, v}]
    neighbours.append([EDGES.index(frozenset(pair)) for pair in around])
neighbours = torch.tensor(neighbours)
documented = torch.stack([torch.arange(6).repeat_interleave(4), neighbours.flatten()])

layer, x = MeshCNNConv(3, 2), torch.randn(6, 3)
w = layer.kernels
a, b, c, d = x[neighbours].unbind(1)
formula = w[0](x) + w[1]((a - c).abs()) + w[2](a + c) + w[3]((b - d).abs()) + w[4](b + d)
away = [float((layer(x, edges) - formula).abs().max()) for edges in (documented, documented.flip(0))]
print("columns as documented:", "above 0.1" if away[0] > 0.1 else away[0])
print("turned round:", "below 1e-5" if away[1] < 1e-5 else away[1])
assert away[0] > 0.1 and away[1] < 1e-5, "changed"
PY
