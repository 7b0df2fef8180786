"""Embeddings of nodes among friends and foes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gdsl.nn.conv.attention import absent_pairs
from gdsl.nn.conv.simple import SignedConv
from gdsl.nn.declared import InitVar, Module, declared, redraw, words
from gdsl.nn.grouped import count_in


@declared
class SignedGCN(Module):
    """Layers SignedConv, and a classifier of pairs: friends, foes, or neither. Derr et al., "Signed Graph Convolutional
    Network", ICDM 2018, section 4.

    in_channels, hidden_channels: sizes
    num_layers: number of layers
    lamb:       weight of the two losses of embeddings
    bias:       accepted for torch_geometric's sake, which does not hand it to its layers either
    """

    in_channels: int
    hidden_channels: int
    num_layers: int
    lamb: float = 5
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        half = self.hidden_channels // 2
        self.conv1 = SignedConv(self.in_channels, half, first_aggr=True)
        self.convs = nn.ModuleList(SignedConv(half, half, first_aggr=False) for _ in range(self.num_layers - 1))
        self.lin = nn.Linear(2 * self.hidden_channels, 3)

    reset_parameters = redraw

    def forward(self, x: Tensor, pos_edge_index: Tensor, neg_edge_index: Tensor) -> Tensor:
        """[N, in_channels], friends [2, E] and foes [2, E'] to [N, hidden_channels]."""
        z: Tensor = self.conv1(x, pos_edge_index, neg_edge_index).relu()
        for conv in self.convs:
            z = conv(z, pos_edge_index, neg_edge_index).relu()
        return z

    def split_edges(self, edge_index: Tensor, test_ratio: float = 0.2) -> tuple[Tensor, Tensor]:
        """Edges to learn from, and a part to test on, drawn by chance."""
        count = edge_index.size(1)
        kept = torch.ones(count, dtype=torch.bool)
        kept[torch.randperm(count)[: int(test_ratio * count)]] = False
        return edge_index[:, kept], edge_index[:, ~kept]

    def create_spectral_features(
        self, pos_edge_index: Tensor, neg_edge_index: Tensor, num_nodes: int | None = None
    ) -> Tensor:
        """[N, in_channels]: scikit-learn's singular vectors of the matrix with 1 for friends and -1 for foes; the mean
        where a pair is both."""
        from scipy.sparse import coo_matrix
        from sklearn.decomposition import TruncatedSVD

        edges = torch.cat([pos_edge_index, neg_edge_index], dim=1).cpu()
        size = count_in(edges) if num_nodes is None else num_nodes
        sign = torch.ones(edges.size(1))
        sign[pos_edge_index.size(1) :] = -1
        row, col = torch.cat([edges, edges.flip(0)], dim=1)
        key, place = torch.unique(row * size + col, return_inverse=True)
        value = torch.zeros(len(key)).index_add_(0, place, sign.repeat(2) + 1) - 1
        matrix = coo_matrix((value.numpy(), (key // size, key % size)), shape=(size, size))
        found = TruncatedSVD(n_components=self.in_channels, n_iter=128).fit(matrix).components_.T
        return torch.from_numpy(found.copy()).to(pos_edge_index.device, torch.float)

    def discriminate(self, z: Tensor, edge_index: Tensor) -> Tensor:
        """The logarithms of how probable it is that pairs [2, E] are friends, foes, or neither: [E, 3]."""
        found: Tensor = self.lin(torch.cat([z[edge_index[0]], z[edge_index[1]]], dim=1)).log_softmax(dim=1)
        return found

    def nll_loss(self, z: Tensor, pos_edge_index: Tensor, neg_edge_index: Tensor) -> Tensor:
        """The mean of the cross entropies of the three classes. As many pairs that are neither are drawn as there are
        edges."""
        known = torch.cat([pos_edge_index, neg_edge_index], dim=1)
        neither = absent_pairs(known, z.size(0), known.size(1))
        classes = (pos_edge_index, neg_edge_index, neither)
        losses = [-self.discriminate(z, pairs)[:, k].mean() for k, pairs in enumerate(classes)]
        return torch.stack(losses).sum() / 3.0

    def pos_embedding_loss(self, z: Tensor, pos_edge_index: Tensor) -> Tensor:
        """How much farther friends are than a node that is none, on the mean."""
        near, far = _distances(z, pos_edge_index)
        return (near - far).clamp(min=0).mean()

    def neg_embedding_loss(self, z: Tensor, neg_edge_index: Tensor) -> Tensor:
        """How much farther a node that is no foe is than a foe, on the mean."""
        near, far = _distances(z, neg_edge_index)
        return (far - near).clamp(min=0).mean()

    def loss(self, z: Tensor, pos_edge_index: Tensor, neg_edge_index: Tensor) -> Tensor:
        """The cross entropy and ``lamb`` times the losses of embeddings."""
        near = self.pos_embedding_loss(z, pos_edge_index) + self.neg_embedding_loss(z, neg_edge_index)
        return self.nll_loss(z, pos_edge_index, neg_edge_index) + self.lamb * near

    def test(self, z: Tensor, pos_edge_index: Tensor, neg_edge_index: Tensor) -> tuple[float, float]:
        """The area under the ROC curve and the F1 score for friends and foes, by scikit-learn."""
        from sklearn.metrics import f1_score, roc_auc_score

        with torch.no_grad():
            scores = (self.discriminate(z, pairs) for pairs in (pos_edge_index, neg_edge_index))
            friends = [score[:, :2].argmax(dim=1) == 0 for score in scores]
        found = torch.cat(friends).long().cpu().numpy()
        right = torch.cat([torch.ones(len(friends[0])), torch.zeros(len(friends[1]))]).numpy()
        return float(roc_auc_score(right, found)), float(f1_score(right, found)) if found.any() else 0.0

    __repr__ = words("{self.in_channels}, {self.hidden_channels}, num_layers={self.num_layers}")


def _distances(z: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    """Squares of the distances of both ends, and of the first from a node that it has no edge to: [E] each."""
    source, target = edge_index
    other = unconnected(edge_index, z.size(0))
    return (z[source] - z[target]).pow(2).sum(dim=1), (z[source] - z[other]).pow(2).sum(dim=1)


def unconnected(edge_index: Tensor, nodes: int) -> Tensor:
    """For each edge a node that its source has no edge to, drawn by chance: [2, E] to [E].

    Raises ValueError for a source with edges to all nodes.
    """
    source, target = edge_index.long()
    taken = (source * nodes + target).unique()
    full = torch.bincount(taken // nodes, minlength=nodes) == nodes
    if bool(full.any()):
        raise ValueError(f"node {int(full.nonzero()[0])} has edges to all {nodes} nodes, and none is left to draw")
    found = torch.randint(nodes, source.shape, device=source.device)
    left = torch.isin(source * nodes + found, taken).nonzero().view(-1)
    while len(left):
        found[left] = torch.randint(nodes, left.shape, device=source.device)
        left = left[torch.isin(source[left] * nodes + found[left], taken)]
    return found
