"""The same model with the layers of gdsl and of torch_geometric, trained in turns: accuracy and speed in one table."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import gdsl.nn


def libraries() -> dict[str, Any]:
    """gdsl's layers, and torch_geometric's where it is installed."""
    found: dict[str, Any] = {"gdsl": gdsl.nn}
    try:
        found["torch_geometric"] = importlib.import_module("torch_geometric.nn")
    except ImportError:
        print("torch_geometric is not installed: there is nothing to compare with.", file=sys.stderr)
    return found


@dataclass
class Entry:
    """A model and what trains it.

    batches:  an epoch, each time it is walked
    loss:     of the model and a batch
    accuracy: of the model, in percent
    """

    name: str
    library: str
    model: nn.Module
    batches: Iterable[Any]
    loss: Callable[[nn.Module, Any], Tensor]
    accuracy: Callable[[nn.Module], float]
    seconds: list[float] = field(default_factory=list)


def entries(name: str, make: Callable[[Any], nn.Module], given: Callable[[str], dict[str, Any]]) -> list[Entry]:
    """A model for each library, of the same weights; ``given`` the other parts of an entry by the library."""
    found = []
    for library, layers in libraries().items():
        torch.manual_seed(0)
        model = make(layers)
        if found:
            model.load_state_dict(found[0].model.state_dict())
        found.append(Entry(name, library, model, **given(library)))
    return found


def train(found: list[Entry], epochs: int, lr: float) -> list[str]:
    """The lines of a table. Each epoch trains all models, one after the other; the first one, which compiles, and the
    tests are not in the times."""
    optimizers = [torch.optim.Adam(entry.model.parameters(), lr=lr) for entry in found]
    for epoch in range(epochs):
        for entry, optimizer in zip(found, optimizers, strict=True):
            entry.model.train()
            start = time.perf_counter()
            shown = f"{entry.name}, {entry.library}, epoch {epoch + 1}/{epochs}"
            bar = tqdm(entry.batches, desc=shown, leave=False, disable=None)
            for batch in bar:
                optimizer.zero_grad()
                loss = entry.loss(entry.model, batch)
                loss.backward()
                optimizer.step()
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            entry.seconds.append(time.perf_counter() - start)
    lines = []
    for entry in found:
        entry.model.eval()
        with torch.no_grad():
            accuracy = entry.accuracy(entry.model)
        speed = 1 / statistics.median(entry.seconds[1:] or entry.seconds)
        lines.append(f"{entry.name:12}  {entry.library:15}  {accuracy:8.1f}  {speed:10.2f}")
    return lines


HEADER = f"{'model':12}  {'layers':15}  {'accuracy':>8}  {'epochs / s':>10}"


def percent(right: Tensor) -> float:
    """Of booleans."""
    return 100.0 * right.float().mean().item()
