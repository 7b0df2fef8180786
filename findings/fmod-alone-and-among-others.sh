#!/usr/bin/env bash
# torch 2.13.0 on a CPU: fmod and remainder are NaN where the quotient overflows, but only in SIMD code: 3e38 mod 0.5 is 0 in a tensor
# of one number, and NaN in a tensor of sixteen. The same row of a table is right or wrong by where it lies in the batch.
#
# Seen with torch 2.13.0:
#   fmod      one number 0.0 sixteen nan
#   remainder one number 0.0 sixteen nan
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0
python <<'PY'
import math

import torch

x, y = torch.full((16,), 3e38), torch.full((16,), 0.5)
assert math.fmod(x[0].item(), 0.5) == 0.0
for function in (torch.fmod, torch.remainder):
    alone, among = function(x[:1], y[:1])[0].item(), function(x, y)[0].item()
    print(f"{function.__name__:9} one number {alone} sixteen {among}")
    assert alone == 0.0, "changed"
    assert math.isnan(among), "changed"
PY
