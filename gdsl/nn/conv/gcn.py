"""Layers that average over the neighbourhood with degree norms."""

from __future__ import annotations

from torch import Tensor

from gdsl.module.repeated import repeatable
from gdsl.nn.conv.inputs import Adjacency
from gdsl.nn.conv.programmed import InitVar, Weighted


class GCNConv(Weighted, program="gcn"):
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

    in_channels: int
    out_channels: int
    improved: bool = False
    cached: bool = False
    add_self_loops: bool | None = None
    normalize: bool = True
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        if self.add_self_loops is None:
            self.add_self_loops = self.normalize
        if self.add_self_loops and not self.normalize:
            raise ValueError(
                f"'{type(self).__name__}' does not support adding self-loops to the graph when no on-the-fly "
                f"normalization is applied"
            )

    @repeatable
    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, in_channels] and weights [E] to [N, out_channels].

        Raises ValueError for a pair of inputs: there is one set of nodes.
        """
        fill = 2.0 if self.improved else 1.0
        graph, weight = self._weights(x, edge_index, edge_weight, fill)
        return self._compute(graph, {"x": x, "w": weight}, fill=fill)
