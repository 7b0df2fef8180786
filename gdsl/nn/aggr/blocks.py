"""Aggregations by networks on padded blocks of rows, which see the order of the rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.aggr.base import Aggregation, dense, groups_of
from gdsl.nn.aggr.sets import MultiheadAttentionBlock, block_of
from gdsl.nn.declared import InitVar, declared, redraw, words
from gdsl.nn.encoding import PositionalEncoding
from gdsl.nn.models.mlp import MLP
from gdsl.runtime.together import longest


class MLPAggregation(Aggregation):
    """A perceptron on the rows of a group, one behind the other. Buterez et al., "Graph Neural Networks with Adaptive
    Readouts", NeurIPS 2022.

    in_channels, out_channels: sizes of a row and of the result
    max_num_elements:          rows of a group that count
    **kwargs:                  of :class:`gdsl.nn.MLP`
    """

    def __init__(self, in_channels: int, out_channels: int, max_num_elements: int, **kwargs: Any):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.max_num_elements = max_num_elements
        self.mlp = MLP(in_channels=in_channels * max_num_elements, out_channels=out_channels, **kwargs)
        self.reset_parameters()

    reset_parameters = redraw

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        """[E, in_channels] with rows sorted by group to [groups, out_channels]."""
        block, _ = block_of(x, index, ptr, dim_size, dim, self.max_num_elements)
        return self.mlp(block.flatten(1))

    __repr__ = words("{self.in_channels}, {self.out_channels}, max_num_elements={self.max_num_elements}")


class LCMAggregation(Aggregation):
    """Pairs of rows by a GRU in both orders, then pairs of these. Ong and Velickovic, "Learnable Commutative Monoids
    for Graph Neural Networks", LoG 2022, section 4.

    in_channels, out_channels: sizes of a row and of the result
    project:                   whether a linear map and a relu come first

    Raises ValueError for two sizes without them.
    """

    def __init__(self, in_channels: int, out_channels: int, project: bool = True):
        super().__init__()
        if in_channels != out_channels and not project:
            raise ValueError(f"Inputs of '{type(self).__name__}' must be projected if `in_channels != out_channels`")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.project = project
        self.lin = nn.Linear(in_channels, out_channels) if project else None
        self.gru_cell = nn.GRUCell(out_channels, out_channels)

    reset_parameters = redraw

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        max_num_elements: int | None = None,
    ) -> Tensor:
        """[E, in_channels] with rows sorted by group to [groups, out_channels]."""
        x = x if self.lin is None else self.lin(x).relu()
        index, size = groups_of(x.size(dim), x.device, index, ptr, dim_size)
        rows = dense(x, index, size, most=max_num_elements).transpose(0, 1)
        if not len(rows):
            return x.new_zeros(size, self.out_channels)
        while len(rows) > 1:
            # A last one without another waits for the next round.
            pairs, left = rows[: len(rows) // 2 * 2].unflatten(0, (-1, 2)), rows[len(rows) // 2 * 2 :]
            both = self.gru_cell(pairs.flatten(0, 2), pairs.flip(1).flatten(0, 2))
            rows = torch.cat([both.view_as(pairs).mean(dim=1), left])
        return rows[0]

    __repr__ = words("{self.in_channels}, {self.out_channels}, project={self.project}")


@declared(shows="patch_size", drawn=False)
class PatchTransformerAggregation(Aggregation):
    """Attention over patches of rows, and what is made of their results. After Dosovitskiy et al., "An Image is Worth
    16x16 Words", ICLR 2021, and Cong et al., ICLR 2023.

    in_channels, out_channels, hidden_channels: sizes of a row, of the result and in between
    patch_size:             rows of a patch
    num_transformer_blocks: rounds of attention
    heads:                  of each
    dropout:                of the weights, in training
    aggr:                   names, of "sum", "mean", "min", "max", "var" and "std", of what the patches meet in

    Rows of a group beyond the last full patch of the largest group, counted with one row more, are left out.

    Raises AssertionError for another name, or none.
    """

    in_channels: int
    out_channels: int
    patch_size: int
    hidden_channels: InitVar[int]
    num_transformer_blocks: InitVar[int] = 1
    heads: InitVar[int] = 1
    dropout: InitVar[float] = 0.0
    aggr: InitVar[str | list[str]] = "mean"
    device: InitVar[torch.device | None] = None

    aggregations = ("sum", "mean", "min", "max", "var", "std")

    reset_parameters = redraw

    def _setup(self) -> None:
        self.aggrs = [self.aggr] if isinstance(self.aggr, str) else self.aggr
        assert self.aggrs and {*self.aggrs} <= {*self.aggregations}, f"aggregations are of {self.aggregations}"
        self.lin = nn.Linear(self.in_channels, self.hidden_channels, device=self.device)
        self.pad_projector = nn.Linear(self.patch_size * self.hidden_channels, self.hidden_channels, device=self.device)
        self.pe = PositionalEncoding(self.hidden_channels, device=self.device)
        self.blocks = nn.ModuleList(
            MultiheadAttentionBlock(self.hidden_channels, self.heads, True, self.dropout, self.device)
            for _ in range(self.num_transformer_blocks)
        )
        self.fc = nn.Linear(self.hidden_channels * len(self.aggrs), self.out_channels, device=self.device)

    def forward(  # type: ignore[override]  # there are groups always, as there
        self,
        x: Tensor,
        index: Tensor,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        max_num_elements: int | None = None,
    ) -> Tensor:
        """[E, in_channels] with rows sorted by group to [groups, out_channels]."""
        index, size = groups_of(x.size(dim), x.device, index, ptr, dim_size)
        if max_num_elements is None:
            count = torch.bincount(index, minlength=size)
            max_num_elements = longest(int(count.max()) if size else 0, x.device) + 1
        patches = max_num_elements // self.patch_size
        x = dense(self.lin(x), index, size, most=patches * self.patch_size)
        x = self.pad_projector(x.reshape(size, patches, self.patch_size * x.size(-1)))
        x = x + self.pe(torch.arange(patches, device=x.device))
        for block in self.blocks:
            x = block(x, x)
        found = [getattr(torch, name)(x, dim=1) for name in self.aggrs]
        return self.fc(torch.cat([f if isinstance(f, Tensor) else f[0] for f in found], dim=1))
