#!/usr/bin/env bash
# torch_geometric 2.8.1: a MessagePassing class whose methods do not call their first parameter `self` cannot be used: its source is searched
# for "self.propagate(", to learn what the call passes, and where that is not found the generated `propagate` takes no features. Python does
# not care for the name, and `message` may have another one.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (the same sum over neighbours, three times):
#   self in all methods: [0.0, 1.0, 1.0]
#   s in message: [0.0, 1.0, 1.0]
#   s in forward: TypeError: propagate() got an unexpected keyword argument 'x'
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
cat > layers.py <<'PY'
import torch
from torch_geometric.nn import MessagePassing


class Self(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_j):
        return x_j


class InMessage(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(s, x_j):
        return x_j


class InForward(MessagePassing):
    def forward(s, x, edge_index):
        return s.propagate(edge_index, x=x)

    def message(self, x_j):
        return x_j


found = []
for name, kind in (("self in all methods", Self), ("s in message", InMessage), ("s in forward", InForward)):
    try:
        found.append(str(kind()(torch.ones(3, 1), torch.tensor([[0, 1], [1, 2]])).flatten().tolist()))
    except TypeError as error:
        found.append(f"TypeError: {error}")
    print(f"{name}: {found[-1]}")
assert found[0] == found[1] == "[0.0, 1.0, 1.0]" and found[2].startswith("TypeError: propagate()"), "changed"
PY
PYTHONWARNINGS=ignore env/bin/python layers.py
