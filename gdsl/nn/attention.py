"""Attention over all nodes of a graph in linear time. Interface of ``torch_geometric.nn.attention``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gdsl.nn.aggr.base import dense_with_mask
from gdsl.nn.declared import InitVar, Module, declared, redraw, words
from gdsl.runtime.together import is_shared, key_weights, summed


def blocks_of_graphs(x: Tensor, batch: Tensor, graphs: int) -> tuple[Tensor, Tensor]:
    """[graphs, nodes, channels] the nodes of each graph, and which of them there are [graphs, nodes]."""
    blocks, known = dense_with_mask(x, batch, graphs)
    if not is_shared():
        return blocks, known
    # A row that is no node, for those that fill a graph up.
    return nn.functional.pad(blocks, (0, 0, 0, 1)), nn.functional.pad(known, (0, 1))


def orthogonal_matrix(rows: int, columns: int) -> Tensor:
    """Random blocks of orthonormal rows, one below the other: [rows, columns]."""
    blocks = [torch.linalg.qr(torch.randn(columns, columns))[0].t() for _ in range(math.ceil(rows / columns))]
    return torch.cat([*blocks, torch.empty(0, columns)])[:rows]


class PerformerProjection(nn.Module):
    """Attention whose weights are products of features k(q P) and k(k P). Choromanski et al., "Rethinking Attention
    with Performers", ICLR 2021, equation 5.

    num_cols: size of queries and keys
    kernel:   the function k, which is not negative
    """

    def __init__(self, num_cols: int, kernel: Callable[[Tensor], Tensor] = nn.ReLU()):  # noqa: B008
        super().__init__()
        self.num_rows = int(num_cols * math.log(num_cols))
        self.num_cols = num_cols
        self.projection_matrix: Tensor
        self.register_buffer("projection_matrix", orthogonal_matrix(self.num_rows, num_cols))
        self.kernel = kernel

    def forward(self, q: Tensor, k: Tensor, v: Tensor, weight: Tensor | None = None) -> Tensor:
        """Three times [..., nodes, num_cols] to [..., nodes, num_cols].

        weight: [..., nodes] how often each key counts; without it, once
        """
        q, k = (self.kernel(x @ self.projection_matrix.t()) + 0.001 for x in (q, k))
        keys = k if weight is None else k * weight.unsqueeze(-1)
        total = q @ summed(keys.sum(dim=-2)).unsqueeze(-1)
        return q @ summed(k.transpose(-2, -1) @ v) / total


@declared
class PerformerAttention(Module):
    """Heads of :class:`PerformerProjection` between linear maps.

    channels:      size of inputs and outputs
    heads:         number of heads, which divides ``channels``
    head_channels: size of each; None stands for ``channels / heads``
    kernel:        the function of the projected queries and keys
    qkv_bias, attn_out_bias: whether the linear maps have one
    dropout:       of the result, in training

    It runs in torch: what it does is dense, and no edge is in it.
    """

    channels: InitVar[int]
    heads: int
    head_channels: InitVar[int | None] = 64
    kernel: Callable[[Tensor], Tensor] = nn.ReLU()
    qkv_bias: InitVar[bool] = False
    attn_out_bias: InitVar[bool] = True
    dropout: InitVar[float] = 0.0

    def _setup(self) -> None:
        assert self.channels % self.heads == 0, f"{self.channels} channels are no multiple of 'heads'"
        self.head_channels = self.channels // self.heads if self.head_channels is None else self.head_channels
        self.fast_attn = PerformerProjection(self.head_channels, self.kernel)
        inner = self.head_channels * self.heads
        self.q = nn.Linear(self.channels, inner, bias=self.qkv_bias)
        self.k = nn.Linear(self.channels, inner, bias=self.qkv_bias)
        self.v = nn.Linear(self.channels, inner, bias=self.qkv_bias)
        self.attn_out = nn.Linear(inner, self.channels, bias=self.attn_out_bias)
        self.dropout = nn.Dropout(self.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[graphs, nodes, channels] to the same.

        mask: [graphs, nodes] which nodes there are. As in torch_geometric, the others have no values, but keys
        """

        def split(lin: nn.Module) -> Tensor:
            return lin(x).unflatten(-1, (self.heads, self.head_channels)).transpose(1, 2)

        values = split(self.v)
        if mask is not None:
            values = values.masked_fill(~mask[:, None, :, None], 0.0)
        weight = None
        if mask is not None and is_shared():
            weight = key_weights(mask)[0].to(x.dtype).unsqueeze(1)
        y = self.fast_attn(split(self.q), split(self.k), values, weight)
        return self.dropout(self.attn_out(y.transpose(1, 2).flatten(2)))

    @torch.no_grad()
    def redraw_projection_matrix(self) -> None:
        """Draw the projection anew, as the paper does from time to time."""
        projection = self.fast_attn
        projection.projection_matrix.copy_(orthogonal_matrix(projection.num_rows, projection.num_cols))

    def _reset_parameters(self) -> None:
        for lin in (self.q, self.k, self.v, self.attn_out):
            lin.reset_parameters()
        self.redraw_projection_matrix()

    __repr__ = words("heads={self.heads}, head_channels={self.head_channels} kernel={self.kernel}")


class SGFormerAttention(nn.Module):
    """(q_i sum_j k_j^T v_j + N v_i) / (q_i . sum_j k_j + N) with q and k of length 1, the mean of its heads. Wu et al.,
    "SGFormer: Simplifying and Empowering Transformers for Large-Graph Representations", NeurIPS 2023, equation 5.

    channels:      size of the inputs
    heads:         number of heads, which divides ``channels``
    head_channels: size of each, and of the outputs; None stands for ``channels / heads``
    qkv_bias:      whether the linear maps have one
    """

    def __init__(self, channels: int, heads: int = 1, head_channels: int = 64, qkv_bias: bool = False):
        super().__init__()
        assert channels % heads == 0, f"{channels} channels are no multiple of 'heads'"
        self.heads = heads
        self.head_channels = channels // heads if head_channels is None else head_channels
        inner = self.head_channels * heads
        self.q = nn.Linear(channels, inner, bias=qkv_bias)
        self.k = nn.Linear(channels, inner, bias=qkv_bias)
        self.v = nn.Linear(channels, inner, bias=qkv_bias)

    reset_parameters = redraw

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[graphs, N, channels] to [graphs, N, head_channels].

        mask: [graphs, N] which nodes there are. As in torch_geometric, the others have no values, but keys
        """
        count: int | Tensor = x.size(1)
        weight = None
        if is_shared():
            known = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
            weight, count = (found.to(x.dtype) for found in key_weights(known))
        q, k, v = (lin(x).unflatten(-1, (self.heads, self.head_channels)) for lin in (self.q, self.k, self.v))
        if mask is not None:
            v = v.masked_fill(~mask[:, :, None, None], 0.0)
        # A direction for what has none.
        q, k = (t.masked_fill(t == 0, 1e-6) for t in (q, k))
        q, k = (t / torch.linalg.vector_norm(t, dim=-1, keepdim=True) for t in (q, k))
        top = torch.einsum("bnhm,bhmd->bnhd", q, summed(torch.einsum("blhm,blhd->bhmd", k, v))) + count * v
        keys = k if weight is None else k * weight[:, :, None, None]
        bottom = torch.einsum("bnhm,bhm->bnh", q, summed(keys.sum(dim=1))) + count
        return (top / bottom.unsqueeze(-1)).mean(dim=2)

    __repr__ = words("heads={self.heads}, head_channels={self.head_channels}")
