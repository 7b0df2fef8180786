"""Attention between all nodes of each graph: gdsl's kernel beside torch's attention on graphs padded to the largest.

    python benchmarks/all_pairs.py

The multi-head attention of GPS, with its linear maps: 64 channels, 4 heads. Both have the same parameters and run in
one process, in turns, on one thread; times are processor time, the least of the rounds. Results and gradients are
compared first. Memory is what a step adds to the process at its peak.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

import machine
import torch
from torch import Tensor, nn

from gdsl.look.measure import give_back, peak
from gdsl.nn.aggr.base import dense_with_mask
from gdsl.nn.conv.all_pairs import all_pairs

CHANNELS, HEADS, TOLERANCE = 64, 4, 1e-4
_chance = random.Random(0)
# How many nodes each graph has.
BATCHES: dict[str, Sequence[int]] = {
    "128 of 18 to 32 nodes": [_chance.randint(18, 32) for _ in range(128)],
    "128 of 5 to 60": [_chance.randint(5, 60) for _ in range(128)],
    "127 of 20, one of 200": [*[20] * 127, 200],
    "127 of 25, one of 2,000": [*[25] * 127, 2000],
    "64 of 64": [64] * 64,
    "one of 2,000": [2000],
}
Step = Callable[[], list[Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batches", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--tiny", action="store_true", help="for tests: no ceilings of the machine")
    args = parser.parse_args()
    torch.set_num_threads(1)
    give_back()
    print("\n".join(machine.lines(machine.describe(1, tiny=args.tiny))))
    print("\n| graphs | padding, times pairs | kernel, ms | padded, ms | times | kernel, MB | padded, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in args.batches:
        print(row(name, args.rounds), flush=True)


def row(name: str, rounds: int) -> str:
    sizes = BATCHES[name]
    torch.manual_seed(0)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    x = torch.randn(len(batch), CHANNELS, requires_grad=True)
    attention = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True)
    leaves = [x, *attention.parameters()]
    ways = [_step(partial(way, attention, x, batch), leaves) for way in (all_pairs, padded)]
    for one, other in zip(*(way() for way in ways), strict=True):
        assert (one - other).abs().max() <= TOLERANCE * (1 + other.abs().max()), name
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for way, taken in zip(ways, times, strict=True):
            start = time.process_time()
            way()
            taken.append(1000 * (time.process_time() - start))
    own, other = map(min, times)
    mb = [f"{peak(way, leaves)['mb']:,.0f}" for way in ways]
    share = len(sizes) * max(sizes) ** 2 / sum(n * n for n in sizes)
    return f"| {name} | {share:.1f} | {own:.1f} | {other:.1f} | {other / own:.1f} | {' | '.join(mb)} |"


def _step(call: Callable[[], Tensor], leaves: Sequence[Tensor]) -> Step:
    def step() -> list[Tensor]:
        y = call()
        return [y, *torch.autograd.grad(y.square().sum(), leaves)]

    return step


def padded(attention: nn.MultiheadAttention, x: Tensor, batch: Tensor) -> Tensor:
    blocks, known = dense_with_mask(x, batch, int(batch[-1]) + 1)
    heard, _ = attention(blocks, blocks, blocks, key_padding_mask=~known, need_weights=False)
    found: Tensor = heard[known]
    return found


if __name__ == "__main__":
    main()
