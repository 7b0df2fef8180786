"""A module that is tried to learn what it gives is as it was afterwards, and is called once a call."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tests.modules.gin import EDGES, compare, features, layer, plain


class Counting(nn.Module):
    """Everything that a call may leave behind."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 2)
        self.calls = 0
        self.seen: list[Any] = []
        self.sizes: dict[str, Any] = {"rows": []}
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("grown", None)
        self.plain = torch.zeros(3)
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            self.calls += 1
        self.seen.append(len(x))
        self.sizes["rows"].append(len(x))
        self.total += 1
        self.grown = self.total.clone()
        self.plain.add_(1)
        y: Tensor = self.lin(x)
        return y


def test_a_trial_leaves_no_trace() -> None:
    module = Counting().double()
    conv = layer(module)
    for calls in (1, 2, 3):
        conv(features(), EDGES)
        assert (module.calls, module.seen, module.sizes["rows"]) == (calls, [6] * calls, [6] * calls)
        assert module.total.item() == module.grown.item() == calls
        assert module.plain.tolist() == [calls] * 3


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_counts_a_call_once(momentum: float | None) -> None:
    module = nn.Sequential(nn.BatchNorm1d(3, momentum=momentum), nn.Linear(3, 2)).double()
    conv = layer(module)
    for calls in (1, 2, 3):
        compare(conv, features(seed=calls))
        assert int(module[0].num_batches_tracked) == calls


@pytest.mark.parametrize("wrap", ["forward", "hook"])
def test_a_forward_that_calls_the_module_is_not_counted_twice(wrap: str) -> None:
    module = nn.BatchNorm1d(3).double()
    inner = module.forward
    if wrap == "forward":
        module.forward = lambda x: 2 * inner(x)  # type: ignore[method-assign]
    else:
        module.register_forward_hook(lambda m, args, y: 2 * y)
    conv, x = layer(module), features()
    found = conv(x, EDGES)
    assert int(module.num_batches_tracked) == 1
    torch.testing.assert_close(found, plain(module, x))


def test_hooks_are_not_told_of_a_trial() -> None:
    seen: list[int] = []
    module = nn.Sequential(nn.Linear(3, 3), nn.PReLU()).double()
    module[0].register_forward_hook(lambda m, args, y: seen.append(len(y)))
    handle = nn.modules.module.register_module_forward_hook(lambda m, args, y: seen.append(len(y)))
    try:
        layer(module)(features(), EDGES)
    finally:
        handle.remove()
    assert seen == [6] * 5, "the layer, the list, its two parts, and one of these again"


def test_what_deepcopy_refuses() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.PReLU()).double()
    prune.random_unstructured(module[0], "weight", amount=0.5)
    module[1].kept = [torch.ones(3, requires_grad=True) * 2]  # no leaf
    conv, x = layer(module), features()
    for _ in range(2):
        torch.testing.assert_close(conv(x, EDGES), plain(module, x))


def test_sizes_that_a_module_takes_from_its_first_input() -> None:
    conv, x = layer(nn.Sequential(nn.LazyLinear(4, dtype=torch.float64), nn.PReLU(dtype=torch.float64))), features()
    assert conv(x, EDGES).shape == (6, 4)
    torch.testing.assert_close(conv(x, EDGES), plain(conv.nn, x))


def test_recurrent_modules() -> None:
    """Their weights are also in a list, which a copy must have for itself."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.lstm(x.unsqueeze(1))[0][:, 0]
            return y

    compare(layer(Last().double()))
