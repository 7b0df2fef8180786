#!/usr/bin/env bash
# torch_geometric 2.8.1: the code of `propagate` is written for a class when its first layer is made, with what that layer is able to do.
# If it aggregates by "lstm" or "median", all later layers of the class refuse a sparse matrix, also those that sum or average; whether
# a model runs depends on which layers the process has made before, and in which order.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (SAGEConv(3, 2, aggr="mean") on a CSR matrix, in a new process each):
#   first in the process: (4, 2)
#   after a layer with aggr="max": (4, 2)
#   after a layer with aggr="lstm": NotImplementedError: 'message_and_aggregate' not implemented
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
cat >layers.py <<'PY'
import sys
import torch
from torch_geometric.nn import SAGEConv

x = torch.randn(4, 3)
matrix = torch.tensor([[0.0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]).to_sparse_csr()
for aggregation in sys.argv[1:]:
    SAGEConv(3, 2, aggr=aggregation)
try:
    print(tuple(SAGEConv(3, 2, aggr="mean")(x, matrix).shape))
except NotImplementedError as error:
    print("NotImplementedError:", error)
PY
python <<'PY'
import subprocess
import sys


def after(*first):
    done = subprocess.run([sys.executable, "-W", "ignore", "layers.py", *first], capture_output=True, text=True, check=True)
    return done.stdout.strip()


alone, most, lstm = after(), after("max"), after("lstm")
print("first in the process:", alone)
print('after a layer with aggr="max":', most)
print('after a layer with aggr="lstm":', lstm)
assert alone == most == "(4, 2)", "changed"
assert lstm == "NotImplementedError: 'message_and_aggregate' not implemented", "changed"
PY
