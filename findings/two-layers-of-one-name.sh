#!/usr/bin/env bash
# torch_geometric 2.8.1: `propagate` is code that is generated for each MessagePassing class and found again by the name of its module
# and of the class. Two classes of one name in one module (a factory's, a notebook's cell that was run again after an edit, a test's)
# share the first one's code: the second class's `message` never gets the arguments that it asks for.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1:
#   first class: [4, 3]
#   second class of the same name: TypeError: propagate() got an unexpected keyword argument 'weight'
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
cat > layers.py <<'PY'
from torch_geometric.nn import MessagePassing


def plain():
    class Layer(MessagePassing):
        def forward(self, x, edges):
            return self.propagate(edges, x=x)

        def message(self, x_j):
            return x_j

    return Layer()


def weighted():
    class Layer(MessagePassing):
        def forward(self, x, edges, weight):
            return self.propagate(edges, x=x, weight=weight)

        def message(self, x_j, weight):
            return x_j * weight.view(-1, 1)

    return Layer()
PY
python <<'PY'
import layers
import torch

x, edges, weight = torch.ones(4, 3), torch.tensor([[0, 1], [1, 2]]), torch.ones(2)
print("first class:", list(layers.plain()(x, edges).shape))
message = ""
try:
    layers.weighted()(x, edges, weight)
except TypeError as error:
    message = str(error)
    print("second class of the same name: TypeError:", message)
assert message == "propagate() got an unexpected keyword argument 'weight'", "changed"
PY
