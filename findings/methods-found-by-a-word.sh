#!/usr/bin/env bash
# torch_geometric 2.8.1: what a layer of one's own may hand to `propagate` is read off the text of its class, in the brackets behind
# `self.propagate`. Python gives the first argument of a method no name of its own; a `forward(this, x, edge_index)` that calls
# `this.propagate(edge_index, x=x)` gets a TypeError of `propagate` in the first call, which says nothing of texts.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (two layers whose forward does the same):
#   self.propagate(edge_index, x=x): runs
#   this.propagate(edge_index, x=x): TypeError: propagate() got an unexpected keyword argument 'x'
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
cat > layers.py <<'PY'
from torch_geometric.nn import MessagePassing


class Plain(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)


class Named(MessagePassing):
    def forward(this, x, edge_index):
        return this.propagate(edge_index, x=x)
PY
python <<'PY'
import layers
import torch


def call(kind):
    try:
        kind()(torch.ones(2, 1), torch.tensor([[0], [1]]))
    except TypeError as error:
        return f"TypeError: {error}".replace(f"{kind.__name__}.", "")
    return "runs"


found = [call(kind) for kind in (layers.Plain, layers.Named)]
wrong = "TypeError: propagate() got an unexpected keyword argument 'x'"
ways = ("self.propagate(edge_index, x=x)", "this.propagate(edge_index, x=x)")
for way, result in zip(ways, found):
    print(f"{way}: {result}")
assert found == ["runs", wrong], "changed"
PY
