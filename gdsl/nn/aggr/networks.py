"""Aggregations by networks. Those that walk over the rows one after the other run in torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gdsl.ir import build, library
from gdsl.ir.node import Node
from gdsl.ir.ops.rows import add_at
from gdsl.ir.types import Domain
from gdsl.language.modules import Reader, Unreadable, read
from gdsl.nn.aggr.base import Aggregation, dense, groups_of
from gdsl.nn.declared import redraw, words
from gdsl.nn.softmax import softmax


class _Recurrent(Aggregation):
    """The last state of a network that walks over the rows of each group in their order.

    _part: the name of the network among the modules
    """

    _part: str
    _network: type[nn.Module]

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.add_module(self._part, self._network(in_channels, out_channels, batch_first=True, **kwargs))
        self.reset_parameters()

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
        """[E, in_channels] with rows sorted by group to [groups, out_channels]; zeros where no group has a row."""
        index, size = groups_of(x.size(dim), x.device, index, ptr, dim_size)
        network, block = getattr(self, self._part), dense(x, index, size, most=max_num_elements)
        if not block.size(1):  # torch's walks of no steps are errors, and this is the state before any
            width = (network.proj_size or network.hidden_size) * (1 + network.bidirectional)
            return block.new_zeros(size, width)
        result: Tensor = network(block)[0]
        return result[:, -1]

    __repr__ = words("{self.in_channels}, {self.out_channels}")


class LSTMAggregation(_Recurrent):
    """The last state of an LSTM over the rows in their order. Hamilton et al., NeurIPS 2017, section 3.3.

    Rows of a shorter group are followed by zeros up to the longest of the call, which the LSTM reads as well, as in
    torch_geometric: a node's result depends on the largest neighbourhood of the call.

    in_channels, out_channels: sizes of a row and of the result
    **kwargs:                  of ``torch.nn.LSTM``
    """

    _part, _network = "lstm", nn.LSTM


class GRUAggregation(_Recurrent):
    """The last state of a GRU over the rows in their order. Buterez et al., "Graph Neural Networks with Adaptive
    Readouts", NeurIPS 2022. It reads the zeros behind shorter groups, as :class:`LSTMAggregation` does.

    in_channels, out_channels: sizes of a row and of the result
    **kwargs:                  of ``torch.nn.GRU``
    """

    _part, _network = "gru", nn.GRU


class Set2Set(Aggregation):
    """Steps of attention over the rows, with an LSTM between. Vinyals et al., "Order Matters", ICLR 2016.

    in_channels:      size of a row; the result has twice as many
    processing_steps: how many
    **kwargs:         of ``torch.nn.LSTM``
    """

    def __init__(self, in_channels: int, processing_steps: int, **kwargs: Any):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = 2 * in_channels
        self.processing_steps = processing_steps
        self.lstm = nn.LSTM(self.out_channels, in_channels, **kwargs)
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
        """[E, in_channels] to [groups, 2 * in_channels]."""
        if x.dim() != 2:
            raise ValueError(f"Aggregation requires two-dimensional inputs (got '{x.dim()}')")
        index, size = groups_of(x.size(dim), x.device, index, ptr, dim_size)
        state = tuple(x.new_zeros((self.lstm.num_layers, size, x.size(-1))) for _ in range(2))
        known = x.new_zeros(size, self.out_channels)
        for _ in range(self.processing_steps):
            q, state = self.lstm(known.unsqueeze(0), state)
            q = q.view(size, self.in_channels)
            alpha = softmax((x * q[index]).sum(dim=-1, keepdim=True), index, num_nodes=size)
            r = add_at(alpha * x, index, size)
            known = torch.cat([q, r], dim=-1)
        return known

    __repr__ = words("{self.in_channels}, {self.out_channels}")


class AttentionalAggregation(Aggregation):
    """sum softmax(gate(x)) nn(x). Li et al., "Graph Matching Networks", ICML 2019, equation 3.

    gate_nn: from rows to one score, or to one a feature of the result
    nn:      of the rows before they are summed
    """

    def __init__(self, gate_nn: nn.Module, nn: nn.Module | None = None):
        super().__init__()
        self.gate_nn, self.gate_mlp = _kept(gate_nn)
        self.nn, self.mlp = _kept(nn)

    reset_parameters = redraw

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        gate, value = (_read(self, reader, path, name, m) for name in (("gate_nn", "gate_mlp"), ("nn", "mlp")))
        if gate.dims[-1].size not in (1, value.dims[-1].size):
            raise Unreadable
        alpha = library.segment_softmax(along(gate, value), end, rows)
        return library.segment_sum(alpha * value, end, rows)

    def run_parts(self, x: Tensor, index: Tensor, size: int) -> Tensor:
        gate = _run(self.gate_nn, self.gate_mlp, x, index, size)
        value = _run(self.nn, self.mlp, x, index, size)
        return add_at(softmax(gate, index, num_nodes=size) * value, index, size)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(gate_nn={self.gate_mlp or self.gate_nn}, nn={self.mlp or self.nn})"


class DeepSetsAggregation(Aggregation):
    """global(sum local(x)). Zaheer et al., "Deep Sets", NeurIPS 2017, theorem 2.

    local_nn:  of the rows
    global_nn: of their sum
    """

    def __init__(self, local_nn: nn.Module | None = None, global_nn: nn.Module | None = None):
        super().__init__()
        self.local_nn, self.local_mlp = _kept(local_nn)
        self.global_nn, self.global_mlp = _kept(global_nn)

    reset_parameters = redraw

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        total = library.segment_sum(_read(self, reader, path, ("local_nn", "local_mlp"), m), end, rows)
        return _read(self, reader, path, ("global_nn", "global_mlp"), total)

    def run_parts(self, x: Tensor, index: Tensor, size: int) -> Tensor:
        total = add_at(_run(self.local_nn, self.local_mlp, x, index, size), index, size)
        return _run(self.global_nn or self.global_mlp, None, total, index, size)

    def __repr__(self) -> str:
        networks = (self.local_mlp or self.local_nn, self.global_mlp or self.global_nn)
        return f"{type(self).__name__}(local_nn={networks[0]}, global_nn={networks[1]})"


def _kept(network: nn.Module | None) -> tuple[nn.Module | None, nn.Module | None]:
    """A network, and a perceptron: torch_geometric keeps these in two places, by which their parameters are saved."""
    # The perceptron knows the norms, which know the aggregations.
    from gdsl.nn.models.mlp import MLP

    return (None, network) if isinstance(network, MLP) else (network, None)


def _read(aggr: nn.Module, reader: Reader, path: str, names: tuple[str, str], m: Node) -> Node:
    """A value behind the network of either name, or itself where there is none."""
    for name in names:
        network = getattr(aggr, name)
        if network is not None:
            return read(reader.inside(f"{path}.{name}"), network, m)
    return m


def _run(network: nn.Module | None, mlp: nn.Module | None, x: Tensor, index: Tensor, size: int) -> Tensor:
    """Rows behind a network, or behind a perceptron, whose norms may ask for the group of each row."""
    if mlp is not None:
        return mlp(x, batch=index, batch_size=size)
    return x if network is None else network(x)


def along(gate: Node, value: Node) -> Node:
    """A score a row without its dim, or scores a feature with the dim of the features."""
    last = gate.dims[-1]
    if last.size == 1:
        return build.select(gate, last.name, 0)
    return build.rename(gate, {last.name: value.dims[-1].name}) if last.name != value.dims[-1].name else gate
