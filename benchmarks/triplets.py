"""Interactions of edges by the angles between them, beside torch_geometric's blocks: time and memory of a step.

    python benchmarks/triplets.py                         DimeNet's and DimeNet++'s, of 50 molecules
    python benchmarks/triplets.py --molecules 1000 --peers none      what only fits without a list of triplets

A molecule is 20 atoms in a ball, at least 1 Å apart; two within 5 Å have an edge each way. gdsl runs the texts of
examples/published.gdsl, from positions: each call computes lengths, angles and waves. torch_geometric's blocks are
given these as tensors, which are made before; its list of triplets, too. Outputs and gradients are compared first, for
the same weights. Both run in one process, in turns; memory is that of a process each, what it holds before a step not
counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import machine
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

import gdsl
from gdsl.look.measure import status
from gdsl.nn.models.waves import bessel_roots, spherical_bessel

ATOMS, RADIUS, LEAST, CUTOFF = 20, 3.2, 1.0, 5.0
WIDTH, SPHERICAL, RADIAL = 128, 7, 6
TEXT = Path(__file__).resolve().parents[1] / "examples" / "published.gdsl"
SIZES = {"DimeNet": {"bilinear": 8}, "DimeNetPlusPlus": {"small": 64, "basis": 8}}
# The names of parameters here and in torch_geometric, where they differ by more than a common beginning.
_RESIDUAL = {
    f"residual.{2 * k + half}": f"{where}.lin{half + 1}"
    for k, where in enumerate(("layers_before_skip.0", "layers_after_skip.0", "layers_after_skip.1"))
    for half in (0, 1)
}
NAMES = {
    "DimeNet": {"by_length": "lin_rbf", "by_angle": "lin_sbf.weight", **_RESIDUAL},
    "DimeNetPlusPlus": {
        "rbf1": "lin_rbf1",
        "rbf2": "lin_rbf2",
        "sbf1": "lin_sbf1.weight",
        "sbf2": "lin_sbf2",
        "down": "lin_down",
        "up": "lin_up",
        **_RESIDUAL,
    },
}
TOLERANCE = 3e-3

Step = Callable[[], list[Tensor]]


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    if args.memory:
        _print_memory(args)
        return
    case = Case(args.molecules)
    print("\n".join(machine.lines(machine.describe(args.threads, tiny=args.tiny))))
    print(f"{args.molecules} molecules: {case.edges.shape[1]:,} edges, {case.triplets:,} triplets, {WIDTH} features\n")
    rows = []
    for name in args.layers:
        steps = {"gdsl": case.gdsl(name)}
        if args.peers == "pyg":
            steps["pyg"] = case.pyg(name)
            _compare(name, steps)
        times = _times(steps, args.rounds)
        for k, who in enumerate(steps):
            mb = _memory(name, who, args)
            row = [statistics.median(t[k]) for t in times.values()]
            ratio = statistics.median(t[k] / t[0] for t in zip(*times["both"], strict=True)) if k else 1.0
            rows.append(f"| {name} | {who} | {row[0]:.0f} | {row[1]:.0f} | {ratio:.1f} | {mb:,.0f} |")
    print("| block | by | forward, ms | forward + backward, ms | times gdsl's | MB |\n|---|---|---:|---:|---:|---:|")
    print("\n".join(rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--molecules", type=int, default=50)
    parser.add_argument("--layers", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--peers", choices=("pyg", "none"), default="pyg")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument("--tiny", action="store_true", help="for tests: no ceilings of the machine")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    return parser.parse_args()


# ---------------------------------------------------------------------------------------------- molecules


def _positions(count: int) -> Tensor:
    """[count, ATOMS, 3]"""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        p = torch.empty(0, 3)
        while len(p) < ATOMS:
            q = RADIUS * (2 * torch.rand(1, 3, generator=generator) - 1)
            if q.norm() <= RADIUS and not (torch.cdist(p, q) < LEAST).any():
                p = torch.cat([p, q])
        found.append(p)
    return torch.stack(found)


class Case:
    """Molecules, and a step of a block on them: an output and its gradients by edges and parameters."""

    def __init__(self, molecules: int):
        p = _positions(molecules)
        near = (torch.cdist(p, p) + 2 * CUTOFF * torch.eye(ATOMS) < CUTOFF).nonzero()
        self.edges = (near[:, 1:].T + near[:, 0] * ATOMS).contiguous()
        self.p = p.reshape(-1, 3)
        generator = torch.Generator().manual_seed(1)
        shape = (self.edges.shape[1], WIDTH)
        self.x = torch.randn(shape, generator=generator).requires_grad_()
        self.grad = torch.randn(shape, generator=generator)
        self.graph = gdsl.Graph(self.edges, len(self.p))
        self.triplets = int(self.graph.non_backtracking().graph.pairs.degree("in_degree", torch.float64).sum())

    def step(self, call: Callable[[], Tensor], parameters: Mapping[str, Tensor]) -> Step:
        leaves = [self.x, *parameters.values()]

        def step() -> list[Tensor]:
            y = call()
            return [y, *torch.autograd.grad(y, leaves, self.grad)]

        return step

    def gdsl(self, name: str) -> Step:
        made = self._layer(name)
        names = {n: p for n, p in made.named_parameters() if n != "frequency"}
        return self.step(lambda: made(p=self.p, f=self.x, graph=self.graph), names)

    def _layer(self, name: str) -> gdsl.Layer:
        roots = bessel_roots(SPHERICAL, RADIAL)
        scale = 2**0.5 / torch.stack([spherical_bessel(z, k + 2)[k + 1] for k, z in enumerate(roots)]).abs()
        sizes: dict[str, Any] = {"d": WIDTH, "spherical": SPHERICAL, "radial": RADIAL, "cutoff": CUTOFF, **SIZES[name]}
        torch.manual_seed(2)
        made = gdsl.define(TEXT.read_text(encoding="utf-8"), layer=name)(**sizes, roots=roots, scale=scale)
        with torch.no_grad():
            for p in made.parameters():
                p.copy_(p if p.dim() == 1 else torch.randn_like(p) * p[0].numel() ** -0.5)
        return made

    def pyg(self, name: str) -> Step:
        """With the weights of gdsl's layer."""
        from torch_geometric.nn.models import dimenet

        last = (SPHERICAL, RADIAL, 1, 2, silu)
        block: nn.Module
        if name == "DimeNet":
            block = dimenet.InteractionBlock(WIDTH, 8, *last)
        else:
            block = dimenet.InteractionPPBlock(WIDTH, 64, 8, *last)
        ours, theirs = dict(self._layer(name).named_parameters()), dict(block.named_parameters())
        found = {n: theirs[_renamed(n, NAMES[name])] for n in ours if n != "frequency"}
        with torch.no_grad():
            for n, p in found.items():
                p.copy_(ours[n].view_as(p))
            given = self._waves(name)
        return self.step(lambda: block(self.x, *given), found)

    def _waves(self, name: str) -> tuple[Tensor, ...]:
        from torch_geometric.nn.models.dimenet import BesselBasisLayer, SphericalBasisLayer

        (j, i), p = self.edges, self.p
        kj, ji = self.graph.non_backtracking().graph.pairs.ends
        ones = (p[j] - p[i])[ji] if name == "DimeNet" else (p[i] - p[j])[ji]
        others = p[j[kj]] - p[i[ji]] if name == "DimeNet" else (p[i] - p[j])[kj]
        angle = torch.atan2(torch.linalg.cross(ones, others).norm(dim=1), (ones * others).sum(1))
        length = (p[i] - p[j]).norm(dim=1)
        sbf = SphericalBasisLayer(SPHERICAL, RADIAL, CUTOFF)(length, angle, kj)
        return BesselBasisLayer(RADIAL, CUTOFF)(length), sbf, kj, ji


def _renamed(name: str, names: Mapping[str, str]) -> str:
    part = next((n for n in names if name == n or name.startswith(f"{n}.")), None)
    return name if part is None else names[part] + name.removeprefix(part)


# ------------------------------------------------------------------------------------------------ measured


def _compare(name: str, steps: Mapping[str, Step]) -> None:
    found, expected = (steps[who]() for who in ("gdsl", "pyg"))
    gaps = [
        float((a.detach().view_as(b) - b.detach()).square().mean().sqrt() / b.detach().square().mean().sqrt())
        for a, b in zip(found, expected, strict=True)
    ]
    print(f"{name}: gdsl differs from torch_geometric by {max(gaps):.1e} at most")
    if not max(gaps) <= TOLERANCE:
        raise SystemExit(f"gdsl's {name} is wrong: nothing is timed")


def _times(steps: Mapping[str, Step], rounds: int) -> dict[str, list[list[float]]]:
    """Milliseconds of each, by what is timed, after a step that is not counted."""
    found: dict[str, list[list[float]]] = {"forward": [[] for _ in steps], "both": [[] for _ in steps]}
    for round_ in range(rounds + 1):
        for k, step in enumerate(steps.values()):
            for what, ms in _timed(step):
                if round_:
                    found[what][k].append(ms)
    return found


def _timed(step: Step) -> Iterator[tuple[str, float]]:
    """The time to the first output, by a hook at the gradient's begin, and that of all."""
    start = time.perf_counter()
    begun: list[float] = []
    grad = torch.autograd.grad

    def noted(*args: Any, **more: Any) -> Any:
        begun.append(time.perf_counter())
        return grad(*args, **more)

    torch.autograd.grad = noted
    try:
        step()
    finally:
        torch.autograd.grad = grad
    yield "forward", 1e3 * (begun[0] - start)
    yield "both", 1e3 * (time.perf_counter() - start)


def _memory(name: str, who: str, args: argparse.Namespace) -> float:
    """MB at the peak of a step, in a process of its own."""
    command = [sys.executable, __file__, "--memory", who, "--layers", name, "--molecules", str(args.molecules)]
    done = subprocess.run(
        [*command, "--threads", str(args.threads)], capture_output=True, text=True, env=os.environ, check=False
    )
    return float(done.stdout) if done.returncode == 0 else float("nan")


def _print_memory(args: argparse.Namespace) -> None:
    case = Case(args.molecules)
    step = getattr(case, args.memory)(args.layers[0])
    step()  # compiled
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    before = status("VmRSS")
    step()
    print((status("VmHWM") - before) / 2**20)


if __name__ == "__main__":
    main()
