#!/usr/bin/env bash
# torch 2.13.0: whoever imports torch.distributed.nn.functional for the first time between init_process_group and destroy_process_group keeps
# the group, and gloo's threads, for the rest of the process: the functions have it as the default of an argument, which is evaluated once.
# Nobody needs to write that import: torch's optimizers and its profiler make it in their first step. Threads that are alive when a process
# ends can end it with an error after all its work was done. Imported before init_process_group, nothing stays.
#
# Seen with torch 2.13.0 (threads of a process with a gloo group of one: before it, within it, after it was destroyed):
#   imported within the group: default of broadcast is a ProcessGroup, threads stay
#   imported before the group: default of broadcast is None, no thread stays
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0
for when in within before; do
python "$when" <<'PY'
import os
import sys
import warnings

warnings.simplefilter("ignore")
import torch.distributed as dist


def threads():
    return len(os.listdir("/proc/self/task"))


when = sys.argv[1]
if when == "before":
    import torch.distributed.nn.functional
outside = threads()
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
import torch.distributed.nn.functional as functional

dist.destroy_process_group()
(default,), stay = functional.broadcast.__defaults__, threads() > outside
kind = "a ProcessGroup" if default is not None else "None"
print(f"imported {when} the group: default of broadcast is {kind}, {'threads stay' if stay else 'no thread stays'}")
assert (kind == "a ProcessGroup") == stay == (when == "within"), "changed"
PY
done
