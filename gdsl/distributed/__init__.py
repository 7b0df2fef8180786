"""Graphs over several processes of ``torch.distributed``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gdsl.distributed.gradients import average_gradients
from gdsl.distributed.part import GraphPart
from gdsl.distributed.partition import Division, divide, partition
from gdsl.distributed.processes import World, agree, init
from gdsl.distributed.saved import load_part, save_parts
from gdsl.distributed.traffic import Traffic
from gdsl.runtime.answers import answered
from gdsl.runtime.halo import Halo
from gdsl.runtime.local import LocalGraph
from gdsl.runtime.together import together, total

if TYPE_CHECKING:
    from gdsl.distributed.checkpoint import Checkpoint, Training, load_checkpoint, save_checkpoint

# Imported on first use: torch.distributed.checkpoint takes half a second.
_CHECKPOINTS = ("Checkpoint", "Training", "load_checkpoint", "save_checkpoint")

__all__ = [
    "Checkpoint",
    "Division",
    "GraphPart",
    "Halo",
    "LocalGraph",
    "Traffic",
    "Training",
    "World",
    "agree",
    "answered",
    "average_gradients",
    "divide",
    "init",
    "load_checkpoint",
    "load_part",
    "partition",
    "save_checkpoint",
    "save_parts",
    "together",
    "total",
]


def __getattr__(name: str) -> Any:
    if name not in _CHECKPOINTS:
        raise AttributeError(f"module 'gdsl.distributed' has no attribute {name!r}")
    return getattr(import_module("gdsl.distributed.checkpoint"), name)
