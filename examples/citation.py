"""Eight layers of gdsl.nn on the citation graphs, with the settings of torch_geometric's own benchmark of them.

    python examples/citation.py                              all of them on Cora and CiteSeer, 20 seeds each
    python examples/citation.py --layers gcn,appnp --dataset cora --seeds 5
    python examples/citation.py --short                      one seed and a few epochs: does it run at all?

The settings are those of the `benchmark/citation` programs of torch_geometric, which made table 1 of Fey and Lenssen,
"Fast Graph Representation Learning with PyTorch Geometric", 2019: two layers (SGC: one), row-normalised features (SGC:
as they are), the public split, Adam, the test accuracy at the epoch of lowest validation loss, and training stops in
the second half of the epochs when the validation loss rises above its recent mean. AGNN and SAGE are not in that table:
AGNN has its paper's number, SAGE none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from data import WordDropout, data_root, generated, row_normalised
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import gdsl
from gdsl import nn as layers
from gdsl.data import NodeData, load_planetoid


class TwoLayers(nn.Module):
    """layer, activation, dropout, layer."""

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        dropout: float = 0.5,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ) -> None:
        super().__init__()
        self.conv1, self.conv2 = first, second
        self.dropout, self.activation = dropout, activation

    def forward(self, x: Tensor, graph: gdsl.Graph) -> Tensor:
        h = self.activation(self.conv1(x, graph))
        return self.conv2(F.dropout(h, self.dropout, self.training), graph)


class Smoothed(nn.Module):
    """A perceptron whose results, or hidden features, are smoothed over the graph."""

    def __init__(self, features: int, hidden: int, classes: int, convs: list[nn.Module], after: bool) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(features, hidden), nn.Linear(hidden, classes)
        self.convs, self.after = nn.ModuleList(convs), after

    def forward(self, x: Tensor, graph: gdsl.Graph) -> Tensor:
        h = F.relu(self.lin1(x))
        if not self.after:
            for conv in self.convs:
                h = conv(h, graph)
        h = self.lin2(F.dropout(h, 0.5, self.training))
        for conv in self.convs if self.after else ():
            h = conv(h, graph)
        return h


@dataclass(frozen=True)
class Recipe:
    """How a layer is trained.

    network:       from the numbers of features and classes, and options by data set
    paper:         test accuracy in percent, by data set
    normalised:    whether each node's features are divided by their sum
    drop_features: the share of the nodes' features that is dropped in training
    """

    network: Callable[..., nn.Module]
    paper: Mapping[str, str]
    epochs: int = 200
    patience: int = 10
    lr: float = 0.01
    weight_decay: float = 5e-4
    normalised: bool = True
    drop_features: float = 0.0
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _gcn(features: int, classes: int) -> nn.Module:
    return TwoLayers(layers.GCNConv(features, 16), layers.GCNConv(16, classes))


def _sage(features: int, classes: int) -> nn.Module:
    return TwoLayers(layers.SAGEConv(features, 16), layers.SAGEConv(16, classes))


def _gat(features: int, classes: int) -> nn.Module:
    first = layers.GATConv(features, 8, heads=8, dropout=0.6)
    return TwoLayers(first, layers.GATConv(64, classes, dropout=0.6), 0.6, F.elu)


def _cheb(features: int, classes: int, K: int = 3) -> nn.Module:
    return TwoLayers(layers.ChebConv(features, 16, K), layers.ChebConv(16, classes, K))


def _sgc(features: int, classes: int, K: int = 2) -> nn.Module:
    return layers.SGConv(features, classes, K=K, cached=True)


def _arma(features: int, classes: int, stacks: int = 2) -> nn.Module:
    first, second = (
        layers.ARMAConv(i, o, stacks, 1, shared_weights=True, dropout=0.75) for i, o in ((features, 16), (16, classes))
    )
    return TwoLayers(first, second)


def _appnp(features: int, classes: int) -> nn.Module:
    return Smoothed(features, 64, classes, [layers.APPNP(K=10, alpha=0.1)], after=True)


def _agnn(features: int, classes: int) -> nn.Module:
    convs = [layers.AGNNConv(requires_grad=False), layers.AGNNConv(requires_grad=True)]
    return Smoothed(features, 16, classes, convs, after=False)


RECIPES = {
    "gcn": Recipe(_gcn, {"Cora": "81.5 ± 0.6", "CiteSeer": "71.1 ± 0.7"}),
    "sgc": Recipe(
        _sgc, {"Cora": "81.7 ± 0.1", "CiteSeer": "71.3 ± 0.2"}, lr=0.1, normalised=False,
        options={"Cora": {"K": 3}, "CiteSeer": {"K": 2, "weight_decay": 5e-3}},
    ),
    "cheb": Recipe(_cheb, {"Cora": "81.4 ± 0.7", "CiteSeer": "70.2 ± 1.0"}, options={"CiteSeer": {"K": 2}}),
    "arma": Recipe(
        _arma, {"Cora": "82.8 ± 0.6", "CiteSeer": "72.3 ± 1.1"}, epochs=1_000, patience=100,
        options={"CiteSeer": {"stacks": 3}},
    ),
    "gat": Recipe(
        _gat, {"Cora": "83.1 ± 0.4", "CiteSeer": "70.8 ± 0.5"}, epochs=1_000, patience=100, lr=0.005,
        drop_features=0.6,
    ),
    "appnp": Recipe(_appnp, {"Cora": "83.3 ± 0.5", "CiteSeer": "71.8 ± 0.5"}, drop_features=0.5),
    "agnn": Recipe(_agnn, {"Cora": "83.1 ± 0.1", "CiteSeer": "71.7 ± 0.1"}, drop_features=0.5),
    "sage": Recipe(_sage, {}, drop_features=0.5),
}  # fmt: skip


def train(name: str, data: NodeData, x: Tensor, graph: gdsl.Graph, seed: int, epochs: int | None) -> float:
    """The test accuracy in percent of one network from one seed, with a progress bar."""
    recipe = RECIPES[name]
    options = dict(recipe.options.get(data.name, {}))
    weight_decay = options.pop("weight_decay", recipe.weight_decay)
    limit = epochs or recipe.epochs
    torch.manual_seed(seed)
    features = WordDropout(x, recipe.drop_features)
    network = recipe.network(x.shape[1], data.num_classes, **options)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr, weight_decay=weight_decay)
    best, accuracy, history = float("inf"), 0.0, list[float]()
    bar = tqdm(range(limit), desc=f"{name.upper()} on {data.name}, seed {seed}", leave=False, disable=None)
    for epoch in bar:
        features.train()
        network.train()
        optimizer.zero_grad()
        F.cross_entropy(network(features(), graph)[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()

        network.eval()
        with torch.no_grad():
            out = network(x, graph)
        loss = F.cross_entropy(out[data.val_mask], data.y[data.val_mask]).item()
        if loss < best:
            right = out[data.test_mask].argmax(dim=1) == data.y[data.test_mask]
            best, accuracy = loss, 100.0 * right.float().mean().item()
        recent = history[-recipe.patience :]
        if epoch + 1 > limit // 2 and len(recent) == recipe.patience and loss > statistics.fmean(recent):
            break
        history.append(loss)
        bar.set_postfix(val_loss=f"{loss:.3f}", test=f"{accuracy:.1f}%", refresh=False)
    bar.close()
    return accuracy


def evaluate(name: str, data: NodeData, seeds: int, epochs: int | None = None) -> list[float]:
    """The test accuracies of seeds 0, 1, ... ``seeds - 1``."""
    x = row_normalised(data.x) if RECIPES[name].normalised else data.x
    graph = gdsl.Graph(data.edge_index, num_nodes=data.num_nodes)
    return [train(name, data, x, graph, seed, epochs) for seed in range(seeds)]


def row(name: str, data: NodeData, accuracies: list[float]) -> str:
    """A line of the table."""
    mean = statistics.fmean(accuracies)
    std = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    paper = RECIPES[name].paper.get(data.name, "-")
    return f"{name.upper():6}  {data.name:9}  {mean:5.1f} ± {std:3.1f}  {paper:12}  {len(accuracies):5}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", default=",".join(RECIPES), help=f"some of {','.join(RECIPES)}")
    parser.add_argument("--dataset", choices=["cora", "citeseer", "both"], default="both")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, help="at most this many epochs (default: the benchmark's)")
    parser.add_argument("--short", action="store_true", help="one seed and 10 epochs")
    args = parser.parse_args(argv)
    names = args.layers.split(",")
    unknown = sorted(set(names) - set(RECIPES))
    if unknown:
        parser.error(f"there is no layer {unknown[0]}; there are {', '.join(RECIPES)}")
    seeds, epochs = (1, 10) if args.short else (args.seeds, args.epochs)

    print("layer   graph      test         paper         seeds")
    for dataset in ("cora", "citeseer") if args.dataset == "both" else (args.dataset,):
        data = load_planetoid(dataset, data_root())
        if data is None:
            print(
                f"No raw {dataset} files found (set GDSL_DATA to the folder that holds Planetoid/). "
                "Training on a generated graph instead: its accuracies say nothing about the paper's numbers."
            )
            data = generated()
        for name in names:
            print(row(name, data, evaluate(name, data, seeds, epochs)))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
