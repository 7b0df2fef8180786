#!/usr/bin/env bash
# torch 2.13.0, gloo: `all_reduce` with ReduceOp.MAX or MIN compares, and NaN is never the larger nor the smaller: what is kept where one
# process has NaN depends on whose it is, and, in a large tensor, on the place in it, since each process reduces a stretch of it. torch.maximum
# and torch.amax keep every NaN, and a sum over processes does. A check such as "has any process a NaN in its gradients", or a largest
# feature over parts of a graph, holds for some processes and lets the NaN of others through.
#
# Seen with torch 2.13.0 (three processes have ones, and NaN one of them; how many NaN are left):
#   NaN of process 0: largest 2 of 3, 1000 of 3000; smallest 1000 of 3000; sum 3000 of 3000
#   NaN of process 1: largest 1 of 3, 1000 of 3000; smallest 1000 of 3000; sum 3000 of 3000
#   NaN of process 2: largest 0 of 3, 1000 of 3000; smallest 1000 of 3000; sum 3000 of 3000
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0
cat >work.py <<'PY'
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORLD = 3


def work(rank, folder):
    dist.init_process_group("gloo", rank=rank, world_size=WORLD, store=dist.FileStore(f"{folder}/store", WORLD))
    shown = {}
    for whose in range(WORLD):
        for count, op in [(3, "MAX"), (3000, "MAX"), (3000, "MIN"), (3000, "SUM")]:
            values = torch.full((count,), torch.nan if rank == whose else 1.0)
            dist.all_reduce(values, getattr(dist.ReduceOp, op))
            shown[whose, count, op] = int(values.isnan().sum())
    if rank == 0:
        for whose in range(WORLD):
            largest = f"{shown[whose, 3, 'MAX']} of 3, {shown[whose, 3000, 'MAX']} of 3000"
            smallest, summed = shown[whose, 3000, "MIN"], shown[whose, 3000, "SUM"]
            print(f"NaN of process {whose}: largest {largest}; smallest {smallest} of 3000; sum {summed} of 3000")
        assert all(n == 3000 for (_, _, op), n in shown.items() if op == "SUM"), "changed"
        assert any(n < 3000 for (_, count, op), n in shown.items() if (count, op) == (3000, "MAX")), "changed"
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(work, args=(sys.argv[1],), nprocs=WORLD)
PY
PYTHONWARNINGS=ignore env/bin/python work.py "$FOLDER"
