#!/usr/bin/env bash
# torch_geometric 2.8.1: `state_dict` of its Linear writes what the attribute `weight` is, whatever makes that weight. Pruned, or under
# weight_norm or spectral_norm of torch.nn.utils, a checkpoint of any layer with such a Linear (GCNConv, GATConv, SAGEConv ...) has
# none of the parameters and buffers behind the weight, only what they gave in the last forward pass, that is before the last step of
# an optimizer. Nothing is said when it is saved; the model cannot be restored from it. torch's own Linear saves the parameters.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (prune.random_unstructured, one step of SGD, saved):
#   torch.nn.Linear: bias, weight_mask, weight_orig; the same results when loaded
#   torch_geometric.nn.Linear: bias, weight; Missing key(s) when loaded
#   its weight is that of before the step: True
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
import torch_geometric.nn
from torch.nn.utils import prune


def pruned(kind):
    torch.manual_seed(0)
    return prune.random_unstructured(kind(6, 4), "weight", 0.5)


def saved(kind):
    """A layer after a step, its weight in that step, and its checkpoint."""
    layer = pruned(kind)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    layer(torch.randn(5, 6)).square().sum().backward()
    before = layer.weight.detach().clone()
    optimizer.step()
    return layer, before, {name: value.clone() for name, value in layer.state_dict().items()}


found = {}
x = torch.randn(3, 6)
for kind in (torch.nn.Linear, torch_geometric.nn.Linear):
    layer, before, state = saved(kind)
    again = pruned(kind)
    try:
        again.load_state_dict(state)
        told = "the same results" if torch.equal(again(x), layer(x)) else "other results"
    except RuntimeError as error:
        told = "Missing key(s)" if "Missing key(s)" in str(error) else str(error)
    name = "torch.nn.Linear" if kind is torch.nn.Linear else "torch_geometric.nn.Linear"
    found[name] = (", ".join(sorted(state)), told)
    print(f"{name}: {found[name][0]}; {told} when loaded")
stale = torch.equal(state["weight"], before) and not torch.equal(layer.weight_orig * layer.weight_mask, before)
print("its weight is that of before the step:", stale)
assert found["torch.nn.Linear"] == ("bias, weight_mask, weight_orig", "the same results"), "changed"
assert found["torch_geometric.nn.Linear"] == ("bias, weight", "Missing key(s)") and stale, "changed"
PY
