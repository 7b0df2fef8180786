"""Graphs over several processes of ``torch.distributed``."""

from gdsl.distributed.part import GraphPart
from gdsl.distributed.partition import Division, divide, partition
from gdsl.distributed.processes import World, agree, answered, init
from gdsl.distributed.saved import load_part, save_parts
from gdsl.runtime.halo import Halo
from gdsl.runtime.local import LocalGraph

__all__ = [
    "Division",
    "GraphPart",
    "Halo",
    "LocalGraph",
    "World",
    "agree",
    "answered",
    "divide",
    "init",
    "load_part",
    "partition",
    "save_parts",
]
