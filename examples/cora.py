"""Two papers' networks, each layer written as text and compiled by gdsl, trained on a citation graph.

    python examples/cora.py                                   GCN and GAT on Cora, 3 seeds
    python examples/cora.py --dataset citeseer --seeds 10     as many seeds as the accuracy check wants
    python examples/cora.py --short                           one seed, a few epochs: does it run at all?

Settings are the papers', and their authors' programs' where a paper leaves something open:

GCN (Kipf and Welling 2017): two layers, 16 hidden features, dropout 0.5, weight decay 5e-4 on the first
layer, Adam at 0.01, 200 epochs.

GAT (Velickovic et al. 2018): 8 heads of 8 features, then one head; ELU; dropout 0.6 on the inputs of both
layers, on the attention and, as in the authors' program, on the projected features that a message carries;
weight decay 5e-4, Adam at 0.005, until neither validation loss nor accuracy improves for 100 epochs.

Features are row-normalised and the split is the public one. The test accuracy reported is the one at the
epoch of lowest validation loss; no test label is used to choose an epoch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from data import WordDropout, data_root, generated, row_normalised
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import gdsl
from gdsl.data import NodeData, load_planetoid

GCN_LAYER = """
layer GCNConv(in_channels, out_channels) {
    graph add_self_loops

    param weight[in_channels, out_channels] ~ glorot
    param bias[out_channels]                ~ zeros

    node x[in_channels]

    h    = x @ weight                           # node[out_channels]
    norm = rsqrt(degree(i))                     # node[]

    message   m = norm[i] * norm[j] * h[j]      # edge[out_channels]
    aggregate a = sum(m)                        # node[out_channels]
    update    y = a + bias
}
"""

GAT_LAYER = """
layer GATConv(in_channels, out_channels, heads = 1, slope = 0.2, p = 0.0) {
    graph add_self_loops

    param weight[in_channels, heads, out_channels] ~ glorot
    param att_src[heads, out_channels]             ~ glorot
    param att_dst[heads, out_channels]             ~ glorot
    param bias[heads, out_channels]                ~ zeros

    node x[in_channels]

    h     = x @ weight                                             # node[heads, out_channels]
    score = leaky_relu((h @ att_src)[j] + (h @ att_dst)[i], slope) # edge[heads]
    alpha = dropout(softmax(score), p)                             # over the edges into i

    message   m = alpha * dropout(h, p)[j]                         # edge[heads, out_channels]
    aggregate a = sum(m)                                           # node[heads, out_channels]
    update    y = merge(a + bias, heads, out_channels)             # node[heads*out_channels]
}
"""


class GCN(nn.Module):
    def __init__(self, x: Tensor, num_classes: int, backend: str) -> None:
        super().__init__()
        self.features = WordDropout(x, p=0.5)
        self.conv1 = gdsl.compile(GCN_LAYER, in_channels=x.shape[1], out_channels=16, backend=backend)
        self.conv2 = gdsl.compile(GCN_LAYER, in_channels=16, out_channels=num_classes, backend=backend)

    def forward(self, graph: gdsl.Graph) -> Tensor:
        h = F.relu(self.conv1(self.features(), graph))
        return self.conv2(F.dropout(h, 0.5, self.training), graph)

    def optimizer(self) -> torch.optim.Optimizer:
        decayed = {"params": list(self.conv1.parameters()), "weight_decay": 5e-4}
        return torch.optim.Adam([decayed, {"params": list(self.conv2.parameters())}], lr=0.01)


class GAT(nn.Module):
    def __init__(self, x: Tensor, num_classes: int, backend: str) -> None:
        super().__init__()
        self.features = WordDropout(x, p=0.6)
        self.conv1 = gdsl.compile(GAT_LAYER, in_channels=x.shape[1], out_channels=8, heads=8, p=0.6, backend=backend)
        self.conv2 = gdsl.compile(GAT_LAYER, in_channels=64, out_channels=num_classes, heads=1, p=0.6, backend=backend)

    def forward(self, graph: gdsl.Graph) -> Tensor:
        h = F.elu(self.conv1(self.features(), graph))
        return self.conv2(F.dropout(h, 0.6, self.training), graph)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.005, weight_decay=5e-4)


@dataclass(frozen=True)
class Recipe:
    network: Callable[[Tensor, int, str], GCN | GAT]
    epochs: int
    patience: int | None  # stop after this many epochs without a better validation loss or accuracy
    paper: dict[str, str]  # test accuracy in the paper, per data set


RECIPES = {
    "gcn": Recipe(GCN, epochs=200, patience=None, paper={"Cora": "81.5", "CiteSeer": "70.3"}),
    "gat": Recipe(GAT, epochs=2_000, patience=100, paper={"Cora": "83.0 ± 0.7", "CiteSeer": "72.5 ± 0.7"}),
}


@dataclass
class Run:
    """One seed."""

    test_accuracy: float  # in percent, at the epoch of lowest validation loss
    epochs: int
    seconds: float  # after the first epoch, which compiles what is not in the cache


@dataclass
class Result:
    model: str
    runs: list[Run] = field(default_factory=list)

    @property
    def accuracies(self) -> list[float]:
        return [run.test_accuracy for run in self.runs]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        return statistics.stdev(self.accuracies) if len(self.runs) > 1 else 0.0

    @property
    def seconds_per_epoch(self) -> float:
        return sum(run.seconds for run in self.runs) / max(1, sum(run.epochs - 1 for run in self.runs))


def train(model: str, data: NodeData, x: Tensor, graph: gdsl.Graph, seed: int, epochs: int, backend: str) -> Run:
    """Trains one network from one seed, with a progress bar."""
    recipe = RECIPES[model]
    torch.manual_seed(seed)
    network = recipe.network(x, data.num_classes, backend)
    optimizer = network.optimizer()
    train_nodes, val_nodes, test_nodes = (
        mask.nonzero().squeeze(1) for mask in (data.train_mask, data.val_mask, data.test_mask)
    )

    best_loss, best_accuracy, test_accuracy, waited = float("inf"), 0.0, 0.0, 0
    started = time.perf_counter()
    bar = tqdm(range(epochs), desc=f"{model.upper()} seed {seed}", unit="epoch", leave=False, disable=None)
    for done, _ in enumerate(bar, start=1):
        if done == 2:
            started = time.perf_counter()
        network.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(network(graph)[train_nodes], data.y[train_nodes])
        loss.backward()
        optimizer.step()

        network.eval()
        with torch.no_grad():
            out = network(graph)
            right = out.argmax(dim=1) == data.y
            val_loss = F.cross_entropy(out[val_nodes], data.y[val_nodes]).item()
            val_accuracy = 100.0 * right[val_nodes].float().mean().item()
        bar.set_postfix(loss=f"{loss.item():.3f}", val_acc=f"{val_accuracy:.1f}%", refresh=False)

        waited = 0 if val_loss <= best_loss or val_accuracy >= best_accuracy else waited + 1
        if val_loss < best_loss:
            test_accuracy = 100.0 * right[test_nodes].float().mean().item()
        best_loss, best_accuracy = min(best_loss, val_loss), max(best_accuracy, val_accuracy)
        if recipe.patience is not None and waited >= recipe.patience:
            break
    bar.close()
    run = Run(test_accuracy, done, time.perf_counter() - started)
    tqdm.write(
        f"{model.upper()} seed {seed}: {done} epochs in {run.seconds:.1f} s, "
        f"loss {loss.item():.3f}, best validation {best_accuracy:.1f}%, test {test_accuracy:.1f}%",
        file=sys.stdout,
    )
    return run


def evaluate(model: str, data: NodeData, seeds: int, epochs: int | None = None, backend: str = "auto") -> Result:
    """Trains one model from seeds 0, 1, ... `seeds - 1`."""
    x = row_normalised(data.x)
    graph = gdsl.Graph(data.edge_index, num_nodes=data.num_nodes)
    limit = epochs or RECIPES[model].epochs
    return Result(model, [train(model, data, x, graph, seed, limit, backend) for seed in range(seeds)])


def show_compiled(model: str, data: NodeData, backend: str, lines: int = 40) -> None:
    """Prints what the compiler made of a model's first layer: a kernel, and the head of `explain()`."""
    network = RECIPES[model].network(row_normalised(data.x), data.num_classes, backend)
    network(gdsl.Graph(data.edge_index, num_nodes=data.num_nodes))  # kernels are made at the first call
    conv = network.conv1
    kernels = conv.kernels
    if kernels:
        kernel = max((k for k in kernels if k.direction == "forward"), key=lambda k: len(k.source))
        _heading(f"{model.upper()}, first layer: kernel {kernel.name} ({kernel.language}, {kernel.direction})")
        print(kernel.source.strip())
        others = ", ".join(f"{k.name} ({k.direction})" for k in kernels if k is not kernel)
        if others:
            print(f"\nIts other kernels: {others}")
    _heading(f"{model.upper()}, first layer: explain()")
    text = conv.explain().strip().splitlines()
    print("\n".join(text[:lines]))
    if len(text) > lines:
        print(f"... {len(text) - lines} more lines: print(conv.explain())")


def table(results: list[Result], data: NodeData) -> str:
    rows = [("model", "test accuracy", "paper", "seeds", "epochs", "s / epoch")]
    for result in results:
        rows.append(
            (
                result.model.upper(),
                f"{result.mean:.1f} ± {result.std:.1f} %",
                RECIPES[result.model].paper.get(data.name, "-"),
                str(len(result.runs)),
                f"{statistics.fmean(run.epochs for run in result.runs):.0f}",
                f"{result.seconds_per_epoch:.3f}",
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _heading(text: str) -> None:
    print(f"\n--- {text} ".ljust(100, "-"))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=[*RECIPES, "both"], default="both")
    parser.add_argument("--dataset", choices=["cora", "citeseer"], default="cora")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (default: 3 of them)")
    parser.add_argument("--epochs", type=int, help="at most this many epochs (default: the paper's)")
    parser.add_argument("--backend", choices=["auto", "cpp", "triton", "torch"], default="auto")
    parser.add_argument("--short", action="store_true", help="one seed and 20 epochs")
    args = parser.parse_args(argv)
    models = list(RECIPES) if args.model == "both" else [args.model]
    seeds, epochs = (1, 20) if args.short else (args.seeds, args.epochs)

    data = load_planetoid(args.dataset, data_root())
    if data is None:
        print(
            f"No raw {args.dataset} files found (set GDSL_DATA to the folder that holds Planetoid/). "
            "Training on a generated graph instead: its accuracies say nothing about the papers' numbers."
        )
        data = generated()
    print(data)

    show_compiled(models[-1], data, args.backend)
    _heading("training")
    results = [evaluate(model, data, seeds, epochs, args.backend) for model in models]
    _heading(f"{data.name}: test accuracy at the epoch of lowest validation loss, mean ± standard deviation")
    print(table(results, data))


if __name__ == "__main__":
    main()
