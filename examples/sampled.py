"""GraphSAGE and GAT on the GitHub graph, trained on sampled neighbourhoods and tested layer by layer.

    python examples/sampled.py                        both models, with gdsl's layers and torch_geometric's in turns
    python examples/sampled.py --models sage --epochs 3
    python examples/sampled.py --short                a small generated graph: does it run at all?

Developers follow each other, and are told apart as web or machine-learning developers (Rozemberczki et al. 2019); three
fifths train, a fifth tests. The file has no features that are the same for all developers: each has a random sketch of
whom they follow. Batches of 512 seeds with 15 and then 10 sampled neighbours. Both libraries' layers are fed by
gdsl.data's loader, so the table compares layers; benchmarks/epochs.py compares loaders as well.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from data import data_root, generated, load_musae
from peers import HEADER, entries, percent, train
from torch import Tensor, nn
from torch.nn import functional as F

from gdsl.data import LayerwiseInference, NeighborLoader, NodeData

FAN_OUTS = [15, 10]


def _sage(library: Any, sizes: list[int]) -> list[nn.Module]:
    return [library.SAGEConv(a, b) for a, b in pairwise(sizes)]


def _gat(library: Any, sizes: list[int]) -> list[nn.Module]:
    first, hidden, last = sizes
    return [library.GATConv(first, hidden // 4, heads=4), library.GATConv(hidden, last)]


MODELS = {"sage": _sage, "gat": _gat}
NAMES = {"sage": "GraphSAGE", "gat": "GAT"}


class Network(nn.Module):
    """Two layers; ``layer`` is one of them with what comes after it."""

    def __init__(self, kind: str, library: Any, features: int, classes: int, hidden: int = 128) -> None:
        super().__init__()
        self.convs = nn.ModuleList(MODELS[kind](library, [features, hidden, classes]))

    def layer(self, number: int, x: Tensor, edges: Any) -> Tensor:
        h = self.convs[number](x, edges)
        return F.dropout(F.relu(h), 0.3, self.training) if number == 0 else h

    def forward(self, x: Tensor, edges: Any) -> Tensor:
        return self.layer(1, self.layer(0, x, edges), edges)


def with_sketches(data: NodeData, size: int = 64) -> NodeData:
    """The mean of random numbers of the nodes that each is joined to, and a random split."""
    generator = torch.Generator().manual_seed(0)
    source, target = data.edge_index
    degree = torch.bincount(target, minlength=data.num_nodes).unsqueeze(1)
    x = torch.randn(data.num_nodes, size, generator=generator)
    x = torch.zeros_like(x).index_add(0, target, x[source]) / degree.clamp(min=1).sqrt()
    part = torch.rand(data.num_nodes, generator=generator)
    masks = {"train_mask": part < 0.6, "val_mask": (part >= 0.6) & (part < 0.8), "test_mask": part >= 0.8}
    return replace(data, x=torch.cat([x, degree.float().log1p()], dim=1), **masks)


def edges_for(library: str, batch: Any) -> Any:
    return batch.graph if library == "gdsl" else batch.edge_index


def compare(kind: str, data: NodeData, epochs: int, batch_size: int) -> list[str]:
    """The lines of a table."""
    assert data.x is not None and data.test_mask is not None
    features, test = data.x.shape[1], data.test_mask
    inference = LayerwiseInference(data)

    def given(library: str) -> dict[str, Any]:
        def loss(model: nn.Module, batch: Any) -> Tensor:
            out = model(batch.x, edges_for(library, batch))[: batch.batch_size]
            return F.cross_entropy(out, batch.y[: batch.batch_size])

        def accuracy(model: Any) -> float:
            out = inference([lambda x, b, k=k: model.layer(k, x, edges_for(library, b)) for k in range(2)])
            return percent((out.argmax(dim=1) == data.y)[test])

        loader = NeighborLoader(data, FAN_OUTS, data.train_mask, batch_size=batch_size, shuffle=True, seed=0)
        return {"batches": loader, "loss": loss, "accuracy": accuracy}

    def make(library: Any) -> nn.Module:
        return Network(kind, library, features, data.num_classes)

    return train(entries(NAMES[kind], make, given), epochs, lr=0.003)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS), help=f"some of {','.join(MODELS)}")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--short", action="store_true", help="a small generated graph, five epochs")
    args = parser.parse_args(argv)
    kinds = args.models.split(",")
    unknown = sorted(set(kinds) - set(MODELS))
    if unknown:
        parser.error(f"there is no model {unknown[0]}; there are {', '.join(MODELS)}")
    data = None if args.short else load_musae("git", data_root())
    if data is None and not args.short:
        print("No musae/git.npz found (set GDSL_DATA to the folder that holds musae/). Training on a generated graph.")
    data = with_sketches(generated(600, mean_degree=12.0, num_features=70) if data is None else data)
    print(data)
    print(HEADER)
    for kind in kinds:
        print("\n".join(compare(kind, data, *((5, 32) if args.short else (args.epochs, args.batch_size)))), flush=True)


if __name__ == "__main__":
    main()
