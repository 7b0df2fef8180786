"""Layers for graphs with several types of nodes or edges."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gdsl.errors import GraphError
from gdsl.language.parts import must_run
from gdsl.nn.conv.inputs import Adjacency, Features, Result, Size, edge_features, parameter, see
from gdsl.nn.conv.programmed import Declared, InitVar, Summed
from gdsl.nn.declared import words
from gdsl.nn.dense.hetero import HeteroDictLinear, HeteroLinear
from gdsl.nn.inits import constant, glorot, ones, zeros
from gdsl.nn.linear import Linear
from gdsl.runtime.graph import Graph
from gdsl.runtime.halo import agree_on
from gdsl.runtime.local import LocalGraph, joined, need_forward

NodeType: TypeAlias = str
EdgeType: TypeAlias = tuple[str, str, str]
Metadata: TypeAlias = tuple[list[NodeType], list[EdgeType]]

MECHANISMS = ("within-relation", "across-relation")
MODES = ("additive-self-attention", "multiplicative-self-attention")
CHANGES = ("additive", "scaled", "f-additive", "f-scaled")


class RGATConv(Summed, program="rgat", fixed="node_dim=0", parts=False, shows="heads"):
    """Attention with a linear map for each relation. Busbridge et al., 2019, equations 3 to 8.

    in_channels, out_channels: sizes of the inputs, and of the outputs of each head
    num_relations:       number of relations
    num_bases:           write the maps as sums of so many common ones
    num_blocks:          or as so many blocks on the diagonal
    mod:                 change the weights so that the number of neighbours matters: "additive", "scaled",
                         "f-additive" or "f-scaled", of Zhang and Xie, 2020
    attention_mechanism: "within-relation" or "across-relation": over which edges the weights add up to 1
    attention_mode:      "additive-self-attention" or "multiplicative-self-attention"
    heads:               number of heads
    dim:                 number of weights a head, for multiplicative attention
    concat:              whether the heads are joined, or averaged
    negative_slope:      of the leaky relu on additive scores
    dropout:             of the weights, in training, without ``mod``
    edge_dim:            size of the edge features, if there are any
    bias:                whether to add one
    **kwargs:            of :class:`Conv`

    Raises ValueError for another mechanism or mode, for additive attention with a ``dim`` above 1, for ``mod`` with
    dropout, and for bases with blocks; AssertionError for blocks that do not divide the sizes.
    """

    in_channels: int
    out_channels: int
    num_relations: int
    num_bases: int | None = None
    num_blocks: int | None = None
    mod: str | None = None
    attention_mechanism: str = "across-relation"
    attention_mode: str = "additive-self-attention"
    heads: int = 1
    dim: int = 1
    concat: bool = True
    negative_slope: float = 0.2
    dropout: float = 0.0
    edge_dim: int | None = None
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        self._check_arguments()
        in_channels, out_channels, heads, dim = self.in_channels, self.out_channels, self.heads, self.dim
        inner = heads * out_channels
        self.q = parameter(inner, heads * dim)
        self.k = parameter(inner, heads * dim)
        self.bias = parameter((heads if self.concat else 1) * dim * out_channels) if self.bias else None
        self.lin_edge = self.e = None
        if self.edge_dim is not None:
            self.lin_edge = Linear(self.edge_dim, inner, bias=False, weight_initializer="glorot")
            self.e = parameter(inner, heads * dim)
        blocks = self.num_blocks or 1
        if self.num_bases is not None:
            self.att = parameter(self.num_relations, self.num_bases)
            self.basis = parameter(self.num_bases, in_channels, inner)
        elif self.num_blocks is not None:
            assert in_channels % blocks == 0 and inner % blocks == 0, (
                "both 'in_channels' and 'heads * out_channels' must be multiple of 'num_blocks' used"
            )
            self.weight = parameter(self.num_relations, blocks, in_channels // blocks, inner // blocks)
        else:
            self.weight = parameter(self.num_relations, in_channels, inner)
        self.w = nn.Parameter(torch.ones(out_channels))
        self.l1 = parameter(1, out_channels)
        self.b1 = parameter(1, out_channels)
        self.l2 = parameter(out_channels, out_channels)
        self.b2 = parameter(1, out_channels)

    def _check_arguments(self) -> None:
        if self.attention_mechanism not in MECHANISMS:
            raise ValueError('attention mechanism must either be "within-relation" or "across-relation"')
        if self.attention_mode not in MODES:
            raise ValueError(
                'attention mode must either be "additive-self-attention" or "multiplicative-self-attention"'
            )
        if self.attention_mode == MODES[0] and self.dim > 1:
            raise ValueError(
                '"additive-self-attention" mode cannot be applied when value of d is greater than 1. Use '
                '"multiplicative-self-attention" instead.'
            )
        if self.dropout > 0.0 and self.mod in CHANGES:
            raise ValueError(
                "mod must be None with dropout value greater than 0 in order to sample attention coefficients "
                "stochastically"
            )
        if self.num_bases is not None and self.num_blocks is not None:
            raise ValueError(
                "Can not apply both basis-decomposition and block-diagonal-decomposition at the same time."
            )

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        if self.num_bases is not None:
            glorot(self.basis)
            glorot(self.att)
        else:
            glorot(self.weight)
        glorot(self.q)
        glorot(self.k)
        zeros(self.bias)
        ones(self.l1)
        zeros(self.b1)
        # torch_geometric makes this tensor and forgets to keep it, so that l2 is whatever memory held.
        constant(self.l2, 1 / self.out_channels)
        zeros(self.b2)
        if self.lin_edge is not None:
            self.lin_edge.reset_parameters()
            glorot(self.e)

    def forward(
        self,
        x: Features,
        edge_index: Adjacency,
        edge_type: Tensor | None = None,
        edge_attr: Tensor | None = None,
        size: Size = None,
        return_attention_weights: bool | None = None,
    ) -> Result:
        """[N, in_channels], or a pair of sources and targets, to [N, heads * dim * out_channels].

        edge_type: [E] the relation of each edge
        edge_attr: [E, edge_dim]
        return_attention_weights: True or False asks for ``(result, (edge_index, weights))`` with the weights
                   [E, heads * dim] before ``mod``

        Raises ValueError for integers as features with blocks, and AssertionError for edge features without
        ``edge_dim``.
        """
        bipartite = not isinstance(x, Tensor)
        source, target = (x, x) if isinstance(x, Tensor) else x
        if self.num_blocks is not None and not source.is_floating_point():
            raise ValueError("Block-diagonal decomposition not supported for non-continuous input features.")
        assert edge_attr is None or self.lin_edge is not None, (
            "Please set 'edge_dim = edge_attr.size(-1)' while calling the RGATConv layer"
        )
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target), size)
        edge_attr = edge_features(edge_attr, values if self.lin_edge is not None else None, edge_index)
        kind = "bases" if self.num_bases is not None else "blocks" if self.num_blocks is not None else "full"
        parts = self.num_bases or self.num_blocks or 1
        asked = isinstance(return_attention_weights, bool)
        found = self._compute(
            graph,
            {"x": source, "z": target, "rel": edge_type, "f": edge_attr},
            kind=kind,
            parts=parts,
            block_in=self.in_channels // parts,
            block_out=self.heads * self.out_channels // parts,
            bipartite=bipartite,
            additive=self.attention_mode == MODES[0],
            within=self.attention_mechanism == MECHANISMS[0],
            change=self.mod if self.mod in CHANGES else "none",
            attended=asked,
        )
        return self._answer(found, asked, edge_index, graph)


class Maps(HeteroLinear):
    """The parameters of a linear map for each of some types, for a program."""

    def forward(self) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        """Weight and bias. They come from a call, so that hooks are called: pruning computes in one."""
        return self.weight, self.bias


def by_type(sizes: int | dict[NodeType, int], metadata: Metadata) -> dict[NodeType, int]:
    """A size for each type of node: one number is that of all."""
    return sizes if isinstance(sizes, dict) else dict.fromkeys(metadata[0], sizes)


class HGTConv(Declared, program="hgt", aggr=None, fixed='aggr="add", node_dim=0', parts=False):
    """The heterogeneous graph transformer. Hu et al., WWW 2020, equations 3 to 5.

    The linear maps to keys, queries and values take the inputs of each type of node, which may have different sizes,
    and run in torch. All else is one program on all types of edges together.

    in_channels:  size of the inputs, or a dict with one for each type of node; -1 takes it from the first call
    out_channels: size of the outputs
    metadata:     (types of nodes, types of edges)
    heads:        number of heads
    **kwargs:     of :class:`Conv`, without ``aggr``

    Raises ValueError for out_channels that are no multiple of ``heads``.
    """

    in_channels: int | dict[NodeType, int]
    out_channels: int
    metadata: InitVar[Metadata]
    heads: int = 1

    def _setup(self) -> None:
        out_channels, heads = self.out_channels, self.heads
        if out_channels % heads != 0:
            raise ValueError(
                f"'out_channels' (got {out_channels}) must be divisible by the number of heads (got {heads})"
            )
        self.in_channels = by_type(self.in_channels, self.metadata)
        self.node_types, self.edge_types = self.metadata
        self.edge_types_map = {edge_type: k for k, edge_type in enumerate(self.metadata[1])}
        self.dst_node_types = {edge_type[-1] for edge_type in self.edge_types}
        self.kqv_lin = HeteroDictLinear(self.in_channels, 3 * out_channels)
        self.out_lin = HeteroDictLinear(dict.fromkeys(self.node_types, out_channels), out_channels)
        size = out_channels // heads
        self.k_rel = Maps(size, size, heads * len(self.edge_types), bias=False)
        self.v_rel = Maps(size, size, heads * len(self.edge_types), bias=False)
        self.skip = nn.ParameterDict({kind: parameter(1) for kind in self.node_types})
        self.p_rel = nn.ParameterDict({self._relation(kind): parameter(1, heads) for kind in self.edge_types})
        self._joined: tuple[Any, Graph, Tensor] | None = None

    @staticmethod
    def _relation(edge_type: EdgeType) -> str:
        return "__".join(edge_type).replace(".", "#")  # names inside have no dots

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for part in (self.kqv_lin, self.out_lin, self.k_rel, self.v_rel):
            part.reset_parameters()
        for value in (*self.skip.values(), *self.p_rel.values()):
            ones(value)

    def forward(
        self, x_dict: Mapping[NodeType, Tensor], edge_index_dict: Mapping[EdgeType, Adjacency]
    ) -> dict[NodeType, Tensor]:
        """[N, in_channels] to [N, out_channels], for each type of node that edges lead to.

        Where inputs and outputs have the same size, a gate mixes them.

        Raises KeyError for types of nodes and edges that the layer does not know.
        """
        kqv = self.kqv_lin(x_dict)
        targets = [kind for kind in kqv if kind in self.dst_node_types]
        if not targets:
            return {}
        width = self.out_channels
        counts = [len(kqv[kind]) for kind in targets]
        mixed = [x_dict[kind].shape[1] == width for kind in targets]
        like = kqv[targets[0]]
        graph, rel = self._join({kind: len(h) for kind, h in kqv.items()}, targets, edge_index_dict)
        types = torch.arange(len(targets), device=like.device)
        types = types.repeat_interleave(torch.tensor(counts, device=like.device))
        inputs = {
            "kqv": torch.cat(list(kqv.values())),
            "q": torch.cat([kqv[kind][:, width : 2 * width] for kind in targets]),
            "kind": types,
            "rel": rel,
        }
        if any(mixed):
            same = zip(targets, counts, mixed, strict=True)
            inputs["x"] = torch.cat([x_dict[kind] if m else like.new_zeros(n, width) for kind, n, m in same])
        if any(mixed) and not all(mixed):
            inputs["mixed"] = like.new_tensor(mixed)[types]
        inside = {
            "k_rel": self.k_rel()[0],
            "v_rel": self.v_rel()[0],
            "p_rel": torch.cat([self.p_rel[self._relation(kind)] for kind in self.edge_types]),
        }
        lins: list[Any] = [self.out_lin.lins[kind] for kind in targets]
        maps = not must_run(self.out_lin) and all(type(lin) is Linear and not must_run(lin) for lin in lins)
        if maps:
            inside["out_weight"] = torch.stack([lin.weight for lin in lins])
            inside["out_bias"] = torch.stack([lin.bias for lin in lins])
            inside["skip"] = torch.cat([self.skip[kind] for kind in targets])
        y: Tensor = self.run_with(
            inside,
            graph,
            inputs,
            out_channels=width,
            heads=self.heads,
            size=width // self.heads,
            num_types=len(targets),
            num_relations=len(self.edge_types),
            mixes="all" if all(mixed) else "some" if any(mixed) else "none",
            maps=maps,
        )
        # Not `split`, to whose results torch lets nobody write.
        starts = itertools.accumulate(counts, initial=0)
        found = {kind: y.narrow(0, at, n) for kind, at, n in zip(targets, starts, counts, strict=False)}
        return found if maps else self._mapped(found, x_dict)

    def _mapped(self, found: dict[NodeType, Tensor], x_dict: Mapping[NodeType, Tensor]) -> dict[NodeType, Tensor]:
        """The last linear maps, and the gates, where a map has to run as it is."""
        results = self.out_lin(found)
        for kind, y in results.items():
            if x_dict[kind].shape[1] == self.out_channels:
                gate = self.skip[kind].sigmoid()
                results[kind] = gate * y + (1 - gate) * x_dict[kind]
        return {kind: results[kind] for kind in found}

    def _join(
        self, counts: Mapping[NodeType, int], targets: list[NodeType], edges: Mapping[EdgeType, Adjacency]
    ) -> tuple[Graph, Tensor]:
        """All types of edges in one graph, and the type of each edge. Kept for the next call with the same edges."""
        found = [self.graph(edge_index, counts[kind[0]], counts[kind[-1]])[0] for kind, edge_index in edges.items()]
        key = (tuple(counts.items()), tuple(edges), found)
        kept = self._joined  # another thread may put its own there
        if kept is not None and kept[0] == key:
            return kept[1], kept[2]
        first_target = _starts(targets, counts)
        size = sum(counts[kind] for kind in targets)
        types = [
            g.local_edge_index.new_full((g.num_edges,), self.edge_types_map[k])
            for k, g in zip(edges, found, strict=True)
        ]
        local = [g for g in found if isinstance(g, LocalGraph)]
        if local:
            if len(local) < len(found):
                raise GraphError("all types of edges are parts of a distributed graph, or none is")
            for graph in local:
                need_forward(graph)
            agree_on(local[0].halo, f"HGTConv of {list(counts)} with {list(edges)}")
            place = {kind: k for k, kind in enumerate(counts)}
            ends = [place[kind[0]] for kind in edges], [first_target[kind[-1]] for kind in edges]
            whole: Graph = joined(local, *ends, list(counts.values()), size)
        else:
            first_source = _starts(counts, counts)
            parts = [
                torch.stack([g.edge_index[0] + first_source[kind[0]], g.edge_index[1] + first_target[kind[-1]]])
                for kind, g in zip(edges, found, strict=True)
            ]
            whole = Graph(torch.cat(parts, dim=1), (sum(counts.values()), size))
        rel = torch.cat(types)
        self._joined = (key, whole, rel)
        return whole, rel

    __repr__ = words("-1, {self.out_channels}, heads={self.heads}")


def _starts(kinds: Iterable[NodeType], counts: Mapping[NodeType, int]) -> dict[NodeType, int]:
    """The place of the first node of each type, where they lie one type after the other."""
    found, total = {}, 0
    for kind in kinds:
        found[kind] = total
        total += counts[kind]
    return found


class HEATConv(Summed, program="heat", fixed="node_dim=0", parts=False, shows="heads"):
    """Attention from the types of nodes, and the types and features of edges. Mo et al., 2021, equations 3 to 7.

    in_channels:       size of the inputs; -1 takes it from the first call
    out_channels:      size of the outputs of each head
    num_node_types, num_edge_types: numbers of types
    edge_type_emb_dim: size of the embedding of an edge's type
    edge_dim:          size of the edge features; -1 takes it from the first call
    edge_attr_emb_dim: size of their embedding
    heads:             number of heads
    concat:            whether the heads are joined, or averaged
    negative_slope:    of the leaky relus
    dropout:           of the weights, in training
    root_weight:       whether the target's own features are added
    bias:              whether the linear maps of nodes and messages have one
    **kwargs:          of :class:`Conv`
    """

    in_channels: int
    out_channels: int
    num_node_types: InitVar[int]
    num_edge_types: int
    edge_type_emb_dim: InitVar[int]
    edge_dim: InitVar[int]
    edge_attr_emb_dim: int
    heads: int = 1
    concat: bool = True
    negative_slope: float = 0.2
    dropout: float = 0.0
    root_weight: bool = True
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        out_channels, attr_dim = self.out_channels, self.edge_attr_emb_dim
        self.hetero_lin = Maps(self.in_channels, out_channels, self.num_node_types, bias=self.bias)
        self.edge_type_emb = nn.Embedding(self.num_edge_types, self.edge_type_emb_dim)
        self.edge_attr_emb = Linear(self.edge_dim, attr_dim, bias=False)
        self.att = Linear(2 * out_channels + self.edge_type_emb_dim + attr_dim, self.heads, bias=False)
        self.lin = Linear(out_channels + attr_dim, out_channels, bias=self.bias)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for part in (self.hetero_lin, self.edge_type_emb, self.edge_attr_emb, self.att, self.lin):
            part.reset_parameters()

    def forward(
        self, x: Tensor, edge_index: Adjacency, node_type: Tensor, edge_type: Tensor, edge_attr: Tensor | None = None
    ) -> Tensor:
        """[N, in_channels] to [N, heads * out_channels].

        node_type: [N]
        edge_type: [E]
        edge_attr: [E, edge_dim]; it has to be there, as in torch_geometric
        """
        graph, values = self.square(x, edge_index)
        edge_attr = edge_features(edge_attr, values, edge_index)
        see((self.hetero_lin, x))
        see((self.edge_attr_emb, edge_attr))
        nodes = self.hetero_lin
        weight, bias = nodes()
        relations = self.edge_type_emb(torch.arange(self.num_edge_types, device=x.device))
        y: Tensor = self.run_with(
            {"type_weight": weight, "type_bias": bias, "relation_emb": relations},
            graph,
            {"x": x, "kind": node_type, "rel": edge_type, "e": edge_attr},
            in_channels=nodes.in_channels,
            out_channels=self.out_channels,
            num_types=nodes.num_types,
            num_relations=self.num_edge_types,
            type_dim=relations.shape[1],
            attr_dim=self.edge_attr_emb_dim,
            heads=self.heads,
            concat=self.concat,
            slope=float(self.negative_slope),
            p=float(self.dropout),
            root_weight=self.root_weight,
            with_bias=bias is not None,
        )
        return y
