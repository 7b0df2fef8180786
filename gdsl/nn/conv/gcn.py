"""Layers that average over the neighbourhood with degree norms."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gdsl.module.repeated import repeatable
from gdsl.nn.conv.base import Adjacency, Conv, parameter, see
from gdsl.nn.inits import zeros
from gdsl.nn.linear import Linear


class GCNConv(Conv):
    r"""X' = D^{-1/2} (A + I) D^{-1/2} X W + b. Kipf and Welling, ICLR 2017, equation 2.

    in_channels:    size of the inputs; -1 takes it from the first call
    out_channels:   size of the outputs
    improved:       2 instead of 1 on the self-loops
    cached:         keep the graph and weights of the first call for all others
    add_self_loops: whether to add them; None means whether to normalise
    normalize:      whether to divide by the degrees
    bias:           whether to add one
    **kwargs:       of :class:`Conv`

    Raises ValueError for self-loops without normalisation.
    """

    program_name = "gcn"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        improved: bool = False,
        cached: bool = False,
        add_self_loops: bool | None = None,
        normalize: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        if add_self_loops is None:
            add_self_loops = normalize
        if add_self_loops and not normalize:
            raise ValueError(
                f"'{type(self).__name__}' does not support adding self-loops to the graph when no on-the-fly "
                f"normalization is applied"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.improved = improved
        self.cached = cached
        self.add_self_loops = add_self_loops
        self.normalize = normalize
        self.lin = Linear(in_channels, out_channels, bias=False, weight_initializer="glorot")
        self.bias = parameter(out_channels) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        self.lin.reset_parameters()
        zeros(self.bias)

    @repeatable
    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels] and weights [E] to [N, out_channels].

        Raises ValueError for a pair of inputs: there is one set of nodes.
        """
        loops = self.normalize and self.add_self_loops
        fill = 2.0 if self.improved else 1.0
        keep = self.cached and self.normalize
        graph, weight = self.weighted(x, edge_index, edge_weight, keep=keep, loops=fill if loops else 0.0)
        see((self.lin, x))
        result: Tensor = self.run(
            graph,
            {"x": x, "w": weight},
            out_channels=self.out_channels,
            add_self_loops=loops,
            normalize=self.normalize,
            fill=fill,
            with_bias=self.bias is not None,
        )
        return result
