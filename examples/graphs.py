"""Whole graphs classified with GIN, GraphSAGE and GCN, by 10-fold cross-validation.

    python examples/graphs.py                                    three layers, four data sets
    python examples/graphs.py --layers gin --dataset MUTAG --folds 3
    python examples/graphs.py --short                            three folds and three epochs: does it run at all?

As in torch_geometric's benchmark of these: in each fold a tenth of the graphs is the test set and another one, the
validation set; the accuracy is that of the epoch of lowest validation loss; Adam at 0.01, halved every 50 epochs, 100
epochs, batches of 128. The networks have three layers of 32 features and are not tuned.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch
from data import data_root, generated_graphs
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from gdsl import nn as layers
from gdsl.data import Batch, Loader, Packed, load_tu
from gdsl.nn.pool import global_add_pool, global_mean_pool

DATASETS = ("MUTAG", "PROTEINS", "ENZYMES", "IMDB-BINARY")


def _gin(size: int, hidden: int) -> nn.Module:
    first, second = nn.Linear(size, hidden), nn.Linear(hidden, hidden)
    return layers.GINConv(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.BatchNorm1d(hidden)))


LAYERS = {"gin": _gin, "sage": layers.SAGEConv, "gcn": layers.GCNConv}


class Network(nn.Module):
    """Three layers, a readout of each graph, and two linear maps."""

    def __init__(self, kind: str, features: int, classes: int, hidden: int = 32) -> None:
        super().__init__()
        sizes = [features, hidden, hidden]
        self.convs = nn.ModuleList([LAYERS[kind](size, hidden) for size in sizes])
        self.lin1, self.lin2 = nn.Linear(hidden, hidden), nn.Linear(hidden, classes)
        # A sum tells graphs of different sizes apart, which the sums of GIN are made for.
        self.readout = global_add_pool if kind == "gin" else global_mean_pool

    def forward(self, batch: Batch) -> Tensor:
        h = batch.x
        for conv in self.convs:
            h = F.relu(conv(h, batch.graph))
        h = F.relu(self.lin1(self.readout(h, batch.batch, batch.num_graphs)))
        return self.lin2(F.dropout(h, 0.5, self.training))


def folds_of(y: Tensor, folds: int, seed: int = 12345) -> list[Tensor]:
    """The graphs of each fold: of every class about the same number."""
    generator = torch.Generator().manual_seed(seed)
    order = []
    for label in y.unique():
        members = (y == label).nonzero().flatten()
        order.append(members[torch.randperm(len(members), generator=generator)])
    dealt = torch.cat(order)
    return [dealt[k::folds] for k in range(folds)]


def train(kind: str, name: str, data: Packed, folds: list[Tensor], fold: int, epochs: int) -> float:
    """The test accuracy in percent of one fold, with a progress bar."""
    torch.manual_seed(fold)
    test, val = folds[fold], folds[fold - 1]
    rest = torch.arange(len(data))
    rest = rest[~torch.isin(rest, torch.cat([test, val]))]
    loader = Loader(data[rest], 128, shuffle=True, seed=fold)
    val_batch, test_batch = data.batch(val), data.batch(test)
    network = Network(kind, val_batch.x.shape[1], int(data.batch(range(len(data))).y.max()) + 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=50, gamma=0.5)
    best, accuracy = float("inf"), 0.0
    bar = tqdm(range(epochs), desc=f"{kind.upper()} on {name}, fold {fold}", leave=False, disable=None)
    for _ in bar:
        network.train()
        for batch in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(batch), batch.y).backward()
            optimizer.step()
        schedule.step()
        network.eval()
        with torch.no_grad():
            loss = F.cross_entropy(network(val_batch), val_batch.y).item()
            if loss < best:
                right = network(test_batch).argmax(dim=1) == test_batch.y
                best, accuracy = loss, 100.0 * right.float().mean().item()
        bar.set_postfix(val_loss=f"{loss:.3f}", test=f"{accuracy:.1f}%", refresh=False)
    bar.close()
    return accuracy


def evaluate(kind: str, name: str, data: Packed, folds: int, epochs: int) -> list[float]:
    """The test accuracy of each fold."""
    parts = folds_of(data.batch(range(len(data))).y, folds)
    return [train(kind, name, data, parts, fold, epochs) for fold in range(folds)]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", default=",".join(LAYERS), help=f"some of {','.join(LAYERS)}")
    parser.add_argument("--dataset", choices=[*DATASETS, "all"], default="all")
    parser.add_argument("--folds", type=int, default=10, help="three or more: one is for tests, one for validation")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--short", action="store_true", help="three folds and three epochs")
    args = parser.parse_args(argv)
    kinds = args.layers.split(",")
    unknown = sorted(set(kinds) - set(LAYERS))
    if unknown:
        parser.error(f"there is no layer {unknown[0]}; there are {', '.join(LAYERS)}")
    if args.folds < 3:
        parser.error("there must be three folds or more")
    folds, epochs = (3, 3) if args.short else (args.folds, args.epochs)

    print("layer   data             test         folds")
    for name in DATASETS if args.dataset == "all" else (args.dataset,):
        data, shown = load_tu(name, data_root()), name
        if data is None:
            print(
                f"No raw {name} files found (set GDSL_DATA to the folder that holds TUDataset/). "
                "Training on generated graphs instead."
            )
            data, shown = generated_graphs(), "generated rings"
        for kind in kinds:
            found = evaluate(kind, shown, data, folds, epochs)
            mean, std = statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else 0.0
            print(f"{kind.upper():6}  {shown:15}  {mean:5.1f} ± {std:4.1f}  {folds:5}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
