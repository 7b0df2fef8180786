"""Layers that several threads call at once: parameters of a call are that call's alone."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn as G

N, THREADS, CALLS = 30, 8, 12
TYPES = ["a", "b"]
RELATIONS = [("a", "r", "a"), ("b", "s", "a"), ("b", "t", "b"), ("a", "u", "b")]


@pytest.fixture(autouse=True)
def _busy() -> Iterator[None]:
    """Threads change places as often as they can."""
    before, threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-5)
    torch.set_num_threads(1)
    yield
    sys.setswitchinterval(before)
    torch.set_num_threads(threads)


def _typed(name: str) -> tuple[nn.Module, list[Callable[[nn.Module], Tensor]]]:
    conv = getattr(G, name)(8, 16, (TYPES, RELATIONS), heads=2)
    calls = []
    for k in range(2):
        x = {kind: torch.randn(N + k, 8) for kind in TYPES}
        edges = {r: torch.randint(N, (2, 60)) for r in RELATIONS}
        calls.append(lambda c, x=x, edges=edges: torch.cat(list(c(x, edges).values())))
    return conv, calls


def _heat() -> tuple[nn.Module, list[Callable[[nn.Module], Tensor]]]:
    args = (
        torch.randn(N, 8),
        torch.randint(N, (2, 60)),
        torch.randint(3, (N,)),
        torch.randint(4, (60,)),
        torch.randn(60, 5),
    )
    return G.HEATConv(8, 4, 3, 4, 5, 5, 6, heads=2), [lambda c: c(*args)]


def _dna() -> tuple[nn.Module, list[Callable[[nn.Module], Tensor]]]:
    edges = torch.randint(N, (2, 60))
    inputs = [torch.randn(N, layers, 8) for layers in (2, 3)]
    return G.DNAConv(8, heads=2), [lambda c, x=x: c(x, edges) for x in inputs]


MAKE = {"HAN": lambda: _typed("HANConv"), "HGT": lambda: _typed("HGTConv"), "HEAT": _heat, "DNA": _dna}


def _together(serve: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def run(k: int) -> None:
        try:
            serve(k)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=run, args=(k,)) for k in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.slow)])
def test_nested_layers(kind: str, backend: str) -> None:
    conv, calls = MAKE[kind]()
    conv.backend = backend
    right = [call(conv.eval()).detach() for call in calls]

    def serve(k: int) -> None:
        for n in range(CALLS):
            which = (k + n) % len(calls)
            found = calls[which](conv)
            torch.testing.assert_close(found, right[which])
            found.sum().backward()

    _together(serve)


def test_copies_in_other_modes_on_other_backends() -> None:
    """A shallow copy has the programs of its original, and flags and parameters of its own."""
    first = G.GATConv(4, 4, heads=2, dropout=1.0)
    x, edges = torch.randn(N, 4), torch.randint(N, (2, 60))
    copies = []
    for k in range(4):
        twin = copy.copy(first)
        twin._parameters, twin._modules = dict(first._parameters), dict(first._modules)
        twin.bias = nn.Parameter(torch.full((8,), float(k)))
        twin.training, twin.backend = bool(k % 2), ("torch", "torch", "cpp", "cpp")[k]
        copies.append(twin)
    assert copies[0]._texts is first._texts
    right = [twin(x, edges).detach() for twin in copies]
    assert all(bool((y == k).all()) == bool(k % 2) for k, y in enumerate(right)), "with all attention dropped, the bias"

    def serve(k: int) -> None:
        for _ in range(CALLS):
            torch.testing.assert_close(copies[k % 4](x, edges), right[k % 4])

    _together(serve)


def test_hooks_of_one_thread_do_not_reach_another() -> None:
    """Parts that run get what belongs to their call."""
    conv: Any = G.GINConv(nn.Sequential(nn.Linear(3, 3), nn.PReLU(), nn.Linear(3, 2)))
    inputs = [torch.randn(N, 3) for _ in range(THREADS)]
    edges = torch.randint(N, (2, 60))
    right = [conv(x, edges).detach() for x in inputs]
    _together(lambda k: [torch.testing.assert_close(conv(inputs[k], edges), right[k]) for _ in range(CALLS)] and None)
