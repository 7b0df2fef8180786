"""Layers on dense adjacencies, [B, N, N]: products of matrices, in torch. Row i holds the edges into node i."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdsl.nn.conv.inputs import parameter
from gdsl.nn.declared import InitVar, Module, declared, redraw, words
from gdsl.nn.inits import glorot, reset, zeros
from gdsl.nn.linear import Linear


class DenseConv(Module):
    """Base of the layers: what they share is the form of their arguments."""

    in_channels: int
    out_channels: int

    @staticmethod
    def batched(x: Tensor, adj: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, N, C] and adjacencies [B, N, N], of one graph also without B."""
        return tuple(t.unsqueeze(0) if t.dim() == 2 else t for t in (x, adj))  # type: ignore[return-value]

    @staticmethod
    def with_loops(adj: Tensor, value: float) -> Tensor:
        """The same with this number at each loop."""
        loops = torch.eye(adj.size(-1), dtype=torch.bool, device=adj.device)
        return adj.masked_fill(loops, value)

    @staticmethod
    def masked(out: Tensor, mask: Tensor | None) -> Tensor:
        """Zeros for the nodes that there are not."""
        return out if mask is None else out * mask.view(-1, out.size(1), 1).to(out.dtype)

    __repr__ = words("{self.in_channels}, {self.out_channels}")


class DenseGCNConv(DenseConv):
    """:class:`gdsl.nn.GCNConv` on dense adjacencies. Kipf and Welling, ICLR 2017, equation 2.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    improved:                  2 instead of 1 on the self-loops
    bias:                      whether to add one
    """

    def __init__(self, in_channels: int, out_channels: int, improved: bool = False, bias: bool = True):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.improved = improved
        self.lin = Linear(in_channels, out_channels, bias=False, weight_initializer="glorot")
        self.bias = parameter(out_channels) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        self.lin.reset_parameters()
        zeros(self.bias)

    def forward(self, x: Tensor, adj: Tensor, mask: Tensor | None = None, add_loop: bool = True) -> Tensor:
        """[B, N, in_channels] and weights [B, N, N] to [B, N, out_channels].

        mask:     [B, N] which nodes there are
        add_loop: whether to set the loops
        """
        x, adj = self.batched(x, adj)
        adj = self.with_loops(adj, 2.0 if self.improved else 1.0) if add_loop else adj
        norm = adj.sum(dim=-1).clamp(min=1).rsqrt()
        out = norm.unsqueeze(-1) * adj * norm.unsqueeze(-2) @ self.lin(x)
        return self.masked(out if self.bias is None else out + self.bias, mask)


class DenseSAGEConv(DenseConv):
    """:class:`gdsl.nn.SAGEConv` on dense adjacencies of zeros and ones. Hamilton et al., NeurIPS 2017, algorithm 1.

    in_channels, out_channels: sizes
    normalize:                 whether results get length 1
    bias:                      whether to add one
    """

    def __init__(self, in_channels: int, out_channels: int, normalize: bool = False, bias: bool = True):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.normalize = normalize
        self.lin_rel = nn.Linear(in_channels, out_channels, bias=False)
        self.lin_root = nn.Linear(in_channels, out_channels, bias=bias)
        self.reset_parameters()

    reset_parameters = redraw

    def forward(self, x: Tensor, adj: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, in_channels] and adjacencies [B, N, N] to [B, N, out_channels]; mask: [B, N] which nodes there are."""
        x, adj = self.batched(x, adj)
        mean = adj @ x / adj.sum(dim=-1, keepdim=True).clamp(min=1)
        out: Tensor = self.lin_rel(mean) + self.lin_root(x)
        return self.masked(functional.normalize(out, dim=-1) if self.normalize else out, mask)


class DenseGraphConv(DenseConv):
    """:class:`gdsl.nn.GraphConv` on dense adjacencies. Morris et al., AAAI 2019, equation 1.

    in_channels, out_channels: sizes
    aggr:                      "add", "mean" or "max"; the last asks only which weights are 0
    bias:                      whether to add one

    Raises AssertionError for another aggregation.
    """

    def __init__(self, in_channels: int, out_channels: int, aggr: str = "add", bias: bool = True):
        super().__init__()
        assert aggr in ("add", "mean", "max"), f"the aggregation is 'add', 'mean' or 'max', not '{aggr}'"
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.aggr = aggr
        self.lin_rel = nn.Linear(in_channels, out_channels, bias=bias)
        self.lin_root = nn.Linear(in_channels, out_channels, bias=False)
        self.reset_parameters()

    reset_parameters = redraw

    def forward(self, x: Tensor, adj: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, in_channels] and weights [B, N, N] to [B, N, out_channels]; mask: [B, N] which nodes there are."""
        x, adj = self.batched(x, adj)
        if self.aggr == "max":
            least = float("-inf")
            # [B, sources, targets, C], with the sources in the columns of the adjacency, as torch_geometric reads it
            found = x.unsqueeze(-2).masked_fill((adj == 0).unsqueeze(-1), least).amax(dim=-3)
            met = found.masked_fill(found == least, 0.0)
        else:
            met = adj @ x
            met = met / adj.sum(dim=-1, keepdim=True).clamp(min=1) if self.aggr == "mean" else met
        return self.masked(self.lin_rel(met) + self.lin_root(x), mask)


class DenseGINConv(DenseConv):
    """:class:`gdsl.nn.GINConv` on dense adjacencies. Xu et al., ICLR 2019, equation 4.1.

    nn:        a module, [B, N, channels] to [B, N, out]
    eps:       at first
    train_eps: whether it is learned
    """

    def __init__(self, nn: nn.Module, eps: float = 0.0, train_eps: bool = False):
        super().__init__()
        self.nn = nn
        self.initial_eps = eps
        self.eps: Tensor
        if train_eps:
            self.eps = parameter(1)
        else:
            self.register_buffer("eps", torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the network's parameters anew, and eps as at first."""
        reset(self.nn)
        self.eps.data.fill_(self.initial_eps)

    def forward(self, x: Tensor, adj: Tensor, mask: Tensor | None = None, add_loop: bool = True) -> Tensor:
        """[B, N, channels] and weights [B, N, N] to [B, N, out].

        mask:     [B, N] which nodes there are
        add_loop: whether a node's own features are added
        """
        x, adj = self.batched(x, adj)
        out = adj @ x
        return self.masked(self.nn((1 + self.eps) * x + out if add_loop else out), mask)

    __repr__ = words("nn={self.nn}")


@declared(shows="heads")
class DenseGATConv(DenseConv):
    """:class:`gdsl.nn.GATConv` on dense adjacencies. Velickovic et al., ICLR 2018, equations 3 to 6.

    in_channels, out_channels: sizes, the second of each head; -1 takes the first from the first call
    heads:                     number of heads
    concat:                    whether they are joined, or averaged
    negative_slope:            of the leaky relu on the scores
    dropout:                   of the weights, in training
    bias:                      whether to add one
    """

    in_channels: int
    out_channels: int
    heads: int = 1
    concat: bool = True
    negative_slope: float = 0.2
    dropout: float = 0.0
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        self.lin = Linear(self.in_channels, self.heads * self.out_channels, bias=False, weight_initializer="glorot")
        self.att_src = parameter(1, 1, self.heads, self.out_channels)
        self.att_dst = parameter(1, 1, self.heads, self.out_channels)
        self.bias = (
            parameter(self.heads * self.out_channels if self.concat else self.out_channels) if self.bias else None
        )

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        self.lin.reset_parameters()
        glorot(self.att_src)
        glorot(self.att_dst)
        zeros(self.bias)

    def forward(self, x: Tensor, adj: Tensor, mask: Tensor | None = None, add_loop: bool = True) -> Tensor:
        """[B, N, in_channels] and adjacencies [B, N, N] to [B, N, heads * out_channels], or averaged.

        mask:     [B, N] which nodes there are
        add_loop: whether to set the loops; without them, a node without edges is NaN
        """
        x, adj = self.batched(x, adj)
        adj = self.with_loops(adj, 1.0) if add_loop else adj
        h = self.lin(x).unflatten(-1, (self.heads, self.out_channels))
        score = (h * self.att_src).sum(dim=-1).unsqueeze(1) + (h * self.att_dst).sum(dim=-1).unsqueeze(2)
        score = functional.leaky_relu(score, self.negative_slope)
        alpha = score.masked_fill((adj == 0).unsqueeze(-1), float("-inf")).softmax(dim=2)
        alpha = functional.dropout(alpha, self.dropout, self.training)
        out = (alpha.movedim(3, 1) @ h.movedim(2, 1)).movedim(1, 2)
        out = out.flatten(2) if self.concat else out.mean(dim=2)
        return self.masked(out if self.bias is None else out + self.bias, mask)
