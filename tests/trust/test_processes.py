"""Layers in several processes and threads: DDP, the workers of a DataLoader, fork and spawn, threads at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor
from torch.utils.data import DataLoader

from tests.trust import processes
from tests.trust.processes import SAMPLES, Graphs, Net, loss, sample


def test_ddp_gives_the_gradients_of_one_process(tmp_path: Path) -> None:
    mp.spawn(processes.train_apart, args=(2, str(tmp_path)), nprocs=2)  # type: ignore[attr-defined]
    net = Net()
    (sum(loss(net, k) for k in range(SAMPLES)) / SAMPLES).backward()  # type: ignore[union-attr]
    found = torch.load(tmp_path / "grads.pt")
    for grad, p in zip(found, net.parameters(), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(grad, p.grad)


@pytest.mark.parametrize(("start", "used"), [("fork", False), ("fork", True), ("spawn", False)])
def test_workers_of_a_loader(start: str, used: bool) -> None:
    """Also where the layer has run, with threads, before the process was forked."""
    net = Net().eval()
    if used:
        loss(net, 0).backward()
    loader = DataLoader(Graphs(net), batch_size=2, num_workers=2, multiprocessing_context=start)
    found = torch.cat(list(loader))
    with torch.no_grad():
        torch.testing.assert_close(found, torch.stack([net(*sample(k)).sum(0) for k in range(SAMPLES)]))


def test_threads_call_one_module_at_once() -> None:
    """In training, on graphs of several sizes, each thread with gradients of its own inputs."""
    net = Net()
    wanted = [_gradient(net, k) for k in range(SAMPLES)]
    fresh = Net()
    found: dict[tuple[int, int], Tensor] = {}
    errors: list[Exception] = []
    start = threading.Barrier(4)

    def work(thread: int) -> None:
        try:
            start.wait()
            for k in range(SAMPLES):
                found[thread, k] = _gradient(fresh, k)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    for (_, k), value in found.items():
        assert torch.equal(value, wanted[k])


def _gradient(net: Net, k: int) -> Tensor:
    x, edges = sample(k)
    x.requires_grad_()
    return torch.autograd.grad(net(x, edges).square().sum(), x)[0]
