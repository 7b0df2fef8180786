#!/usr/bin/env bash
# torch_geometric 2.8.1: `to_hetero_with_bases` gives each layer a weight for each type of edge. With two bases or more it draws them; with
# `num_bases=1`, which is valid and the cheapest choice, nothing ever writes to them: the model starts from whatever the memory held, other
# numbers in each process and for each seed. (`torch.use_deterministic_algorithms` has torch fill such memory with NaN, which shows it.)
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (how many of the type weights nothing has set):
#   num_bases=1: 2 of 2
#   num_bases=2: 0 of 4
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.nn import SAGEConv, to_hetero_with_bases

torch.use_deterministic_algorithms(True)  # memory that nothing has written to is NaN
METADATA = (["a", "b"], [("a", "to", "b"), ("b", "to", "a")])


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = SAGEConv((8, 8), 4)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


def unset(num_bases):
    made = to_hetero_with_bases(Model(), METADATA, num_bases=num_bases, in_channels={"x": 8})
    weights = torch.cat([p.flatten() for name, p in made.named_parameters() if name.endswith("edge_type_weight")])
    return int(weights.isnan().sum()), len(weights)


found = {bases: unset(bases) for bases in (1, 2)}
for bases, (count, total) in found.items():
    print(f"num_bases={bases}: {count} of {total}")
assert found == {1: (2, 2), 2: (0, 4)}, "changed"
PY
