"""Aggregations that attend: each group is a set, and its rows are a padded block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gdsl.nn.aggr.base import Aggregation, dense_with_mask, groups_of
from gdsl.nn.declared import InitVar, declared, redraw


def block_of(
    x: Tensor, index: Tensor | None, ptr: Tensor | None, dim_size: int | None, dim: int, most: int | None
) -> tuple[Tensor, Tensor]:
    """The rows of each group [groups, most, C], and which of them there are [groups, most]."""
    index, size = groups_of(x.size(dim), x.device, index, ptr, dim_size)
    return dense_with_mask(x, index, size, most=most)


class MultiheadAttentionBlock(nn.Module):
    """norm(h + relu(W h)) with h = norm(x + attention(x, y, y)). Lee et al., "Set Transformer", ICML 2019, equations 6
    and 7.

    channels:   size of a row
    heads:      of the attention
    layer_norm: whether there are norms
    dropout:    of the weights, in training
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        layer_norm: bool = True,
        dropout: float = 0.0,
        device: torch.device | None = None,
    ):
        super().__init__()
        self.channels = channels
        self.heads = heads
        self.dropout = dropout
        self.attn = nn.MultiheadAttention(channels, heads, batch_first=True, dropout=dropout, device=device)
        self.lin = nn.Linear(channels, channels, device=device)
        self.layer_norm1 = nn.LayerNorm(channels, device=device) if layer_norm else None
        self.layer_norm2 = nn.LayerNorm(channels, device=device) if layer_norm else None

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        self.attn._reset_parameters()
        for part in (self.lin, self.layer_norm1, self.layer_norm2):
            if part is not None:
                part.reset_parameters()

    def forward(self, x: Tensor, y: Tensor, x_mask: Tensor | None = None, y_mask: Tensor | None = None) -> Tensor:
        """Queries [B, N, channels] and values [B, M, channels] to [B, N, channels]; the masks say which there are."""
        found, _ = self.attn(x, y, y, None if y_mask is None else ~y_mask, need_weights=False)
        if x_mask is not None:
            found = found.masked_fill(~x_mask.unsqueeze(-1), 0.0)
        h: Tensor = found + x
        h = h if self.layer_norm1 is None else self.layer_norm1(h)
        h = h + self.lin(h).relu()
        return h if self.layer_norm2 is None else self.layer_norm2(h)

    def options(self) -> str:
        """As they stand in a repr."""
        return f"heads={self.heads}, layer_norm={self.layer_norm1 is not None}, dropout={self.dropout}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, {self.options()})"


class SetAttentionBlock(nn.Module):
    """:class:`MultiheadAttentionBlock` of a set with itself. Lee et al., ICML 2019, equation 8. Arguments as there."""

    def __init__(self, channels: int, heads: int = 1, layer_norm: bool = True, dropout: float = 0.0):
        super().__init__()
        self.mab = MultiheadAttentionBlock(channels, heads, layer_norm, dropout)

    reset_parameters = redraw

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, channels] to the same; the mask says which rows there are."""
        return self.mab(x, x, mask, mask)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mab.channels}, {self.mab.options()})"


class PoolingByMultiheadAttention(nn.Module):
    """:class:`MultiheadAttentionBlock` of learned seeds with a set. Lee et al., ICML 2019, equation 11.

    num_seed_points: number of seeds
    Other arguments as there.
    """

    def __init__(
        self, channels: int, num_seed_points: int = 1, heads: int = 1, layer_norm: bool = True, dropout: float = 0.0
    ):
        super().__init__()
        self.lin = nn.Linear(channels, channels)
        self.seed = nn.Parameter(torch.empty(1, num_seed_points, channels))
        self.mab = MultiheadAttentionBlock(channels, heads, layer_norm, dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        self.lin.reset_parameters()
        nn.init.xavier_uniform_(self.seed)
        self.mab.reset_parameters()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, channels] to [B, num_seed_points, channels]; the mask says which rows there are."""
        return self.mab(self.seed.expand(len(x), -1, -1), self.lin(x).relu(), y_mask=mask)

    def __repr__(self) -> str:
        _, seeds, channels = self.seed.shape
        return f"{type(self).__name__}({channels}, num_seed_points={seeds}, {self.mab.options()})"


@declared(shows="num_seed_points heads layer_norm dropout", drawn=False)
class SetTransformerAggregation(Aggregation):
    """Attention within each set, by seeds, and among these. Buterez et al., "Graph Neural Networks with Adaptive
    Readouts", NeurIPS 2022; Lee et al., ICML 2019, section 3.

    channels:        size of a row
    num_seed_points: number of seeds
    num_encoder_blocks, num_decoder_blocks: blocks before and after the seeds
    heads:           of each
    concat:          whether the seeds are joined, or averaged
    layer_norm:      whether there are norms
    dropout:         of the weights, in training
    """

    channels: int
    num_seed_points: int = 1
    num_encoder_blocks: InitVar[int] = 1
    num_decoder_blocks: InitVar[int] = 1
    heads: int = 1
    concat: bool = True
    layer_norm: bool = False
    dropout: float = 0.0

    reset_parameters = redraw

    def _setup(self) -> None:
        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(
                SetAttentionBlock(self.channels, self.heads, self.layer_norm, self.dropout) for _ in range(count)
            )

        self.encoders = blocks(self.num_encoder_blocks)
        self.pma = PoolingByMultiheadAttention(
            self.channels, self.num_seed_points, self.heads, self.layer_norm, self.dropout
        )
        self.decoders = blocks(self.num_decoder_blocks)

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        max_num_elements: int | None = None,
    ) -> Tensor:
        """[E, channels] with rows sorted by group to [groups, num_seed_points * channels], or [groups, channels]."""
        x, mask = block_of(x, index, ptr, dim_size, dim, max_num_elements)
        for encoder in self.encoders:
            x = encoder(x, mask)
        x = self.pma(x, mask)
        for decoder in self.decoders:
            x = decoder(x)
        x = x.nan_to_num()
        return x.flatten(1, 2) if self.concat else x.mean(dim=1)


@declared(shows="k heads layer_norm dropout", drawn=False)
class GraphMultisetTransformer(Aggregation):
    """k seeds by attention, attention among them, and one seed. Baek et al., "Accurate Learning of Graph
    Representations with Graph Multiset Pooling", ICLR 2021, section 3.

    channels:           size of a row
    k:                  number of seeds
    num_encoder_blocks: blocks among them
    heads:              of each
    layer_norm:         whether there are norms
    dropout:            of the weights, in training
    """

    channels: int
    k: int
    num_encoder_blocks: InitVar[int] = 1
    heads: int = 1
    layer_norm: bool = False
    dropout: float = 0.0

    reset_parameters = redraw

    def _setup(self) -> None:
        self.pma1 = PoolingByMultiheadAttention(self.channels, self.k, self.heads, self.layer_norm, self.dropout)
        self.encoders = nn.ModuleList(
            SetAttentionBlock(self.channels, self.heads, self.layer_norm, self.dropout)
            for _ in range(self.num_encoder_blocks)
        )
        self.pma2 = PoolingByMultiheadAttention(self.channels, 1, self.heads, self.layer_norm, self.dropout)

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        max_num_elements: int | None = None,
    ) -> Tensor:
        """[E, channels] with rows sorted by group to [groups, channels]."""
        x = self.pma1(*block_of(x, index, ptr, dim_size, dim, max_num_elements))
        for encoder in self.encoders:
            x = encoder(x)
        return self.pma2(x).squeeze(1)
