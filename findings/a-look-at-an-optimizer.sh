#!/usr/bin/env bash
# torch 2.13.0: `torch.distributed.checkpoint.state_dict.get_optimizer_state_dict`, by its name a look, makes the state of an optimizer
# that has none with a step of its own, and leaves it there. A run that saves a checkpoint before its first step goes on otherwise than one
# that does not: Adam's first step is its second, with other corrections, SGD's momentum begins with the weights times weight_decay, or
# with dampening on the first gradient, and Rprop's steps begin at its smallest, a millionth. The same checkpoint by
# `optimizer.state_dict()` changes nothing.
#
# Seen with torch 2.13.0 (how far a first step with gradient 1 moves a weight of 1, and after a look at the optimizer):
#   Adam: 0.1000 0.0744
#   AdamW: 0.1010 0.0754
#   SGD with momentum and weight_decay: 0.1100 0.1190
#   SGD with momentum and dampening: 0.1000 0.0100
#   Rprop: 0.100000 0.000001
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0
python <<'PY'
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.optim import SGD, Adam, AdamW, Rprop


def moved(make, look):
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = make(model.parameters())
    if look == "state_dict":
        optimizer.state_dict()
    elif look:
        get_optimizer_state_dict(model, optimizer)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    return 1 - model.weight.item()


for told, make, digits in [
    ("Adam", lambda p: Adam(p, lr=0.1), 4),
    ("AdamW", lambda p: AdamW(p, lr=0.1), 4),
    ("SGD with momentum and weight_decay", lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1), 4),
    ("SGD with momentum and dampening", lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.9), 4),
    ("Rprop", lambda p: Rprop(p, lr=0.1), 6),
]:
    without, after = moved(make, None), moved(make, "get_optimizer_state_dict")
    print(f"{told}: {without:.{digits}f} {after:.{digits}f}")
    assert moved(make, "state_dict") == without, "changed"
    assert abs(after - without) > 0.05 * without, "changed"
PY
