#!/usr/bin/env bash
# torch 2.13.0: torch.compiler.assume_constant_result says that a function gives the same each time. Dynamo asks it once, when it
# traces, and guards on nothing that it read: two modules of one class that answer differently share the first one's trace, so
# that the second computes with the first one's number, without a word. As an attribute the same number is guarded.
#
# Seen with torch 2.13.0:
#   as an attribute: 2.0 3.0
#   as a constant result: 2.0 2.0
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 numpy
python <<'PY'
import torch
from torch import nn


class Scaled(nn.Module):
    def __init__(self, factor, constant):
        super().__init__()
        self.factor, self.constant = factor, constant

    @torch.compiler.assume_constant_result
    def read(self):
        return self.factor

    def forward(self, x):
        return x * (self.read() if self.constant else self.factor)


def both(constant):
    torch._dynamo.reset()
    first, second = (torch.compile(Scaled(factor, constant), backend="eager") for factor in (2.0, 3.0))
    return first(torch.ones(())).item(), second(torch.ones(())).item()


attribute, constant = both(False), both(True)
print("as an attribute:", *attribute)
print("as a constant result:", *constant)
assert attribute == (2.0, 3.0), "changed"
assert constant == (2.0, 2.0), "changed"
PY
