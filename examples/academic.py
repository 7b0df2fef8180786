"""Papers of a generated academic graph told apart by their fields, from their authors, venues and citations.

    python examples/academic.py                       with gdsl's layers and torch_geometric's in turns
    python examples/academic.py --papers 20000 --epochs 20
    python examples/academic.py --short               few papers and epochs: does it run at all?

Authors have a field, write mostly papers of it, and venues print mostly papers of one; papers cite mostly their own
field. What a paper says of its field is little: a tenth of all words, and a few more of those of its field. There are
nodes of three types and edges of six, each kind of edge both ways. Batches of 256 papers with ten and then five sampled
neighbours by each type of edge; two layers of a GraphSAGE for each type. The graph is torch_geometric's `HeteroData`,
so that this one must be installed.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from peers import HEADER, entries, percent, train
from torch import Tensor, nn
from torch.nn import functional as F

from gdsl.data import LayerwiseInference, NeighborLoader

FIELDS, WORDS = 8, 64


def academic(papers: int, seed: int = 0) -> Any:
    """The graph: papers with words, a field and masks; half as many authors and a hundredth as many venues."""
    from torch_geometric.data import HeteroData

    random = torch.Generator().manual_seed(seed)

    def draw(high: int, *size: int) -> Tensor:
        return torch.randint(high, size, generator=random)

    def mostly(count: int, fields: Tensor, of: Tensor, share: float) -> Tensor:
        """[2, E] for each of ``fields`` so many members of ``of``, a share of them of the same field."""
        order = of.argsort(stable=True)
        first = torch.searchsorted(of[order], torch.arange(FIELDS + 1))
        own = fields.repeat_interleave(count)
        size = (first[own + 1] - first[own]).clamp(min=1)
        place = (torch.rand(len(own), generator=random) * size).long() + first[own]
        same = order[place.clamp(max=len(of) - 1)]
        chosen = torch.where(torch.rand(len(own), generator=random) < share, same, draw(len(of), len(own)))
        return torch.stack([chosen, torch.arange(len(fields)).repeat_interleave(count)])

    y, authors, venues = draw(FIELDS, papers), draw(FIELDS, papers // 2), draw(FIELDS, max(papers // 100, FIELDS))
    words = torch.rand(papers, WORDS, generator=random) < 0.1
    of_field = torch.arange(WORDS) % FIELDS == y.unsqueeze(1)
    part = torch.rand(papers, generator=random)
    data = HeteroData()
    data["paper"].x = (words | (of_field & (torch.rand(papers, WORDS, generator=random) < 0.15))).float()
    data["paper"].y, data["paper"].train_mask, data["paper"].test_mask = y, part < 0.5, part >= 0.7
    # Authors and venues say nothing of themselves.
    data["author"].x, data["venue"].x = torch.ones(len(authors), 1), torch.ones(len(venues), 1)
    for source, name, target, edges in (
        ("author", "writes", "paper", mostly(3, y, authors, 0.7)),
        ("venue", "prints", "paper", mostly(1, y, venues, 0.6)),
        ("paper", "cites", "paper", mostly(4, y, y, 0.6)),
    ):
        data[source, name, target].edge_index = edges
        data[target, f"rev_{name}", source].edge_index = edges.flip(0)
    return data


class Network(nn.Module):
    """Two layers of a convolution for each type of edges, whose results add up; ``layer`` is one of them."""

    def __init__(self, library: Any, sizes: dict[str, int], types: list[Any], hidden: int = 32) -> None:
        super().__init__()
        inputs = [sizes, dict.fromkeys(sizes, hidden)]
        outputs = [hidden, FIELDS]
        self.convs = nn.ModuleList(
            library.HeteroConv({t: library.SAGEConv((size[t[0]], size[t[2]]), out) for t in types})
            for size, out in zip(inputs, outputs, strict=True)
        )

    def layer(self, number: int, x: dict[str, Tensor], edges: dict[Any, Any]) -> dict[str, Tensor]:
        found = self.convs[number](x, edges)
        return {type: F.relu(h) for type, h in found.items()} if number == 0 else found

    def forward(self, x: dict[str, Tensor], edges: dict[Any, Any]) -> dict[str, Tensor]:
        return self.layer(1, self.layer(0, x, edges), edges)


def edges_for(library: str, batch: Any) -> dict[Any, Any]:
    return batch.graph_dict if library == "gdsl" else batch.edge_index_dict


def compare(data: Any, epochs: int, batch_size: int) -> list[str]:
    """The lines of a table."""
    sizes = {type: data[type].x.shape[1] for type in data.node_types}
    inference = LayerwiseInference(data)

    def given(library: str) -> dict[str, Any]:
        def loss(model: nn.Module, batch: Any) -> Tensor:
            paper = batch["paper"]
            out = model(batch.x_dict, edges_for(library, batch))["paper"][: paper.batch_size]
            return F.cross_entropy(out, paper.y[: paper.batch_size])

        def accuracy(model: Any) -> float:
            out = inference([lambda x, b, k=k: model.layer(k, x, edges_for(library, b)) for k in range(2)])
            return percent((out["paper"].argmax(dim=1) == data["paper"].y)[data["paper"].test_mask])

        papers = ("paper", data["paper"].train_mask)
        loader = NeighborLoader(data, [10, 5], papers, batch_size=batch_size, shuffle=True, seed=0)
        return {"batches": loader, "loss": loss, "accuracy": accuracy}

    def make(library: Any) -> nn.Module:
        return Network(library, sizes, data.edge_types)

    return train(entries("HeteroSAGE", make, given), epochs, lr=0.005)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--papers", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--short", action="store_true", help="2,000 papers, five epochs")
    args = parser.parse_args(argv)
    papers, epochs = (2_000, 5) if args.short else (args.papers, args.epochs)
    try:
        data = academic(papers)
    except ImportError:
        parser.error("torch_geometric, whose HeteroData the graph is, is not installed")
    counts = ", ".join(f"{data[type].num_nodes:,} {type}s" for type in data.node_types)
    print(f"{counts}, {data.num_edges:,} edges")
    print(HEADER)
    print("\n".join(compare(data, epochs, 64 if args.short else 256)))


if __name__ == "__main__":
    main()
