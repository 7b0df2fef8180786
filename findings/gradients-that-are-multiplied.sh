#!/usr/bin/env bash
# torch 2.13.0: `torch.distributed.nn.functional.all_reduce`, the one with a gradient, sends the gradient through the operation of the call:
# a maximum of processes has the maximum of their gradients, on each of them, whoever had the largest value, and a product the product
# of the gradients, without the other factors. Only sums are right. It says that it is deprecated, and not that; what it names instead refuses
# to differentiate all but sums.
#
# Seen with torch 2.13.0, gloo (process 0 has 2, process 1 has 5; gradients of the sum of what both get, on either):
#   SUM: gradients 2.0 2.0 right are 2.0 2.0
#   MAX: gradients 1.0 1.0 right are 0.0 2.0
#   PRODUCT: gradients 1.0 1.0 right are 10.0 4.0
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0
cat >work.py <<'PY'
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

VALUES = (2.0, 5.0)
RIGHT = {"SUM": [2.0, 2.0], "MAX": [0.0, 2.0], "PRODUCT": [10.0, 4.0]}


def work(rank, folder):
    import torch.distributed.nn.functional as functional

    dist.init_process_group("gloo", rank=rank, world_size=2, store=dist.FileStore(f"{folder}/store", 2))
    for name, right in RIGHT.items():
        value = torch.tensor([VALUES[rank]], requires_grad=True)
        # Both processes have the result, so that what is differentiated is the sum of two of it.
        functional.all_reduce(value, op=getattr(dist.ReduceOp, name)).backward()
        found = [torch.zeros(1), torch.zeros(1)]
        dist.all_gather(found, value.grad)
        if rank == 0:
            print(f"{name}: gradients", *map(float, found), "right are", *right)
            assert (list(map(float, found)) == right) == (name == "SUM"), "changed"
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.spawn(work, args=(sys.argv[1],), nprocs=2)
PY
PYTHONWARNINGS=ignore env/bin/python work.py "$FOLDER"
