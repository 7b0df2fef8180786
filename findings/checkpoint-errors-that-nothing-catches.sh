#!/usr/bin/env bash
# torch 2.13.0: what `torch.distributed.checkpoint` raises where a checkpoint does not fit, such as for a parameter that it lacks, is
# no Exception: `except Exception`, as a training script has it to begin anew without a checkpoint, lets it through, and the script ends.
#
# Seen with torch 2.13.0 (a checkpoint of `a`, read into `a` and `b`):
#   caught by except Exception: False
#   CheckpointException, of BaseException alone: Missing key in checkpoint state_dict: b.
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0
python <<'PY'
import tempfile

import torch
import torch.distributed.checkpoint as dcp

caught, error = False, None
with tempfile.TemporaryDirectory() as folder:
    dcp.save({"a": torch.ones(2)}, checkpoint_id=folder, no_dist=True)
    try:
        try:
            dcp.load({"a": torch.zeros(2), "b": torch.zeros(2)}, checkpoint_id=folder, no_dist=True)
        except Exception:
            caught = True
    except BaseException as found:
        error = found
text = "" if error is None else str(next(iter(error.failures.values()))[0])
print("caught by except Exception:", caught)
print(f"{type(error).__name__}, of BaseException alone: {text}")
assert not caught and "Missing key" in text and not isinstance(error, Exception), "changed"
PY
