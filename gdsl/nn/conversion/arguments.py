"""What a layer of torch_geometric was made with, read back from the layer itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.runtime.spans import rows_of

Reader = Callable[[Any], Any]


class Refused(Exception):
    """Why a layer stays as it is."""


def has(path: str) -> Reader:
    """Whether there is something at a dotted path."""

    def read(layer: nn.Module) -> bool:
        try:
            return attrgetter(path)(layer) is not None
        except AttributeError:
            return False

    return read


def count(path: str) -> Reader:
    """How many parts there are at a dotted path."""
    return lambda layer: len(attrgetter(path)(layer))


def learned(name: str) -> Reader:
    """Whether a number is a parameter."""
    return lambda layer: isinstance(getattr(layer, name), nn.Parameter)


def either(name: str, other: str) -> Reader:
    """One of two attributes, which is there."""
    return lambda layer: getattr(layer, other) if getattr(layer, name) is None else getattr(layer, name)


def always(value: Any) -> Reader:
    """For an argument that another one stands for."""
    return lambda layer: value


def linears(path: str) -> Reader:
    """How many linear maps there are in a sequence at a dotted path."""
    return lambda layer: sum(type(part).__name__ == "Linear" for part in attrgetter(path)(layer))


def _norm(layer: Any) -> Any:
    """A module for the norms between the layers, or the name that a model keeps."""
    if isinstance(getattr(layer, "norm", None), str):
        return layer.norm
    first = layer.norms[0] if len(layer.norms) else None
    if first is not None and type(first).__module__.startswith("torch_geometric."):
        return type(first).__name__
    return None if isinstance(first, nn.Identity) else first


def _activation(layer: Any) -> Any:
    """The function between the linear maps of PNAConv: the first of its parts that is none."""
    parts = [part for networks in (layer.pre_nns, layer.post_nns) for part in networks[0]]
    return next((part for part in parts if type(part).__name__ != "Linear"), None)


def _norm_of_gen(layer: Any) -> str | None:
    names = {"BatchNorm1d": "batch", "LayerNorm": "layer", "InstanceNorm1d": "instance"}
    return next((names[type(part).__name__] for part in layer.mlp if type(part).__name__ in names), None)


def _film_network(layer: Any) -> Any:
    """What FiLMConv copies for each relation, or None where it makes linear maps."""
    last = layer.film_skip
    own = type(last).__module__.startswith("torch_geometric.") and getattr(last, "bias", 0) is None
    return None if own else last


def _aggregators(layer: Any) -> Any:
    """The aggregations of one by degrees."""
    inner = layer.aggr_module.aggr
    return list(inner.aggrs) if hasattr(inner, "aggrs") else [inner]


def _attributes(part: str, *names: str) -> Reader:
    return lambda layer: {name: getattr(attrgetter(part)(layer), name) for name in names}


_DIMENET: Mapping[str, Reader] = {
    "hidden_channels": attrgetter("emb.lin.out_features"),
    "out_channels": lambda m: m.output_blocks[0].lin.out_features,
    "num_spherical": attrgetter("sbf.num_spherical"), "num_radial": attrgetter("sbf.num_radial"),
    "envelope_exponent": lambda m: m.rbf.envelope.p - 1, "act": attrgetter("emb.act"),
    "num_before_skip": lambda m: len(m.interaction_blocks[0].layers_before_skip),
    "num_after_skip": lambda m: len(m.interaction_blocks[0].layers_after_skip),
    "num_output_layers": lambda m: len(m.output_blocks[0].lins),
    "output_initializer": lambda m: m.output_blocks[0].output_initializer,
}  # fmt: skip


def _combination(layer: Any) -> dict[str, Any] | None:
    """What several aggregations are joined with, where that has parameters."""
    sizes = {"in_channels": layer.in_channels, "out_channels": layer.out_channels}
    if layer.mode == "proj":
        return {**sizes, "bias": layer.lin.bias is not None}
    return {**sizes, "num_heads": layer.multihead_attn.num_heads} if layer.mode == "attn" else None


def _edges(rowptr: Tensor, col: Tensor) -> Tensor:
    """The edges [2, E] of a graph that is kept by rows."""
    return torch.stack([rows_of(rowptr), col])


def _interaction_graph(layer: Any) -> Any:
    """A graph of a user's own, or None for that of nearby atoms."""
    graph = layer.interaction_graph
    return None if type(graph).__name__ == "RadiusInteractionGraph" else graph


_OF_NORM = ("eps", "momentum", "affine", "track_running_stats")
_RECURRENT = ("num_layers", "bias", "dropout", "bidirectional")
_MODEL: Mapping[str, Reader] = {
    "act_kwargs": always(None), "dropout": attrgetter("dropout.p"), "jk": attrgetter("jk_mode"), "norm": _norm,
    "out_channels": lambda m: m.out_channels if m.jk_mode or hasattr(m, "_is_conv_to_out") else None,
}  # fmt: skip

# Degrees count for two means alone, which are buffers.
_DEGREES = always(torch.tensor([1, 1]))

# What is no attribute of its name. Of all others: an argument is the attribute of its name, or whether there is a
# parameter of its name where it is a truth value, or its default where a layer does not keep it. Whatever is read is
# tried: the layer made with it must be the same in all that it keeps.
READERS: Mapping[str, Mapping[str, Reader]] = {
    "AntiSymmetricConv": {"act_kwargs": always(None)},
    "ASAPooling": {"GNN": lambda m: m.gnn_intra_cluster and Maker(m.gnn_intra_cluster)},
    "AttentionalAggregation": {"gate_nn": either("gate_nn", "gate_mlp"), "nn": either("nn", "mlp")},
    "BatchNorm": {name: attrgetter(f"module.{name}") for name in _OF_NORM},
    "CGConv": {"bias": has("lin_f.bias")},
    "ChebConv": {"K": count("lins")},
    "ClusterGCNConv": {"bias": has("lin_out.bias")},
    "CorrectAndSmooth": {
        "num_correction_layers": attrgetter("prop1.num_layers"), "correction_alpha": attrgetter("prop1.alpha"),
        "num_smoothing_layers": attrgetter("prop2.num_layers"), "smoothing_alpha": attrgetter("prop2.alpha"),
    },
    "DeepSetsAggregation": {
        "local_nn": either("local_nn", "local_mlp"), "global_nn": either("global_nn", "global_mlp"),
    },
    "DegreeScalerAggregation": {
        "aggr": lambda m: list(m.aggr.aggrs) if hasattr(m.aggr, "aggrs") else m.aggr,
        "deg": _DEGREES, "train_norm": learned("avg_deg_lin"),
    },
    "DenseGINConv": {"eps": attrgetter("initial_eps"), "train_eps": learned("eps")},
    "DenseGraphConv": {"bias": has("lin_rel.bias")},
    "DenseSAGEConv": {"bias": has("lin_root.bias")},
    "DiffGroupNorm": {name: attrgetter(f"norm.{name}") for name in _OF_NORM},
    "DimeNet": {**_DIMENET, "num_bilinear": lambda m: m.interaction_blocks[0].W.shape[1]},
    "DimeNetPlusPlus": {
        **_DIMENET, "int_emb_size": lambda m: m.interaction_blocks[0].lin_down.out_features,
        "basis_emb_size": lambda m: m.interaction_blocks[0].lin_rbf1.out_features,
        "out_emb_channels": lambda m: m.output_blocks[0].lin_up.out_features,
    },
    "DirGNNConv": {"conv": attrgetter("conv_in")},
    "DMoNPooling": {"channels": lambda m: m.mlp.channel_list[:-1], "k": lambda m: m.mlp.channel_list[-1]},
    "DNAConv": {
        "channels": attrgetter("multi_head.in_channels"), "heads": attrgetter("multi_head.heads"),
        "groups": attrgetter("multi_head.groups"), "dropout": attrgetter("multi_head.dropout"),
    },
    "EdgeCNN": _MODEL,
    "EquilibriumAggregation": {
        "in_channels": lambda m: m.potential.layers[0][0].in_features - m.output_dim,
        "out_channels": attrgetter("output_dim"), "lamb": attrgetter("initial_lamb"),
        "num_layers": lambda m: [part.out_features for part in list(m.potential.res_trans)[:-1]],
    },
    "FastRGCNConv": {"root_weight": has("root")},
    "FiLMConv": {"nn": _film_network},
    "GAT": _MODEL,
    "GatedGraphConv": {"bias": attrgetter("rnn.bias")},
    "GCN": _MODEL,
    # The attribute is a logarithm of the two, and is taken as it is.
    "GCN2Conv": {"theta": always(None), "layer": always(None), "shared_weights": lambda m: m.weight2 is None},
    "GENConv": {
        "aggr": attrgetter("aggr_module"), "norm": _norm_of_gen, "num_layers": linears("mlp"),
        "expansion": lambda m: m.mlp[0].out_channels // m.out_channels if linears("mlp")(m) > 1 else 2,
        "bias": has("mlp.0.bias"), "edge_dim": lambda m: m.lin_edge.in_channels if hasattr(m, "lin_edge") else None,
        "msg_norm": has("msg_norm"), "learn_msg_scale": always(False),
    },
    "GeneralConv": {"l2_normalize": attrgetter("normalize_l2"), "bias": has("lin_msg.bias")},
    "GIN": _MODEL,
    "GINConv": {"eps": attrgetter("initial_eps"), "train_eps": learned("eps")},
    "GINEConv": {
        "eps": attrgetter("initial_eps"), "train_eps": learned("eps"),
        "edge_dim": lambda m: None if m.lin is None else m.lin.in_features if hasattr(m.lin, "in_features") else
        m.lin.in_channels,
    },
    "GMMConv": {"root_weight": has("root")},
    "GPSConv": {
        "act": attrgetter("mlp.1"), "act_kwargs": always(None), "norm": attrgetter("norm1"),
        "norm_kwargs": always(None),
    },
    "GraphConv": {"bias": has("lin_rel.bias")},
    "GraphMultisetTransformer": {"num_encoder_blocks": count("encoders")},
    "GraphSAGE": _MODEL,
    "GravNetConv": {
        "space_dimensions": attrgetter("lin_s.out_channels"), "propagate_dimensions": attrgetter("lin_h.out_channels"),
    },
    "GRUAggregation": {"**": _attributes("gru", *_RECURRENT)},
    "HEATConv": {
        "num_node_types": attrgetter("hetero_lin.num_types"),
        "num_edge_types": attrgetter("edge_type_emb.num_embeddings"),
        "edge_type_emb_dim": attrgetter("edge_type_emb.embedding_dim"),
        "edge_dim": attrgetter("edge_attr_emb.in_channels"),
        "edge_attr_emb_dim": attrgetter("edge_attr_emb.out_channels"), "bias": has("lin.bias"),
    },
    "HeteroConv": {"convs": lambda m: dict(m.convs.items())},
    "HeteroDictLinear": {"**": attrgetter("kwargs")},
    "HeteroJumpingKnowledge": {
        "types": lambda m: list(m.jk_dict), "channels": lambda m: next(iter(m.jk_dict.values())).channels,
        "num_layers": lambda m: next(iter(m.jk_dict.values())).num_layers,
    },
    "HeteroLinear": {"**": attrgetter("kwargs")},
    "HGTConv": {"metadata": lambda m: (m.node_types, m.edge_types)},
    "InstanceNorm": {"in_channels": attrgetter("num_features")},
    "LEConv": {"bias": has("lin1.bias")},
    "LINKX": {
        "hidden_channels": attrgetter("edge_lin.out_channels"), "num_layers": count("final_mlp.lins"),
        "num_node_layers": count("node_mlp.lins"), "dropout": lambda m: float(m.final_mlp.dropout[0]),
    },
    "LSTMAggregation": {"**": _attributes("lstm", *_RECURRENT)},
    "MaskLabel": {"num_classes": attrgetter("emb.num_embeddings"), "out_channels": attrgetter("emb.embedding_dim")},
    "MessageNorm": {"learn_scale": attrgetter("scale.requires_grad")},
    "MetaPath2Vec": {
        "edge_index_dict": lambda m: {kind: _edges(rows, m.col_dict[kind]) for kind, rows in m.rowptr_dict.items()},
        "sparse": attrgetter("embedding.sparse"),
    },
    "MFConv": {"bias": has("lins_l.0.bias")},
    "MLP": {
        "in_channels": always(None), "hidden_channels": always(None), "out_channels": always(None),
        "num_layers": always(None), "act_kwargs": always(None), "norm_kwargs": always(None), "norm": _norm,
        "bias": lambda m: [lin.bias is not None for lin in m.lins],
    },
    "MLPAggregation": {"**": always({"num_layers": 1})},
    "MultiAggregation": {"aggrs": lambda m: list(m.aggrs), "mode_kwargs": _combination},
    "NeuralFingerprint": {
        "**": lambda m: {"max_degree": m.convs[0].max_degree, "bias": has("convs.0.lins_l.0.bias")(m)},
    },
    "NNConv": {"root_weight": has("lin")},
    "Node2Vec": {
        "edge_index": lambda m: _edges(m.rowptr, m.col), "walk_length": lambda m: m.walk_length + 1,
        "sparse": attrgetter("embedding.sparse"),
    },
    "PANPooling": {"nonlinearity": attrgetter("select.act")},
    "PatchTransformerAggregation": {
        "hidden_channels": attrgetter("lin.out_features"), "num_transformer_blocks": count("blocks"),
        "heads": lambda m: m.blocks[0].heads, "dropout": lambda m: m.blocks[0].dropout, "aggr": attrgetter("aggrs"),
    },
    "PerformerAttention": {
        "channels": attrgetter("q.in_features"), "qkv_bias": has("q.bias"), "attn_out_bias": has("attn_out.bias"),
        "dropout": attrgetter("dropout.p"),
    },
    "PMLP": {"norm": has("norm")},
    "PNA": {**_MODEL, "**": lambda m: {"aggregators": ["sum"], "scalers": ["identity"], "deg": _DEGREES(m)}},
    "PNAConv": {
        "deg": _DEGREES, "aggregators": _aggregators, "scalers": attrgetter("aggr_module.scaler"),
        "pre_layers": linears("pre_nns.0"), "post_layers": linears("post_nns.0"), "act": _activation,
        "act_kwargs": always(None), "train_norm": lambda m: learned("avg_deg_lin")(m.aggr_module),
    },
    "PowerMeanAggregation": {
        "p": attrgetter("_init_p"), "clamp_min": attrgetter("min_value"), "clamp_max": attrgetter("max_value"),
    },
    "QuantileAggregation": {"q": attrgetter("_q")},
    "RECT_L": {"normalize": attrgetter("conv.normalize")},
    "RGCNConv": {"root_weight": has("root")},
    # A layer for both directions switches the root's weight off, and leaves it there.
    "SAGEConv": {"bias": has("lin_l.bias"), "root_weight": has("lin_r")},
    "SAGPooling": {"GNN": lambda m: Maker(m.gnn), "nonlinearity": attrgetter("select.act")},
    "SchNet": {
        "interaction_graph": _interaction_graph, "atomref": attrgetter("initial_atomref"),
        "max_num_neighbors": lambda m: getattr(m.interaction_graph, "max_num_neighbors", 32),
    },
    "Set2Set": {"**": _attributes("lstm", "num_layers", "bias", "dropout")},
    "SetTransformerAggregation": {"num_encoder_blocks": count("encoders"), "num_decoder_blocks": count("decoders")},
    "SGConv": {"bias": has("lin.bias")},
    "SGFormer": {
        "in_channels": lambda m: m.trans_conv.fcs[0].in_features,
        "hidden_channels": lambda m: m.trans_conv.fcs[0].out_features, "trans_num_layers": count("trans_conv.attns"),
        "trans_num_heads": lambda m: m.trans_conv.attns[0].heads, "trans_dropout": attrgetter("trans_conv.dropout"),
        "gnn_num_layers": count("graph_conv.convs"), "gnn_dropout": attrgetter("graph_conv.dropout"),
    },
    "SGFormerAttention": {"channels": attrgetter("q.in_features"), "qkv_bias": has("q.bias")},
    "SignedConv": {"bias": has("lin_pos_r.bias")},
    "SoftmaxAggregation": {"t": attrgetter("_init_t")},
    "SplineConv": {
        "kernel_size": lambda m: m.kernel_size.tolist(), "is_open_spline": lambda m: m.is_open_spline.bool().tolist(),
        "root_weight": has("lin"),
    },
    "SSGConv": {"bias": has("lin.bias")},
    "StdAggregation": {"semi_grad": attrgetter("var_aggr.semi_grad")},
    "TopKPooling": {"nonlinearity": attrgetter("select.act")},
    "TransformerConv": {"bias": has("lin_key.bias")},
}  # fmt: skip


# Parts that depend on more than these arguments, and are taken as they are.
TAKEN: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("EdgeCNN", "GAT", "GCN", "GIN", "GraphSAGE", "PNA"), ("convs", "norms")),
    "MLP": ("norms",),
    "MLPAggregation": ("mlp",),
}


class Maker:
    """Stands for a class whose object is there already."""

    def __init__(self, made: nn.Module):
        self.made = made


def arguments_of(layer: nn.Module, kind: Any) -> dict[str, Any]:
    """The arguments by which a class of gdsl.nn makes a layer like this one of torch_geometric.

    Raises :class:`Refused` where one cannot be told.
    """
    readers = READERS.get(kind.__name__, {})
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name == "self" or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= readers["**"](layer) if "**" in readers else {}
        elif name in readers:
            try:
                found[name] = readers[name](layer)
            except (AttributeError, IndexError, KeyError, TypeError, StopIteration) as error:
                raise Refused(f"its argument `{name}` cannot be told from the layer") from error
        elif hasattr(layer, name):
            value = getattr(layer, name)
            truth = isinstance(parameter.default, bool) and isinstance(value, nn.Parameter | None)
            found[name] = value is not None if truth else value
        elif parameter.default is parameter.empty:
            raise Refused(f"its argument `{name}` cannot be told from the layer")
    return found
